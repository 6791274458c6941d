"""Hosts as old as EL7: rpm 4.11, Python 2.7, or the `rpm` command alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.agent import agenthost

OLD_RPM = Path(__file__).with_name("old_rpm.py")
RPM = """#!/bin/sh
# An rpm that knows none of the tags that came after 4.11.
for word in "$@"; do
    case $word in
        --querytags) /usr/bin/rpm --querytags | grep -vE '{hidden}'; exit;;
        *SHA256HEADER*|*RECOMMEND*|*SUGGEST*|*SUPPLEMENT*|*ENHANCE*)
            echo "error: incorrect format: unknown tag" >&2; exit 1;;
    esac
done
exec /usr/bin/rpm "$@"
"""


def old(*arguments):
    """Run the agent on the old bindings."""
    done = agenthost.run(agenthost.SYSTEM_PYTHON, OLD_RPM, agenthost.AGENT, *arguments)
    return json.loads(done.stdout)


def python2():
    """Return a Python 2.7, or skip."""
    found = [path for path in agenthost.old_and_new_pythons() if "2.7" in str(path)]
    if not found:
        pytest.skip("no Python 2.7 here")
    return found[0]


@pytest.fixture
def old_command(tmp_path):
    """A PATH whose rpm is as old as EL7's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    hidden = "SHA256HEADER|RECOMMEND|SUGGEST|SUPPLEMENT|ENHANCE"
    (folder / "rpm").write_text(RPM.format(hidden=hidden))
    (folder / "rpm").chmod(0o755)
    return {**agenthost.ENVIRONMENT, "PATH": f"{folder}:{agenthost.ENVIRONMENT['PATH']}"}


def test_old_bindings_apply_everything(host):
    """All kinds of actions in one transaction, known by SHA-1 headers, without newer calls."""
    host.install("base-1", "old-1", "lib-2", "needy-1", "kern-1", "loud-1")
    state = old("state", "--root", host.root)
    assert state["cookie"] != host.state()["cookie"] and state["packages"] == (
        host.state()["packages"])  # fmt: skip
    inventory = old("inventory", "--root", host.root)
    assert all(p["digest"].startswith("sha1:") for p in inventory["packages"])
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"), host.action("obsolete", "new-2", "old-1"),
        host.action("remove", "needy-1"), host.action("downgrade", "lib-1", "lib-2"),
        host.action("install", "kern-2"), host.action("reinstall", "loud-1"),
        after=["base-2", "new-2", "lib-1", "kern-1", "kern-2", "loud-1"], cookie=state["cookie"],
    )  # fmt: skip
    report = old("apply", str(path))
    assert report["outcome"] == "applied", report
    assert host.installed() == sorted(
        agenthost.text_of(x) for x in ("base-2", "new-2", "lib-1", "kern-1", "kern-2", "loud-1")
    )


def test_old_bindings_carry_on_after_a_cut(host):
    """Without a call for reinstalling, what was cut off is still brought to its plan."""
    host.install("base-1", "lib-1")
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"), host.action("upgrade", "lib-2", "lib-1"),
        after=["base-2", "lib-2"], cookie=old("state", "--root", host.root)["cookie"],
    )  # fmt: skip
    host.agent.append_journal(str(path), {"state": "checking"})
    host.agent.append_journal(str(path), {"state": "running"})
    host.install("base-2")
    (host.root / "usr/share/base").unlink()
    report = old("apply", str(path))
    assert report["outcome"] == "applied" and "ran again" in report["detail"], report
    assert host.installed() == ["base-2-1.noarch", "lib-3:2-1.noarch"]
    assert (host.root / "usr/share/base").read_text() == "base 2\n"


def test_python_2_with_the_old_command(host, old_command):
    """Python 2.7 and an rpm without newer tags: inventory, cookie, and a transaction."""
    host.install("base-1", "lib-1")

    def run(*words):
        command = [str(word) for word in (python2(), agenthost.AGENT, *words, "--no-bindings")]
        done = subprocess.run(command, capture_output=True, env=old_command, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    cookie = run("state", "--root", host.root)["cookie"]
    assert cookie == old("state", "--root", host.root)["cookie"], "bindings and command agree"
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"), host.action("upgrade", "lib-2", "lib-1"),
        after=["base-2", "lib-2"], cookie=cookie,
    )  # fmt: skip
    report = run("apply", path)
    assert report["outcome"] == "applied", report


@pytest.mark.parametrize(
    "action", [("remove", "lib-1", None), ("install", "kern-2", None)], ids=["remove", "beside"]
)
def test_the_command_alone_does_not_split(host, action):
    """Removals, or packages put beside others, together with upgrades: refused, not done in two."""
    host.install("base-1", "lib-1", "kern-1")
    after = ["base-2", "kern-1"] + (["lib-1", "kern-2"] if action[0] == "install" else [])
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"), host.action(*action), after=after
    )  # fmt: skip
    before = host.state()
    report = host.apply(path, "--no-bindings", python=str(python2()))
    assert (report["outcome"], report["code"]) == ("refused", "needs-bindings")
    assert host.state() == before


def test_the_command_carries_on_after_a_cut(host):
    """kill -9 in mid-transaction under Python 2.7 and the command: the next start ends it."""
    path = host.stage(host.action("install", "slow-1"), after=["slow-1"])
    command = [str(python2()), str(agenthost.AGENT), "apply", str(path), "--no-bindings"]
    host.hold()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=agenthost.ENVIRONMENT, start_new_session=True
    ) as process:
        host.wait_for_scriptlet()
        os.killpg(process.pid, 9)
    host.let_go()
    assert host.cut_off(path)["code"] == "interrupted"
    report = host.apply(path, "--no-bindings", python=str(python2()))
    assert report["outcome"] == "applied", report
    assert host.installed() == ["slow-1-1.noarch"]
