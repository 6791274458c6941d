"""Manifests, sessions and the file cache: what gets in, and that nothing else does."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import stat
import threading
import time
from pathlib import Path

import pytest

DATA = {name: random.Random(name).randbytes(size) for name, size in (("a", 5000), ("b", 123))}
EXPIRES = int(time.time()) + 3600
HASH = {name: hashlib.sha256(data).hexdigest() for name, data in DATA.items()}


def action(name):
    """Return an install of a file that never is a package: the cache does not look inside."""
    return {
        "action": "install", "name": name, "epoch": 0, "version": "1", "release": "1",
        "arch": "noarch", "nevra": f"{name}-1-1.noarch", "from": None, "sha256": HASH[name],
        "size": len(DATA[name]),
    }  # fmt: skip


def document(**other):
    """Return a manifest of both files."""
    return {
        "schema": 1, "kind": "manifest", "host": "web1", "plan": "p-1", "transaction": "t-1",
        "rollout": "r-1", "session": "s1", "sequence": 5, "created": 1,
        "expires": EXPIRES, "nonce": "n", "cookie": "c", "after": "0" * 64,
        "actions": [action("a"), action("b")], "protected": [],
        "files": [{"sha256": HASH[n], "size": len(DATA[n]), "name": f"{n}.rpm"} for n in "ab"],
        **other,
    }  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    """Where the host keeps things."""
    return {
        "host": "web1", "root": "",
        "state_dir": str(tmp_path / "state"), "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip


@pytest.fixture
def begun(agent, settings):
    """A session `s1` that was begun."""
    return agent.begin(settings, json.dumps(document()))


def refusal(agent, function, *args):
    """Return the code a call is refused with."""
    with pytest.raises(agent.Refused) as caught:
        function(*args)
    return caught.value.code


def missing(agent, settings):
    """Return what `staged` says is missing, by the files' letters."""
    names = {value: key for key, value in HASH.items()}
    answer = agent.staged(settings, "s1")
    return [(names[sha256], offset, length) for sha256, offset, length in answer["missing"]]


def send(agent, settings, *segments):
    """Send right bytes for (letter, offset, length) segments in one chunk."""
    data = b"".join(DATA[name][offset : offset + length] for name, offset, length in segments)
    named = [[HASH[name], offset, length] for name, offset, length in segments]
    return agent.receive(settings, "s1", named, data)


def test_begin_answers_what_it_needs(begun):
    """A new session needs every byte."""
    assert begun["session"] == "s1" and begun["state"] == "staged" and begun["free"] > 0
    assert sorted(begun["missing"]) == sorted([[HASH["a"], 0, 5000], [HASH["b"], 0, 123]])


def test_chunks_across_files_in_any_order(agent, settings, begun):
    """Segments of several files in one chunk, out of order and twice, make the files whole."""
    send(agent, settings, ("a", 3000, 2000), ("b", 0, 123))
    assert missing(agent, settings) == [("a", 0, 3000)]
    send(agent, settings, ("a", 2500, 1000))
    assert missing(agent, settings) == [("a", 0, 2500)]
    send(agent, settings, ("a", 0, 2500), ("a", 0, 2500))
    assert agent.staged(settings, "s1") == {"complete": True, "missing": [], "bad": []}
    cache = Path(settings["cache_dir"])
    assert {p.name for p in cache.iterdir()} == set(HASH.values())
    assert all((cache / HASH[name]).read_bytes() == DATA[name] for name in "ab")


def test_everything_is_private(agent, settings, begun):
    """Directories are 0700 and files 0600, whatever the umask."""
    send(agent, settings, ("a", 0, 10))
    for top in (settings["state_dir"], settings["cache_dir"]):
        for path in [Path(top), *Path(top).rglob("*")]:
            mode = stat.S_IMODE(path.lstat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path


def test_resume_counts_overlaps_once(agent, settings, begun):
    """Beginning the very same manifest again resumes, and no byte counts twice."""
    send(agent, settings, ("a", 0, 1000))
    send(agent, settings, ("a", 500, 1000))
    send(agent, settings, ("b", 0, 123))
    again = agent.begin(settings, json.dumps(document()))
    assert again["missing"] == [[HASH["a"], 1500, 3500]]


@pytest.mark.parametrize(
    ("segments", "data"),
    [
        ([[HASH["a"], 4999, 2]], b"xx"),
        ([[HASH["a"], 5000, 1]], b"x"),
        ([[HASH["a"], -1, 2]], b"xx"),
        ([[HASH["a"], 0, 0]], b""),
        ([[HASH["a"], 0, 2]], b"xxx"),
        ([[HASH["a"], 0, 3]], b"xx"),
        ([[HASH["a"], True, 1]], b"x"),
        ([[HASH["a"], 0, 1.0]], b"x"),
        ([["0" * 64, 0, 1]], b"x"),
        ([["../../etc/passwd", 0, 1]], b"x"),
        ([[HASH["a"], 0]], b"x"),
        ([["a" * 64 + "\n", 0, 1]], b"x"),
        ([None], b"x"),
        ([], b""),
        (None, b"x"),
        ({"a": 1}, b"x"),
    ],
)
def test_only_declared_bytes_get_in(agent, settings, begun, segments, data):
    """Undeclared files, wrong ends and lengths that do not add up are refused, untouched."""
    assert refusal(agent, agent.receive, settings, "s1", segments, data) == "segment"
    assert list(Path(settings["cache_dir"]).iterdir()) == []


def test_one_bad_segment_refuses_the_whole_chunk(agent, settings, begun):
    """Nothing of a chunk is written when a later segment of it is wrong."""
    segments = [[HASH["b"], 0, 123], [HASH["a"], 4999, 5]]
    assert refusal(agent, agent.receive, settings, "s1", segments, b"x" * 128) == "segment"
    assert list(Path(settings["cache_dir"]).iterdir()) == []


@pytest.mark.parametrize("position", [0, 61, 122])
def test_a_flipped_byte_is_dropped_and_named(agent, settings, begun, position):
    """A file whose bytes are all there but wrong is removed, named, and wanted again."""
    data = bytearray(DATA["b"])
    data[position] ^= 0x40
    agent.receive(settings, "s1", [[HASH["b"], 0, 123]], bytes(data))
    send(agent, settings, ("a", 0, 5000))
    answer = agent.staged(settings, "s1")
    assert answer == {"complete": False, "missing": [[HASH["b"], 0, 123]], "bad": [HASH["b"]]}
    send(agent, settings, ("b", 0, 123))
    assert agent.staged(settings, "s1")["complete"]


def test_damage_in_the_cache_is_found(agent, settings, begun):
    """A file that rots, shrinks or becomes a link after it was complete is wanted again."""
    cached = Path(settings["cache_dir"]) / HASH["b"]
    for damage in ("rot", "truncate", "link"):
        send(agent, settings, ("a", 0, 5000), ("b", 0, 123))
        assert agent.staged(settings, "s1")["complete"]
        if damage == "rot":
            cached.write_bytes(b"x" * 123)
        elif damage == "truncate":
            cached.write_bytes(DATA["b"][:-1])
        else:
            cached.rename(cached.with_name("elsewhere"))
            cached.symlink_to("elsewhere")
        assert agent.staged(settings, "s1")["bad"] == [HASH["b"]]
        assert not os.path.lexists(cached)


def test_a_record_that_says_too_much_is_found(agent, settings, begun):
    """Recorded ranges without their bytes, as a power cut leaves them, end in a new request."""
    send(agent, settings, ("b", 0, 100))
    record = Path(settings["cache_dir"]) / (HASH["b"] + ".map")
    record.write_text("[[0, 123]]")
    assert HASH["b"] in agent.staged(settings, "s1")["bad"]
    send(agent, settings, ("b", 0, 100))
    record.write_text("[[0, 1]")
    assert ("b", 0, 123) in missing(agent, settings)


def test_a_planted_link_is_not_followed(agent, settings, begun, tmp_path):
    """A symbolic link in the place of a partial is an error, not a way out of the cache."""
    target = tmp_path / "target"
    target.write_text("untouched")
    (Path(settings["cache_dir"]) / (HASH["b"] + ".part")).symlink_to(target)
    with pytest.raises(OSError):
        send(agent, settings, ("b", 0, 123))
    assert target.read_text() == "untouched"


def test_concurrent_chunks(agent, settings, begun):
    """Chunks that arrive at once, in any order, lose nothing."""
    pieces = [("a", offset, 50) for offset in range(0, 5000, 50)]
    random.Random(1).shuffle(pieces)
    groups = [pieces[number::8] for number in range(8)]

    def work(group):
        for piece in group:
            send(agent, settings, piece)

    threads = [threading.Thread(target=work, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing(agent, settings) == [("b", 0, 123)]


def test_sequence_never_goes_back(agent, settings, begun):
    """An older or equal sequence is a replay, unless it is the very same manifest."""
    for sequence in (5, 4, 0):
        text = json.dumps(document(session="s2", sequence=sequence))
        assert refusal(agent, agent.begin, settings, text) == "replay"
    agent.begin(settings, json.dumps(document(session="s2", sequence=6)))
    assert refusal(agent, agent.begin, settings, json.dumps(document())) == "replay"


def test_a_session_keeps_its_manifest(agent, settings, begun):
    """A new manifest under an old session's name is refused."""
    text = json.dumps(document(sequence=6, nonce="other"))
    assert refusal(agent, agent.begin, settings, text) == "session"


def test_wrong_host_and_expired(agent, settings):
    """A manifest for another host, or one too old, makes no session."""
    text = json.dumps(document(host="web2"))
    assert refusal(agent, agent.begin, settings, text) == "host"
    text = json.dumps(document(expires=int(time.time()) - 1))
    assert refusal(agent, agent.begin, settings, text) == "expired"
    assert not Path(settings["state_dir"]).exists()


def test_no_space_is_said_before_anything_is_sent(agent, settings, monkeypatch):
    """A cache too small for the files refuses at once."""
    monkeypatch.setattr(agent, "disk_facts", lambda path: {"size": 0, "free": 5000})
    text = json.dumps(document())
    assert refusal(agent, agent.begin, settings, text) == "space"


@pytest.mark.parametrize(
    "session", ["", ".", "..", "../x", "a/b", "/etc", "a\n", "a\0", ".hidden", "a" * 97, None, 7]
)
def test_session_names_stay_in_their_directory(agent, settings, begun, session):
    """No session's name is a path."""
    for function in (agent.staged, agent.load_session):
        assert refusal(agent, function, settings, session) == "session"
    if isinstance(session, str):
        text = json.dumps(document(session=session, sequence=6))
        assert refusal(agent, agent.begin, settings, text) in ("manifest", "session")


def broken_manifests():
    """Return (what, document) of manifests that are wrong in one place each."""
    good = document()
    changes = [
        ("schema", 2), ("kind", "x"), ("host", ""), ("host", 7), ("plan", None), ("after", "x"),
        ("sequence", -1), ("sequence", True), ("sequence", "5"), ("expires", None),
        ("files", {}), ("files", None), ("actions", []), ("actions", [None]),
        ("protected", "x"), ("protected", [1]), ("signatures", "maybe"), ("nonce", ""),
    ]  # fmt: skip
    for key, value in changes:
        yield f"{key}={value!r}", {**good, key: value}
    places = [
        ("files", "sha256", "../x"), ("files", "sha256", HASH["a"].upper()), ("files", "size", 0),
        ("files", "size", -1), ("files", "size", 1.5), ("files", "name", "../x.rpm"),
        ("files", "name", "-e"), ("files", "name", "a\nb"), ("files", "name", ""),
        ("actions", "action", "run"), ("actions", "name", "-e"), ("actions", "name", "a/b"),
        ("actions", "version", "1-1"), ("actions", "release", ""), ("actions", "arch", "a b"),
        ("actions", "epoch", None), ("actions", "nevra", "other-1-1.noarch"),
        ("actions", "from", 3), ("actions", "sha256", "0" * 64), ("actions", "sha256", None),
        ("actions", "action", "upgrade"), ("actions", "action", "remove"),
    ]  # fmt: skip
    for field, key, value in places:
        bad = copy.deepcopy(good)
        bad[field][0][key] = value
        yield f"{field}[0].{key}={value!r}", bad
    yield "declared twice", {**good, "files": good["files"] + good["files"][:1]}
    yield "a file too many", {**good, "actions": good["actions"][:1]}


@pytest.mark.parametrize("bad", [pytest.param(bad, id=what) for what, bad in broken_manifests()])
def test_manifests_are_checked_although_signed(agent, settings, bad):
    """Whatever is wrong in a manifest refuses it before anything is made."""
    assert refusal(agent, agent.begin, settings, json.dumps(bad)) == "manifest"
    assert not Path(settings["state_dir"]).exists()


def test_text_that_is_no_manifest(agent, settings):
    """Broken JSON and other documents are refused in the same way."""
    for text in ("", "{", "[]", "null", '"x"', "NaN"):
        assert refusal(agent, agent.begin, settings, text) == "manifest"


def keep(cache: Path, *numbers: int, size: int = 1000) -> list[Path]:
    """Put files into the cache, the first one needed longest ago."""
    found = []
    cache.mkdir(mode=0o700, exist_ok=True)
    for number in numbers:
        path = cache / hashlib.sha256(b"%d" % number).hexdigest()
        path.write_bytes(bytes(size))
        os.utime(path, (number, number))
        found.append(path)
    return found


def test_the_cache_is_bounded_and_the_oldest_goes_first(agent, settings) -> None:
    """What is to come counts, too; partial files go with their records."""
    cache = Path(settings["cache_dir"])
    old, part, newer, newest = keep(cache, 1, 2, 3, 4)
    part = part.rename(f"{part}.part")
    Path(str(part).replace(".part", ".map")).write_text("[]")
    agent.begin(settings, json.dumps(document(cache=7200)))
    assert [p.exists() for p in (old, part, newer, newest)] == [False, False, True, True]
    assert not list(cache.glob("*.map"))


def test_no_session_loses_what_it_needs(agent, settings) -> None:
    """Files of sessions that wait, run or were cut off stay; those of ended ones may go."""
    cache, sessions = Path(settings["cache_dir"]), Path(settings["state_dir"]) / "transactions"
    cache.mkdir(mode=0o700)
    for name in "ab":
        (cache / HASH[name]).write_bytes(DATA[name])
        os.utime(cache / HASH[name], (1, 1))
    agent.begin(settings, json.dumps(document(cache=1)))
    other = random.Random("c").randbytes(10)
    sha256 = hashlib.sha256(other).hexdigest()
    more = {**action("a"), "sha256": sha256, "size": 10}
    files = [{"sha256": sha256, "size": 10, "name": "c.rpm"}]

    def begin(number: int) -> bool:
        text = json.dumps(document(session=f"s{number}", sequence=number, actions=[more],
                                   files=files, cache=1))  # fmt: skip
        agent.begin(settings, text)
        return (cache / HASH["a"]).exists()

    assert begin(6), "s1 waits to be started"
    agent.append_journal(str(sessions / "s1"), {"state": "running"})
    assert begin(7), "s1 was cut off and may be recovered"
    (sessions / "s1" / "report.json").write_text("{}")
    assert not begin(8), "s1 is over"


def test_what_is_needed_again_is_young_again(agent, settings) -> None:
    """A file that a later manifest names is not the oldest any more."""
    cache = Path(settings["cache_dir"])
    cache.mkdir(mode=0o700)
    for name in "ab":
        (cache / HASH[name]).write_bytes(DATA[name])
        os.utime(cache / HASH[name], (1, 1))
    agent.begin(settings, json.dumps(document()))
    assert all((cache / HASH[name]).stat().st_mtime > 1000 for name in "ab")


def test_old_sessions_are_removed_but_for_those_cut_off(agent, settings):
    """The last thirty that ended are kept, and everything that did not end."""
    for number in range(1, 41):
        text = json.dumps(document(sequence=number, session=f"r-{number}"))
        agent.begin(settings, text)
        path = Path(agent.session_path(settings, f"r-{number}"))
        if number != 3:
            agent.append_journal(str(path), {"state": "done"})
        else:
            agent.append_journal(str(path), {"state": "running"})
        os.utime(path, (number, number))
    folder = Path(agent.session_path(settings, "r-1")).parent
    (folder / ".new-left").mkdir()
    agent.begin(settings, json.dumps(document(sequence=99, session="r-99")))
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"r-3", "r-99", *(f"r-{n}" for n in range(11, 41))}


@pytest.mark.parametrize("key", ["state_dir", "cache_dir"])
@pytest.mark.parametrize("place", ["/tmp", "/var/lib/", "/var//cache", "cache", ""])
def test_a_directory_of_the_system_stays_everybody_s(agent, settings, key, place):
    """What is named carelessly is refused, and not made ours alone."""
    mode = Path("/tmp").stat().st_mode
    assert refusal(agent, agent.begin, {**settings, key: place}, json.dumps(document())) == "state"
    assert Path("/tmp").stat().st_mode == mode


def test_records_that_a_repair_has_emptied_stop_nothing(agent, settings, begun):
    """What an old session left is unreadable: others begin, and nothing is taken for applied."""
    base = Path(settings["state_dir"], "transactions")
    for number, name in enumerate(("journal.jsonl", "report.json", "manifest.json"), 6):
        session = f"s{number}"
        agent.begin(settings, json.dumps(document(session=session, sequence=number)))
        (base / session / name).write_text("" if name == "journal.jsonl" else "{")
        assert agent.session_status(str(base / session))["outcome"] is None
    keep(Path(settings["cache_dir"]), 1)
    newest = json.dumps(document(session="s9", sequence=9, cache=0))
    assert agent.begin(settings, newest)["state"] == "staged"
    assert agent.interrupted_session(settings["state_dir"]) == ""


def test_no_room_for_the_record(agent, settings, monkeypatch):
    """What could not write its report is refused before it is staged, and the place is named."""
    full = settings["state_dir"]
    monkeypatch.setattr(agent, "disk_facts", lambda path: {"free": 0 if path == full else 1 << 40})
    with pytest.raises(agent.Refused, match=f"{full}: 0 KB are free"):
        agent.begin(settings, json.dumps(document()))
