"""The block list as a command: everywhere at once, with its reason, and who has it."""

from __future__ import annotations

import pytest

from cpacman.commands import blocking, deploying
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.errors import InputError, SafetyError, UsageError
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.world import World


@pytest.fixture
def ready(world: World) -> World:
    """A snapshot with an advisory, one host that has the bad version and one that has not."""
    world.mirror("lib-2-1.noarch", "tool-2-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    world.host("dev1", "development", "lib-1-1.noarch", "tool-1-1.noarch")
    world.host("dev2", "development", "lib-2-1.noarch", "tool-2-1.noarch")
    snapshot(world.context())
    return world


@pytest.mark.parametrize("spec", ["lib-2-1", "lib-2*", "A-2026:1"])
def test_block_names_the_hosts_that_have_it(ready: World, spec: str) -> None:
    """Of a version, a glob or an advisory; a test says the same and blocks nothing."""
    told = blocking.block(ready.context(), [spec], reason="crashes", test=True)["block"]
    assert told["blocks"][0]["hosts"] == {"dev2": ["lib-2-1.noarch"]}
    assert blocking.blocks(ready.context())["blocks"]["blocks"] == []
    made = blocking.block(ready.context(), [spec], reason="crashes", until="2999-01-01")
    screen = render(made)
    assert "crashes, to 2999-01-01 (me)" in screen and "1 host with it: dev2" in screen
    (row,) = blocking.blocks(ready.context())["blocks"]["blocks"]
    assert row["hosts"] == {"dev2": ["lib-2-1.noarch"]} and row["holds"]
    assert ready.journal()[-1] == ("block", spec)
    blocking.unblock(ready.context(), [spec], reason="mended")
    assert render(blocking.blocks(ready.context())) == "nothing is blocked"
    assert ready.journal()[-1] == ("unblock", spec)


def test_plan_of_before_is_not_deployed(ready: World) -> None:
    """A plan that contains what is blocked by now is refused, naming it; a newer one leaves it."""
    body = plan(ready.context(), Selection(class_="development"), request=Request())["plan"]
    stored = ready.store.plan(body["plan_id"])
    assert blocking.problems_of(ready.context(), stored.plan) == []
    blocking.block(ready.context(), ["A-2026:1", ready.held("development")], reason="crashes")
    transport = type("Silent", (), {"check": lambda *_: [], "name": "fake"})()
    with pytest.raises(SafetyError) as caught:
        deploying.deploy(ready.context(transport=transport), Selection(), plan=body["plan_id"])
    assert "lib-2-1.noarch: is in the plan and blocked (A-2026:1): crashes" in str(caught.value)
    assert "is blocked: crashes" in str(caught.value)
    assert ready.store.rollouts() == []


def test_blocked_snapshot_is_not_pointed_at(ready: World) -> None:
    """What a mirror has by chance again is refused while it is blocked, and taken after that."""
    bad = ready.held("development")
    ready.mirror("lib-3-1.noarch")
    snapshot(ready.context())
    good = ready.held("development")
    blocking.block(ready.context(), [bad[:14]], reason="half a mirror")
    ready.mirror("lib-2-1.noarch", "tool-2-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    with pytest.raises(SafetyError, match="is blocked: half a mirror"):
        snapshot(ready.context())
    assert ready.held("development") == good
    blocking.unblock(ready.context(), [bad[:14]])
    snapshot(ready.context())
    assert ready.held("development") == bad


def test_what_can_not_be_blocked(ready: World) -> None:
    """Everything wrong is named at once, and a snapshot has to be there."""
    with pytest.raises(UsageError) as caught:
        blocking.block(ready.context(), ["a b"], until="tomorrow")
    assert [p.path for p in caught.value.problems] == ["reason", "until", "block"]
    with pytest.raises(UsageError, match="is over already"):
        blocking.block(ready.context(), ["a"], reason="r", until="2001-01-01")
    with pytest.raises(UsageError, match="name what is bad"):
        blocking.block(ready.context(), [], reason="r")
    with pytest.raises(InputError):
        blocking.block(ready.context(), ["s-123456"], reason="r")
    with pytest.raises(UsageError, match="is not blocked"):
        blocking.unblock(ready.context(), ["a"])


@pytest.mark.parametrize("way", ["plan", "deploy", "promote"])
def test_advisory_that_a_snapshot_does_not_know_is_blocked_there(ready: World, way: str) -> None:
    """The package came before its advisory: what one class knows of it holds for all of them."""
    ready.mirror("lib-2-1.noarch", "tool-1-1.noarch")
    for name, class_ in (("test1", "testing"), ("prod1", "production")):
        ready.host(name, class_, "lib-1-1.noarch", "tool-1-1.noarch")
    snapshot(ready.context())
    promote(ready.context(), "testing")
    ready.mirror("lib-2-1.noarch", "tool-1-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    snapshot(ready.context())
    before = plan(ready.context(), Selection(class_="testing"), request=Request())["plan"]
    blocking.block(ready.context(), ["A-2026:1"], reason="crashes")
    if way == "plan":
        body = plan(ready.context(), Selection(class_="testing"), request=Request())["plan"]
        (transaction,) = body["transactions"].values()
        assert [one["reason"] for one in transaction["held"]] == ["blocked"]
        assert list(transaction["actions"]) == []
    elif way == "deploy":
        found = blocking.problems_of(ready.context(), ready.store.plan(before["plan_id"]).plan)
        assert "lib-2-1.noarch: is in the plan and blocked (A-2026:1): crashes" in str(found[0])
    else:
        row = promote(ready.context(), "production", test=True)["promote"]["channels"]["el9"]
        assert row["blocked"] == {"lib-2-1.noarch": "A-2026:1"}


def test_what_nothing_is_called_is_said(ready: World) -> None:
    """A slip of the finger blocks nothing, and so it is told; what is only offered is known."""
    told = blocking.block(ready.context(), ["lbi-2-1", "tool-2-1.noarch"], reason="crashes")
    known = {one["spec"]: one["known"] for one in told["block"]["blocks"]}
    assert known == {"lbi-2-1": False, "tool-2-1.noarch": True}
    assert "lbi-2-1  crashes (me)\n  nothing that a class holds or a host has" in render(told)


def held_for(world: World, package: str) -> list[str]:
    """Why a plan of the first class leaves a package."""
    body = plan(world.context(), Selection(class_="development"), request=Request())["plan"]
    return [one["reason"] for t in body["transactions"].values() for one in t["held"]
            if one["candidate"].startswith(package)]  # fmt: skip


@pytest.mark.parametrize("when", ["known", "later"])
def test_advisory_that_the_mirror_forgot_stays_blocked(ready: World, when: str) -> None:
    """What it delivered once is blocked, whether that was known at the block or learned since."""
    without = ("lib-2-1.noarch", "tool-2-1.noarch")
    if when == "later":
        ready.mirror(*without)
        snapshot(ready.context())
        blocking.block(ready.context(), ["A-2026:1"], reason="crashes")
        assert held_for(ready, "lib") == []
        ready.mirror(*without, advisories={"A-2026:1": ["lib-2-1.noarch"]})
        snapshot(ready.context())
    else:
        blocking.block(ready.context(), ["A-2026:1"], reason="crashes")
    ready.mirror(*without)
    snapshot(ready.context())
    assert held_for(ready, "lib") == ["blocked"]
    (row,) = blocking.blocks(ready.context())["blocks"]["blocks"]
    assert (row["packages"], row["known"]) == (["lib-2-1.noarch"], True)
    assert row["hosts"] == {"dev2": ["lib-2-1.noarch"]}
    blocking.block(ready.context(), ["A-2026:1"], reason="still")
    assert held_for(ready, "lib") == ["blocked"]
    blocking.unblock(ready.context(), ["A-2026:1"])
    assert held_for(ready, "lib") == []


@pytest.mark.parametrize("specs", [["*"], ["*.noarch"], ["lib*", "tool-*"]])
def test_a_glob_that_fits_nearly_everything_is_forced(ready: World, specs: list[str]) -> None:
    """It says how many packages that is, a test does, too; what is named one by one is meant."""
    for test in (True, False):
        with pytest.raises(SafetyError, match=r"fits 2 of 2 packages.*force=True"):
            blocking.block(ready.context(), specs, reason="stop", test=test)
    assert ready.store.blocks() == []
    blocking.block(ready.context(), specs, reason="stop", force=True)
    assert len(ready.store.blocks()) == len(specs)
    blocking.block(ready.context(), ["lib", "tool"], reason="both are bad")
