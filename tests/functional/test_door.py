"""The door as Salt's loader has it, against a real rpm database in a tree."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cpacman.inventory import decode_inventory, merge_thin
from cpacman.model import InstalledPackage
from cpacman.signing import load_plan_key, rotate_plan_key, verify_report
from tests.unit.agent import agenthost


@pytest.fixture(scope="module")
def minion_key():
    """A minion's key."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def plan_key(tmp_path):
    """The master's plan key."""
    return load_plan_key(tmp_path / "master")


@pytest.fixture
def opts(host, tmp_path, minion_key):
    """A minion's options."""
    pki = tmp_path / "pki"
    pki.mkdir()
    (pki / "minion.pem").write_bytes(
        minion_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    section = {key: host.settings[key] for key in ("state_dir", "cache_dir", "root")}
    return {"id": "web1", "pki_dir": str(pki), "cpacman": section}


@pytest.fixture
def door(opts, plan_key, monkeypatch):
    """The door with its dunders, the plan key pinned, and no systemd."""
    module = agenthost.load(agenthost.DOOR, "cpacman_door")
    module.__opts__ = opts
    monkeypatch.setattr(module._agent(), "SYSTEMD", "/nowhere")
    assert module.pin(plan_key.public_key_b64) == {"pinned": plan_key.fingerprint}
    return module


def start(door, plan_key, session, other=None):
    """Order a session to start, as the master's runner does."""
    order = {"kind": "order", "host": "web1", "session": session, "expires": int(time.time()) + 600}
    order.update(other or {})
    text = json.dumps(order)
    return door.apply(session, text, plan_key.sign_manifest(text))


def code(answer):
    """Return a refusal's code."""
    assert set(answer) == {"error"} and answer["error"]["message"], answer
    return answer["error"]["code"]


def public_pem(key):
    """Return a key's public half."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def push(door, host, text, chunk=1000):
    """Push all files of a manifest in chunks, as the master's runner does."""
    manifest = json.loads(text)
    by_hash = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in host.rpms.values()}
    for entry in manifest["files"]:
        data = by_hash[entry["sha256"]].read_bytes()
        for offset in range(0, len(data), chunk):
            part = data[offset : offset + chunk]
            load = {
                "session": manifest["session"], "data": part,
                "segments": [[entry["sha256"], offset, len(part)]],
            }  # fmt: skip
            answer = door.receive(manifest["session"], __pub_cpacman=load, __pub_jid="1")
            assert answer == {"got": load["segments"]}


def wait_for_end(door, session):
    """Ask for the result until there is an outcome."""
    agenthost.wait_until(lambda: reported(door, session)["outcome"])
    return door.result(session, "nonce-1")


def reported(door, session):
    """Return what a session's report says by now."""
    return json.loads(door.result(session, "nonce-1")["report"])


def test_the_whole_way(door, host, plan_key, minion_key):
    """Begin, push, stage, apply and a signed report that the master can verify."""
    host.install("base-1", "lib-1")
    text = host.manifest(
        host.action("upgrade", "base-2", "base-1"), host.action("remove", "lib-1"),
        host.action("install", "slow-1"), after=["base-2", "slow-1"],
    )  # fmt: skip
    session = json.loads(text)["session"]
    begun = door.begin(text, plan_key.sign_manifest(text))
    assert begun["session"] == session and begun["state"] == "staged" and len(begun["missing"]) == 2
    assert not door.staged(session)["complete"]
    push(door, host, text)
    assert door.staged(session) == {"complete": True, "missing": [], "bad": []}
    load = {"manifest": text, "signature": plan_key.sign_manifest(text)}
    assert door.begin(__pub_cpacman=load)["missing"] == []
    assert start(door, plan_key, session) == {"started": True}
    assert start(door, plan_key, session) == {"started": True}
    answer = wait_for_end(door, session)
    report = verify_report(answer["report"], answer["signature"], public_pem(minion_key))
    assert report["outcome"] == "applied" and report["state"] == "done", report
    assert report["nonce"] == "nonce-1" and report["host"] == "web1"
    assert report["packages"] == json.loads(text)["after"]
    assert {key: report[key] for key in ("cookie", "packages")} == host.state()
    assert set(report) == {
        "plan", "transaction", "session", "host", "nonce", "state", "outcome", "code", "detail",
        "cookie", "packages", "boot_id", "log", "started", "ended",
        "findings", "ended_boot_id", "restart", "reboot",
    }  # fmt: skip
    assert host.installed() == ["base-2-1.noarch", "slow-1-1.noarch"]
    assert start(door, plan_key, session) == {"started": True}
    assert (Path(host.settings["state_dir"]) / "transactions" / session / "agent.py").exists()


def test_a_host_tells_whether_it_is_as_it_was_left(door, host, plan_key):
    """Unknown before the first transaction, equal after it, different once somebody changed it."""
    host.install("base-1", "lib-1")
    assert door.compliance()["state"] == "unknown"
    text = host.manifest(host.action("upgrade", "base-2", "base-1"), after=["base-2", "lib-1"])
    session = json.loads(text)["session"]
    door.begin(text, plan_key.sign_manifest(text))
    assert door.compliance()["state"] == "unknown", "what was only staged is no promise"
    push(door, host, text)
    assert door.staged(session)["complete"] and start(door, plan_key, session)["started"]
    wait_for_end(door, session)
    plan = json.loads(text)["plan"]
    assert door.compliance() == {"state": "equal", "plan": plan, "session": session}
    host.install("slow-1")
    assert door.compliance() == {"state": "differs", "plan": plan, "session": session}


def test_only_the_pinned_key_counts(door, host, plan_key, tmp_path):
    """Another key can neither be pinned nor sign; the same one can be pinned again."""
    other = load_plan_key(tmp_path / "other")
    assert code(door.pin(other.public_key_b64)) == "pin"
    assert door.pin(plan_key.public_key_b64) == {"pinned": plan_key.fingerprint}
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    assert code(door.begin(text, other.sign_manifest(text))) == "signature"
    for key in ("", "x", plan_key.public_key_b64[:-4], None, 7):
        assert code(door.pin(key)) == "key"


def test_a_rotated_key_takes_the_place_of_the_one_that_named_it(door, host, plan_key, tmp_path):
    """Over any number of steps, each signed by the key before; nothing else replaces a pin."""
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    session = json.loads(text)["session"]
    door.begin(text, plan_key.sign_manifest(text))
    push(door, host, text)
    master = tmp_path / "master"
    steps = [list(rotate_plan_key(master, now=n)) for n in (1, 2)]
    new = load_plan_key(master)
    other = tmp_path / "other"
    load_plan_key(other)
    strange = [list(rotate_plan_key(other, now=1))]
    forged = [[steps[0][0], strange[0][1]], steps[1]]
    for bad in ([], steps[1:], steps[:1], strange, forged, [["{}", "x"]], [["x"]], "x", [[1, 2]]):
        assert code(door.pin(new.public_key_b64, bad)) in ("pin", "signature"), bad
    assert door.pin(new.public_key_b64, steps) == {"pinned": new.fingerprint}
    assert door.pin(new.public_key_b64) == {"pinned": new.fingerprint}
    assert code(door.pin(plan_key.public_key_b64, steps)) == "pin", "there is no way back"
    late = host.manifest(host.action("install", "base-1"), after=["base-1"])
    assert code(door.begin(late, plan_key.sign_manifest(late))) == "signature"
    assert code(start(door, plan_key, session)) == "signature", "the old key starts nothing"
    assert start(door, new, session) == {"started": True}, "what was taken in before stays valid"
    assert json.loads(wait_for_end(door, session)["report"])["outcome"] == "applied"


def test_without_a_pin_nothing_is_taken(door, host, plan_key):
    """A host that knows no plan key refuses every manifest."""
    (Path(host.settings["state_dir"]) / "pin").unlink()
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    assert code(door.begin(text, plan_key.sign_manifest(text))) == "pin"


def test_a_tampered_manifest_is_refused(door, host, plan_key):
    """One changed byte, or a signature that is none, refuses; also at the time of applying."""
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    signature = plan_key.sign_manifest(text)
    assert code(door.begin(text.replace("base", "bass", 1), signature)) == "signature"
    assert code(door.begin(text + " ", signature)) == "signature"
    for bad in ("", "?", None, base64.b64encode(bytes(64)).decode()):
        assert code(door.begin(text, bad)) == "signature"
    door.begin(text, signature)
    push(door, host, text)
    session = json.loads(text)["session"]
    stored = Path(host.settings["state_dir"]) / "transactions" / session / "manifest.json"
    stored.write_text(text.replace('"protected": []', '"protected": [] '))
    assert code(start(door, plan_key, session)) == "signature"


def test_host_time_and_sequence(door, host, plan_key):
    """Signed for another host, too old, or played again: each is refused with its code."""

    def begin(**other):
        action = host.action("install", "base-1")
        text = host.manifest(action, after=["base-1"], **other)
        return door.begin(text, plan_key.sign_manifest(text)), text

    assert code(begin(host="web2")[0]) == "host"
    assert code(begin(expires=int(time.time()) - 1)[0]) == "expired"
    first, text = begin(sequence=10)
    assert first["state"] == "staged"
    assert code(begin(sequence=10)[0]) == "replay"
    assert begin(sequence=11)[0]["state"] == "staged"
    assert code(door.begin(text, plan_key.sign_manifest(text))) == "replay"
    assert code(begin(session="../../x", sequence=12)[0]) == "manifest"


def test_chunks_that_are_not_for_the_session(door, host, plan_key):
    """A chunk without bytes, for another session or of unknown files is refused."""
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    door.begin(text, plan_key.sign_manifest(text))
    session = json.loads(text)["session"]
    assert code(door.receive(session)) == "segment"
    assert code(door.receive(session, data=b"x")) == "segment"
    chunk = {"session": "other", "segments": [["0" * 64, 0, 1]], "data": b"x"}
    assert code(door.receive(session, __pub_cpacman=chunk)) == "session"
    chunk["session"] = session
    assert code(door.receive(session, __pub_cpacman=chunk)) == "segment"
    assert code(door.receive("../x", __pub_cpacman={**chunk, "session": "../x"})) == "session"
    assert code(door.staged("nobody")) == code(start(door, plan_key, "nobody")) == "session"
    assert code(door.result("nobody", "n")) == "session"
    assert code(door.result(session, "")) == "nonce"


def test_nothing_starts_without_an_order(door, host, plan_key):
    """Staged is not started: without a fresh, signed order for session and host nothing runs."""
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    door.begin(text, plan_key.sign_manifest(text))
    push(door, host, text)
    session = json.loads(text)["session"]
    assert code(door.apply(session)) == "signature"
    assert code(door.apply(session, "{}", plan_key.sign_manifest("[]"))) == "signature"
    for other in ({"session": "r-2"}, {"host": "web2"}, {"kind": "manifest"}, {"expires": "soon"}):
        assert code(start(door, plan_key, session, other)) == "order"
    assert code(door.apply(session, text, plan_key.sign_manifest(text))) == "order"
    assert code(start(door, plan_key, session, {"expires": int(time.time()) - 1})) == "expired"
    assert json.loads(door.result(session, "n")["report"])["state"] == "staged"


def test_a_report_before_the_end_says_so(door, host, plan_key, minion_key):
    """A session that was not started is staged, without outcome, and that is signed as well."""
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    door.begin(text, plan_key.sign_manifest(text))
    answer = door.result(json.loads(text)["session"], "n")
    report = verify_report(answer["report"], answer["signature"], public_pem(minion_key))
    assert (report["state"], report["outcome"], report["packages"]) == ("staged", None, "")


def test_a_busy_host_refuses_another_session(door, host, plan_key):
    """While one session is being applied, the door does not start another."""
    texts = [
        host.manifest(host.action("install", label), after=[label])
        for label in ("slow-1", "base-1")
    ]
    for text in texts:
        door.begin(text, plan_key.sign_manifest(text))
        push(door, host, text)
    first, second = (json.loads(text)["session"] for text in texts)
    host.hold()
    assert start(door, plan_key, first) == {"started": True}
    host.wait_for_scriptlet()
    assert reported(door, first)["state"] == "running"
    assert code(start(door, plan_key, second)) == "busy"
    host.let_go()
    answer = wait_for_end(door, first)
    assert json.loads(answer["report"])["outcome"] == "applied"


def test_inventory_and_details(door, host, plan_key):
    """Thin answers make the inventory; a known cookie is answered with just that."""
    host.install("base-1", "app-1", "lib-2")
    answer = door.inventory()
    digests = [digest for digest, *_ in answer["packages"]]
    found = door.details(digests)
    assert found["missing"] == []
    packages = json.loads(zlib.decompress(base64.b64decode(found["packed"])))
    known = {p["digest"]: InstalledPackage(**p) for p in packages}
    inventory = merge_thin(answer["head"], answer["packages"], known)
    assert inventory.host == "web1" and inventory.facts["salt"]
    assert len(inventory.packages) == 3 and inventory.cookie == host.state()["cookie"]
    assert decode_inventory({**answer["head"], "packages": []}, "head").host == "web1"
    assert answer["pinned"] == plan_key.fingerprint
    again = door.inventory(answer["cookie"])
    assert again.pop("head")["kernel"] == answer["head"]["kernel"]
    assert again == {
        "cookie": answer["cookie"], "unchanged": True, "pinned": plan_key.fingerprint}  # fmt: skip
    asked = door.inventory(paths=["/usr/share/lib"])
    assert [
        paths for paths in asked["head"]["named_files"].values() if "/usr/share/lib" in paths
    ] == [["/usr/share/lib"]]
    for bad in (None, "x", ["x"], [7], ["sha256:" + "A" * 64]):
        assert code(door.details(bad)) == "usage"


def test_a_damaged_database_is_an_error(door, host):
    """The agent's refusal reaches the caller with its code, and no inventory does."""
    host.install("base-1")
    (host.root / "var/lib/rpm/rpmdb.sqlite").write_bytes(b"garbage" * 999)
    assert code(door.inventory()) == "database"


def test_salts_environment_does_not_reach_the_agent(door, host, monkeypatch):
    """A library or module path of Salt's own Python would break the system's."""
    host.install("base-1")
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "/nowhere")
    assert door.inventory()["head"]["host"] == "web1"


def test_systemd_starts_a_service(door, monkeypatch):
    """A transient service of PID 1; an old systemd-run is asked again without --collect."""
    agent, calls = door._agent(), []

    def call(command):
        calls.append(command)
        if "--collect" in command:
            raise agent.Refused("start", "systemd-run: unrecognized option '--collect'")

    monkeypatch.setattr(agent, "call_starter", call)
    monkeypatch.setattr(agent.subprocess, "call", lambda *args, **options: 0)
    agent.start_service("cpacman-s1", ["/usr/bin/python3", "agent.py"])
    assert calls[0][0] == "systemd-run" and "--unit=cpacman-s1" in calls[0]
    assert "--collect" not in calls[1] and calls[1][-2:] == ["/usr/bin/python3", "agent.py"]
    assert "--scope" not in calls[1]


def test_the_loader_has_the_door_but_not_the_agent(opts, monkeypatch):
    """Salt's loader exposes the door's functions, documented, and nothing of the agent."""
    import salt.config
    import salt.loader

    monkeypatch.setattr(logging, "raiseExceptions", False)
    minion = {**salt.config.DEFAULT_MINION_OPTS, **opts, "grains": {}}
    functions = salt.loader.LazyLoader([str(agenthost.DOOR.parent)], minion, tag="module")
    names = {name for name in functions if name.startswith("cpacman")}
    assert names == {
        f"cpacman.{name}" for name in ("inventory", "details", "pin", "begin", "receive",
                                       "staged", "apply", "result", "restart", "reboot",
                                       "compliance")
    }  # fmt: skip
    assert all("CLI Example:" in functions[name].__doc__ for name in names)
    assert functions["cpacman.staged"]("nobody")["error"]["code"] == "session"


def test_a_chunk_that_reads_as_text_is_bytes_all_the_same(door, host, plan_key):
    """Salt gives whatever is valid UTF-8 as text: zeros and ASCII in a package, to begin with."""
    import salt.payload

    data = bytes(1000) + "\u00e9\r\n".encode()
    sha256 = hashlib.sha256(data).hexdigest()
    text = host.manifest(host.action("install", "base-1"), after=["base-1"])
    body = json.loads(text)
    body["files"] = [{"sha256": sha256, "size": len(data), "name": "app.rpm"}]
    body["actions"] = [{**body["actions"][0], "sha256": sha256, "size": len(data)}]
    text = json.dumps(body)
    assert "error" not in door.begin(text, plan_key.sign_manifest(text))
    load = {"session": body["session"], "segments": [[sha256, 0, len(data)]], "data": data}
    arrived = salt.payload.loads(salt.payload.dumps(load))
    assert isinstance(arrived["data"], str)
    assert door.receive(body["session"], __pub_cpacman=arrived)["got"]
    assert door.staged(body["session"])["complete"] is True
