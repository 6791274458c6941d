"""The engine's look for hosts that come back, those that are owed, and those that appeared."""

from __future__ import annotations

import pytest

from cpacman.commands import controlling, deploying, latecomers, planning, ticking
from cpacman.commands.access import ENGINE
from cpacman.commands.fleet import Selection
from cpacman.commands.ticking import Work
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.test_controlling import Stage, look
from tests.unit.commands.test_ticking import run_due
from tests.unit.commands.world import World

OLD = ("app-1-1.noarch", "lib-1-1.noarch")
HOUR = 3600.0


@pytest.fixture
def stage(world: World) -> Stage:
    """Two canaries, of which one is down, and another host; the canaries soak for two hours."""
    world.host("web2", "development", *OLD, ring=0)
    made = Stage(world)
    world.host("web2", "development", *OLD, ring=0)
    made.level("canary", soak="2h")
    world.section["budget"] = {"late": "join"}
    made.transport.hosts["web2"].faults["inventory"] = "unreachable"
    return made


def test_engine_lets_it_join_while_the_rollout_waits(stage: Stage) -> None:
    """No process has it; the engine asks every five minutes, and the soak ends when it would."""
    number = stage.deploy(background=True)["id"]
    run_due(stage)
    body = look(stage, number)
    until = body["until"]
    assert (body["state"], body["owed"], body["late"]) == ("waiting", ["web2"], "join")
    assert "they join when they are back" in render({"rollout": body})
    assert run_due(stage) == [Work("job", "late")] and run_due(stage) == []
    stage.transport.hosts["web2"].faults.clear()
    stage.world.later(latecomers.EVERY)
    assert run_due(stage) == [Work("job", "late")]
    assert run_due(stage) == [Work("carry", number)]
    body = look(stage, number)
    assert (body["state"], body["hosts"]["web2"]["outcome"]) == ("waiting", "applied")
    assert body["until"] == until and run_due(stage) == []
    stage.world.later(2 * HOUR)
    run_due(stage)
    assert look(stage, number)["state"] == "done"


def test_a_wake_is_a_look_and_no_more(stage: Stage) -> None:
    """Whoever forges the event gains a question to hosts that are down, now and then."""
    number = stage.deploy(background=True)["id"]
    run_due(stage)
    run_due(stage)
    stage.world.now += 1
    for _ in range(5):
        assert ticking.wake(stage.context(), hosts=True)["wake"]["hosts"]
    assert run_due(stage) == []
    stage.world.now += latecomers.AT_ONCE + 1
    assert run_due(stage) == [Work("job", "late")] and run_due(stage) == []
    assert look(stage, number)["state"] == "waiting" and stage.started["web2"] == 0
    stage.world.section["budget"] = {"late": "skip"}
    stage.world.later(HOUR)
    assert run_due(stage) == []


def test_owed_hosts_catch_up_by_a_word(stage: Stage) -> None:
    """After the rollout: those alone are planned, from what the class holds by then."""
    stage.world.section["budget"] = {"late": "skip"}
    stage.level("canary", soak="0s")
    body = stage.deploy()
    assert body["state"] == "done" and body["owed"] == ["web2"]
    assert "deploy class=development owed=True" in render({"rollout": body})
    stage.transport.hosts["web2"].faults.clear()
    owed = Selection(class_="development", owed=True)
    assert not owed.is_empty
    shown = planning.plan(stage.context(), owed, request=Request())["plan"]
    assert list(shown["hosts"]) == ["web2"]
    done = deploying.deploy(stage.context(), owed, now=True)["rollout"]
    assert {h: one["outcome"] for h, one in done["hosts"].items()} == {"web2": "applied"}
    assert stage.world.store.owed() == {}


def test_hosts_that_appear_are_told_and_not_slipped_in(stage: Stage) -> None:
    """One that came to the class since is named, accepted or not; one of before is not."""
    number = stage.deploy(background=True)["id"]
    run_due(stage)
    assert look(stage, number)["appeared"] == []
    stage.world.later(60)
    stage.world.host("web9", "development", *OLD)
    stage.world.host("db1", "testing", *OLD)
    body = look(stage, number)
    assert body["appeared"] == ["web9"]
    assert "NEW in development since it began, not in it: web9" in render({"rollout": body})
    stage.world.later(2 * HOUR)
    run_due(stage)
    ended = controlling.rollout(stage.context(ENGINE), number)["rollout"]
    assert ended["state"] == "done" and "web9" not in ended["hosts"] and ended["appeared"] == []
