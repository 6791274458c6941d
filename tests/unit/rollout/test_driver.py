"""Levels, gates, windows, soaks and people: what lets hosts start, and what stops them."""

from __future__ import annotations

import contextlib
import datetime
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from cpacman.errors import ConflictError
from cpacman.rollout.gate import Finding, Moment, Verdict
from cpacman.rollout.machine import RolloutState
from cpacman.rollout.runner import close_rollout
from cpacman.rollout.windows import Opening
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.world import World, level


def hosts(*names: str) -> dict[str, FakeHost]:
    """Hosts that behave."""
    return {name: FakeHost() for name in names}


def saying(verdict: Verdict, *, at: Moment | None = None, required: bool = True):
    """A gate that says one thing of every host, at one moment or always."""

    def findings(gate: str, names: Sequence[str], moment: Moment) -> list[Finding]:
        said = verdict if at in (None, moment) else Verdict.PASS
        return [Finding("c", host, said, "because", required) for host in names]

    return findings


def at(moment: float) -> datetime.datetime:
    """A moment of the world's clock."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A canary and two more."""
    return World(tmp_path, hosts("web1", "web2", "web3"))


def two(**more: object):
    """A level for the canary, with what it must pass, and one for the rest."""
    return level("canary", "web1", **more), level("rest", "web2", "web3")


def test_gate_is_asked_before_after_and_in_the_soak(world: World) -> None:
    """Of all hosts before, of those that have the plan afterwards."""
    world.gates.findings = saying(Verdict.PASS)
    assert world.run(*two(gate="web", soak=150.0)).state is RolloutState.DONE
    asked = [moment for _, _, moment in world.gates.asked]
    assert asked[:2] == [Moment.BEFORE, Moment.AFTER]
    assert set(asked[2:]) == {Moment.SOAK} and len(asked) >= 4
    assert world.levels == {"canary": "passed", "rest": "passed"}


@pytest.mark.parametrize("moment", list(Moment))
def test_failing_gate_halts(world: World, moment: Moment) -> None:
    """Whenever it fails, nobody else starts."""
    world.gates.findings = saying(Verdict.FAIL, at=moment)
    end = world.run(*two(gate="web", soak=100.0))
    assert (end.state, world.state) == (RolloutState.HALTED, "halted")
    assert f"gate web fail {moment.value}" in end.why
    assert world.transport.hosts["web2"].started == 0
    assert world.outcomes["web2"] == ("skipped", "halted")


@pytest.mark.parametrize("moment", list(Moment))
def test_gate_that_says_nothing_pauses(world: World, moment: Moment) -> None:
    """Unknown is not ok, and not a failure: a person decides; the hosts stay locked."""
    world.gates.findings = saying(Verdict.INCONCLUSIVE, at=moment)
    made = world.begin(*two(gate="web", soak=100.0))
    assert world.go_on(made).state is RolloutState.PAUSED
    assert world.transport.hosts["web2"].started == 0
    assert world.outcomes["web2"] == (None, None)
    world.gates.findings = saying(Verdict.PASS)
    resume(world)
    assert world.go_on(made).state is RolloutState.DONE
    assert all(host.started == 1 for host in world.transport.hosts.values())


def resume(world: World, *following: str) -> None:
    """Set a rollout going again, as the command does; some hosts with what was to follow."""
    row, _ = world.store.rollout("r-1")
    world.store.own_rollout("r-1", seen=row["owner"], owner="here")
    world.store.go_on_rollout(
        "r-1", expected=row["state"], owner="here", following=following, at=1.0, who="me",
        verb="resume",
    )  # fmt: skip


def test_wanted_check_only_tells(world: World) -> None:
    """One that is not required never decides."""
    world.gates.findings = saying(Verdict.FAIL, required=False)
    assert world.run(*two(gate="web")).state is RolloutState.DONE
    assert any("not required" in line for line in world.lines)


def test_level_that_applied_nothing_is_inconclusive(world: World) -> None:
    """A canary that had it already shows nothing of what comes to the others."""
    from cpacman.rollout.job import Recheck

    world.changed["web1"] = Recheck(None, "already", "has it already")
    end = world.run(*two())
    assert end.state is RolloutState.PAUSED and "nothing was applied" in end.why
    assert world.transport.hosts["web2"].started == 0


def test_approval_is_waited_for(world: World) -> None:
    """Without it no host is even asked."""
    world.gates.lacking = "approved by 0 of 1"
    end = world.run(*two())
    assert end.state is RolloutState.PAUSED and "approved by 0 of 1" in end.why
    assert world.transport.calls == []


def test_window_that_opens_soon_is_waited_for(world: World) -> None:
    """With patience the process waits, and starts nobody before."""
    opens = world.clock() + 500
    world.gates.open = lambda: Opening(world.clock() >= opens, "outside window x", at(opens))
    assert world.run(*two()).state is RolloutState.DONE
    assert all(host.started_at >= opens for host in world.transport.hosts.values())


def test_window_that_is_far_leaves_the_rollout_waiting(world: World) -> None:
    """Without patience the process goes, and another one goes on later."""
    opens = world.clock() + 5000
    world.patience = 60.0
    world.gates.open = lambda: Opening(world.clock() >= opens, "outside window x", at(opens))
    made = world.begin(*two())
    end = world.go_on(made)
    assert (end.state, end.until, world.state) == (RolloutState.WAITING, opens, "waiting")
    assert world.store.rollout("r-1")[0]["owner"] == ""
    world.slept += 6000
    resume(world)
    assert world.go_on(made).state is RolloutState.DONE


def test_window_that_closes_in_the_middle(world: World) -> None:
    """Who runs is let finish, nobody else starts until it opens, with a manifest that is fresh."""
    opens: list[float] = []

    def opening() -> Opening:
        started = sum(host.started for host in world.transport.hosts.values())
        if started == 1 and not opens:
            opens.append(world.clock() + 600)
        if opens and world.clock() < opens[0]:
            return Opening(False, "outside window x", at(opens[0]))
        return Opening(True)

    world.gates.open = opening
    end = world.run(level("all", "web1", "web2", "web3", concurrency=1))
    assert end.state is RolloutState.DONE
    late = [host for host in world.transport.hosts.values() if host.started_at >= opens[0]]
    assert len(late) == 2
    assert all(host.started_at < host.manifest["expires"] for host in late)
    assert all(host.manifest["session"] == "r-1.2" for host in late)


def test_long_soak_is_left_to_another_process(world: World) -> None:
    """The rollout says until when it soaks; its hosts stay locked."""
    world.patience = 10.0
    made = world.begin(*two(soak=7200.0))
    end = world.go_on(made)
    assert end.state is RolloutState.WAITING and end.until is not None
    assert world.levels == {"canary": "soaking", "rest": "waiting"}
    world.slept += 7200
    resume(world)
    assert world.go_on(made).state is RolloutState.DONE
    assert world.transport.hosts["web1"].started == 1


def test_wish_to_halt_is_exact(world: World) -> None:
    """Once the wish is committed no host starts, however far its staging came."""
    started: list[int] = []

    def opening() -> Opening:
        # The last moment before a start: the wish is committed by somebody else just now.
        if not started and any(host.started for host in world.transport.hosts.values()):
            started.append(1)
            world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")
        return Opening(True)

    world.gates.open = opening
    end = world.run(level("all", "web1", "web2", "web3", concurrency=1))
    assert end.state is RolloutState.HALTED
    assert [host.started for host in world.transport.hosts.values()] == [1, 0, 0]
    assert world.outcomes["web1"] == ("applied", None)


def test_cancelled_is_for_good(world: World) -> None:
    """Who had not started says so."""
    made = world.begin(*two())
    world.store.wish_rollout("r-1", "cancel", at=1.0, who="alice")
    assert world.go_on(made).state is RolloutState.CANCELLED
    assert world.outcomes["web1"] == ("skipped", "cancelled")


def test_skipped_by_an_operator(world: World) -> None:
    """A host that is skipped before its turn never hears of it."""
    made = world.begin(*two())
    world.store.skip_host("r-1", "web3", at=1.0, who="alice", reason=None)
    assert world.go_on(made).state is RolloutState.DONE
    assert world.outcomes["web3"] == ("skipped", "operator")
    assert world.transport.hosts["web3"].started == 0


def test_actions_around_a_host(world: World) -> None:
    """Before and after the change, however it ended; who can't be prepared is not changed."""
    world.transport.hosts["web2"].report = {"outcome": "refused", "code": "space"}
    world.gates.bad_action = {"web3"}
    world.run(level("all", "web1", "web2", "web3", failures=3, around=("drain", "quiet")))
    assert world.outcomes == {
        "web1": ("applied", None), "web2": ("refused", "space"), "web3": ("skipped", "action"),
    }  # fmt: skip
    for host in ("web1", "web2"):
        mine = [(side, name) for side, name, who in world.gates.done if who == host]
        assert mine == [
            ("before", "drain"), ("before", "quiet"), ("after", "quiet"), ("after", "drain"),
        ]  # fmt: skip
    assert world.transport.hosts["web3"].started == 0


def test_never_more_at_once_than_allowed(tmp_path: Path) -> None:
    """Hosts start as others end, and the bound holds at every moment."""
    slow = {f"web{n}": FakeHost(polls=n % 4) for n in range(12)}
    world = World(tmp_path, slow)
    most = []

    def watch() -> bool:
        rows = world.store.rollout("r-1")[1] if world.store.rollouts() else []
        most.append(sum(row.state == "applying" for row in rows))
        return False

    world.stopping = watch
    assert world.run(level("all", *slow, concurrency=3)).state is RolloutState.DONE
    assert max(most) == 3


def test_budget_of_the_whole_rollout(tmp_path: Path) -> None:
    """Failures that each level allows add up."""
    bad = {f"web{n}": FakeHost(report={"outcome": "failed"}) for n in range(1, 4)}
    world = World(tmp_path, {**bad, **hosts("web4", "web5", "web6")})
    made = world.begin(
        level("a", "web1", "web4", failures=1),
        level("b", "web2", "web5", failures=1),
        level("c", "web3", "web6", failures=1),
    )
    end = world.go_on(made._replace(max_failures=1))
    assert end.state is RolloutState.HALTED and end.why.startswith("all levels: failed 2 > 1")
    assert world.transport.hosts["web3"].started == 0


def test_forgiven_failures_do_not_halt_again(tmp_path: Path) -> None:
    """Who goes on in spite of a failure goes on."""
    bad = FakeHost(report={"outcome": "failed"})
    world = World(tmp_path, {"web1": bad, **hosts("web2", "web3")})
    made = world.begin(level("all", "web1", "web2", "web3", concurrency=1))
    assert world.go_on(made).state is RolloutState.HALTED
    world.store.reopen_hosts("r-1", ["web2", "web3"], at=1.0, who="me", action="resume")
    resume(world)
    assert world.go_on(made._replace(forgiven=frozenset({"web1"}))).state is RolloutState.DONE
    assert world.outcomes["web1"] == ("failed", None)


def test_process_that_lost_the_rollout_stops_at_once(world: World) -> None:
    """Another process owns it: this one touches no host any more."""
    made = world.begin(*two())

    def steal() -> bool:
        row, _ = world.store.rollout("r-1")
        if row["owner"] == "here":
            world.store.own_rollout("r-1", seen="here", owner="there")
        return False

    world.stopping = steal
    with pytest.raises(ConflictError, match="another process"):
        world.go_on(made)
    assert all(host.started == 0 for host in world.transport.hosts.values())
    assert set(world.outcomes.values()) == {(None, None)}


def test_closed_from_outside(world: World) -> None:
    """A rollout that waits is ended by who asks for it, with an outcome for every host."""
    world.gates.lacking = "approved by 0 of 1"
    made = world.begin(*two())
    world.go_on(made)
    world.store.own_rollout("r-1", seen="", owner="here")
    end = close_rollout(made, world.tools(), RolloutState.HALTED, "halted by me")
    assert (end.state, world.state) == (RolloutState.HALTED, "halted")
    assert set(world.outcomes.values()) == {("skipped", "halted")}


class Killed(BaseException):
    """The process is gone: no code of ours runs any more."""


@pytest.mark.parametrize("seed", range(10))
def test_killed_anywhere_goes_on_without_repeating_or_skipping(tmp_path: Path, seed: int) -> None:
    """Whenever it dies, the next process brings every host to its one true outcome."""
    chance = random.Random(seed)
    names = [f"web{n}" for n in range(6)]
    world = World(tmp_path, {name: FakeHost(polls=chance.randrange(4)) for name in names})
    world.gates.findings = saying(Verdict.PASS)
    made = world.begin(
        level("canary", *names[:2], gate="web", soak=30.0, concurrency=1, around=("drain",)),
        level("rest", *names[2:], concurrency=2),
    )
    deaths = 0
    for _ in range(60):
        budget = [chance.randrange(1, 60)]
        try:
            go_on_until(world, made, budget)
            break
        except Killed:
            deaths += 1
    assert world.state == "done"
    assert set(world.outcomes.values()) == {("applied", None)}
    assert all(host.started >= 1 for host in world.transport.hosts.values())
    assert all(len(host.applied) == 1 for host in world.transport.hosts.values())
    drained = {who for side, _, who in world.gates.done if side == "before"}
    undone = {who for side, _, who in world.gates.done if side == "after"}
    assert drained <= undone


def go_on_until(world: World, made: object, budget: list[int]) -> None:
    """Carry on until the budget of writes is used up; then nothing runs any more."""
    from cpacman.rollout import runner

    store = world.store
    original = store._write
    dead = False

    def writing():  # type: ignore[no-untyped-def]
        nonlocal dead
        budget[0] -= 1
        if dead or budget[0] <= 0:
            dead = True
            raise Killed
        return original()

    store._write = writing  # type: ignore[method-assign]
    try:
        runner.continue_rollout(made, world.tools())  # type: ignore[arg-type]
    finally:
        store._write = original  # type: ignore[method-assign]


def test_refused_start_counts_and_what_came_before_is_undone(tmp_path: Path) -> None:
    """A host that refuses the order itself is one failure like any other."""
    world = World(tmp_path, {"web1": FakeHost(faults={"apply": "expired"}), **hosts("web2")})
    end = world.run(level("all", "web1", "web2", concurrency=1, around=("drain",)))
    assert (end.state, world.outcomes["web1"]) == (RolloutState.HALTED, ("refused", "expired"))
    assert world.transport.hosts["web2"].started == 0
    assert world.gates.done[:2] == [("before", "drain", "web1"), ("after", "drain", "web1")]


def test_order_that_was_lost_is_not_repeated_after_a_halt(tmp_path: Path) -> None:
    """Who did not get it before the wish does not begin after it."""
    world = World(tmp_path, {"web1": FakeHost(faults={"apply": "unreachable"})})

    def slept(seconds: float) -> None:
        world.slept += seconds
        if world.transport.calls.count(("apply", "web1")) == 1:
            with contextlib.suppress(ConflictError):
                world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")

    world.sleep = slept  # type: ignore[method-assign]
    assert world.run().state is RolloutState.HALTED
    assert world.transport.calls.count(("apply", "web1")) == 1
    assert world.outcomes["web1"] == ("refused", "unstarted")


def test_cut_off_host_that_is_not_started_again_is_no_refusal(tmp_path: Path) -> None:
    """It was changed already, whatever it says to a later order."""
    world = World(tmp_path, {"web1": FakeHost(cuts=9)})
    world.stopping = lambda: bool(
        world.transport.hosts["web1"].started
        and world.transport.hosts["web1"].faults.update(apply="space")
    )
    world.run()
    assert world.outcomes["web1"] == ("failed", "interrupted")


def test_wish_that_comes_while_a_rollout_is_left_waiting(world: World) -> None:
    """What is to be halted does not wait for its window."""
    world.patience = 0.0

    def opening() -> Opening:
        world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")
        return Opening(False, "outside window x", at(world.clock() + 5000))

    world.gates.open = opening
    assert world.run(*two()).state is RolloutState.HALTED
    assert set(world.outcomes.values()) == {("skipped", "halted")}


def test_wish_to_cancel_while_a_halt_is_carried_out(world: World) -> None:
    """The later and stronger wish holds."""
    world.transport.hosts["web1"].polls = 3
    made = world.begin(*two())
    asked: list[int] = []

    def stopping() -> bool:
        if world.transport.hosts["web1"].started and not asked:
            asked.append(1)
            world.store.wish_rollout("r-1", "cancel", at=1.0, who="alice")
            return True
        return False

    world.stopping = stopping
    assert world.go_on(made).state is RolloutState.CANCELLED
    assert world.state == "cancelled"


def test_window_that_closes_while_a_host_is_prepared(world: World) -> None:
    """It is let go again, and starts when the window opens."""
    opens: list[float] = []

    def opening() -> Opening:
        prepared = [one for one in world.gates.done if one[0] == "before"]
        if len(prepared) == 1 and not opens:
            opens.append(world.clock() + 600)
        shut = bool(opens) and world.clock() < opens[0]
        return Opening(not shut, "outside window x", at(opens[0]) if shut else None)

    world.gates.open = opening
    assert world.run(level("all", "web1", around=("drain",))).state is RolloutState.DONE
    assert world.transport.hosts["web1"].started_at >= opens[0]
    assert [side for side, _, _ in world.gates.done] == ["before", "after"] * 2


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE])
def test_soak_that_was_stopped_is_not_over_by_time(world: World, verdict: Verdict) -> None:
    """Who goes on after its time asks the checks again; they decide."""
    world.gates.findings = saying(Verdict.INCONCLUSIVE, at=Moment.SOAK)
    made = world.begin(*two(gate="web", soak=100.0))
    assert world.go_on(made).state is RolloutState.PAUSED
    world.slept += 1000
    world.gates.findings = saying(verdict, at=Moment.SOAK)
    resume(world)
    assert world.go_on(made).state is not RolloutState.DONE
    assert world.levels["canary"] == "soaking" and world.transport.hosts["web2"].started == 0


def test_what_a_dead_process_did_not_undo_is_undone(world: World) -> None:
    """It died after a host's end was written, and before its monitoring was on again."""
    made = world.begin(level("all", "web1", "web2", concurrency=1, around=("drain",)))
    after = world.gates.after

    def dying(name: str, names: Sequence[str]) -> Sequence[Finding]:
        raise Killed

    world.gates.after = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        go_on_until(world, made, [1000])
    world.gates.after = after  # type: ignore[method-assign]
    assert world.outcomes["web1"] == ("applied", None) and len(world.gates.done) == 1
    assert world.go_on(made).state is RolloutState.DONE
    assert ("after", "drain", "web1") in world.gates.done
