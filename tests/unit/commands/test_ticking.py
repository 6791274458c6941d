"""What the engine finds due, and what it does; an event wakes and decides nothing."""

from __future__ import annotations

import pytest

from cpacman.commands import board, controlling, resuming, ticking
from cpacman.commands.access import ENGINE
from cpacman.commands.pointing import revert
from cpacman.commands.snapshots import snapshot
from cpacman.commands.ticking import Work
from cpacman.errors import SafetyError
from cpacman.report.screens import render
from tests.unit.commands.test_controlling import Stage, look
from tests.unit.commands.world import World


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts, two levels."""
    return Stage(world)


def run_due(stage: Stage) -> list[Work]:
    """Do what is due, as the engine's children do."""
    work = ticking.due_work(stage.context(ENGINE))
    for one in work:
        ticking.do_work(stage.context(ENGINE), one)
    return work


def test_one_engine_acts(stage: Stage) -> None:
    """A second one waits until the first shows no life."""
    assert ticking.is_acting(stage.context(), "a") and not ticking.is_acting(stage.context(), "b")
    stage.world.now += ticking.LIFETIME + 1
    assert ticking.is_acting(stage.context(), "b") and not ticking.is_acting(stage.context(), "a")
    stage.world.now -= 86400
    assert ticking.is_acting(stage.context(), "a"), "a clock that is put back stops no engine"


def test_nothing_is_due_by_itself(stage: Stage) -> None:
    """Without a schedule, a wish or a rollout the engine does nothing."""
    assert ticking.due_work(stage.context(ENGINE)) == []


def test_background_rollout_is_carried_out(stage: Stage) -> None:
    """Through its soak, which no process sits out, though nobody but alice may deploy."""
    stage.world.section["access"] = {"deploy": {"development": ["alice"]}}
    stage.level("canary", soak="2h")
    body = stage.deploy(background=True)
    assert run_due(stage) == [Work("carry", body["id"])]
    assert look(stage, body["id"])["state"] == "waiting"
    assert run_due(stage) == []
    stage.world.later(7300)
    assert run_due(stage) == [Work("carry", body["id"])]
    assert look(stage, body["id"])["state"] == "done"


def test_failures_count_on_after_a_soak(stage: Stage) -> None:
    """The engine forgives nobody: only a person who resumes does."""
    stage.world.section["levels"] = [
        {"canary": {"match": "ring:0", "soak": "2h", "max_failures": 1}},
        {"rest": {"max_failures": 1}},
    ]
    stage.world.section["budget"] = {"max_failures": 1}
    stage.world.host("web2", "development", "app-1-1.noarch", "lib-1-1.noarch", ring=0)
    for name in ("web2", "web3"):
        stage.transport.hosts[name].report = {"outcome": "failed", "code": "scriptlet"}
    body = stage.deploy(background=True)
    run_due(stage)
    assert look(stage, body["id"])["state"] == "waiting"
    stage.world.later(7300)
    run_due(stage)
    ended = look(stage, body["id"])
    assert (ended["state"], ended["why"]) == ("halted", "all levels: failed 2 > 1")


def test_wishes_are_one_look_when_mirrors_are_quiet(stage: Stage) -> None:
    """Whoever forges an event gains a look at the mirrors, and no more."""
    stage.world.section["engine"] = {"settle": "10m"}
    for _ in range(3):
        ticking.wake(stage.context())
        stage.world.later(60)
    assert ticking.due_work(stage.context(ENGINE)) == []
    before = stage.world.held("development")
    stage.world.later(600)
    assert run_due(stage) == [Work("job", "snapshot")]
    assert run_due(stage) == [] and stage.world.held("development") == before
    assert stage.world.store.rollouts() == []


def test_new_snapshot_is_planned_and_deployed_only_where_told(stage: Stage) -> None:
    """The mirror changed: a snapshot and a plan; a rollout if the configuration says so."""
    stage.world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch")
    stage.world.section["engine"] = {"snapshot": "6h"}
    assert run_due(stage) == [Work("job", "snapshot")]
    assert len(stage.world.store.snapshots()) == 2 and stage.world.store.rollouts() == []
    stage.world.mirror("app-2-1.noarch", "lib-2-1.noarch")
    stage.world.section["engine"] = {"snapshot": "6h", "deploy": True}
    stage.world.later(6 * 3600)
    run_due(stage)
    assert [row["who"] for row in stage.world.store.rollouts()] == [ENGINE]


def test_prune_and_refresh_by_the_clock(stage: Stage) -> None:
    """Each by its own."""
    stage.world.section["engine"] = {"refresh": "1h", "prune": "2h"}
    assert run_due(stage) == [Work("job", "refresh"), Work("job", "prune")]
    stage.world.later(3700)
    assert run_due(stage) == [Work("job", "refresh")]
    assert {name: result for name, (_, _, result) in stage.world.store.jobs().items()} == {
        "refresh": "ok", "prune": "ok",
    }  # fmt: skip


def test_job_that_dies_is_begun_again_at_its_next_time(stage: Stage) -> None:
    """What it did not finish is told as running, not as done."""
    stage.world.section["engine"] = {"refresh": "1h"}
    stage.world.store.ran_job("refresh", at=stage.world.now, result="running")
    assert run_due(stage) == []
    stage.world.later(3700)
    assert run_due(stage) == [Work("job", "refresh")]


def test_soak_that_no_process_sits_out_is_looked_at(stage: Stage) -> None:
    """Its checks are asked as often as they say, and end it when they fail."""
    stage.world.section["gates"] = {
        "web": [{"up": {"salt": "test.ping", "when": ["soak"], "every": "10m"}}]
    }
    stage.level("canary", soak="2h", gate="web")
    body = stage.deploy(background=True)
    run_due(stage)
    stage.world.later(300)
    assert run_due(stage) == []
    stage.world.later(301)
    assert run_due(stage) == [Work("carry", body["id"])]
    assert look(stage, body["id"])["state"] == "waiting"
    stage.probes.value = False
    stage.world.later(601)
    run_due(stage)
    assert look(stage, body["id"])["state"] == "halted"


def test_board_tells_of_the_engine(stage: Stage) -> None:
    """Who holds the lease, its last look, the jobs that run and come, and what it waits for."""
    now = stage.world.now
    assert ticking.engine_now(stage.context())["owner"] is None
    assert ticking.is_acting(stage.context(), "master:7:9")
    stage.world.section["engine"] = {"snapshot": "6h", "refresh": "1h", "settle": "10m"}
    for name in ("snapshot", "refresh"):
        stage.world.store.ran_job(name, at=now, result="ok")
    stage.level("canary", soak="2h")
    body = stage.deploy(background=True)
    run_due(stage)
    stage.world.store.ran_job("refresh", at=now, result="running")
    seen = board.status(stage.context())["status"]
    engine = seen["engine"]
    assert (engine["owner"], engine["seen"], engine["alive"]) == ("master:7:9", now, True)
    assert engine["doing"] == [{"what": "refresh", "since": now}]
    until = look(stage, body["id"])["until"]
    waits = f"{body['id'][:14]} level canary: soaking"
    assert engine["next"] == [
        {"what": "refresh", "at": now + 3600}, {"what": waits, "at": until},
        {"what": "snapshot", "at": now + 6 * 3600},
    ]  # fmt: skip
    (row,) = seen["rollouts"]
    assert (row["at"], row["done"], row["total"], row["died"]) == ("canary", 1, 3, False)
    stage.world.now += ticking.LIFETIME + 1
    assert not ticking.engine_now(stage.context())["alive"]


def test_board_tells_of_freezes(stage: Stage) -> None:
    """The one that holds, else the next one; none that is over, or of other classes."""
    days = [("2026-01-01", "2026-02-01", []), ("2027-03-01", "2027-03-02", ["testing"]),
            ("2027-02-01", "2027-02-03", [])]  # fmt: skip
    stage.world.section["freeze"] = [
        {"from": first, "until": last, "classes": classes} for first, last, classes in days
    ]
    found = board.status(stage.context())["status"]["freeze"]
    assert found["from"] > stage.world.now and found["classes"] == []
    del stage.world.section["freeze"][2]
    assert board.status(stage.context(), ["production"])["status"]["freeze"] is None
    assert board.status(stage.context(), ["testing"])["status"]["freeze"]["classes"] == ["testing"]


def test_snapshots_that_came_since_stop_no_soak(stage: Stage) -> None:
    """Mirrors go on while a class soaks: what it took up since is for the next rollout."""
    stage.level("canary", soak="2d")
    body = stage.deploy(background=True)
    run_due(stage)
    for number in range(3):
        stage.world.later(60000)
        stage.world.mirror(
            "app-2-1.noarch", "lib-2-1.noarch", ["tool", "agent", "old"][number] + "-1-1.noarch"
        )
        snapshot(stage.context())
        run_due(stage)
    body = look(stage, body["id"])
    assert (body["state"], set(stage.started.values())) == ("done", {1})


def test_rollout_of_a_machine_that_is_gone(stage: Stage) -> None:
    """It is gone on with when its owner has shown no life for ten minutes."""
    body = stage.deploy(background=True)
    store = stage.world.store
    store.own_rollout(body["id"], seen="", owner="elsewhere:1:1")
    store.beat_rollout(body["id"], owner="elsewhere:1:1", at=stage.world.now)
    stage.world.now += 500
    assert run_due(stage) == []
    stage.world.later(200)
    assert run_due(stage) == [Work("carry", body["id"])]
    assert look(stage, body["id"])["state"] == "done"


def test_what_must_not_go_on_is_paused(stage: Stage) -> None:
    """Its class was taken back in the soak: that is told once, not tried for ever."""
    stage.level("canary", soak="2h")
    stage.world.later(1)
    stage.world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch")
    snapshot(stage.context())
    number = stage.deploy(background=True)["id"]
    run_due(stage)
    revert(stage.context(), "development")
    stage.world.later(7300)
    with pytest.raises(SafetyError, match="holds s-"):
        run_due(stage)
    body = look(stage, number)
    assert body["state"] == "paused" and "the plan was made from" in body["why"]
    assert run_due(stage) == [] and stage.started["web2"] == 0
    controlling.cancel(stage.context(), number)
    assert look(stage, number)["state"] == "cancelled" and not stage.world.store.locked_hosts()


def test_what_broke_off_is_told_and_begun_again_after_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither shown as running for ever, nor tried every two seconds."""
    stage.world.section["engine"] = {"refresh": "1h"}

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(ticking, "refresh_hosts", broken)
    number = stage.deploy(background=True)["id"]
    monkeypatch.setattr(resuming, "resume", broken)
    for work in ticking.due_work(stage.context(ENGINE)):
        with pytest.raises(RuntimeError):
            ticking.do_work(stage.context(ENGINE), work)
    assert ticking.due_work(stage.context(ENGINE)) == []
    engine = board.status(stage.context())["status"]["engine"]
    assert engine["doing"] == []
    assert [(one["what"], one["why"]) for one in engine["failed"]] == [
        (f"carry {number[:14]}", "the disk is full"), ("refresh", "the disk is full"),
    ]  # fmt: skip
    monkeypatch.undo()
    stage.world.later(61)
    assert run_due(stage) == [Work("carry", number)]
    failed = ticking.engine_now(stage.context())["failed"]
    assert [one["what"] for one in failed] == ["refresh"]


def test_hosts_of_a_dead_process_are_collected_beside_all_else(stage: Stage) -> None:
    """By a process of its own: it may take long, and what breaks in it stops nothing else."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    number = stage.deploy()["id"]
    stage.world.store.wish_rollout(number, "halt", at=1.0, who="alice")
    assert run_due(stage) == [Work("collect", number)]
    assert look(stage, number)["state"] == "halted" and run_due(stage) == []


def test_a_rollout_that_no_engine_would_carry_out(stage: Stage) -> None:
    """Whoever leaves one to the engine is told at once when none runs."""
    body = stage.deploy(background=True)
    assert body["engine"] is False and "NO ENGINE RUNS" in render({"rollout": body})
    ticking.is_acting(stage.context(), "a")
    assert "NO ENGINE" not in render({"rollout": look(stage, body["id"])})


def test_events_that_never_stop_put_nothing_off_for_ever(stage: Stage) -> None:
    """A host that fires one every minute does not keep mirrors from being looked at."""
    stage.world.section["engine"] = {"settle": "10m"}
    looked = []
    for minute in range(130):
        ticking.wake(stage.context())
        looked += [minute for _ in run_due(stage)]
        stage.world.later(60)
    assert looked == [60, 121]
