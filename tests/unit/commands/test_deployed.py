"""The state `deployed`, with rollouts carried out by simulated hosts."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cpacman.commands import controlling, resuming
from cpacman.commands.snapshots import snapshot
from cpacman.commands.states import Told, deployed
from cpacman.errors import UsageError
from tests.unit.commands.test_controlling import Stage
from tests.unit.commands.world import World

UPGRADES = [
    "upgrade app-1-1.noarch -> app-2-1.noarch",
    "upgrade lib-1-1.noarch -> lib-2-1.noarch",
]


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts, two levels, one of them a canary."""
    return Stage(world)


def ask(stage: Stage, test: bool = False, **arguments: Any) -> Told:
    """Run the state for the class, as an orchestration does."""
    return deployed(stage.context(), test, "x", class_="development", **arguments)


def states(stage: Stage) -> list[str]:
    """The states of all rollouts."""
    return [str(one["state"]) for one in stage.world.store.rollouts()]


def test_deployed_once(stage: Stage) -> None:
    """A test tells by host and starts nothing; then all have it; the second time nothing."""
    looked = ask(stage, test=True)
    assert looked.result is None and states(stage) == []
    assert looked.changes == dict.fromkeys(("web1", "web2", "web3"), "\n".join(UPGRADES))
    done = ask(stage, ticket="CHG1")
    assert done.result is True and states(stage) == ["done"], done.comment
    assert done.changes["web1"] == {"outcome": "applied", "changes": UPGRADES}
    assert set(done.changes) == {"web1", "web2", "web3"}
    again = ask(stage)
    assert (again.result, again.changes, states(stage)) == (True, {}, ["done"])


def test_only_the_levels_that_are_named(stage: Stage) -> None:
    """The canary is deployed; that others lack something is not its business."""
    assert set(ask(stage, levels=["canary"]).changes) == {"web1"}
    again = ask(stage, levels=["canary"])
    assert (again.result, again.changes) == (True, {})
    assert stage.started == {"web1": 1, "web2": 0, "web3": 0}


def test_a_failed_host_fails_the_state(stage: Stage) -> None:
    """With what became of it; a repeated run starts nothing anew, until a person has decided."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet", "detail": "x"}
    told = ask(stage)
    assert told.result is False and "FAILED" in told.comment and states(stage) == ["halted"]
    assert told.changes == {"web1": {"outcome": "failed", "planned": UPGRADES}}
    number = stage.world.store.rollouts()[0]["id"]
    for test in (True, False):
        again = ask(stage, test)
        assert again.result is False and "was halted: level canary: failed 1 > 0" in again.comment
        assert f"salt-run cpacman.retry {number[:14]}" in again.comment
    assert states(stage) == ["halted"] and stage.started == {"web1": 1, "web2": 0, "web3": 0}
    stage.transport.hosts["web1"].report = {}
    resuming.retry(stage.context(), number)
    assert ask(stage).result is True and states(stage) == ["done"]


def test_a_halt_holds_as_long_as_the_content(stage: Stage) -> None:
    """What is promoted or taken anew since, and what was cancelled, is deployed again."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet", "detail": "x"}
    ask(stage)
    controlling.cancel(stage.context(), stage.world.store.rollouts()[0]["id"])
    assert ask(stage).result is False and states(stage) == ["cancelled", "halted"]
    stage.world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch")
    snapshot(stage.context())
    stage.transport.hosts["web1"].report = {}
    assert ask(stage).result is True


def test_a_soak_within_the_wait_is_sat_out(stage: Stage) -> None:
    """One run is enough when the soak ends in time."""
    stage.level("canary", soak="30m")
    start = stage.world.now
    told = ask(stage, wait="1h")
    assert told.result is True and set(told.changes) == {"web1", "web2", "web3"}
    assert stage.world.now >= start + 1800


def test_a_longer_soak_is_told_and_gone_on_with(stage: Stage) -> None:
    """It never blocks: it says when the soak is met, and the same state goes on from there."""
    stage.level("canary", soak="2h")
    start = stage.world.now
    first = ask(stage, wait="10m")
    assert first.result is False and "level canary: soaking, met at" in first.comment
    met = datetime.datetime.fromtimestamp(start + 7200).astimezone()
    assert met.strftime("%Y-%m-%d %H:%M") in first.comment
    assert set(first.changes) == {"web1"} and stage.world.now < start + 600
    too_soon = ask(stage)
    assert too_soon.result is False and "soaking" in too_soon.comment
    assert not too_soon.changes and states(stage) == ["waiting"]
    stage.world.now = start + 7201
    last = ask(stage)
    assert last.result is True and set(last.changes) == {"web2", "web3"}, last.comment
    assert states(stage) == ["done"], "it was the same rollout"


def test_a_rollout_that_was_cancelled_is_over(stage: Stage) -> None:
    """What an operator took out of the way does not stand in the next one's."""
    stage.level("canary", soak="2h")
    ask(stage)
    controlling.cancel(stage.context(), stage.world.store.rollouts()[0]["id"])
    stage.level("canary", soak="0s")
    assert ask(stage).result is True
    assert states(stage) == ["cancelled", "done"]


def test_a_level_that_is_not_there(stage: Stage) -> None:
    """A misspelt one has nothing to do, which must not read as done."""
    with pytest.raises(UsageError, match="there is no level 'cannary'"):
        ask(stage, levels=["cannary"])
    assert set(ask(stage, levels=["all"]).changes) == {"web1", "web2", "web3"}


def test_soaks_of_several_levels_within_one_wait(stage: Stage) -> None:
    """The time is for all of it: it never blocks longer, however many levels soak."""
    stage.level("canary", soak="40m")
    stage.world.section["levels"][1] = {"rest": {"soak": "40m"}}
    start = stage.world.now
    told = ask(stage, wait="1h")
    assert told.result is False and "level rest: soaking, met at" in told.comment
    assert start + 2400 <= stage.world.now < start + 3600
    stage.world.later(2400)
    assert ask(stage).result is True and states(stage) == ["done"]


def test_a_gate_and_budgets_beside_those_configured(stage: Stage) -> None:
    """They hold where nothing is configured, and never loosen what is."""
    stage.world.section["levels"] = [
        {"canary": {"match": "ring:0", "max_failures": 5}}, {"rest": {"max_failures": 5}}
    ]  # fmt: skip
    stage.probes.value = False
    told = ask(stage, gate="web")
    assert told.result is False and "gate web fail after" in told.comment
    controlling.cancel(stage.context(), stage.world.store.rollouts()[0]["id"])
    stage.transport.hosts["web2"].report = {"outcome": "failed", "code": "scriptlet", "detail": "x"}
    told = ask(stage, max_failures=0)
    assert told.result is False and "all levels: failed 1 > 0" in told.comment


def test_bounds_hold_for_whoever_goes_on(stage: Stage) -> None:
    """They are kept with the rollout."""
    stage.world.section["levels"] = [
        {"canary": {"match": "ring:0", "soak": "2h"}}, {"rest": {"max_failures": 5}}
    ]  # fmt: skip
    stage.transport.hosts["web2"].report = {"outcome": "failed", "code": "scriptlet", "detail": "x"}
    ask(stage, max_failures=0)
    stage.world.later(7201)
    resuming.resume(stage.context(), stage.world.store.rollouts()[0]["id"])
    assert states(stage) == ["halted"]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"gate": "wbe"}, "there is no gate 'wbe'; known are: web"),
        ({"max_failures": "few"}, "max_failures: 'few' is no number of hosts"),
        ({"max_unreachable": "-1"}, "max_unreachable: '-1' is no number of hosts"),
        ({"profile": "none"}, "there is no profile 'none'"),
    ],
)
def test_bounds_that_are_none(stage: Stage, bounds: dict[str, Any], words: str) -> None:
    """Nothing is started with what would have no effect."""
    with pytest.raises(UsageError, match=words):
        ask(stage, **bounds)
    stage.world.section["levels"] = [{"all": {"gate": "web"}}]
    with pytest.raises(UsageError, match="has no effect: all have gates of their own"):
        ask(stage, gate="web")
    assert states(stage) == []
