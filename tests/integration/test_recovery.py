"""Transactions that are cut off and hosts that fall silent, on a real master and real hosts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import Host, Lab, rpms
from lab.rpms import Build
from tests.integration.fleet import TIMES, Fleet
from tests.integration.test_thread import SLEEP, UPDATED, in_scriptlet, installed, let_go, wait


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A configured fleet with inventories and a first snapshot, and a scriptlet that takes time."""
    found = Fleet(clean_lab).ready()
    found.lab.host("web1").write("/etc/fickle.sleep", SLEEP)
    return found


def kill_worker(host: Host) -> None:
    """Kill -9 the process that applies, and nothing else: its scriptlet lives on."""
    pids = host.run(["pgrep", "-f", "agent.py apply"]).check().stdout.split()
    host.run(["kill", "-9", *pids]).check()


def is_clean(host: Host) -> bool:
    """Whether every file is as its package has it, and nothing is half written."""
    verified = host.run(["sh", "-c", "rpm -Va --noscripts | grep -v ' c /' || true"]).check().stdout
    half = host.run(["sh", "-c", "find /usr /etc /opt -name '*;[0-9a-f]*'"]).check().stdout
    return not verified.strip() and not half.strip()


def open_rollouts(fleet: Fleet) -> list[Any]:
    """The rollouts that have not ended, so that their hosts are locked."""
    return list(fleet.run("rollouts", active=True)["rollouts"]["rollouts"])


def test_killed_worker_is_started_again(fleet: Fleet) -> None:
    """kill -9 in mid-transaction: the rollout itself brings the host to its plan."""
    host = fleet.lab.host("web1")
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        kill_worker(host)
        assert in_scriptlet(host), "the scriptlet is no part of what was killed"
        let_go(host)
        result = running.wait()
    assert result.returncode == 0, result.stdout
    assert installed(fleet, "web1") > UPDATED and is_clean(host)
    actions = [e["action"] for e in fleet.run("history", host="web1")["history"]["entries"]]
    assert "recover" in actions and actions[-1] == "applied"


def test_killed_runner_and_worker(fleet: Fleet) -> None:
    """Runner and worker both die: the next refresh has the host carry on, and locks are gone."""
    host = fleet.lab.host("web1")
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        running.kill()
        kill_worker(host)
    let_go(host)
    wait(lambda: not in_scriptlet(host))
    # Each look collects what has ended by then.
    wait(lambda: fleet.run("refresh", "*").code == 0 and not open_rollouts(fleet))
    assert installed(fleet, "web1") > UPDATED and is_clean(host)
    assert fleet.run("deploy", plan=number).outcomes() == {"web1": ("unchanged", None)}


def test_silent_host_is_collected_when_it_is_back(fleet: Fleet) -> None:
    """A host stopped in mid-transaction ends silent; back again, recover tells how it ended."""
    host = fleet.lab.host("web1")
    fleet.configure(transport={**TIMES, "apply": "6s"})
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        host.pause()
        result = running.wait()
    assert result.returncode == 4, result.stdout
    assert fleet.run("recover", "web1", test=True)["recover"]["hosts"]["web1"]["before"] == "silent"
    host.resume()
    let_go(host)
    wait(lambda: host.run(["pgrep", "-f", "agent.py apply"]).returncode != 0)
    answer = fleet.run("recover", "web1")
    assert answer["recover"]["hosts"]["web1"]["outcome"] == "applied", answer.text
    assert answer.code == 0 and installed(fleet, "web1") > UPDATED
    assert fleet.run("recover", "*")["recover"]["hosts"] == {}


@pytest.mark.skipif(os.environ.get("CPACMAN_CHAOS") != "1", reason="CPACMAN_CHAOS=1 runs it")
def test_the_key_changes_while_a_host_is_away(fleet: Fleet) -> None:
    """What the old key let begin is carried on once the host has learnt of the new one."""
    host = fleet.lab.host("web1")
    fleet.configure(transport={**TIMES, "answer": "3s", "apply": "2s"})
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        host.pause()
        kill_worker(host)
        running.wait()
    rotated = fleet.run("key", "rotate", reason="as every year")["key"]
    before = rotated["previous"][-1]["fingerprint"]
    assert "web1" in rotated["hosts"][before], "it could not be told yet"
    fleet.configure()
    host.resume()
    let_go(host)
    wait(lambda: not in_scriptlet(host))
    answer = fleet.run("recover", "web1")
    assert answer["recover"]["hosts"]["web1"]["outcome"] == "applied", answer.text
    assert installed(fleet, "web1") > UPDATED and is_clean(host)
    assert fleet.run("refresh", "web2").code == 0
    known = fleet.run("key", "show")["key"]["hosts"]
    assert known[rotated["fingerprint"]] == ["web1", "web2"]
    assert known[before] == ["db1"], "who was not asked has the old one"


RESTART = """#!/bin/sh
ps -eo pid,args | awk '/[s]alt-minion/ && !/awk/ {{print $1}}' >/run/old-minion
kill -9 $(cat /run/old-minion)
setsid {python} {minion} -c /etc/salt </dev/null >/dev/null 2>&1 &
"""


def test_salt_updates_itself(fleet: Fleet) -> None:
    """A package restarts the minion in mid-transaction: all is installed and reported."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", "4")
    built = rpms.build([Build("salt-minion", "1"), Build("salt-minion", "2")])
    host.install_rpms([built["salt-minion-1-1.noarch"]])
    shutil.copy(built["salt-minion-2-1.noarch"], fleet.mirror)
    rpms.write_metadata(fleet.mirror, {})
    minion = Path(sys.executable).with_name("salt-minion")
    host.write(
        "/usr/local/sbin/restart-minion",
        RESTART.format(python=sys.executable, minion=minion),
        0o755,
    )
    assert fleet.run("snapshot").code == 0 and fleet.run("refresh", "*").code == 0
    answer = fleet.run("deploy", plan=fleet.plan(tgt="web1")["plan_id"])
    try:
        assert answer.outcomes() == {"web1": ("applied", None)}, answer.text
        assert installed(fleet, "web1") > {*UPDATED, "salt-minion-2-1.noarch"}
        assert host.read("/run/old-minion").split(), "the minion was killed in the middle"
        found = answer["rollout"]["hosts"]["web1"]["findings"]["salt"]
        assert found[0] == "salt-minion-2-1.noarch" and found[-1].startswith("running ")
        assert host.run(["pgrep", "-f", "salt-minion"]).returncode == 0
    finally:
        host.run(["pkill", "-9", "-f", "salt-minion"])
        host.start_minion()
