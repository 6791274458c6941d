"""Bytes, names and disks that are not what they should be: refused, told, and nothing is wrong.

`CPACMAN_CHAOS=1` (`make chaos`) tries all of it; otherwise a seeded part is tried.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpacman.depot.pool import Pool
from cpacman.errors import CpacmanError
from tests.chaos.test_kills import SEED, WHOLE
from tests.unit.agent import agenthost

DAMAGES = 1000 if WHOLE else 100
MUTATIONS = 4000 if WHOLE else 400
DATABASES = 60 if WHOLE else 4
NASTY: tuple[Any, ...] = (
    "..", "../../etc/passwd", "/etc/shadow", "a/b", "", " ", "-rf", "--root=/", "a\x00b", "a\nb",
    "\x1b[2J", "‮", "é" * 300, "x" * 5000, "%{lua:os.exit(1)}", "$(reboot)", "`id`", None, True, -1,
    1 << 70, 0.5, [], {}, ["x"], {"a": 1},
)  # fmt: skip


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return a file with a bit flipped, cut short, grown, or a block of it lost."""
    kind, at = dice.choice(("flip", "cut", "grow", "zero")), dice.randrange(len(data))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "grow":
        return data + bytes([dice.randrange(256)]) * dice.randint(1, 50)
    end = min(len(data), at + 512)
    lost = data[:at] + bytes(end - at) + data[end:]
    return lost if lost != data else data[:-1]


def test_damaged_packages_are_refused_on_the_master_and_on_the_host_alone(
    host: agenthost.TreeHost, tmp_path: Path
) -> None:
    """Whatever byte is wrong: the master does not send it, and the host does not take it."""
    dice = random.Random(SEED)
    action = host.action("install", "base-1")
    good, sha256 = host.rpms["base-1"].read_bytes(), action["sha256"]
    path = host.stage(action, after=["base-1"])
    settings, manifest = host.settings, json.loads((path / "manifest.json").read_text())
    pool = Pool(tmp_path / "depot")
    pool.keep(host.rpms["base-1"], sha256, len(good))
    kept, cached = pool.path_of(sha256), Path(settings["cache_dir"]) / sha256
    kept.unlink()  # a hard link of the built package
    session = host.agent.Session(str(path), settings, manifest)
    for _ in range(DAMAGES):
        bad = damaged(good, dice)
        kept.write_bytes(bad)
        with pytest.raises(CpacmanError):
            pool.check(sha256, len(good))
        cached.write_bytes(bad)
        with pytest.raises(host.agent.Refused) as refused:
            host.agent.check_contents(session)
        assert refused.value.code == "file" and not cached.exists()
        wire = (bad + bytes(len(good)))[: len(good)]
        if wire != good:
            host.agent.receive(settings, path.name, [[sha256, 0, len(good)]], wire)
            told = host.agent.staged(settings, path.name)
            assert told["bad"] == [sha256] and not told["complete"]
    assert host.installed() == []


def test_an_endless_sender_fills_nothing(host: agenthost.TreeHost) -> None:
    """Chunks without end, too long, overlapping or of other files never exceed what is declared."""
    dice = random.Random(SEED)
    action = host.action("install", "base-1")
    path = host.begin(host.manifest(action, after=["base-1"]))
    size, cache = action["size"], Path(host.settings["cache_dir"])
    for _ in range(300):
        offset, length = dice.randint(-5, 2 * size), dice.randint(-5, 2 * size)
        names = [action["sha256"], "0" * 64, "../x", action["sha256"].upper()]
        segment = [dice.choice(names), offset, length]
        try:
            host.agent.receive(host.settings, path.name, [segment], bytes(max(length, 0)))
        except host.agent.Refused as no:
            assert no.code == "segment"
    names = {p.name for p in cache.iterdir()}
    assert names <= {action["sha256"] + end for end in (".part", ".map", "")}
    assert all(p.stat().st_size <= size for p in cache.iterdir() if not p.name.endswith(".map"))


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield at
    if isinstance(document, dict):
        for key in document:
            yield from places(document[key], (*at, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from places(value, (*at, number))


def mutated(document: Any, dice: random.Random) -> Any:
    """Return a document in which one to three values are nasty or gone."""
    made = json.loads(json.dumps(document))
    for _ in range(dice.randint(1, 3)):
        *way, last = dice.choice([place for place in places(made) if place])
        holder = made
        for step in way:
            holder = holder[step]
        if isinstance(holder, dict) and dice.random() < 0.2:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(dice.choice(NASTY))
    return made


def test_hostile_manifests(host: agenthost.TreeHost, tmp_path: Path) -> None:
    """Signed or not: a manifest is sound or refused with a code, and leaves nothing elsewhere."""
    dice = random.Random(SEED)
    host.install("base-1")
    document = json.loads(host.manifest(
        host.action("upgrade", "base-2", "base-1"), host.action("install", "loud-1"),
        after=["base-2", "loud-1"],
    ))  # fmt: skip
    outside = sorted(path.name for path in tmp_path.iterdir())
    refused = 0
    for number in range(MUTATIONS):
        text = json.dumps({**mutated(document, dice)})
        try:
            host.agent.begin(host.settings, text)
        except host.agent.Refused as no:
            refused += 1
            assert no.code in {"manifest", "host", "expired", "replay", "session", "space"}, number
    assert refused > MUTATIONS // 2
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        outside, sorted({*outside, "state", "cache"}))  # fmt: skip
    sessions = Path(host.settings["state_dir"]) / "transactions"
    assert all(one.is_dir() for one in sessions.iterdir())


def test_damaged_databases(host: agenthost.TreeHost, tmp_path: Path) -> None:
    """A database with wrong bytes is refused, or afterwards it is what the plan says."""
    dice = random.Random(SEED)
    host.install("base-1", "lib-1", "old-1", "kern-1")
    (host.root / "var/lib/rpm/rpmdb.sqlite-wal").unlink(missing_ok=True)
    database = host.root / "var/lib/rpm/rpmdb.sqlite"
    good, cookie = database.read_bytes(), host.state()["cookie"]
    seen = []
    for _ in range(DATABASES):
        path = host.stage(
            host.action("upgrade", "base-2", "base-1"), cookie=cookie,
            after=["base-2", "lib-1", "old-1", "kern-1"],
        )  # fmt: skip
        for name in ("rpmdb.sqlite-wal", "rpmdb.sqlite-shm"):
            database.with_name(name).unlink(missing_ok=True)
        bad = bytearray(good)
        for _ in range(dice.choice((1, 8, 400))):
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        database.write_bytes(bytes(bad[: dice.choice((len(bad), len(bad) // 2))]))
        report = host.apply(path)
        seen.append(report["outcome"])
        if report["outcome"] == "applied":
            assert "base-2-1.noarch" in host.installed() and len(host.installed()) == 4
        for name in ("rpmdb.sqlite-wal", "rpmdb.sqlite-shm"):
            database.with_name(name).unlink(missing_ok=True)
        database.write_bytes(good)
        host.rpm("-U", "--nosignature", "--oldpackage", "--replacepkgs", host.rpms["base-1"])
        cookie = host.state()["cookie"]
        good = database.read_bytes()
    assert "refused" in seen


@pytest.mark.parametrize("full", ["before", "during"])
def test_a_full_disk(host: agenthost.TreeHost, full: str) -> None:
    """Full before: nothing starts. Filled by a scriptlet in the middle: failed, and by name."""
    share = host.root / "usr/share"
    share.mkdir(parents=True)
    agenthost.run("mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", share)
    try:
        labels = ["filler-1", "zbig-1"]
        if full == "before":
            (share / "stuff").write_bytes(bytes(20_000_000))
        path = host.stage(*[host.action("install", label) for label in labels], after=labels)
        report = host.apply(path)
        if full == "before":
            assert (report["outcome"], report["code"]) == ("refused", "space")
            assert host.installed() == []
            return
        assert (report["outcome"], report["code"]) == ("failed", "different"), report
        assert "not installed: zbig-1-1.noarch" in report["detail"]
        (share / "filled").unlink()
        after = host.stage(host.action("install", "zbig-1"), after=labels)
        assert host.apply(after)["outcome"] == "applied"
    finally:
        agenthost.run("umount", share)


def test_no_room_for_the_journal(host: agenthost.TreeHost) -> None:
    """Where not even the journal can be written nothing starts, and later everything does."""
    state = Path(host.settings["state_dir"])
    state.mkdir()
    agenthost.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", state)
    try:
        path = host.stage(host.action("install", "base-1"), after=["base-1"])
        filler = state / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        done = agenthost.run(agenthost.SYSTEM_PYTHON, agenthost.AGENT, "apply", path, check=False)
        assert done.returncode, "it says that it could not"
        assert host.installed() == []
        filler.unlink()
        assert host.apply(path)["outcome"] == "applied"
    finally:
        agenthost.run("umount", state)


def test_the_files_of_a_plan_are_those_that_were_hashed(host: agenthost.TreeHost) -> None:
    """A right name and size with other bytes is another package, whatever its header says."""
    action = host.action("install", "base-1")
    other = host.rpms["loud-1"].read_bytes()
    path = host.begin(host.manifest(action, after=["base-1"]))
    data = (other + bytes(action["size"]))[: action["size"]]
    assert hashlib.sha256(data).hexdigest() != action["sha256"]
    segments = [[action["sha256"], 0, len(data)]]
    host.agent.receive(host.settings, path.name, segments, data)
    assert host.agent.staged(host.settings, path.name)["bad"] == [action["sha256"]]
