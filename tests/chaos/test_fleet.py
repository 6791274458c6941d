"""A rollout in the lab is disturbed at a random moment: runner, master, minion, worker, network.

Whatever died, afterwards every host is at its plan or where it was before, whole, and no outcome
says more than is true. `CPACMAN_CHAOS=1` (`make chaos`) runs all of it, otherwise a seeded part.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import Host, Lab
from tests.chaos.test_kills import SEED, WHOLE
from tests.integration.fleet import Fleet
from tests.integration.test_recovery import is_clean, open_rollouts
from tests.integration.test_thread import UPDATED, installed, wait

ROUNDS = 48 if WHOLE else 1
THERE = ("applied", "unchanged")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of one's own: what is disturbed here is nobody else's."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with tempfile.TemporaryDirectory(prefix="cpacman-lab-chaos-", dir="/tmp") as base:
        kept, os.environ["CPACMAN_LAB_DIR"] = os.environ.get("CPACMAN_LAB_DIR"), base
        try:
            with Lab(["web1", "web2", "db1"]) as started:
                yield started
        finally:
            if kept is None:
                del os.environ["CPACMAN_LAB_DIR"]
            else:
                os.environ["CPACMAN_LAB_DIR"] = kept


@pytest.fixture
def fleet(lab: Lab) -> Iterator[Fleet]:
    """A configured fleet with inventories and a first snapshot."""
    yield Fleet(lab).ready()
    lab.reset()


def workers(host: Host) -> list[str]:
    """Return the processes that apply on a host."""
    return host.run(["pgrep", "-f", "agent.py apply"]).stdout.split()


def signal_workers(host: Host, name: str) -> None:
    """Send a signal to what applies on a host, if anything does."""
    if found := workers(host):
        host.run(["kill", f"-{name}", *found])


class Disturber:
    """What goes wrong, and how it is put right; each by its name, with a length in seconds."""

    def __init__(self, fleet: Fleet, running: Any, length: float) -> None:
        self.fleet, self.running, self.length = fleet, running, length
        self.host = fleet.lab.host("web1")

    def runner(self) -> None:
        """kill -9 of the rollout's process."""
        self.running.kill()

    def master(self) -> None:
        """kill -9 of the master, and a new one."""
        self.fleet.lab.kill_master()
        self.fleet.lab.start_master()

    def minion(self) -> None:
        """kill -9 of the minion, and a new one."""
        self.host.kill_minion()
        time.sleep(self.length / 10)
        self.host.start_minion()

    def worker(self) -> None:
        """kill -9 of what applies."""
        signal_workers(self.host, "KILL")

    def both(self) -> None:
        """Runner and worker at once, as when the power fails everywhere."""
        self.running.kill()
        signal_workers(self.host, "KILL")

    def cut(self) -> None:
        """The network cable is out for a while."""
        self.host.link_down()
        time.sleep(self.length)
        self.host.link_up()

    def stop(self) -> None:
        """The whole host stands still for a while."""
        found = workers(self.host)
        self.host.pause()
        signal_workers(self.host, "STOP")
        time.sleep(self.length)
        if found:
            self.host.run(["kill", "-CONT", *found])
        self.host.resume()


KINDS = ("runner", "master", "minion", "worker", "both", "cut", "stop")


def settle(fleet: Fleet, hosts: tuple[str, ...]) -> None:
    """Have everything collected and recovered."""
    wait(lambda: not any(workers(fleet.lab.host(host)) for host in hosts))
    # No rollout is left open in the end, so no host is locked.
    wait(lambda: not fleet.run("recover", "*")["recover"]["hosts"] and not open_rollouts(fleet))
    fleet.run("refresh", "*")


def everybody_arrives(fleet: Fleet) -> bool:
    """Deploy once more; a host that stalls on a busy machine is skipped, and owed."""
    answer = fleet.run("deploy", **{"class": "development", "now": True})
    return {outcome for outcome, _ in answer.outcomes().values()} <= set(THERE)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_disturbed_rollouts(fleet: Fleet, number: int) -> None:
    """A seeded disturbance at a seeded moment: nothing lost, nothing double, no wrong "ok"."""
    dice = random.Random(f"{SEED} {number}")
    kind = KINDS[number % len(KINDS)] if WHOLE else dice.choice(KINDS)
    moment, length = dice.uniform(0.5, 7.0), dice.uniform(1.0, 60.0 if WHOLE else 8.0)
    hosts = ("web1", "web2")
    before = {host: installed(fleet, host) for host in hosts}
    fleet.lab.host("web1").write("/etc/fickle.sleep", "1.5")
    number_of_plan = fleet.plan()["plan_id"]
    argv = fleet.lab.salt_run_argv("cpacman.deploy", plan=number_of_plan)
    with fleet.lab.start(argv) as running:
        time.sleep(moment)
        act: Callable[[], None] = getattr(Disturber(fleet, running, length), kind)
        act()
        running.wait()
    fleet.lab.wait_for_answers()
    settle(fleet, hosts)
    last = fleet.run("history", host="web1")["history"]["entries"]
    said = [e["action"] for e in last if e["action"] in (*THERE, "failed", "silent", "refused")]
    for host in hosts:
        found = fleet.lab.host(host).packages()
        assert len(found) == len(set(found)), f"{kind} at {moment:.1f}: {host} has doubles"
        whole = set(found) > UPDATED or set(found) == before[host]
        assert whole, f"{kind} at {moment:.1f}: {host} is half done: {sorted(found)}"
        assert is_clean(fleet.lab.host(host))
    if said and said[-1] in THERE:
        assert set(fleet.lab.host("web1").packages()) > UPDATED, f"{kind}: a wrong ok"
    wait(lambda: everybody_arrives(fleet))
