"""A class back where it was, and a class that is filled for the first time."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands import blocking
from cpacman.commands.pointing import From, revert, seed
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.errors import SafetyError, UsageError
from cpacman.report.screens import render
from tests.unit.commands.world import World

DAY = 86400.0


@pytest.fixture
def story(world: World) -> World:
    """Three snapshots a day apart: testing came by all of them, production holds the first."""
    for generation in (1, 2, 3):
        world.mirror(f"lib-{generation}-1.noarch")
        snapshot(world.context())
        promote(world.context(), "testing")
        if generation == 1:
            promote(world.context(), "production")
        world.later(DAY)
    return world


def ids(world: World) -> list[str]:
    """The snapshots in the order in which they were taken."""
    return [row["id"] for row in world.store.snapshots()]


def back(world: World, **arguments: Any) -> str:
    """Revert testing and return what it holds then."""
    revert(world.context(), "testing", **arguments)
    return world.held("testing")


def test_each_step_back_leads_further(story: World) -> None:
    """Twice back is the first one, and then there is no way; a promotion leads forward again."""
    one, two, three = ids(story)
    test = revert(story.context(), "testing", test=True)["revert"]
    assert test["channels"]["el9"]["id"] == two and story.held("testing") == three
    assert back(story, reason="crashes", ticket="CHG1") == two
    assert story.journal()[-1] == ("revert", "testing")
    assert back(story) == one
    with pytest.raises(UsageError, match="held nothing else before"):
        back(story)
    promote(story.context(), "testing")
    assert story.held("testing") == three
    assert back(story, snapshot=one[:14]) == one


def test_only_to_what_it_held(story: World) -> None:
    """Another class's snapshot is no way back, and neither is a blocked one."""
    one, two, three = ids(story)
    with pytest.raises(UsageError, match="production never held it"):
        revert(story.context(), "production", snapshot=three)
    blocking.block(story.context(), [two], reason="bad")
    with pytest.raises(SafetyError, match="is blocked: bad"):
        back(story)
    assert back(story, snapshot=one) == one
    with pytest.raises(UsageError, match="there is no class"):
        revert(story.context(), "staging")


def test_only_what_moved_last_goes_back(story: World) -> None:
    """A channel that did not move with the last promotion stays, unless it is named."""
    channels = story.section["channels"]
    channels["el8"] = {"match": {"major": 8},
                       "repositories": {"base": {"path": str(story.base / "old")}}}  # fmt: skip
    for generation in (1, 2):
        story.mirror(f"tool-{generation}-1.noarch", name="old")
        snapshot(story.context(), ["el8"])
        promote(story.context(), "testing", ["el8"])
        story.later(DAY)
    el9, el8 = story.held("testing"), story.held("testing", "el8")
    assert set(revert(story.context(), "testing")["revert"]["channels"]) == {"el8"}
    assert story.held("testing") == el9 and story.held("testing", "el8") != el8
    revert(story.context(), "testing", ["el9"])
    assert story.held("testing") != el9


def fill(world: World, into: str = "staging", **arguments: Any) -> str:
    """Fill a class and return what it holds."""
    force, reason = arguments.pop("force", False), arguments.pop("reason", None)
    seed(world.context(), into, source=From(**arguments), force=force, reason=reason)
    return world.held(into)


@pytest.fixture
def inserted(story: World) -> World:
    """A class between testing and production that holds nothing yet."""
    story.section["classes"] = ["development", "testing", "staging", "production"]
    return story


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ({"class_": "testing"}, 2), ({"class_": "production"}, 0), ({"until": "50h"}, 0),
        ({"until": "36h"}, 1),
    ],
)  # fmt: skip
def test_filling_an_inserted_class(inserted: World, arguments: dict[str, str], number: int) -> None:
    """From the class before, from the one behind it, or from a date; and it can go on from it."""
    assert fill(inserted, **arguments) == ids(inserted)[number]
    assert inserted.journal()[-1] == ("seed", "staging")
    told = promote(inserted.context(), "production")["promote"]["channels"]["el9"]
    assert told["id"] == ids(inserted)[number]


def test_freeze_stops_a_fill_and_no_way_back(inserted: World) -> None:
    """Nothing new comes to a class in a freeze, by whatever name; what it held is nothing new."""
    inserted.section["freeze"] = [{"from": "1990-01-01", "until": "2999-01-01", "reason": "audit"}]
    with pytest.raises(SafetyError, match="frozen: audit"):
        fill(inserted, class_="testing")
    revert(inserted.context(), "testing")
    assert inserted.journal()[-1] == ("revert", "testing")


def test_only_an_empty_class_is_filled(inserted: World) -> None:
    """One that holds something is promoted to; and one source is named."""
    with pytest.raises(UsageError, match="holds s-"):
        fill(inserted, "testing", class_="production")
    for source in ({}, {"class_": "testing", "until": "1d"}):
        with pytest.raises(UsageError, match="name one of"):
            fill(inserted, **source)
    with pytest.raises(UsageError, match="there is no class"):
        fill(inserted, class_="qa")
    with pytest.raises(UsageError, match="nothing to fill it with"):
        fill(inserted, until="2001-01-01")


def test_filling_skips_no_class_unsaid(inserted: World) -> None:
    """What testing never held fills the class behind it by force and with a reason only."""
    inserted.mirror("lib-1-1.noarch", "lib-2-1.noarch")
    snapshot(inserted.context())
    new = inserted.held("development")
    with pytest.raises(SafetyError, match="testing never held it"):
        fill(inserted, snapshot=new)
    with pytest.raises(UsageError, match="needs a reason"):
        fill(inserted, snapshot=new, force=True)
    assert fill(inserted, snapshot=new, force=True, reason="new class") == new
    assert inserted.store.history()[-1]["detail"]["skipped"] == ["testing"]


def test_screens(inserted: World) -> None:
    """From where to where, and what to do next."""
    text = render(seed(inserted.context(), "staging", source=From(class_="testing")))
    assert text.startswith("seed staging\n") and "nothing -> s-" in text
    text = render(revert(inserted.context(), "testing", test=True))
    assert "TEST, nothing done" in text and "~1" in text
    assert "ahead" in render(revert(inserted.context(), "testing"))
