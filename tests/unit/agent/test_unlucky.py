"""What goes on around a transaction that nobody planned for: others at work, and endless words."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess

import pytest

from tests.unit.agent import agenthost
from tests.unit.agent.test_apply import start

ENGINES = [(), ("--no-bindings",)]
DAEMON = """#!/bin/sh
# An rpm whose scriptlets leave a daemon behind.
case $* in *--test*|-q*|-V*|--*) exec /usr/bin/rpm "$@";; esac
sleep 600 & echo $! >>$PIDS
exec /usr/bin/rpm "$@"
"""


@pytest.mark.parametrize("options", ENGINES)
def test_what_another_changes_while_it_is_waited_for(host, options, tmp_path):
    """Who held rpm's lock has installed something: the packages are not those of the plan."""
    host.install("base-1")
    database, later = host.root / "var/lib/rpm/rpmdb.sqlite", tmp_path / "later.sqlite"
    before = database.read_bytes()
    host.install("lib-1")
    later.write_bytes(database.read_bytes())
    for path in database.parent.glob("rpmdb.sqlite-*"):
        path.unlink()
    database.write_bytes(before)
    host.settings["lock_wait"] = 60
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    with (host.root / "var/lib/rpm/.rpm.lock").open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        process = start(path, *options)
        journal = path / "journal.jsonl"
        agenthost.wait_until(lambda: '"checking"' in journal.read_text())
        database.write_bytes(later.read_bytes())
    report = json.loads(process.communicate()[0])
    assert (report["outcome"], report["code"]) == ("refused", "changed"), report
    assert host.installed() == ["base-1-1.noarch", "lib-3:1-1.noarch"]


def test_what_another_changes_while_everything_is_checked(host, monkeypatch):
    """The packages are looked at once more just before the first change."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    monkeypatch.setattr(host.agent, "keep_folders", lambda *_: host.install("lib-1"))
    report = host.agent.apply_session(str(path))
    assert (report["outcome"], report["code"]) == ("refused", "changed"), report
    assert host.installed() == ["base-1-1.noarch", "lib-3:1-1.noarch"]


def test_a_daemon_that_a_scriptlet_starts(host, tmp_path):
    """It inherits what the rpm command writes to, and lives on: nobody waits for its end."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "rpm").write_text(DAEMON)
    (folder / "rpm").chmod(0o755)
    path = host.stage(host.action("install", "loud-1"), after=["loud-1"])
    environment = {"PATH": f"{folder}:{agenthost.ENVIRONMENT['PATH']}", "PIDS": str(tmp_path / "p")}
    command = [agenthost.SYSTEM_PYTHON, agenthost.AGENT, "apply", path, "--no-bindings"]
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120, check=True,
            env={**agenthost.ENVIRONMENT, **environment},
        )  # fmt: skip
        assert host.agent.session_status(str(path))["outcome"] == "applied"
        assert "a scriptlet speaks" in (path / "log").read_text()
    finally:
        for number in (tmp_path / "p").read_text().split():
            os.kill(int(number), signal.SIGKILL)


def test_reports_have_an_end(host, agent):
    """Thousands of objections, and a log without end, still make a report that can travel."""
    path = host.stage(host.action("install", "base-1"), after=["base-1"])
    settings = json.loads((path / "session.json").read_text())
    (path / "log").write_bytes(b"x" * 10_000 + b"\nwarning: /etc/a created as /etc/a.rpmnew\n")
    manifest = agent.parse_manifest((path / "manifest.json").read_text())
    with agent.Session(str(path), settings, manifest) as session:
        session.note(state="running")
        problems = [f"file /usr/share/{n} conflicts" for n in range(5000)]
        report = agent.judge_rows(session, [], problems, ["%post of a failed"] * 5000)
        assert agent.find_configs(session, []) == ["/etc/a.rpmnew"]
        assert len(session.finish("failed", "internal", "y" * 50_000, {})["detail"]) < 5000
    assert "/usr/share/7 conflicts" in report["detail"] and "+9980" in report["detail"]
    assert len(json.dumps(report)) < 20_000


def test_the_kernel_that_runs_stays_and_its_tools_do_not(host, agent):
    """Tools have the kernel's version, too: what it loads its modules from is what must stay."""
    host.install("kernel-core-1", "kernel-tools-1")
    path = host.stage(
        host.action("upgrade", "kernel-core-2", "kernel-core-1"),
        host.action("upgrade", "kernel-tools-2", "kernel-tools-1"),
        after=["kernel-core-2", "kernel-tools-2"],
    )
    settings = json.loads((path / "session.json").read_text())
    manifest = agent.parse_manifest((path / "manifest.json").read_text())
    with agent.Session(str(path), settings, manifest) as session:
        rows = agent.read_rows(session.root, agent.KEY_TAGS, False, None)
        steps = agent.Steps(manifest, session.cache_dir, rows)
        with pytest.raises(agent.Refused, match="is the running kernel"):
            agent.check_kernel(session, steps, "1-1.noarch")
        steps.leaving.remove("kernel-core-1-1.noarch")
        agent.check_kernel(session, steps, "1-1.noarch")
        agent.check_kernel(session, steps, "")


@pytest.mark.parametrize(
    ("name", "version", "release", "kernel", "expected"),
    [
        ("kernel-core", "5.14.0", "1.el9", "5.14.0-1.el9.x86_64", True),
        ("kernel-modules", "5.14.0", "1.el9", "5.14.0-1.el9.x86_64+debug", True),
        ("kernel-core", "5.14.0", "2.el9", "5.14.0-1.el9.x86_64", False),
        ("kernel-default", "5.14.21", "150500.55.7.1", "5.14.21-150500.55.7-default", True),
        ("kernel-default", "5.14.21", "150500.55.77.1", "5.14.21-150500.55.7-default", False),
        ("other", "5.14.0", "1.el9", "5.14.0-1.el9.x86_64", False),
        ("kernel-core", "5.14.0", "1.el9", "", False),
    ],
)
def test_which_kernel_runs(agent, name, version, release, kernel, expected):
    """As EL and SUSE write it: the host knows it by the same rule as the master."""
    row = {"NAME": name, "VERSION": version, "RELEASE": release, "ARCH": "x86_64"}
    assert agent.is_kernel(row, kernel) is expected


def test_one_of_several_kernels_may_leave(host):
    """A protected name stays installed as long as one package of it does, of the same arch."""
    host.install("kern-1", "kern-2", "swap-1", "swap-2")
    path = host.stage(
        host.action("remove", "kern-2"), after=["kern-1", "swap-1", "swap-2"], protected=["kern"]
    )
    assert host.apply(path)["outcome"] == "applied"
    path = host.stage(
        host.action("remove", "swap-2"), after=["kern-1", "swap-1"], protected=["swap"]
    )
    assert host.apply(path)["code"] == "protected"
