"""Taking rollouts back on paper: what comes back is what the host had, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands.retention import prune
from cpacman.commands.rollback import rollback
from cpacman.commands.snapshots import snapshot
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import SafetyError
from cpacman.model import Package
from tests.unit.commands.world import Present, World

OLD = "tool-1-1.noarch"
NEW = "tool-2-1.noarch"


def back(world: World, rollout: str) -> dict[str, Any]:
    """Return the plan that takes a rollout back."""
    answer = rollback(world.context(transport=Present(world)), rollout=rollout)
    plan: dict[str, Any] = answer["plan"]
    return plan


def comes(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the one action of a plan that brings something."""
    (found,) = [a for t in plan["transactions"].values() for a in t["actions"] if a["sha256"]]
    return dict(found)


def package(world: World, nevra: str, repository: str = "base") -> Package:
    """Return a package of what development holds."""
    held = load_snapshot(world.context().settings.depot, world.held("development"))
    (found,) = [p for p in held.packages if (p.nevra, p.repository) == (nevra, repository)]
    return found


def test_what_comes_back_is_the_very_build(world: World) -> None:
    """A mirror that has another package of the same name and version by now gives nothing."""
    world.mirror(OLD)
    world.host("web1", "development", OLD)
    snapshot(world.context())
    old = package(world, OLD)
    world.mirror(OLD, NEW)
    world.rebuild(OLD)
    snapshot(world.context())
    assert package(world, OLD).sha256 != old.sha256
    rollout = world.roll("development")
    found = comes(back(world, rollout))
    assert (found["action"], found["nevra"], found["sha256"]) == ("downgrade", OLD, old.sha256)


def test_another_build_is_no_way_back(world: World) -> None:
    """Where the depot has the name only, nothing is planned, and the build is named."""
    world.mirror(NEW)
    world.host("web1", "development", OLD)
    world.rebuild(OLD)
    snapshot(world.context())
    rollout = world.roll("development")
    with pytest.raises(SafetyError, match=r"tool-1-1.noarch \(V, built .*\) is in no snapshot"):
        back(world, rollout)


def test_origin_that_the_journal_knows_changes_nothing(world: World) -> None:
    """What CPacMan installed itself is known again by its build, too."""
    world.mirror(OLD)
    world.host("web1", "development", OLD)
    snapshot(world.context())
    old = package(world, OLD)
    world.store.record("applied", "r-0", at=1.0, who="me", host="web1", changes=[
        {"action": "install", "name": "tool", "nevra": OLD, "from": None, "repository": "base"}
    ])  # fmt: skip
    assert world.store.origins(["web1"]) == {"web1": {OLD: "base"}}
    world.mirror(OLD, NEW)
    world.rebuild(OLD)
    snapshot(world.context())
    assert comes(back(world, world.roll("development")))["sha256"] == old.sha256


@pytest.mark.parametrize("names", [("base", "zother"), ("zother", "base")])
def test_what_comes_back_is_of_a_repository_that_the_class_sees(
    world: World, names: tuple[str, str]
) -> None:
    """One package in two repositories, of which one is for production only."""
    mine, theirs = names
    world.repositories(**{mine: {}, theirs: {"classes": ["production"]}})
    world.mirror(OLD, name=mine)
    world.mirror(OLD, name=theirs)
    world.host("web1", "development", OLD)
    snapshot(world.context())
    world.mirror(OLD, NEW, name=mine)
    snapshot(world.context())
    assert comes(back(world, world.roll("development")))["repository"] == mine


def test_removed_snapshots_are_not_asked(world: World) -> None:
    """What prune took away is named once, as the package that is missing."""
    world.section["retention"] = {"keep": 2, "days": 0}
    for nevras in ((OLD, "lib-1-1.noarch"), (OLD,), (OLD, NEW, "lib-2-1.noarch")):
        world.mirror(*nevras)
        snapshot(world.context())
        world.later(7200)
    world.host("web1", "development", OLD, "lib-1-1.noarch")
    rollout = world.roll("development")
    world.later(60)
    assert len(prune(world.context())["prune"]["removed"]) == 1
    said: list[str] = []
    context = world.context(transport=Present(world))
    context.reporter.line = said.append  # type: ignore[method-assign]
    with pytest.raises(SafetyError, match=r"lib-1-1.noarch .* is in no snapshot"):
        rollback(context, rollout=rollout)
    assert said == []


def test_what_is_protected_by_now_does_not_leave(world: World) -> None:
    """Told beforehand, since the host would refuse; a narrower line lets it leave."""
    world.mirror("agent-2-1.noarch", "helper-2-1.noarch", "agent-1-1.noarch")
    world.host("dev1", "development", "agent-1-1.noarch")
    snapshot(world.context())
    rollout = world.roll("development")
    world.section["policy"] = [{"protect": "help*"}]
    with pytest.raises(SafetyError, match="would remove helper, which is protected"):
        back(world, rollout)
    world.section["policy"] += [{"allow_removal": "helper", "scope": "role:x"}]
    world.host("dev1", "development", "agent-2-1.noarch", "helper-2-1.noarch", role="x")
    (transaction,) = back(world, rollout)["transactions"].values()
    assert [(a["action"], a["nevra"]) for a in transaction["actions"]] == [
        ("downgrade", "agent-1-1.noarch"),
        ("remove", "helper-2-1.noarch"),
    ]


def test_a_kernel_beside_others_can_leave(world: World) -> None:
    """What was installed beside the one that runs leaves again, protected or not by its name."""
    world.mirror("kernel-core-2-1.noarch")
    world.host("dev1", "development", "kernel-core-1-1.noarch")
    snapshot(world.context())
    (transaction,) = back(world, world.roll("development"))["transactions"].values()
    assert [(a["action"], a["nevra"]) for a in transaction["actions"]] == [
        ("remove", "kernel-core-2-1.noarch")
    ]


def test_the_kernel_that_runs_by_now_stays(world: World) -> None:
    """Told beforehand, with what to do about it: the host would refuse."""
    world.mirror("kernel-core-2-1.noarch")
    world.host("dev1", "development", "kernel-core-1-1.noarch")
    snapshot(world.context())
    rollout = world.roll("development")
    world.kernel = "2-1.noarch"
    world.host("dev1", "development", "kernel-core-1-1.noarch", "kernel-core-2-1.noarch")
    with pytest.raises(SafetyError, match=r"the kernel that runs.*boot the kernel from before"):
        back(world, rollout)
