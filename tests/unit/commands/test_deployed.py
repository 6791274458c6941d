"""The state `deployed`, with rollouts carried out by simulated hosts."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cpacman.commands import controlling
from cpacman.commands.states import Told, deployed
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
    """With what became of it; the next run, once it is mended, brings the rest."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet", "detail": "x"}
    told = ask(stage)
    assert told.result is False and "FAILED" in told.comment and states(stage) == ["halted"]
    assert told.changes == {"web1": {"outcome": "failed", "planned": UPGRADES}}
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
