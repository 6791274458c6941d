"""What a class offers: nothing that is not for it, and nothing that is blocked."""

from __future__ import annotations

import pytest

from cpacman.commands.deploying import deploy
from cpacman.commands.explaining import advisories
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.pointing import From, revert, seed
from cpacman.commands.prestaging import stage
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.errors import SafetyError
from cpacman.model import Request
from cpacman.store import Block
from tests.unit.commands.world import World

WAYS = {
    "plan": Request(),
    "named upgrade": Request(upgrade=("agent",)),
    "named install": Request(install=("helper",)),
    "named version": Request(install=("agent-2-1.noarch",)),
    "dependency": Request(install=("tool-3-1",)),
    "sync": Request(sync=True),
    "path or provide": Request(install=("helper = 2-1",)),
}


def everything(world: World, request: Request, class_: str = "development") -> set[str]:
    """Return every NEVRA that any host of a class would get."""
    body = plan(world.context(), Selection(class_=class_), request=request)["plan"]
    return {
        action["nevra"]
        for transaction in body["transactions"].values()
        for action in transaction["actions"]
        if action["action"] != "remove"
    }


@pytest.mark.parametrize("way", WAYS)
def test_repository_of_another_class_is_not_there(world: World, way: str) -> None:
    """By no way of planning does a host get what is in a repository for other classes only."""
    world.repositories(base={}, edr={"classes": ["production"]})
    world.mirror("lib-2-1.noarch", "tool-3-1.noarch")
    world.mirror("agent-2-1.noarch", "helper-2-1.noarch", "fresh-2-1.noarch", name="edr")
    world.host("dev1", "development", "agent-1-1.noarch", "old-1-1.noarch", "lib-1-1.noarch")
    world.host("prod1", "production", "agent-1-1.noarch", "old-1-1.noarch", "lib-1-1.noarch")
    taken = snapshot(world.context())["snapshot"]["channels"]["el9"]["id"]
    assert everything(world, WAYS[way]) <= {"lib-2-1.noarch"}
    world.store.point("production", "el9", taken, expected=None, action="t", at=1, who="me")
    here = everything(world, WAYS[way], "production")
    assert here & {"agent-2-1.noarch", "helper-2-1.noarch", "fresh-2-1.noarch"}


@pytest.mark.parametrize("how", ["promote", "seed", "revert"])
def test_pointing_a_class_there_opens_nothing(world: World, how: str) -> None:
    """However testing came to a snapshot, what is for production only is not there for it."""
    world.repositories(base={}, edr={"classes": ["production"]})
    world.mirror("lib-2-1.noarch")
    world.mirror("agent-2-1.noarch", "helper-2-1.noarch", "fresh-2-1.noarch", name="edr",
                 advisories={"A-2026:1": ["agent-2-1.noarch"]})  # fmt: skip
    world.host("test1", "testing", "agent-1-1.noarch", "old-1-1.noarch", "lib-1-1.noarch")
    snapshot(world.context())
    if how == "seed":
        seed(world.context(), "testing", source=From(class_="development"))
    else:
        promote(world.context(), "testing")
    if how == "revert":
        world.mirror("lib-3-1.noarch")
        snapshot(world.context())
        promote(world.context(), "testing")
        revert(world.context(), "testing")
    for way in WAYS.values():
        assert everything(world, way, "testing") <= {"lib-2-1.noarch"}
    lacking = advisories(world.context(), Selection(class_="testing"))["advisories"]
    assert lacking["classes"]["testing"]["advisories"] == []


@pytest.mark.parametrize("limit", [{"classes": ["production"]}, {"only": "role:edr"}])
@pytest.mark.parametrize("how", ["held", "revert", "promote"])
def test_limit_that_came_later_holds_at_once(
    world: World, how: str, limit: dict[str, object]
) -> None:
    """What was limited after its snapshot was taken is for nobody else, held or gone back to."""
    world.repositories(base={}, edr={})
    world.mirror("lib-2-1.noarch")
    world.mirror("agent-2-1.noarch", "helper-2-1.noarch", "fresh-2-1.noarch", name="edr",
                 advisories={"A-2026:1": ["agent-2-1.noarch"]})  # fmt: skip
    for name, class_ in (("test1", "testing"), ("prod1", "production")):
        world.host(name, class_, "agent-1-1.noarch", "old-1-1.noarch", "lib-1-1.noarch",
                   role="edr" if name == "prod1" else "web")  # fmt: skip
    snapshot(world.context())
    if how != "promote":
        promote(world.context(), "testing")
        assert "agent-2-1.noarch" in everything(world, Request(), "testing")
    if how == "revert":
        world.mirror("lib-3-1.noarch")
        snapshot(world.context())
        promote(world.context(), "testing")
        revert(world.context(), "testing")
    world.repositories(base={}, edr=limit)
    if how == "promote":
        proof = promote(world.context(), "testing")["promote"]["channels"]["el9"]["proof"]
        (group,) = proof["groups"]
        assert [one["nevra"] for one in group["actions"]] == ["lib-2-1.noarch"]
    for way in WAYS.values():
        assert everything(world, way, "testing") <= {"lib-2-1.noarch"}
    if "classes" in limit:
        lacking = advisories(world.context(), Selection(class_="testing"))["advisories"]
        assert lacking["classes"]["testing"]["advisories"] == []
    promote(world.context(), "production")
    assert "agent-2-1.noarch" in everything(world, Request(), "production")


def test_blocked_version_is_held_with_its_reason(world: World) -> None:
    """A plan leaves a blocked version, says so with reason and last day, and takes the next one."""
    world.mirror("lib-2-1.noarch", "lib-3-1.noarch", "tool-2-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch", "tool-1-1.noarch")
    snapshot(world.context())
    world.store.block(
        [Block("lib-3", "nevra", "crashes", "2999-12-31", "ann", 1.0),
         Block("tool-2*", "nevra", "of the past", "2001-01-01", "ann", 1.0)]
    )  # fmt: skip
    assert everything(world, Request()) == {"lib-2-1.noarch", "tool-2-1.noarch"}
    body = plan(world.context(), Selection(class_="development"), request=Request())["plan"]
    (transaction,) = body["transactions"].values()
    (held,) = transaction["held"]
    assert (held["candidate"], held["reason"]) == ("lib-3-1.noarch", "blocked")
    assert held["detail"] == "blocked by block list, crashes, to 2999-12-31"


def test_blocked_snapshot_offers_nothing(world: World) -> None:
    """Hosts of a class that points at a blocked snapshot are not planned, with the way out."""
    world.mirror("lib-2-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch")
    taken = snapshot(world.context())["snapshot"]["channels"]["el9"]["id"]
    world.store.block([Block(taken, "snapshot", "mirror was half done", None, "ann", 1.0)])
    body = plan(world.context(), Selection(class_="development"), request=Request())["plan"]
    assert body["failed"]["dev1"]["error"] == "blocked"
    assert "mirror was half done" in body["failed"]["dev1"]["causes"][0]


def test_advisory_that_two_repositories_tell_of(world: World) -> None:
    """Each names its own packages only; what is outstanding is all of them."""
    world.repositories(app={}, base={})
    world.mirror("lib-2-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    world.mirror("tool-2-1.noarch", name="app", advisories={"A-2026:1": ["tool-2-1.noarch"]})
    for name, nevra in (("web1", "lib-1-1.noarch"), ("web2", "tool-1-1.noarch")):
        world.host(name, "development", nevra)
    snapshot(world.context())
    told = advisories(world.context(), Selection(class_="development"))["advisories"]
    (row,) = told["classes"]["development"]["advisories"]
    assert (row["on"], row["packages"]) == (["web1", "web2"], ["lib", "tool"])


def test_plan_of_before_a_repository_was_limited_is_not_deployed(world: World) -> None:
    """Nor does a host get it by a plan that was frozen while it was still for that class."""
    world.repositories(base={}, edr={})
    world.mirror("lib-2-1.noarch")
    world.mirror("agent-2-1.noarch", "helper-2-1.noarch", name="edr")
    world.host("dev1", "development", "agent-1-1.noarch", "lib-1-1.noarch")
    snapshot(world.context())
    frozen = plan(world.context(), Selection(class_="development"), request=Request())["plan"]
    world.repositories(base={}, edr={"classes": ["production"]})
    words = "edr: is for production only by now"
    with pytest.raises(SafetyError, match=words):
        deploy(world.context(), Selection(), plan=frozen["plan_id"])
    with pytest.raises(SafetyError, match=words):
        stage(world.context(), plan=frozen["plan_id"])
