"""Repositories that a plan leaves out, and those that a class does not see."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands.comparing import diff
from cpacman.commands.explaining import why
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.errors import UsageError
from cpacman.model import Request
from tests.unit.commands.world import World


@pytest.fixture
def two(world: World) -> World:
    """Two repositories of one origin, and a host of development that both have something for."""
    world.repositories(base={"origin": "os"}, extra={"origin": "os"})
    world.mirror("lib-2-1.noarch")
    world.mirror("tool-2-1.noarch", name="extra")
    world.host("dev1", "development", "lib-1-1.noarch", "tool-1-1.noarch")
    snapshot(world.context())
    return world


def planned(world: World, request: Request) -> list[str]:
    """What comes to the host."""
    body = plan(world.context(), Selection(class_="development"), request=request)["plan"]
    return [one["nevra"] for t in body["transactions"].values() for one in t["actions"]]


@pytest.mark.parametrize("sync", [False, True])
def test_nothing_is_taken_of_what_is_left_out(two: World, sync: bool) -> None:
    """By update and by sync; the plan has an id of its own, and `why` names the request."""
    everything = planned(two, Request(sync=sync))
    assert everything == ["lib-2-1.noarch", "tool-2-1.noarch"]
    request = Request(sync=sync, exclude_repos=("extra",))
    assert planned(two, request) == ["lib-2-1.noarch"]
    told = why(two.context(), "dev1", "tool", request=request)["why"]
    (newer,) = [one for one in told["candidates"] if one["nevra"] == "tool-2-1.noarch"]
    assert "this request leaves repository extra out" in str(newer["rules"])


def test_a_repository_that_is_not_there(two: World) -> None:
    """A slip of the finger leaves nothing out in silence."""
    with pytest.raises(UsageError, match="no repository 'extar' here; did you mean extra"):
        planned(two, Request(exclude_repos=("extar",)))


def test_less_than_all_is_no_evidence_of_all(two: World) -> None:
    """Hosts that were given one of two repositories did not run the snapshot."""
    two.section["classes"] = ["development", {"testing": {"evidence": {"min_hosts": 1}}}]
    two.roll("development", request=Request(exclude_repos=("extra",)))
    told = promote(two.context(), "testing", test=True)["promote"]["channels"]["el9"]
    assert [one["message"] for one in told["refused"]] == ["hosts 0 of 1"]


def names(body: dict[str, Any], row: str) -> list[str]:
    """The names in one row of a comparison."""
    return [one["name"] for one in body["diff"]["channels"]["el9"].get(row, ())]


@pytest.mark.parametrize("limit", [{"classes": ["testing"]}, {"only": "role:web"}])
def test_classes_differ_by_what_they_see(two: World, limit: dict[str, Any]) -> None:
    """Two classes on one snapshot: what is for neither host of one is no package of that class."""
    two.repositories(base={}, extra=limit)
    two.host("test1", "testing", "lib-1-1.noarch", role="web")
    two.host("test2", "testing", "lib-1-1.noarch")
    snapshot(two.context())
    promote(two.context(), "testing")
    assert two.held("development") == two.held("testing")
    body = diff(two.context(), "development", "testing")
    assert (names(body, "added"), names(body, "removed")) == (["tool"], [])
    body = diff(two.context(), "testing", "development")
    assert (names(body, "added"), names(body, "removed")) == ([], ["tool"])
