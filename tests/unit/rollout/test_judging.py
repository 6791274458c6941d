"""What lets a level begin and pass: hosts that are down before, levels that show nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cpacman.rollout.gate import Finding, Moment, Verdict
from cpacman.rollout.job import Recheck
from cpacman.rollout.machine import RolloutState
from cpacman.rollout.restarts import Restarts
from cpacman.transport.fake import FakeHost
from cpacman.transport.port import UNREACHABLE
from tests.unit.rollout.test_driver import Killed, go_on_until, hosts, resume, two
from tests.unit.rollout.world import World, level


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A canary and two more."""
    return World(tmp_path, hosts("web1", "web2", "web3"))


def ill(*names: str, verdict: Verdict = Verdict.INCONCLUSIVE):
    """A gate that is not passed by these hosts, before they are changed."""

    def findings(gate: str, asked: Sequence[str], moment: Moment) -> list[Finding]:
        bad = names if moment is Moment.BEFORE else ()
        return [Finding("c", h, verdict if h in bad else Verdict.PASS, "no answer") for h in asked]

    return findings


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.FAIL])
def test_who_is_down_before_is_skipped_not_a_reason_to_stop(world: World, verdict: Verdict) -> None:
    """Some of a fleet are always down: a check of before that can't reach them stops nobody."""
    world.gates.findings = ill("web3", verdict=verdict)
    world.changed["web3"] = Recheck(None, UNREACHABLE, "no answer")
    end = world.run(level("all", "web1", "web2", "web3", gate="web"))
    assert end.state is RolloutState.DONE
    assert world.outcomes["web3"] == ("skipped", UNREACHABLE)
    assert world.transport.hosts["web1"].started == 1


def test_too_many_down_before_halt(world: World) -> None:
    """They count as those that don't answer when they are asked for their inventory."""
    world.gates.findings = ill("web2", "web3")
    for name in ("web2", "web3"):
        world.changed[name] = Recheck(None, UNREACHABLE, "no answer")
    one = level("all", "web1", "web2", "web3", gate="web")._replace(max_unreachable=1)
    end = world.run(one)
    assert (end.state, end.why) == (RolloutState.HALTED, "level all: unreachable 2 > 1")
    assert world.transport.hosts["web1"].started == 0


def test_who_answers_and_is_ill_before_stops_it(world: World) -> None:
    """The check says something about a host that is there."""
    world.gates.findings = ill("web3")
    end = world.run(level("all", "web1", "web2", "web3", gate="web"))
    assert end.state is RolloutState.PAUSED and "inconclusive before" in end.why
    assert world.transport.hosts["web1"].started == 0


def test_who_is_skipped_is_not_asked_before(world: World) -> None:
    """An operator took the ill one out: its health keeps nobody else."""
    world.gates.findings = ill("web3", verdict=Verdict.FAIL)
    made = world.begin(level("all", "web1", "web2", "web3", gate="web"))
    world.store.skip_host("r-1", "web3", at=1.0, who="alice", reason=None)
    assert world.go_on(made).state is RolloutState.DONE
    assert ("web", ("web1", "web2"), Moment.BEFORE) in world.gates.asked


def test_level_that_shows_nothing_does_not_pass_by_itself(world: World) -> None:
    """Neither because its process died at that moment, nor because somebody tries again."""
    world.changed["web1"] = Recheck(None, "already", "has it already")
    made = world.begin(*two())
    budget = [1000]
    moved = world.store.move_level

    def dying(*args: object, **kwargs: object) -> None:
        moved(*args, **kwargs)  # type: ignore[arg-type]
        if kwargs["state"] == "checking":
            raise Killed

    world.store.move_level = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        go_on_until(world, made, budget)
    world.store.move_level = moved  # type: ignore[method-assign]
    for _ in range(2):
        end = world.go_on(made)
        assert end.state is RolloutState.PAUSED and "shows nothing" in end.why
        assert world.transport.hosts["web2"].started == 0
        resume(world)


def test_clock_that_is_put_back(world: World) -> None:
    """A wish is seen all the same, in the middle of a soak."""
    made = world.begin(*two(soak=1000.0))

    def sleep(seconds: float) -> None:
        world.slept += seconds
        if world.levels["canary"] == "soaking" and world.slept > 0:
            world.slept -= 50_000.0
            world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")

    world.sleep = sleep  # type: ignore[method-assign]
    assert world.go_on(made).state is RolloutState.HALTED


def test_refused_order_to_reboot_is_undone_and_counted(tmp_path: Path) -> None:
    """The host that said no is let go again at once, and the budget is looked at."""
    report = {"findings": {"reboot": ["kernel"]}}
    first = FakeHost(report=report, faults={"reboot": "refused"})
    world = World(tmp_path, {"web1": first, **hosts("web2")})
    reboots = Restarts(reboot="needed")
    end = world.run(
        level("all", "web1", "web2", concurrency=1, around=("drain",), restarts=reboots)
    )
    assert world.outcomes["web1"] == ("failed", "reboot")
    assert (end.state, world.transport.hosts["web2"].started) == (RolloutState.HALTED, 0)
    assert world.gates.done == [("before", "drain", "web1"), ("after", "drain", "web1")]


def test_a_halt_undoes_nothing_that_was_not_done(world: World) -> None:
    """Hosts that wait for their turn may be out of service for reasons of somebody else."""
    world.transport.hosts["web1"].report = {"outcome": "failed"}
    world.run(level("all", "web1", "web2", "web3", concurrency=1, around=("drain",)))
    assert world.gates.done == [("before", "drain", "web1"), ("after", "drain", "web1")]


def test_skipped_while_it_is_prepared(world: World) -> None:
    """To drain a host may take minutes: who wants it to be skipped meanwhile is heard."""
    before = world.gates.before

    def slowly(name: str, asked: Sequence[str]) -> Sequence[Finding]:
        if "web2" in asked:
            world.store.skip_host("r-1", "web2", at=1.0, who="alice", reason=None)
        return before(name, asked)

    world.gates.before = slowly  # type: ignore[method-assign]
    world.run(level("all", "web1", "web2", "web3", concurrency=1, around=("drain",)))
    assert world.outcomes["web2"] == ("skipped", "operator")
    assert world.transport.hosts["web2"].started == 0
    assert ("after", "drain", "web2") in world.gates.done
