"""One rollout through several classes: promotions between, waits, halts, and what kills it."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest

from cpacman.commands import access, chaining, steering, ticking
from cpacman.commands.access import ENGINE
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.pointing import revert
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.errors import ConflictError, CpacmanError, Problem, SafetyError, UsageError
from cpacman.report.screens import render
from cpacman.rollout.owner import owner_of
from cpacman.store import Store
from tests.unit.commands.test_controlling import Living, Stage
from tests.unit.commands.world import World

ONE = ("app-1-1.noarch", "lib-1-1.noarch")
DAY = 86400.0


class Track(Stage):
    """Three classes: two hosts in the first, a canary and another, and one in each later one."""

    def __init__(self, world: World) -> None:
        world.host("test1", "testing", *ONE)
        world.host("prod1", "production", *ONE)
        super().__init__(world)
        world.hosts.discard("web3")
        self.transport = Living(world)

    def begin(self, *classes: str, who: str = "alice", **more: Any) -> dict[str, Any]:
        """Deploy through these classes, or all; return the chain."""
        answer = steering.deploy(
            self.context(who), Selection(), classes=classes or ("all",), levels=("all",),
            now=True, **more,
        )  # fmt: skip
        return dict(answer["chain"])

    def look(self, number: str) -> dict[str, Any]:
        """The chain as it is shown."""
        return dict(steering.rollout(self.context(), number)["chain"])

    def run_due(self) -> list[str]:
        """Do what is due as the engine does, until nothing is; return what that was."""
        done = []
        while work := ticking.due_work(self.context(ENGINE)):
            for one in work:
                done.append(one.kind)
                ticking.do_work(self.context(ENGINE), one)
        return done

    def classes(self, **settings: dict[str, Any]) -> None:
        """Give classes settings."""
        names = ("development", "testing", "production")
        self.world.section["classes"] = [{one: settings.get(one, {})} for one in names]

    @property
    def entered(self) -> list[str]:
        """The classes in which a rollout began, in order."""
        return [str(row["class"]) for row in self.world.store.rollouts()]


@pytest.fixture
def track(world: World) -> Track:
    """A class after the other, all behind."""
    return Track(world)


def test_through_all_classes_by_one_word(track: Track) -> None:
    """Each class is deployed, then the next one takes that very snapshot; one chain tells all."""
    body = track.begin()
    assert (body["state"], body["rollout"]) == ("done", body["steps"][-1]["rollout"])
    assert track.entered == ["development", "testing", "production"]
    assert set(track.started.values()) == {1}
    held = {track.world.held(one) for one in ("development", "testing", "production")}
    assert len(held) == 1
    rows = steering.rollouts(track.context())["rollouts"]
    assert [one["id"] for one in rows["chains"]] == [body["id"]] and len(rows["rollouts"]) == 3
    member = steering.rollout(track.context(), body["rollout"])["rollout"]
    assert member["chain"] == body["id"] and f"of {body['id'][:14]}" in render({"rollout": member})
    text = render({"chain": body})
    assert "DONE" in text and "production" in text and "1 applied" in text


def test_nothing_starts_without_now(track: Track) -> None:
    """The plan of the first class and what its promotion would say now are shown."""
    for more in ({}, {"test": True, "now": True}):
        answer = steering.deploy(track.context(), Selection(), classes=("all",), **more)
        assert {"plan", "promote", "chain"} <= set(answer) and track.world.store.chains() == []
    assert "nothing was started" in render(
        steering.deploy(track.context(), Selection(), classes=("all",))
    )
    assert track.entered == [] and not any(track.started.values())


def test_evidence_is_waited_for_without_a_process(track: Track) -> None:
    """The engine leaves it waiting with the time at which the soak is met, and goes on then."""
    track.classes(production={"evidence": {"min_hosts": 1, "soak": "2d"}})
    body = track.begin(background=True)
    assert (body["state"], track.entered) == ("running", [])
    assert set(track.run_due()) == {"chain", "carry"}
    body = track.look(body["id"])
    assert body["state"] == "waiting" and body["until"] == track.world.now + 2 * DAY
    assert "soak 0 s of 2 d" in body["why"] and "until" in render({"chain": body})
    assert track.entered == ["development", "testing"] and track.run_due() == []
    track.world.later(2 * DAY + 1)
    track.run_due()
    assert track.look(body["id"])["state"] == "done" and track.started["prod1"] == 1


def test_what_came_meanwhile_stays_behind(track: Track) -> None:
    """The first class moved on while the chain waited: what it deployed goes on, nothing newer."""
    track.classes(testing={"evidence": {"min_hosts": 1, "soak": "1d"}})
    number = track.begin(background=True)["id"]
    track.run_due()
    first = track.world.held("development")
    track.world.later(3600)
    track.world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch")
    snapshot(track.context())
    track.world.later(DAY)
    track.run_due()
    assert track.look(number)["state"] == "done"
    assert track.world.held("production") == first != track.world.held("development")


@pytest.mark.parametrize("how", ["revert", "promote"])
def test_what_a_person_moved_is_not_moved_back(track: Track, how: str) -> None:
    """A class that was taken back, or promoted to by hand, pauses the chain: somebody decides."""
    track.world.mirror(*ONE)
    snapshot(track.context())
    track.world.later(60)
    track.world.mirror("app-2-1.noarch", "lib-2-1.noarch")
    snapshot(track.context())
    track.classes(testing={"evidence": {"min_hosts": 1, "soak": "1d"}})
    number = track.begin(background=True)["id"]
    track.run_due()
    track.world.later(60)
    if how == "revert":
        revert(track.context(), "development")
    else:
        track.world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch")
        snapshot(track.context())
        promote(track.context(), "testing", force=True, reason="x")
    held = track.world.held("development"), track.world.held("testing") if how != "revert" else ""
    track.world.later(DAY)
    track.run_due()
    body = track.look(number)
    assert body["state"] == "paused" and "meanwhile" in body["why"]
    assert held[0] == track.world.held("development") and track.entered == ["development"]
    assert how == "revert" or held[1] == track.world.held("testing")


def test_a_refusal_pauses_and_a_person_forces_it(track: Track) -> None:
    """Nothing reaches the next class; force wants a reason, and is journaled as that person's."""
    track.world.host("test2", "testing", "lib-1-1.noarch", "lib-1-1.noarch")
    track.transport = Living(track.world)
    body = track.begin()
    assert body["state"] == "paused" and "promotion to testing refused" in body["why"]
    assert track.entered == ["development"] and ("testing", "el9") not in (
        track.world.store.pointers()
    )
    with pytest.raises(UsageError, match="say why"):
        steering.resume(track.context("bob"), body["id"], force=True)
    answer = steering.resume(track.context("bob"), body["id"], force=True, reason="is going")
    assert answer["chain"]["state"] == "done"
    moves = [e for e in track.world.store.history() if e["action"] == "promote"]
    assert [(e["who"], e["reason"]) for e in moves] == [("bob", "is going"), ("alice", None)]


def test_a_forced_promotion_waits_for_its_approvers(track: Track) -> None:
    """The chain stands and tells whom it lacks; agreed to, it goes on as it was forced."""
    rule = {"min_hosts": 9}
    track.classes(testing={"evidence": rule, "approvers": 1})
    number = track.begin()["id"]
    steering.resume(track.context("bob"), number, force=True, reason="is going")
    body = track.look(number)
    assert body["state"] == "paused" and "approved by 0 of 1" in body["why"]
    (asked,) = [e["subject"] for e in track.world.store.history() if e["action"] == "ask"]
    assert asked[:14] in body["why"] and ("testing", "el9") not in track.world.store.pointers()
    steering.approve(track.context("cid"), asked)
    steering.resume(track.context("bob"), number)
    assert ("testing", "el9") in track.world.store.pointers()


def test_halt_between_two_classes(track: Track) -> None:
    """A chain that waits for evidence is halted at once; nothing begins until it is resumed."""
    track.classes(testing={"evidence": {"min_hosts": 1, "soak": "1h"}})
    number = track.begin(background=True)["id"]
    track.run_due()
    stopped = steering.halt(track.context(), everything=True)["halt"]["rollouts"]
    assert stopped == [{"id": number, "in_flight": [], "state": "halted"}]
    track.world.later(7200)
    assert track.run_due() == [] and track.entered == ["development"]
    steering.resume(track.context(), number, background=True)
    track.run_due()
    assert track.look(number)["state"] == "done"


def test_a_chain_and_its_rollout_are_one(track: Track) -> None:
    """Whichever is halted, neither goes on; resuming the chain resumes both."""
    track.level("canary", soak="1h")
    number = track.begin(background=True)["id"]
    track.run_due()
    body = track.look(number)
    assert (body["state"], body["why"]) == ("waiting", "level canary: soaking")
    for halted in (body["rollout"], number):
        steering.halt(track.context(), halted)
        assert track.look(number)["state"] == "halted"
        track.world.later(7200)
        assert track.run_due() == []
        steering.resume(track.context(), number, background=True)
    track.run_due()
    track.world.later(7200)
    track.run_due()
    assert track.look(number)["steps"][0]["state"] == "done"


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_chain_goes_on_with_its_rollout(track: Track, verb: str) -> None:
    """Here, where it was begun here, when its rollout is gone on with by that one's id."""
    track.world.section["levels"] = [{"all": {"concurrency": 1, "max_failures": 0}}]
    track.transport.hosts["web1"].faults["apply"] = "space"
    body = track.begin()
    assert (body["state"], body["alive"], track.entered) == ("halted", None, ["development"])
    del track.transport.hosts["web1"].faults["apply"]
    answer = getattr(steering, verb)(track.context(), body["rollout"])
    assert answer["rollout"]["state"] == "done"
    assert answer["chain"]["state"] == "done" and len(track.entered) == 3
    assert f"{body['id'][:14]} DONE" in render(answer)


def test_a_chain_that_was_stopped_itself_stays_so(track: Track) -> None:
    """Going on with its rollout promotes nothing that somebody stopped; it says what to type."""
    track.level("canary", soak="1h")
    number = track.begin(background=True)["id"]
    track.run_due()
    steering.halt(track.context(), number)
    rollout = track.look(number)["rollout"]
    answer = steering.resume(track.context(), rollout)
    assert (answer["rollout"]["state"], answer["chain"]["state"]) == ("done", "halted")
    assert track.entered == ["development"] and track.run_due() == []
    assert f"salt-run cpacman.resume {number[:14]}" in render(answer)


def test_a_chain_goes_on_in_the_background_with_its_rollout(track: Track) -> None:
    """Who leaves the rollout to the engine leaves the chain to it."""
    track.world.section["levels"] = [{"all": {"concurrency": 1, "max_failures": 0}}]
    track.transport.hosts["web1"].faults["apply"] = "space"
    body = track.begin()
    del track.transport.hosts["web1"].faults["apply"]
    steering.resume(track.context(), body["rollout"], background=True)
    track.run_due()
    assert track.look(body["id"])["state"] == "done" and len(track.entered) == 3


def test_who_carries_a_chain_on_elsewhere_shows_life(track: Track) -> None:
    """A machine that is gone holds it for ten minutes, not for ever; one that lives keeps it."""
    number = track.begin(background=True)["id"]
    store, now = track.world.store, track.world.now
    store.own_chain(number, seen="", owner="elsewhere:1:1", at=now)
    assert track.run_due() == [] and track.look(number)["alive"]
    track.world.now += 500
    store.beat_chain(number, owner="elsewhere:1:1", at=track.world.now)
    track.world.now += 500
    assert track.run_due() == []
    track.world.later(200)
    assert not track.look(number)["alive"] and "carry" in track.run_due()
    assert track.look(number)["state"] == "done"


@pytest.mark.parametrize("by_rollout", [False, True])
def test_cancel_ends_both(track: Track, by_rollout: bool) -> None:
    """For good: a chain by its own id, or because its rollout was cancelled."""
    track.level("canary", soak="1h")
    number = track.begin(background=True)["id"]
    track.run_due()
    rollout = track.look(number)["rollout"]
    steering.cancel(track.context(), rollout if by_rollout else number)
    track.run_due()
    assert track.look(number)["state"] == "cancelled"
    assert steering.rollout(track.context(), rollout)["rollout"]["state"] == "cancelled"
    with pytest.raises(UsageError, match="is cancelled"):
        steering.resume(track.context(), number)


def test_a_wish_forbids_what_would_begin(track: Track) -> None:
    """A rollout that is just being planned when the halt is committed is not created any more."""
    store = track.world.store
    begun = store.start_rollout

    def late(*arguments: Any, **more: Any) -> None:
        if len(track.entered) == 1:
            number = store.chains()[0].id
            store.wish_chain(number, "halt", at=track.world.now, who="bob")
        begun(*arguments, **more)

    store.start_rollout = late  # type: ignore[method-assign]
    body = track.begin()
    assert body["state"] == "halted" and track.entered == ["development"]
    assert track.started["test1"] == 0


def test_whoever_halts_a_chain_may_die_over_it(track: Track) -> None:
    """The wish holds for its rollout at once, before anybody has asked that, too."""
    track.level("canary", soak="1h")
    number = track.begin(background=True)["id"]
    track.run_due()
    rollout, started = track.look(number)["rollout"], dict(track.started)
    track.world.store.wish_chain(number, "halt", at=track.world.now, who="bob")
    assert track.world.store.rollout_row(rollout)["wish"] == "halt"
    track.world.later(7200)
    track.run_due()
    assert steering.rollout(track.context(), rollout)["rollout"]["state"] == "halted"
    assert dict(track.started) == started and track.entered == ["development"]


def test_freeze_stops_the_promotion(track: Track) -> None:
    """The first class goes on; the next one is promoted to when the freeze is over."""
    track.world.section["freeze"] = [
        {"from": "2027-01-01", "until": "2027-01-20", "classes": ["testing"], "reason": "audit"}
    ]
    number = track.begin(background=True)["id"]
    track.run_due()
    body = track.look(number)
    assert body["state"] == "waiting" and "promotion to testing: frozen: audit" in body["why"]
    with pytest.raises(SafetyError, match="frozen: audit"):
        promote(track.context(), "testing")
    assert track.entered == ["development"] and body["until"] > track.world.now
    track.world.later(body["until"] - track.world.now + 1)
    track.run_due()
    assert track.look(number)["state"] == "done"


def test_each_class_s_demands_are_checked_before_the_first(track: Track) -> None:
    """A ticket of the last class, rights in any, and classes that don't follow on each other."""
    track.classes(production={"ticket": "CHG[0-9]+"})
    with pytest.raises(SafetyError, match="production wants one"):
        track.begin()
    track.world.section["access"] = {"promote": {"testing": ["bob"]}}
    with pytest.raises(SafetyError, match="alice may not promote testing"):
        track.begin(ticket="CHG1")
    with pytest.raises(UsageError, match="no class is skipped: testing"):
        track.begin("development", "production")
    with pytest.raises(UsageError, match="there is no class 'prod'"):
        track.begin("prod")
    with pytest.raises(UsageError, match="there is no level 'cannary'"):
        steering.deploy(track.context(), Selection(), classes=("all",), levels=("cannary",))
    with pytest.raises(UsageError, match="limit it by levels"):
        steering.deploy(track.context(), Selection(tgt="web1"), classes=("all",))
    assert track.world.store.chains() == [] and track.entered == []


def test_rights_that_were_taken_meanwhile(track: Track) -> None:
    """The engine carries on what alice began only as long as alice may."""
    track.classes(testing={"evidence": {"min_hosts": 1, "soak": "1h"}})
    number = track.begin(background=True)["id"]
    track.run_due()
    track.world.section["access"] = {"promote": {"testing": ["bob"]}}
    track.world.later(7200)
    track.run_due()
    body = track.look(number)
    assert body["state"] == "paused" and "alice may not promote testing" in body["why"]
    assert access.ENGINE not in {entry["who"] for entry in track.world.store.history()}


def test_approval_of_a_class_on_the_way(track: Track) -> None:
    """The chain stands as its rollout does, and is approved of by its own id."""
    track.classes(testing={"approvers": 1})
    number = track.begin(background=True)["id"]
    track.run_due()
    body = track.look(number)
    assert body["state"] == "paused" and "approve" in render({"chain": body})
    with pytest.raises(SafetyError, match="alice started it"):
        steering.approve(track.context("alice"), number)
    steering.approve(track.context("bob"), number)
    steering.resume(track.context(), number)
    track.run_due()
    assert track.look(number)["state"] == "done"


def test_a_profile_has_its_own_evidence(track: Track) -> None:
    """In an emergency a promotion waits as the profile says, with a reason."""
    track.classes(testing={"evidence": {"min_hosts": 2, "soak": "2d"}})
    track.world.section["profiles"] = {
        "emergency": {"evidence": {"min_hosts": 1, "soak": "10m"}, "soak": "0s"}
    }
    with pytest.raises(SafetyError, match="say why"):
        track.begin(profile="emergency")
    begun = track.world.now
    body = track.begin(profile="emergency", reason="log4j")
    assert body["state"] == "done" and 600 <= track.world.now - begun < 3600
    with pytest.raises(UsageError, match="no profile 'emergncy'"):
        promote(track.context(), "testing", profile="emergncy")


def test_a_class_without_hosts_is_passed_through(track: Track) -> None:
    """There is nobody to deploy to; what comes after it is promoted all the same."""
    track.world.hosts.discard("test1")
    body = track.begin()
    assert body["state"] == "done" and body["steps"][1]["rollout"] is None
    assert track.entered == ["development", "production"] and "has no host" in render(
        {"chain": body}
    )


class Killed(BaseException):
    """The process is gone."""


def test_killed_after_any_commit(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was committed last, the engine goes on: no class twice, no host started twice."""
    track.classes(production={"evidence": {"min_hosts": 1, "soak": "1h"}})
    number = track.begin(background=True)["id"]
    owners = itertools.count(2**30)

    def dead(pid: int) -> str:
        return f"{socket.gethostname()}:{next(owners)}:1"

    for where in ("chaining", "chains", "jobs"):
        monkeypatch.setattr(f"cpacman.commands.{where}.owner_of", dead)
    kills = 0
    for most in itertools.count(1):
        with monkeypatch.context() as patched:
            _kill_after(patched, most)
            try:
                track.run_due()
            except Killed:
                kills += 1
                continue
        if track.look(number)["state"] == "done":
            break
        track.world.later(3601)
    assert kills > 12 and track.entered == ["development", "testing", "production"]
    assert {name: n for name, n in track.started.items() if n != 1} == {}
    moves = [e["subject"] for e in track.world.store.history() if e["action"] == "promote"]
    assert sorted(moves) == ["production", "testing"]


def _kill_after(monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    """Let the process die right after that many commits."""
    plain: Callable[..., Any] = Store._write
    count = itertools.count(1)

    @contextmanager
    def write(self: Store) -> Any:
        number = next(count)
        if number > commits:
            raise Killed  # what is dead tidies nothing up
        with plain(self) as connection:
            yield connection
        if number == commits:
            raise Killed

    monkeypatch.setattr(Store, "_write", write)


def test_two_carriers(track: Track) -> None:
    """Only one process carries a chain on; a second one is told so."""
    number = track.begin(background=True)["id"]
    track.world.store.own_chain(number, seen="", owner=owner_of(os.getpid()), at=1.0)
    assert track.run_due() == []
    with pytest.raises(CpacmanError, match="another process"):
        steering.resume(track.context(), number)


def test_a_wish_in_the_moment_in_which_it_is_left_waiting(track: Track) -> None:
    """It is halted then, and does not go on when the evidence is there."""
    track.classes(testing={"evidence": {"min_hosts": 1, "soak": "1h"}})
    store = track.world.store
    number = track.begin(background=True)["id"]
    move = store.move_chain

    def late(chain: str, *, state: str, **more: Any) -> Any:
        if state == "waiting":
            store.wish_chain(chain, "halt", at=track.world.now, who="bob")
        return move(chain, state=state, **more)

    store.move_chain = late  # type: ignore[method-assign]
    track.run_due()
    assert track.look(number)["state"] == "halted"
    track.world.later(7200)
    assert track.run_due() == [] and track.entered == ["development"]


def test_a_class_that_is_tried_again_is_waited_for(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody retries hosts of a class while the next one is planned: that is planned again."""
    number = track.begin(background=True)["id"]
    store, real = track.world.store, chaining.planning.plan
    before: list[str] = []

    def plan(context: Context, selection: Selection, **more: Any) -> Any:
        if selection.class_ == "testing":
            row = store.rollouts()[0]
            before.append(row["state"])
            if len(before) == 1:
                store.own_rollout(row["id"], seen=row["owner"], owner="")
                store.go_on_rollout(
                    row["id"], expected="done", owner="", at=1.0, who="bob", verb="retry"
                )
        return real(context, selection, **more)

    monkeypatch.setattr(chaining.planning, "plan", plan)
    track.run_due()
    assert before == ["done", "done"], "only what is done lets the next one begin"
    assert track.look(number)["state"] == "done"
    assert track.entered == ["development", "testing", "production"]


def test_what_others_hold_is_not_waited_for_without_end(
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits so long and no longer leaves it waiting; somebody else goes on with it."""
    number = track.begin(background=True)["id"]

    def plan(*_: Any, **__: Any) -> Any:
        raise ConflictError(Problem("test1", "is in another rollout"))

    monkeypatch.setattr(chaining.planning, "plan", plan)
    begun = track.world.now
    chaining.carry(track.context(), number, patience=150.0)
    body = track.look(number)
    assert body["state"] == "waiting" and "is in another rollout" in body["why"]
    assert track.world.now - begun < 150.0
