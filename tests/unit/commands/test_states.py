"""States of the master: compared first, acted only where something differs, told either way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cpacman.commands import blocking, states
from cpacman.commands.membership import accept
from cpacman.commands.states import (
    Told,
    blocked,
    deployed,
    promoted,
    run_state,
    snapshot_present,
)
from cpacman.errors import SafetyError, UsageError
from cpacman.rollout.owner import owner_of
from tests.unit.commands.world import World


@pytest.fixture
def fleet(world: World) -> World:
    """A mirror, and a host of each of two classes."""
    world.mirror("lib-2-1.noarch", "tool-3-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch")
    world.host("test1", "testing", "lib-2-1.noarch")
    return world


def ask(world: World, state: Any, test: bool = False, name: str = "x", **arguments: Any) -> Told:
    """Run a state as the door does, without Salt."""

    def sleep(seconds: float) -> None:
        world.now += seconds

    context = world.context()._replace(sleep=sleep, clock=lambda: world.now)
    told: Told = state(context, test, name, **arguments)
    return told


def test_a_snapshot_is_taken_once(fleet: World) -> None:
    """The second time the mirrors are as the snapshot has them; a test takes none."""
    looked = ask(fleet, snapshot_present, test=True)
    assert looked.result is None and not fleet.store.snapshots()
    first = ask(fleet, snapshot_present)
    assert first.result is True and first.changes == looked.changes
    assert first.changes == {"el9": {"old": None, "new": fleet.held("development")}}
    for test in (True, False):
        again = ask(fleet, snapshot_present, test=test)
        assert again.result is True and not again.changes
    fleet.mirror("lib-3-1.noarch")
    looked = ask(fleet, snapshot_present, test=True)
    assert looked.result is None and "TEST, nothing done" in looked.comment
    assert looked.changes == ask(fleet, snapshot_present).changes
    fleet.mirror("lib-2-1.noarch", "tool-3-1.noarch")
    blocking.block(fleet.context(), [first.changes["el9"]["new"]], reason="bad")
    for test in (True, False):
        with pytest.raises(SafetyError, match="is blocked: bad"):
            ask(fleet, snapshot_present, test=test)


def test_a_promotion_is_made_once(fleet: World) -> None:
    """A test shows the proof, the state promotes, and the second time there is nothing."""
    ask(fleet, snapshot_present)
    looked = ask(fleet, promoted, test=True, to="testing")
    assert looked.result is None and "proof" in looked.comment and "el9" in looked.changes
    assert ("testing", "el9") not in fleet.store.pointers()
    done = ask(fleet, promoted, name="testing", ticket="CHG1")
    assert done.result is True and fleet.held("testing") == done.changes["el9"]["new"]
    again = ask(fleet, promoted, to="testing")
    assert again.result is True and not again.changes
    assert fleet.store.history(ticket="CHG1")[0]["action"] == "promote"


def test_a_refused_promotion_is_a_failed_state(fleet: World) -> None:
    """Nothing moves, and the refusal stands in the comment, in a test as well."""
    ask(fleet, snapshot_present)
    fleet.section["classes"] = ["development", {"testing": {"evidence": {"min_hosts": 3}}}]
    for test in (True, False):
        told = ask(fleet, promoted, test=test, to="testing", wait="1h")
        assert told.result is False and "REFUSED" in told.comment and not told.changes
    assert ("testing", "el9") not in fleet.store.pointers()


def body(*refused: str, when: float | None) -> dict[str, Any]:
    """An answer of `promote` that refuses for these reasons."""
    rows = [{"path": path, "message": "m", "mend": ""} for path in refused]
    row = {"refused": rows, "evidence": {"when": when}, "new": True, "before": None, "id": "s-1"}
    return {"refused": bool(refused), "channels": {"el9": row}}


def test_only_time_is_waited_for(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak that ends within `wait` is waited for; a longer one, or another reason, is told."""
    answers: list[dict[str, Any]] = []
    monkeypatch.setattr(states.promoting, "promote", lambda *_, **__: {"promote": answers.pop(0)})
    monkeypatch.setattr(states, "render", lambda _: "screen")
    start = fleet.now
    answers[:] = [body("evidence s-1", when=start + 90)]
    told = ask(fleet, promoted, to="testing", wait="1m")
    assert told.result is False and told.comment.startswith("soaking, met at 20")
    assert fleet.now == start, "it does not wait for what it can't wait for"
    answers[:] = [body("evidence s-1", "db9", when=start + 5)]
    assert ask(fleet, promoted, to="testing", wait="1m").comment == "screen"
    answers[:] = [body("evidence s-1", when=start + 50), body(when=None), body(when=None)]
    assert ask(fleet, promoted, to="testing", wait="1m").result is True
    assert fleet.now == start + 50


def test_a_class_that_has_all_is_deployed(fleet: World) -> None:
    """No rollout is started where no host lacks anything."""
    ask(fleet, snapshot_present)
    ask(fleet, promoted, to="testing")
    told = ask(fleet, deployed, test=True, class_="testing")
    assert told.result is True and not told.changes
    looked = ask(fleet, deployed, test=True, class_="development")
    assert looked.result is None
    assert looked.changes == {"dev1": "upgrade lib-1-1.noarch -> lib-2-1.noarch"}
    assert not fleet.store.rollouts()


def test_hosts_that_wait_fail_no_deployment(fleet: World) -> None:
    """Who is not accepted gets nothing and is named; who can't be planned fails the state."""
    ask(fleet, snapshot_present)
    ask(fleet, promoted, to="testing")
    accept(fleet.context(), ["*"])
    fleet.section["membership"]["on_new"] = "hold"
    fleet.host("test2", "testing", "lib-1-1.noarch")
    told = ask(fleet, deployed, test=True, class_="testing")
    assert told.result is True and "salt-run cpacman.accept hosts=test2" in told.comment
    fleet.host("test1", "testing", "lib-1-1.noarch", "lib-2-1.noarch")
    told = ask(fleet, deployed, test=True, class_="testing")
    assert told.result is False and "NOT PLANNED test1" in told.comment


def test_a_rollout_of_another_process_is_waited_for(fleet: World) -> None:
    """After `wait` the state says what it waits for and when that is met; it starts nothing."""
    header = {"id": "r-1", "plan": "p-1", "class": "testing", "state": "running", "who": "me",
              "owner": owner_of(os.getpid()), "why": "level canary: soaking",
              "until": fleet.now + 7200}  # fmt: skip
    fleet.store.start_rollout(header, [("test1", "all", "t-1")], at=fleet.now)
    start = fleet.now
    told = ask(fleet, deployed, class_="testing", wait="1m")
    assert told.result is False
    assert "rollout r-1 of testing: level canary: soaking, met at" in told.comment
    assert fleet.now == start + 60
    assert len(fleet.store.rollouts()) == 1


def test_a_block_stands_once(fleet: World) -> None:
    """Told in a test, then made, and left alone as long as it holds; another day is a change."""
    how = {"name": "lib-9-1", "reason": "crashes"}
    assert ask(fleet, blocked, test=True, **how).result is None
    assert not fleet.store.blocks()
    assert set(ask(fleet, blocked, **how).changes) == {"lib-9-1"}
    assert not ask(fleet, blocked, **how).changes
    assert ask(fleet, blocked, **how, until="2999-12-31").changes
    with pytest.raises(UsageError, match="reason"):
        ask(fleet, blocked, specs=["tool-3"])


def test_what_is_wrong_is_a_failed_state(tmp_path: Path) -> None:
    """Misspelt arguments, a wrong configuration and bugs are comments, not tracebacks of Salt."""
    told = run_state("deployed", "x", {"clas": "testing"}, {}, "me")
    assert told["result"] is False and "did you mean class:?" in told["comment"]
    assert run_state("deployed", "x", {"class": "t"}, {}, "me")["result"] is False
    bug = run_state("deployed", "x", {}, {"cpacman": {"state_dir": 7}, "test": True}, "me")
    assert (bug["name"], bug["result"], bug["changes"]) == ("x", False, {})


def test_a_wait_that_is_no_time(fleet: World) -> None:
    """`wait: 2` has no unit."""
    ask(fleet, snapshot_present)
    with pytest.raises(UsageError, match="wait"):
        ask(fleet, deployed, class_="development", wait=2)


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ({"until": 20270331}, 'quote it: until: "..."'),
        ({"levls": ["canary"]}, "did you mean levels:?"),
    ],
)
def test_mends_are_those_of_a_state_file(
    fleet: World, arguments: dict[str, Any], mend: str
) -> None:
    """Nobody is told to quote for a shell what stands in YAML."""
    function = "blocked" if "until" in arguments else "deployed"
    told = run_state(function, "httpd-2-1", arguments, {"test": True}, "me")
    assert told["result"] is False and mend in told["comment"] and "='" not in told["comment"]
