"""Hosts that were out of reach and come back while their rollout goes on."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest

from cpacman.rollout.gate import Finding, Moment, Verdict
from cpacman.rollout.job import Recheck
from cpacman.rollout.latecomers import JOINS
from cpacman.rollout.machine import RolloutState
from cpacman.rollout.windows import Opening
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.world import World, level

GONE = Recheck(None, "unreachable", "no answer in 30 s")


class Absent(World):
    """A world in which `web2`, of the canaries, is out of reach until a moment."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path, {name: FakeHost() for name in ("web1", "web2", "web3")})
        self.gates.joins = True
        self.back_at = 0.0
        self.misses = 0
        self.asked = 0

    def recheck(self, hosts: Sequence[str]) -> dict[str, Recheck]:
        """See `World.recheck`."""
        self.asked += 1
        found = super().recheck(hosts)
        if "web2" in hosts and (self.asked <= self.misses or self.clock() < self.back_at):
            found["web2"] = GONE
        return found

    def canaries(self, **more: object):
        """Two canaries, and one that comes after them."""
        return level("canary", "web1", "web2", **more), level("rest", "web3")


@pytest.fixture
def world(tmp_path: Path) -> Absent:
    """The canary `web2` is away for a while."""
    made = Absent(tmp_path)
    made.back_at = 1500.0
    return made


def test_back_in_the_soak(world: Absent) -> None:
    """It gets the plan, passes the gate, and the soak goes on from where it was."""
    end = world.run(*world.canaries(soak=2000.0, gate="web"))
    assert end.state is RolloutState.DONE
    assert set(world.outcomes.values()) == {("applied", None)}
    assert 2000 < world.clock() - 1000.0 < 2000.0 + 700.0, "it did not begin anew"
    moments = [moment for _, hosts, moment in world.gates.asked if "web2" in hosts]
    assert Moment.AFTER in moments
    assert "late" in [entry["action"] for entry in world.store.history()]


def test_back_when_its_level_has_passed(world: Absent) -> None:
    """Before the next level begins, or at the latest before the rollout is over."""
    world.back_at, world.misses = 0.0, 1
    assert world.run(*world.canaries()).state is RolloutState.DONE
    assert world.outcomes["web2"] == ("applied", None)
    assert world.levels == {"canary": "passed", "rest": "passed"}
    assert world.store.locked_hosts() == {}


def test_skip_leaves_it_owed(world: Absent) -> None:
    """Without `join` it is not even asked again."""
    world.gates.joins = False
    assert world.run(*world.canaries(soak=2000.0)).state is RolloutState.DONE
    assert world.outcomes["web2"] == ("skipped", "unreachable")
    assert world.store.owed() == {"web2": "r-1"} and world.asked == 2


def test_who_stays_away_is_owed(world: Absent) -> None:
    """It is asked now and then, and the rollout ends without it."""
    world.back_at = 1e9
    assert world.run(*world.canaries(soak=600.0)).state is RolloutState.DONE
    assert world.store.owed() == {"web2": "r-1"}
    assert 5 <= world.asked <= 14


def test_another_host_than_the_plan_was_made_for(world: Absent) -> None:
    """Its packages changed while it was away: it is skipped for that, not given the plan."""
    world.changed["web2"] = Recheck(None, "changed", "its packages changed since the plan")
    assert world.run(*world.canaries(soak=2000.0)).state is RolloutState.DONE
    assert world.outcomes["web2"] == ("skipped", "changed")
    assert world.transport.hosts["web2"].started == 0


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_its_gate_counts(world: Absent, verdict: Verdict) -> None:
    """A level that had passed is asked again with it; what it says stops what comes after."""

    def findings(gate: str, hosts: Sequence[str], moment: Moment) -> list[Finding]:
        bad = moment is Moment.AFTER
        return [
            Finding("c", h, verdict if h == "web2" and bad else Verdict.PASS, "") for h in hosts
        ]

    world.gates.findings = findings
    end = world.run(*world.canaries(soak=2000.0, gate="web"))
    wanted = RolloutState.HALTED if verdict is Verdict.FAIL else RolloutState.PAUSED
    assert end.state is wanted and world.transport.hosts["web3"].started == 0


def test_its_failure_counts(world: Absent) -> None:
    """Against the level's budget, though the level had passed."""
    world.transport.hosts["web2"].report = {"outcome": "failed", "code": "scriptlet"}
    end = world.run(*world.canaries(soak=2000.0))
    assert (end.state, end.why) == (RolloutState.HALTED, "level canary: failed 1 > 0")
    assert world.transport.hosts["web3"].started == 0


def test_outside_of_the_window_nobody_joins(world: Absent) -> None:
    """The window closes after the canaries: it is told to start once it is open again."""
    zone = datetime.timezone.utc

    def opening() -> Opening:
        now = world.clock()
        if 1100 < now < 4000:
            return Opening(False, "outside window w", datetime.datetime.fromtimestamp(4000, zone))
        return Opening(True)

    world.gates.open = opening
    assert world.run(*world.canaries(soak=2000.0)).state is RolloutState.DONE
    row = next(one for one in world.store.rollout("r-1")[1] if one.host == "web2")
    assert row.outcome == "applied" and row.updated >= 4000


def test_who_another_rollout_has_is_left_to_it(world: Absent) -> None:
    """An operator was faster: it stays owed here."""
    made = world.begin(*world.canaries(soak=2000.0))
    asked = world.recheck

    def taken(hosts: Sequence[str]) -> dict[str, Recheck]:
        if world.asked == 1:
            header = {"id": "r-2", "plan": "p-1", "class": "all", "state": "running", "who": "me",
                      "owner": "there"}  # fmt: skip
            world.store.start_rollout(header, [("web2", "all", "t-1")], at=1.0)
        return asked(hosts)

    world.recheck = taken  # type: ignore[method-assign]
    assert world.go_on(made).state is RolloutState.DONE
    assert world.outcomes["web2"] == ("skipped", "unreachable")
    assert world.store.locked_hosts() == {"web2": "r-2"}


def test_one_that_comes_and_goes_does_not_hold_it_up(world: Absent) -> None:
    """It answers, is taken in, and is gone when it is to be staged: three times, then no more."""
    world.back_at = 1100.0
    world.transport.hosts["web2"].faults["begin"] = "unreachable"
    assert world.run(*world.canaries(soak=5000.0)).state is RolloutState.DONE
    actions = [entry["action"] for entry in world.store.history()]
    assert actions.count("late") == JOINS
    assert world.outcomes["web2"] == ("skipped", "unreachable")


def test_killed_between_level_and_hosts(world: Absent) -> None:
    """The level runs again, the host waits outside: nothing is lost, nobody is forgotten."""

    class Killed(BaseException):
        pass

    made = world.begin(*world.canaries(soak=2000.0))
    reopen = world.store.reopen_hosts

    def dying(*arguments: object, **more: object) -> None:
        raise Killed

    world.store.reopen_hosts = dying  # type: ignore[assignment, method-assign]
    with pytest.raises(Killed):
        world.go_on(made)
    world.store.reopen_hosts = reopen  # type: ignore[method-assign]
    assert world.levels["canary"] == "running"
    rows = {row.host: row for row in world.store.rollout("r-1")[1]}
    # The process tidies up, as after a bug; one that is killed leaves them waiting.
    world.store.reopen_hosts(
        "r-1", [h for h, row in rows.items() if row.code == "halted"], at=1.0, who="me", action="x"
    )
    assert world.go_on(made).state is RolloutState.DONE
    assert set(world.outcomes.values()) == {("applied", None)}
