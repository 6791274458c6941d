"""What answers at the far end of an ssh connection, under every Python that hosts may have.

The connection is a pipe here; with a real sshd it is in the integration tests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpacman.transport import sshpipe
from cpacman.transport.roster import SshHost
from cpacman.transport.sshpipe import Broken, Greeting, SshPipe
from tests.unit.agent import agenthost

DATA = b"package" * 1000
SHA = hashlib.sha256(DATA).hexdigest()
PYTHONS = [sys.executable, *map(str, agenthost.old_and_new_pythons())]


@pytest.fixture(params=PYTHONS, ids=lambda path: Path(path).parent.parent.name)
def pipe(request, host, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshPipe]:
    """A connection to that host."""
    command = [request.param, "-Es", "-c", sshpipe.BOOT]
    monkeypatch.setattr(sshpipe, "ssh_command", lambda host, known: command)
    greeting = Greeting(
        "sha256:pin", *(host.settings[key] for key in ("state_dir", "cache_dir", "root"))
    )
    opened = SshPipe(SshHost("web1", "h"), [], greeting, 30)
    yield opened
    opened.close()


def manifest(**other: object) -> str:
    """A manifest of one file."""
    action = {
        "action": "install", "name": "a", "epoch": 0, "version": "1", "release": "1",
        "arch": "noarch", "nevra": "a-1-1.noarch", "from": None, "sha256": SHA, "size": len(DATA),
    }  # fmt: skip
    body = {
        "schema": 1, "kind": "manifest", "host": "web1", "plan": "p-1", "transaction": "t-1",
        "rollout": "r-1", "session": "s1", "sequence": 5, "created": 1, "protected": [],
        "expires": int(time.time()) + 600, "nonce": "n", "cookie": "c", "after": "0" * 64,
        "actions": [action], "files": [{"sha256": SHA, "size": len(DATA), "name": "a.rpm"}],
    }  # fmt: skip
    return json.dumps({**body, **other})


def test_a_session_from_begin_to_staged(pipe: SshPipe) -> None:
    """Several frames in flight, each acknowledged; what is there is proved by its hash."""
    begun = pipe.request("begin", {"manifest": manifest(), "signature": "x"}, 300)
    assert begun["missing"] == [[SHA, 0, len(DATA)]]
    half = len(DATA) // 2
    parts = [(0, half), (half, len(DATA) - half)]
    sent = [
        pipe.send("receive", {"session": "s1", "segments": [[SHA, offset, length]]},
                  DATA[offset : offset + length])
        for offset, length in parts
    ]  # fmt: skip
    assert [pipe.take(30)[0] for _ in parts] == sent
    assert pipe.request("staged", {"session": "s1"}, 300)["complete"] is True
    report = json.loads(pipe.request("result", {"session": "s1", "nonce": "mine"}, 300)["report"])
    assert (report["nonce"], report["host"], report["state"]) == ("mine", "web1", "staged")


def test_a_host_tells_whether_it_is_as_it_was_left(pipe: SshPipe, host: agenthost.TreeHost) -> None:
    """Nothing was carried out, then the packages are those that were left, then others."""
    host.install("base-1")
    assert pipe.request("compliance", {}, 300) == {"state": "unknown", "plan": "", "session": ""}
    now = agenthost.load(agenthost.AGENT, "agent").current_state(str(host.root))
    text = manifest(after=now["packages"])
    pipe.request("begin", {"manifest": text, "signature": "x"}, 300)
    session = Path(host.settings["state_dir"]) / "transactions" / "s1"
    report = {"state": "done", "outcome": "applied", "code": None, "detail": ""}
    (session / "report.json").write_text(json.dumps(report))
    left = {"plan": "p-1", "session": "s1"}
    assert pipe.request("compliance", {}, 300) == {"state": "equal", **left}
    host.install("lib-1")
    assert pipe.request("compliance", {}, 300) == {"state": "differs", **left}


def test_refusals_are_answers(pipe: SshPipe) -> None:
    """What the agent says no to comes as an error of its code, and the connection goes on."""

    def code(verb: str, **arguments: object) -> str:
        return str(pipe.request(verb, arguments, 300)["error"]["code"])

    assert code("begin", manifest=manifest(host="web2"), signature="x") == "host"
    assert code("begin", manifest="nonsense", signature="x") == "manifest"
    assert code("staged", session="../x") == "session"
    assert code("nothing") == "usage"
    assert code("staged", wrong=1) == "internal"
    pipe.request("begin", {"manifest": manifest(), "signature": "x"}, 300)
    assert code("receive", session="s1", segments=[["f" * 64, 0, 1]]) == "segment"
    assert code("apply", session="s1", order="{}", signature="x") == "order"
    order = {"kind": "order", "session": "s1", "host": "web2", "expires": 1 << 40}
    assert code("apply", session="s1", order=json.dumps(order), signature="x") == "order"
    late = json.dumps({**order, "host": "web1", "expires": 1})
    assert code("apply", session="s1", order=late, signature="x") == "expired"
    assert code("result", session="s1", nonce="") == "nonce"


def test_the_inventory_is_the_agent_s(pipe: SshPipe, host: agenthost.TreeHost) -> None:
    """Thin first, details on demand, both read from a real rpm database."""
    host.install("base-1")
    answer = pipe.request("inventory", {"cookie": None}, 300)
    assert answer["head"]["host"] == "web1" and answer["pinned"] == "sha256:pin"
    details = pipe.request("details", {"digests": [one[0] for one in answer["packages"]]}, 300)
    (found,) = json.loads(zlib.decompress(base64.b64decode(details["packed"])))
    assert found["name"] == "base"
    again = pipe.request("inventory", {"cookie": answer["cookie"]}, 300)
    assert again["unchanged"] is True and "interrupted" not in again["head"]["facts"]
    pipe.request("begin", {"manifest": manifest(), "signature": "x"}, 300)
    session = Path(host.settings["state_dir"]) / "transactions" / "s1"
    with (session / "journal.jsonl").open("a") as journal:
        journal.write('{"at": 1, "state": "running"}\n')
    again = pipe.request("inventory", {"cookie": answer["cookie"]}, 300)
    assert again["head"]["facts"]["interrupted"] == "s1"


def test_an_end_of_the_connection_is_told(pipe: SshPipe) -> None:
    """Once the far end is gone, asking is an error and not a wait."""
    pipe._process.kill()
    with pytest.raises(Broken) as caught:
        pipe.request("staged", {"session": "s1"}, 300)
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo 'Host key verification failed.' >&2; exit 255", "host-key"),
        ("echo 'root@h: Permission denied (publickey).' >&2; exit 255", "login"),
        ("echo 'sudo: a password is required' >&2; exit 1", "login"),
        ("echo 'ssh: connect to host h port 22: Connection refused' >&2; exit 255", "unreachable"),
        ("echo 'cpacman: no Python 2.7 or 3.4 and later' >&2; exit 127", "python"),
        ("yes noise", "garbled"),
        ("sleep 60", "unreachable"),
    ],
)
def test_why_a_connection_failed(script: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ssh and the host's side say becomes a code and, where there is one, the mend."""
    monkeypatch.setattr(sshpipe, "ssh_command", lambda host, known: ["sh", "-c", script])
    with pytest.raises(Broken) as caught:
        SshPipe(SshHost("old1", "h"), [], Greeting("x"), 2)
    assert caught.value.code == code, caught.value.message
    assert code != "host-key" or "cpacman.hostkeys old1" in caught.value.message


def test_the_host_s_shell_finds_a_python(tmp_path: Path) -> None:
    """The command line finds one that reads rpm databases first, then any other."""
    import subprocess

    for name, works in (("python3", "exit 1"), ("python2", f'exec {sys.executable} "$@"')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{works}\n")
        program.chmod(0o755)
    host = SshHost("a", "h", path=str(tmp_path))
    command = sshpipe.remote_command(host).replace("/usr/libexec/platform-python ", "")
    done = subprocess.run(
        ["sh", "-c", command], input=b'20\nprint("found", 7*6)#', capture_output=True, check=True
    )
    assert done.stdout == b"found 42\n"
