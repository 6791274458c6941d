"""The board and the differences: what classes hold, how hosts stand, where snapshots come from."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands.board import status
from cpacman.commands.comparing import diff
from cpacman.commands.looking import show
from cpacman.commands.pointing import revert
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.depot.partial import Wanted
from cpacman.errors import UsageError
from cpacman.report.screens import render
from tests.unit.commands.world import World

ONE = ("lib-1-1.noarch", "tool-1-1.noarch")


@pytest.fixture
def ready(world: World) -> World:
    """Testing came by two snapshots, production holds the first, a host of each stands somehow."""
    world.mirror(*ONE)
    snapshot(world.context())
    promote(world.context(), "testing")
    promote(world.context(), "production")
    world.mirror(*ONE, "lib-2-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    snapshot(world.context())
    promote(world.context(), "testing")
    world.host("new", "testing", "lib-2-1.noarch", "tool-1-1.noarch")
    world.host("old", "testing", *ONE)
    world.host("far", "production", "lib-2-1.noarch", "tool-1-1.noarch")
    world.host("gone", "production", "lib-1-1.noarch", "lib-1-1.noarch")
    world.later(7200)
    return world


def states(world: World) -> dict[str, str]:
    """How each host stands."""
    rows = status(world.context())["status"]["hosts"]
    return {host: row["state"] for host, row in rows.items()}


def test_how_hosts_stand(ready: World) -> None:
    """What a plan would change is behind, what is newer is ahead, what can't be planned unknown."""
    assert states(ready) == {"new": "current", "old": "behind", "far": "ahead", "gone": "unknown"}
    board = status(ready.context())["status"]["board"]["el9"]
    assert board["testing"]["hosts"] == {"current": 1, "behind": 1}
    assert board["production"]["hosts"] == {"ahead": 1, "unknown": 1}
    text = render(status(ready.context()))
    assert "1 current 1 behind" in text and ", was s-" in text
    revert(ready.context(), "testing")
    assert states(ready)["new"] == "ahead" and states(ready)["old"] == "current"


def test_only_some_classes_are_looked_at(ready: World) -> None:
    """Others are neither solved nor shown; unknown ones are named."""
    body = status(ready.context(), ["production"])["status"]
    assert body["classes"] == ["production"] and set(body["hosts"]) == {"far", "gone"}
    with pytest.raises(UsageError, match="there is no class"):
        status(ready.context(), ["prod"])


def rows(answer: dict[str, Any], what: str) -> list[tuple[str, list[str], list[str], list[str]]]:
    """Name, before, after and advisories of one kind of difference."""
    return [(r["name"], r["before"], r["after"], r.get("advisories", []))
            for r in answer["diff"][what]]  # fmt: skip


def test_class_and_host(ready: World) -> None:
    """Only what the host has is compared, in the order that was typed, with the advisories."""
    ready.host("old", "testing", *ONE, "agent-1-1.noarch")
    there = diff(ready.context(), "old", "testing")
    assert there["diff"]["kind"] == "host and class"
    assert rows(there, "updated") == [("lib", ["1-1"], ["2-1"], ["A-2026:1"])]
    assert rows(there, "removed") == [("agent", ["1-1"], [], [])] and not rows(there, "added")
    back = diff(ready.context(), "testing", "old")
    assert rows(back, "updated") == [("lib", ["2-1"], ["1-1"], ["A-2026:1"])]
    assert rows(back, "added") == [("agent", [], ["1-1"], [])]
    text = render(there)
    assert "1-1 -> 2-1  A-2026:1" in text and "testing  el9  s-" in text
    first = diff(ready.context(), ready.held("production"), "far")
    assert rows(first, "updated") == [("lib", ["1-1"], ["2-1"], [])]


def test_classes_and_snapshots_with_advisories(ready: World) -> None:
    """What came tells which advisories deliver it."""
    between = diff(ready.context(), "production", "testing")["diff"]["channels"]["el9"]
    (row,) = between["updated"]
    assert (row["name"], row["after"], row["advisories"]) == ("lib", ["2-1"], ["A-2026:1"])
    with pytest.raises(UsageError, match="or a class or a snapshot and a host"):
        diff(ready.context(), ready.held("testing"), "production")


def test_lineage_is_shown(ready: World) -> None:
    """A part tells its parents and how it was chosen, and which class came to it how."""
    ready.mirror(*ONE, "lib-2-1.noarch", "agent-1-1.noarch")
    snapshot(ready.context())
    promote(ready.context(), "testing")
    promote(ready.context(), "production", wanted=Wanted(packages=("lib",)), force=True,
            reason="gone is going")  # fmt: skip
    made = show(ready.context(), ready.held("production"))
    assert made["snapshot"]["lineage"]["how"] == "packages: lib"
    assert [(m["class"], m["action"]) for m in made["snapshot"]["moves"]] == [
        ("production", "promote")
    ]  # fmt: skip
    text = render(made)
    assert "packages: lib" in text and "promote production" in text
