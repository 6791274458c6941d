"""Rollouts that people steer: deploy, halt, resume, retry, skip, approve, and what each refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from cpacman.commands import collecting, controlling, deploying, resuming, ticking
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.errors import (
    ConfigError,
    ConflictError,
    InputError,
    Problem,
    SafetyError,
    UsageError,
)
from cpacman.model import Request
from cpacman.report.screens import render
from cpacman.rollout.checks import Nobody
from cpacman.rollout.gate import Reply
from cpacman.transport.fake import FakeHost, FakeTransport
from cpacman.transport.port import Answer
from tests.unit.commands.world import World


class Living(FakeTransport):
    """Simulated hosts that have what they were given afterwards."""

    def __init__(self, world: World) -> None:
        super().__init__({name: FakeHost() for name in world.hosts}, lambda: world.now)
        self.world = world

    def verify(self, host: str, text: str, signature: str) -> Mapping[str, Any]:
        """Every host is honest here."""
        return json.loads(text)

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`; inventories come from the world's store."""
        if function == "inventory":
            heads = self.world.store.inventory_heads()
            for host in requests:
                if code := self.hosts[host].faults.get("inventory"):
                    yield Answer(host, {}, code, "no answer")
                    continue
                head = {**msgspec.to_builtins(heads[host][0]), "packages": []}
                pinned = self.world.context().key.fingerprint
                value = {"cookie": head["cookie"], "unchanged": True, "head": head}
                yield Answer(host, {**value, "pinned": pinned})
            return
        for answer in super().call(function, requests, timeout=timeout):
            if function == "result" and '"applied"' in str(answer.value.get("report")):
                self._apply(answer.host)
            yield answer

    def _apply(self, host: str) -> None:
        from cpacman.model import Action

        actions = msgspec.convert(self.hosts[host].manifest["actions"], list[Action])
        self.world._apply(host, actions)


class Told(Nobody):
    """Probes that answer as told."""

    def __init__(self) -> None:
        self.value: Any = True

    def salt(self, function, hosts, args, kwargs, timeout):  # type: ignore[no-untyped-def]
        """See `Probes.salt`."""
        return {host: Reply(True, self.value) for host in hosts} if self.value is not None else {}


class Stage:
    """A class of three hosts in two levels, one of them a canary, and its simulated hosts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.probes = Told()
        world.mirror("app-2-1.noarch", "lib-2-1.noarch")
        world.section["levels"] = [{"canary": {"match": "ring:0"}}, "rest"]
        world.section["gates"] = {"web": [{"up": {"salt": "test.ping"}}]}
        world.host("web1", "development", "app-1-1.noarch", "lib-1-1.noarch", ring=0)
        world.host("web2", "development", "app-1-1.noarch", "lib-1-1.noarch")
        world.host("web3", "development", "app-1-1.noarch", "lib-1-1.noarch")
        snapshot(world.context())
        self.transport = Living(world)

    def context(self, who: str = "alice") -> Context:
        """What a command of this person works with; time passes as it is slept."""
        made = self.world.context(who, self.transport)
        return made._replace(probes=self.probes, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.world.now += seconds

    def plan(self) -> str:
        """Plan the class."""
        body = plan(self.context(), Selection(class_="development"), request=Request())
        return str(body["plan"]["plan_id"])

    def deploy(self, who: str = "alice", **more: Any) -> dict[str, Any]:
        """Plan and deploy the class; return the rollout."""
        answer = deploying.deploy(self.context(who), Selection(), plan=self.plan(), **more)
        return dict(answer["rollout"])

    def level(self, name: str, **more: Any) -> None:
        """Give a level more settings."""
        for one in self.world.section["levels"]:
            if isinstance(one, dict) and name in one:
                one[name].update(more)

    @property
    def started(self) -> dict[str, int]:
        """Host -> how often it was told to start."""
        return {name: host.started for name, host in sorted(self.transport.hosts.items())}


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts, two levels."""
    return Stage(world)


def outcomes(body: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    """Host -> outcome and code."""
    return {host: (one["outcome"], one["code"]) for host, one in body["hosts"].items()}


def test_good_rollout_is_done(stage: Stage) -> None:
    """Canary first, then the rest; every host has the plan."""
    body = stage.deploy()
    assert (body["state"], set(outcomes(body).values())) == ("done", {("applied", None)})
    assert [one["state"] for one in body["gates"].values()] == ["passed", "passed"]


def test_failed_canary_halts_and_retry_goes_on(stage: Stage) -> None:
    """The rest is untouched; when the cause is mended the same rollout goes on."""
    stage.transport.hosts["web1"].report = {"outcome": "refused", "code": "space", "detail": "full"}
    body = stage.deploy()
    assert body["state"] == "halted"
    assert outcomes(body)["web2"] == ("skipped", "halted")
    assert stage.started == {"web1": 1, "web2": 0, "web3": 0}
    stage.transport.hosts["web1"].report = {}
    again = resuming.retry(stage.context(), body["id"])["rollout"]
    assert (again["state"], set(outcomes(again).values())) == ("done", {("applied", None)})
    assert again["hosts"]["web1"]["attempt"] == 2
    assert "retry" in [entry["action"] for entry in stage.world.store.history()]


def test_resume_does_not_count_the_failure_again(stage: Stage) -> None:
    """Who goes on in spite of a failed host goes on with the others."""
    stage.world.section["levels"] = [{"all": {"concurrency": 1, "max_failures": 0}}]
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet"}
    body = stage.deploy()
    assert stage.started == {"web1": 1, "web2": 0, "web3": 0}
    again = resuming.resume(stage.context(), body["id"])["rollout"]
    assert again["state"] == "done"
    assert outcomes(again) == {
        "web1": ("failed", "scriptlet"), "web2": ("applied", None), "web3": ("applied", None),
    }  # fmt: skip


def test_gate_that_fails_and_one_that_says_nothing(stage: Stage) -> None:
    """The first halts, the second pauses; force passes it, with a reason."""
    stage.level("canary", gate="web")
    stage.probes.value = None
    body = stage.deploy()
    assert body["state"] == "paused" and "inconclusive" in body["why"]
    assert body["gates"]["canary"]["findings"][0]["verdict"] == "inconclusive"
    stage.probes.value = False
    body = resuming.resume(stage.context(), body["id"])["rollout"]
    assert body["state"] == "halted" and stage.started["web2"] == 0
    with pytest.raises(UsageError, match="say why"):
        resuming.resume(stage.context(), body["id"], force=True)
    done = resuming.resume(stage.context(), body["id"], force=True, reason="monitor is broken")
    assert done["rollout"]["state"] == "done"
    forced = [e for e in stage.world.store.history() if e["action"] == "gate passed by force"]
    assert [entry["reason"] for entry in forced] == ["monitor is broken"]


def test_approval_of_somebody_else(stage: Stage) -> None:
    """Nobody starts before; the starter's own word does not count."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing", "production"]
    body = stage.deploy()
    assert body["state"] == "paused" and stage.started["web1"] == 0
    with pytest.raises(SafetyError, match="alice started it"):
        controlling.approve(stage.context("alice"), body["id"])
    assert controlling.approve(stage.context("bob"), body["id"])["approve"]["new"]
    done = resuming.resume(stage.context(), body["id"])["rollout"]
    assert done["state"] == "done"


def test_who_may_deploy_and_approve(stage: Stage) -> None:
    """A class whose people are named is closed to others, root included."""
    stage.world.section["access"] = {"deploy": {"development": ["alice"]}}
    with pytest.raises(SafetyError, match=r"access.deploy.development: root may not deploy"):
        stage.deploy("root")
    assert stage.deploy("sudo_alice")["state"] == "done"


def test_ticket_is_demanded(stage: Stage) -> None:
    """And must look like one."""
    stage.world.section["classes"] = [{"development": {"ticket": "CHG[0-9]{3}"}}, "testing"]
    with pytest.raises(SafetyError, match="ticket: is missing"):
        stage.deploy()
    assert stage.deploy(ticket="CHG123")["state"] == "done"


def test_gate_that_is_nowhere_refuses(stage: Stage) -> None:
    """A name without a description is an error before anything, not a gate that passes."""
    stage.level("canary", gate="wbe")
    with pytest.raises(SafetyError, match=r"levels\[0\].gate: there is no gate 'wbe'"):
        stage.deploy()


def test_closed_window_in_the_background(stage: Stage) -> None:
    """The rollout waits; the engine is told of it when the window opens, not before."""
    stage.world.now = 1_800_000_000.0  # a Friday, 08:00 UTC
    stage.world.section["windows"] = {"w": {"weekly": ["Sat 22:00-23:00"]}}
    stage.world.section["classes"] = [{"development": {"windows": "w"}}, "testing"]
    body = stage.deploy(background=True)
    assert (body["state"], stage.started["web1"]) == ("running", 0)
    assert controlling.due(stage.context()) == [body["id"]]
    body = resuming.resume(stage.context("root"), body["id"], patience=0.0)["rollout"]
    assert body["state"] == "waiting" and body["why"].endswith("outside window w")
    assert controlling.due(stage.context()) == []
    stage.world.later(body["until"] - stage.world.now + 60)
    assert controlling.due(stage.context()) == [body["id"]]
    body = resuming.resume(stage.context("root"), body["id"], patience=0.0)["rollout"]
    assert body["state"] == "done"


def test_profile_that_ignores_windows(stage: Stage) -> None:
    """In an emergency, with a reason, and only as long as the profile lives."""
    stage.world.section["windows"] = {"w": {"weekly": ["Sat 22:00-23:00"]}}
    stage.world.section["classes"] = [{"development": {"windows": "w"}}, "testing"]
    stage.world.section["profiles"] = {"emergency": {"windows": "ignore"}}
    with pytest.raises(SafetyError, match="say why"):
        stage.deploy(profile="emergency")
    with pytest.raises(UsageError, match="no profile 'emergncy'"):
        stage.deploy(profile="emergncy", reason="x")
    stage.world.section["profiles"]["emergency"]["until"] = "2026-01-01"
    with pytest.raises(SafetyError, match="was valid until 2026-01-01"):
        stage.deploy(profile="emergency", reason="x")
    stage.world.section["profiles"]["emergency"]["until"] = "2036-01-01"
    assert stage.deploy(profile="emergency", reason="log4j")["state"] == "done"


def test_halt_and_cancel_what_waits(stage: Stage) -> None:
    """Nobody carries it out: it ends here and now, with every host told."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy()
    stopped = controlling.halt(stage.context(), body["id"], reason="no")["halt"]["rollouts"]
    assert stopped == [{"id": body["id"], "in_flight": [], "state": "halted"}]
    assert set(outcomes(look(stage, body["id"])).values()) == {("skipped", "halted")}
    ended = controlling.cancel(stage.context(), body["id"])["halt"]["rollouts"][0]
    assert ended["state"] == "cancelled"
    for again in (resuming.resume, resuming.retry):
        with pytest.raises(UsageError, match="cancelled"):
            again(stage.context(), body["id"])


def look(stage: Stage, number: str) -> dict[str, Any]:
    """The rollout as it is shown."""
    return dict(controlling.rollout(stage.context(), number)["rollout"])


def test_halt_wants_one_or_all(stage: Stage) -> None:
    """Neither is said: nothing is halted by default."""
    with pytest.raises(UsageError, match="one rollout or all"):
        controlling.halt(stage.context())
    assert controlling.halt(stage.context(), everything=True)["halt"]["rollouts"] == []


def test_skip_before_its_turn(stage: Stage) -> None:
    """A host that is skipped is not started; one that is not in it is an error."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy()
    with pytest.raises(InputError, match="db9"):
        controlling.skip(stage.context(), body["id"], ["db9"])
    controlling.skip(stage.context(), body["id"], ["web3"])
    controlling.approve(stage.context("bob"), body["id"])
    done = resuming.resume(stage.context(), body["id"])["rollout"]
    assert outcomes(done)["web3"] == ("skipped", "operator") and stage.started["web3"] == 0
    with pytest.raises(SafetyError, match="web1: is ended already"):
        controlling.skip(stage.context(), body["id"], ["web1"])


def test_hosts_of_an_open_rollout_are_locked(stage: Stage) -> None:
    """A second rollout of the same hosts is refused while the first one waits."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    stage.deploy()
    with pytest.raises(ConflictError, match="web1: is being changed by rollout"):
        stage.deploy()


def test_resume_of_what_is_over(stage: Stage) -> None:
    """What is done is done."""
    body = stage.deploy()
    with pytest.raises(UsageError, match="is done"):
        resuming.resume(stage.context(), body["id"])
    with pytest.raises(UsageError, match="no host to be tried again"):
        resuming.retry(stage.context(), body["id"])


def _owner(stage: Stage, number: str) -> str:
    return str(stage.world.store.rollout_row(number)["owner"])


def test_list_and_filters(stage: Stage) -> None:
    """The newest first; one rollout by outcome or host."""
    stage.transport.hosts["web3"].report = {"outcome": "refused", "code": "space"}
    body = stage.deploy()
    stage.world.store.own_rollout(body["id"], seen=_owner(stage, body["id"]), owner="gone:1:1")
    listing = controlling.rollouts(stage.context())
    rows = listing["rollouts"]["rollouts"]
    assert [row["id"] for row in rows] == [body["id"]]
    assert rows[0]["alive"] is None and "died" not in render(
        {**listing, "rollouts": {**listing["rollouts"], "chains": []}}
    ), "what is over needs no process"
    assert controlling.rollouts(stage.context(), active=True)["rollouts"]["rollouts"] == []
    refused = controlling.rollout(stage.context(), body["id"], outcome="refused")["rollout"]
    assert list(refused["hosts"]) == ["web3"]
    with pytest.raises(UsageError, match="no outcome"):
        controlling.rollout(stage.context(), body["id"], outcome="refsed")
    with pytest.raises(InputError, match="db9"):
        controlling.rollout(stage.context(), body["id"], host="db9")


def test_engine_goes_on_with_what_a_person_began(stage: Stage) -> None:
    """Resumed in the background it is the engine's, and nobody takes it for abandoned."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet"}
    body = stage.deploy()
    resuming.resume(stage.context(), body["id"], background=True)
    assert controlling.due(stage.context("root")) == [body["id"]]
    assert look(stage, body["id"])["state"] == "running"


def test_retry_that_is_refused_leaves_nothing_open(stage: Stage) -> None:
    """Another rollout has the host: the closed one stays closed, its hosts are not locked."""
    stage.transport.hosts["web1"].report = {"outcome": "refused", "code": "space"}
    body = stage.deploy()
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    other = stage.deploy()
    with pytest.raises(ConflictError, match="is being changed"):
        resuming.retry(stage.context(), body["id"])
    again = look(stage, body["id"])
    assert (again["state"], again["hosts"]["web1"]["outcome"]) == ("halted", "refused")
    assert set(stage.world.store.locked_hosts().values()) == {other["id"]}
    assert stage.world.store.rollout_row(body["id"])["owner"] == "", "nobody carries it out"


def test_force_without_a_gate_changes_nothing(stage: Stage) -> None:
    """It is refused before any host begins anew."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet"}
    body = stage.deploy()
    with pytest.raises(UsageError, match="no level of it stands at a gate"):
        resuming.resume(stage.context(), body["id"], force=True, reason="x")
    assert look(stage, body["id"])["state"] == "halted"
    assert stage.world.store.locked_hosts() == {}


def test_wish_outlives_who_wished_it(stage: Stage) -> None:
    """The halting command died after its commit: the rollout is closed by whoever looks next."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy(background=True)
    resuming.resume(stage.context("root"), body["id"], patience=0.0)
    assert look(stage, body["id"])["state"] == "paused"
    stage.world.store.wish_rollout(body["id"], "cancel", at=1.0, who="alice")
    assert controlling.due(stage.context("root")) == []
    assert controlling.abandoned(stage.context("root")) == [body["id"]]
    collecting.close_one(stage.context("root"), body["id"])
    assert look(stage, body["id"])["state"] == "cancelled"


def test_recover_leaves_an_open_rollout_alone(stage: Stage) -> None:
    """A silent host of a rollout that soaks is collected when that has ended."""
    stage.level("canary", soak="2h", max_failures=1)
    stage.world.host("web2", "development", "app-1-1.noarch", "lib-1-1.noarch", ring=0)
    stage.transport.hosts["web2"].forged = True
    body = stage.deploy(background=True)
    resuming.resume(stage.context("root"), body["id"], patience=0.0)
    assert look(stage, body["id"])["state"] == "waiting"
    assert collecting.recover(stage.context(), Selection(), rollout=body["id"])["recover"] == {
        "test": False, "hosts": {},
    }  # fmt: skip
    assert look(stage, body["id"])["state"] == "waiting"


def test_dead_process_s_hosts_are_let_go(stage: Stage) -> None:
    """What it had prepared is undone when its hosts are collected."""
    stage.level("canary", around=["drain"])
    both = {"before": {"salt": "drain.on"}, "after": {"salt": "drain.off"}}
    stage.world.section["around"] = {"drain": both}
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy()
    store, number, gone = stage.world.store, body["id"], f"{socket.gethostname()}:999999:1"
    store.own_rollout(number, seen="", owner=gone)
    store.go_on_rollout(number, expected="paused", owner=gone, at=1.0, who="me", verb="resume")
    for source, target in (("waiting", "staging"), ("staging", "staged")):
        store.move_host(number, "web1", expected=source, state=target, at=stage.world.now)
    asked: list[tuple[str, list[str]]] = []
    told = stage.probes.salt

    def salt(function, hosts, *rest):  # type: ignore[no-untyped-def]
        asked.append((function, list(hosts)))
        return told(function, hosts, *rest)

    stage.probes.salt = salt  # type: ignore[method-assign]
    collecting.close_one(stage.context("root"), number)
    assert (look(stage, number)["state"], asked) == ("halted", [("drain.off", ["web1"])])


def test_freeze_that_is_written_down_in_the_middle(stage: Stage) -> None:
    """Who carries a rollout out reads it; what can't be read lets nobody start."""
    broken: list[ConfigError] = []

    def live() -> Any:
        if broken:
            raise broken[0]
        if sum(stage.started.values()):
            freeze = {"from": "2020-01-01", "until": "2036-01-01", "reason": "stop"}
            stage.world.section["freeze"] = [freeze]
        return stage.context().settings

    number = stage.plan()
    context = stage.context()._replace(live=live)
    body = deploying.deploy(context, Selection(), plan=number, patience=0.0)["rollout"]
    assert (body["state"], stage.started) == ("waiting", {"web1": 1, "web2": 0, "web3": 0})
    broken.append(ConfigError(Problem("classes", "is garbled")))
    context = stage.context()._replace(live=live)
    body = resuming.resume(context, body["id"], patience=0.0)["rollout"]
    assert body["state"] == "waiting" and body["until"] == stage.world.now + 60
    assert "the configuration can't be read: classes" in body["why"]
    assert stage.started["web2"] == 0


def test_one_person_by_two_logins(stage: Stage) -> None:
    """Who started by one login does not approve by another, and nobody counts twice."""
    stage.world.section["classes"] = [{"development": {"approvers": 2}}, "testing"]
    body = stage.deploy("sudo_alice")
    with pytest.raises(SafetyError, match="alice started it"):
        controlling.approve(stage.context("alice"), body["id"])
    for login in ("bob", "sudo_bob"):
        controlling.approve(stage.context(login), body["id"])
    again = resuming.resume(stage.context(), body["id"])["rollout"]
    assert again["state"] == "paused" and "approved by 1 of 2" in again["why"]


def test_who_may_not_approve_any_more_does_not_count(stage: Stage) -> None:
    """An approval is worth what its giver may do when it is needed."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy()
    controlling.approve(stage.context("bob"), body["id"])
    stage.world.section["access"] = {"approve": {"development": ["cid"]}}
    again = resuming.resume(stage.context(), body["id"])["rollout"]
    assert again["state"] == "paused" and "approved by 0 of 1" in again["why"]


def test_a_stranger_cancels_nothing(stage: Stage) -> None:
    """Also not what is halted: that would be the end of it."""
    stage.transport.hosts["web1"].report = {"outcome": "failed", "code": "scriptlet"}
    body = stage.deploy()
    stage.world.section["access"] = {"deploy": {"development": ["alice"]}}
    with pytest.raises(SafetyError, match="mallory may not deploy development"):
        controlling.cancel(stage.context("mallory"), body["id"])
    assert look(stage, body["id"])["state"] == "halted"


def test_halt_all_halts_what_one_may(stage: Stage) -> None:
    """A rollout of others keeps none of one's own from being halted; it is told."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    body = stage.deploy()
    header = {"id": "r-other", "plan": body["plan"], "class": "testing", "state": "waiting",
              "who": "x", "owner": ""}  # fmt: skip
    stage.world.store.start_rollout(header, [], at=1.0)
    stage.world.section["access"] = {"deploy": {"testing": ["tess"]}}
    answer = controlling.halt(stage.context(), everything=True)
    assert [(one["id"], one["state"]) for one in answer["halt"]["rollouts"]] == [
        (body["id"], "halted")
    ]
    assert answer["retcode"] == 1
    assert "NOT HALTED access.deploy.testing: alice may not deploy testing" in render(answer)
    assert stage.world.store.rollout_row("r-other")["wish"] is None


def test_halt_all_wishes_before_it_ends_any(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """To end one may take long, and no host of another may start meanwhile."""
    stage.world.section["classes"] = [{"development": {"approvers": 1}}, "testing"]
    plan_id = stage.deploy()["plan"]
    header = {"id": "r-other", "plan": plan_id, "class": "development", "state": "waiting",
              "who": "x", "owner": ""}  # fmt: skip
    stage.world.store.start_rollout(header, [], at=1.0)
    wishes: list[list[str | None]] = []

    def close(context: Context, row: Any, wish: Any) -> None:
        wishes.append([one["wish"] for one in context.store.rollouts(active=True)])

    monkeypatch.setattr(controlling, "_close", close)
    controlling.halt(stage.context(), everything=True, wait=0.0)
    assert wishes == [["halt", "halt"]] * 2


@pytest.mark.parametrize("gone", ["gate", "around", "profile", "class"])
def test_what_was_taken_out_of_the_configuration(stage: Stage, gone: str) -> None:
    """What a rollout was begun with is missed when it shall go on; to halt it needs nothing."""
    stage.world.section["profiles"] = {"soon": {"soak": "2h"}}
    stage.world.section["around"] = {"drain": {"before": {"salt": "drain.on"}}}
    stage.level("canary", gate="web", around=["drain"])
    body = stage.deploy(background=True, profile="soon", reason="x")
    resuming.resume(stage.context("root"), body["id"], patience=0.0)
    assert look(stage, body["id"])["state"] == "waiting"
    if gone == "class":
        stage.world.section["classes"] = ["testing"]
        for host in stage.world.hosts:
            stage.world.host(host, "testing", "app-1-1.noarch", "lib-1-1.noarch")
    elif gone == "profile":
        del stage.world.section["profiles"]
    else:
        stage.world.section["levels"] = ["canary", "rest"]
        del stage.world.section[{"gate": "gates"}.get(gone, gone)]
    stage.world.later(7300)
    work = ticking.Work("carry", body["id"])
    with pytest.raises(SafetyError, match=f"there is no {gone.replace('around', 'action')} '"):
        ticking.do_work(stage.context("root"), work)
    assert look(stage, body["id"])["state"] == "paused"
    assert ticking.due_work(stage.context("root")) == []
    stopped = controlling.halt(stage.context(), body["id"])["halt"]["rollouts"]
    assert [one["state"] for one in stopped] == ["halted"]
