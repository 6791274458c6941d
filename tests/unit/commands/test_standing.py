"""Rollouts that stand somewhere, and the word of a person that lets them go on: which, and how."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands import controlling, resuming, ticking
from cpacman.errors import ConflictError
from cpacman.report.screens import render
from cpacman.report.text import when
from tests.unit.commands.test_controlling import Stage, look, outcomes
from tests.unit.commands.world import World

OLD = ("app-1-1.noarch", "lib-1-1.noarch")
NEW = ("app-2-1.noarch", "lib-2-1.noarch")


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts, two levels, one of them a canary."""
    return Stage(world)


def resume(stage: Stage, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Go on with a rollout; return it."""
    return dict(resuming.resume(stage.context(), body["id"], **more)["rollout"])


def test_every_host_for_itself_in_all_levels_together(stage: Stage) -> None:
    """Where no failure halts a level, the sum of them halts nothing either."""
    stage.world.section["budget"] = {"policy": "per_host"}
    stage.world.section["levels"] = [
        {"a": {"match": "ring:0"}}, {"b": {"match": "ring:1"}}, {"c": {"match": "ring:2"}}
    ]  # fmt: skip
    for number in range(6):
        stage.world.host(f"web{number}", "development", *OLD, ring=number // 2)
    stage.transport = type(stage.transport)(stage.world)
    for number in (0, 2, 4):
        stage.transport.hosts[f"web{number}"].report = {"outcome": "failed", "code": "x"}
    body = stage.deploy()
    assert (body["state"], sum(stage.started.values())) == ("done", 6)


def test_level_without_any_plan_passes_by_a_word_only(stage: Stage) -> None:
    """The only canary is down: neither a resume nor time lets the rest begin; force does."""
    stage.transport.hosts["web1"].faults["inventory"] = "unreachable"
    body = stage.deploy()
    assert body["state"] == "halted" and "no host of it has the plan" in body["why"]
    again = resume(stage, body)
    assert again["state"] == "halted" and stage.started["web2"] == 0
    text = render({"rollout": again})
    assert "force=True reason='...'" in text.splitlines()[-1]
    done = resume(stage, again, force=True, reason="its twin has it")
    assert (done["state"], stage.started) == ("done", {"web1": 0, "web2": 1, "web3": 1})


def test_canary_that_had_it_passes_by_a_word_only(stage: Stage) -> None:
    """Nothing was applied in its level, which shows nothing: to resume asks that again."""
    number = stage.plan()
    stage.world.host("web1", "development", *NEW, ring=0)
    from cpacman.commands import deploying
    from cpacman.commands.fleet import Selection

    body = deploying.deploy(stage.context(), Selection(), plan=number)["rollout"]
    assert body["state"] == "paused" and "shows nothing" in body["why"]
    assert "force=True reason='...'" in render({"rollout": body}).splitlines()[-1]
    again = resume(stage, body)
    assert (again["state"], stage.started["web2"]) == ("paused", 0)
    assert resume(stage, again, force=True, reason="seen")["state"] == "done"


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("value", [False, None])
def test_level_that_is_kept_out_by_its_gate(
    stage: Stage, background: bool, value: bool | None
) -> None:
    """Ill before the change, or nobody knows: force lets it begin, and asks again afterwards."""
    when = ["before", "after"]
    stage.world.section["gates"] = {"web": [{"up": {"salt": "test.ping", "when": when}}]}
    stage.level("canary", gate="web")
    stage.probes.value = value
    body = stage.deploy()
    assert body["state"] == ("paused" if value is None else "halted")
    assert not any(stage.started.values())
    resume(stage, body, force=True, reason="it is to mend that", background=background)
    if background:
        ticking.do_work(stage.context("root"), ticking.Work("carry", body["id"]))
    again = look(stage, body["id"])
    assert again["state"] != "done" and stage.started == {"web1": 1, "web2": 0, "web3": 0}
    assert "after" in again["why"], "what came of it decides"
    stage.probes.value = True
    assert resume(stage, again)["state"] == "done"
    forced = [e for e in stage.world.store.history() if e["action"] == "gate passed by force"]
    assert [(e["reason"], e["detail"]) for e in forced] == [
        ("it is to mend that", {"level": "canary"})
    ]


def test_skip_before_resuming_what_was_halted(stage: Stage) -> None:
    """The ill one is taken out while the rollout stands."""
    stage.world.section["gates"] = {"web": [{"up": {"salt": "test.ping", "when": "before"}}]}
    stage.level("rest", gate="web")
    stage.world.section["levels"] = ["canary", {"rest": {"gate": "web"}}]
    stage.world.section["levels"][0] = {"canary": {"match": "ring:0"}}
    told = stage.probes.salt

    def salt(function, hosts, *more):  # type: ignore[no-untyped-def]
        from cpacman.rollout.gate import Reply

        return {**told(function, hosts, *more), **{h: Reply(True, False) for h in hosts
                                                   if h == "web3"}}  # fmt: skip

    stage.probes.salt = salt  # type: ignore[method-assign]
    body = stage.deploy()
    assert body["state"] == "halted" and stage.started["web2"] == 0
    controlling.skip(stage.context(), body["id"], ["web3"])
    done = resume(stage, body)
    assert (done["state"], outcomes(done)["web3"]) == ("done", ("skipped", "operator"))
    assert stage.started["web2"] == 1


def test_retry_of_one_that_was_skipped(stage: Stage) -> None:
    """By name it is wanted again; a retry of all leaves it out, as it was said."""
    stage.level("canary", approvers=1)
    body = stage.deploy()
    controlling.skip(stage.context(), body["id"], ["web2", "web3"])
    controlling.approve(stage.context("bob"), body["id"])
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "x"}
    assert resume(stage, body)["state"] == "halted"
    stage.transport.hosts["web1"].report = {}
    done = resuming.retry(stage.context(), body["id"])["rollout"]
    assert done["state"] == "done" and stage.started == {"web1": 2, "web2": 0, "web3": 0}
    again = resuming.retry(stage.context(), body["id"], host=["web2"])["rollout"]
    assert outcomes(again)["web2"] == ("applied", None)
    assert outcomes(again)["web3"] == ("skipped", "operator")


def test_skip_that_comes_too_late_says_so(stage: Stage) -> None:
    """The host was told to start between the look and the word."""
    stage.level("canary", approvers=1)
    body = stage.deploy()
    store = stage.world.store
    for source, target in (("waiting", "staging"), ("staging", "staged"), ("staged", "applying")):
        store.move_host(body["id"], "web1", expected=source, state=target, at=1.0)
    with pytest.raises(ConflictError, match="web1: is applying by now"):
        store.skip_host(body["id"], "web1", at=1.0, who="alice", reason=None)
    assert store.skips(body["id"]) == {}


def test_what_is_typed_after_a_halt(stage: Stage) -> None:
    """Beside another try: the way back, once anything was applied, also when only a gate failed."""
    stage.world.section["levels"] = [{"all": {"concurrency": 1, "max_failures": 0, "gate": "web"}}]
    stage.probes.value = False
    body = stage.deploy()
    last = render({"rollout": body}).splitlines()[-1]
    back = f"salt-run cpacman.rollback rollout={body['id'][:14]} reason='...'"
    assert body["state"] == "halted" and back in last
    stage.probes.value = True
    assert "rollback" not in render({"rollout": resume(stage, body)})


def test_until_when_it_soaks_is_shown_as_it_counts(stage: Stage) -> None:
    """Hosts that came late do not make a soak longer, and the screen does not either."""
    stage.level("canary", soak="2h")
    begun = stage.world.now
    body = stage.deploy(background=True)
    resuming.resume(stage.context("root"), body["id"], patience=0.0)
    stage.world.later(3600)
    for source, target in (("soaking", "running"), ("running", "checking"),
                           ("checking", "soaking")):  # fmt: skip
        stage.world.store.move_level(body["id"], "canary", expected=source, state=target,
                                     at=stage.world.now, late=True)  # fmt: skip
    again = look(stage, body["id"])
    assert begun + 7200 <= again["gates"]["canary"]["until"] < begun + 7300
    assert f"until {when(again['gates']['canary']['until'])}" in render({"rollout": again})


def test_a_check_of_which_nobody_is_left_to_be_asked(stage: Stage) -> None:
    """The only web server of the canaries failed: that the others are well says nothing of it."""
    stage.world.section["gates"] = {"web": [{"up": {"salt": "test.ping", "scope": "role:web"}}]}
    stage.level("canary", gate="web", max_failures=1)
    stage.level("rest", gate="web")
    stage.world.host("web1", "development", *OLD, ring=0, role="web")
    stage.world.host("web2", "development", *OLD, ring=0, role="db")
    stage.transport.hosts["web1"].report = {"outcome": "refused", "code": "space"}
    body = stage.deploy()
    assert (body["state"], stage.started["web3"]) == ("paused", 0)
    found = body["gates"]["canary"]["findings"]
    assert [one["detail"] for one in found] == ["none of the hosts that it is for has the plan"]
    stage.transport.hosts["web1"].report = {}
    again = resuming.retry(stage.context(), body["id"])["rollout"]
    assert again["state"] == "done", "no host of the last level is meant by the check"
