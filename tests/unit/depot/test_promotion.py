"""Promotion: in order, what the class before holds or held, and no class skipped unsaid."""

from __future__ import annotations

import pytest

from cpacman.depot.promotion import (
    Choice,
    Move,
    check_promotion,
    choose,
    class_before,
    enters_at,
    held,
    is_for,
    moves_of,
    way_back,
)
from cpacman.errors import Problem, UsageError

CLASSES = ("development", "testing", "production")


def moves(*lines: str) -> list[Move]:
    """Return moves from `class snapshot [action]`, an hour apart, the first at 1."""
    found = []
    for hour, words in enumerate(line.split() for line in lines):
        action = words[2] if len(words) > 2 else "promote"
        found.append(Move(words[0], words[1], action, 1 + 3600 * hour))
    return found


STORY = moves(
    "development s-1 snapshot", "testing s-1", "development s-2 snapshot", "testing s-2",
    "development s-3 snapshot", "production s-1",
)  # fmt: skip


def test_order() -> None:
    """Each class has the one before it, the first has none."""
    assert [class_before(CLASSES, one) for one in CLASSES] == [None, "development", "testing"]


@pytest.mark.parametrize("to", ["development", "prod", ""])
def test_classes_that_nothing_is_promoted_to(to: str) -> None:
    """The first class takes snapshots; unknown ones are named with those there are."""
    with pytest.raises(UsageError):
        check_promotion(CLASSES, to)


@pytest.mark.parametrize(
    ("to", "snapshot", "expected"),
    [
        ("testing", None, Choice("s-3")),
        ("production", None, Choice("s-2")),
        ("production", "s-2", Choice("s-2")),
        ("production", "s-1", Choice("s-1")),  # testing held it
        ("production", "s-3", Choice("s-3", ("testing",))),
        ("testing", "s-9", Choice("s-9", ("development",))),
        ("production", "s-9", Choice("s-9", ("development", "testing"))),
    ],
)
def test_what_is_taken(to: str, snapshot: str | None, expected: Choice) -> None:
    """What the class before holds, or a named one that it held; of any other, who is skipped."""
    assert choose(CLASSES, STORY, to=to, channel="el9", snapshot=snapshot) == expected


def test_until_a_date() -> None:
    """What the class before pointed at then, not what it points at now."""
    hour = 3600.0
    assert choose(CLASSES, STORY, to="production", channel="c", until=2 * hour) == Choice("s-1")
    assert choose(CLASSES, STORY, to="production", channel="c", until=9 * hour) == Choice("s-2")
    none = choose(CLASSES, STORY, to="production", channel="c", until=0.5)
    assert isinstance(none, Problem) and "by then" in none.message


def test_classes_that_hold_nothing_are_filled_first() -> None:
    """A class before that holds nothing is named, with what to do first."""
    empty = choose(CLASSES, [], to="testing", channel="el9")
    assert isinstance(empty, Problem) and "cpacman.snapshot channel=el9" in empty.mend
    empty = choose(CLASSES, STORY[:1], to="production", channel="el9")
    assert isinstance(empty, Problem) and "promote to=testing channel=el9" in empty.mend


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        (["a s-1"], ["s-1"]),
        (["a s-1", "a s-2", "b s-9"], ["s-2", "s-1"]),
        (["a s-1", "a s-2", "a s-3", "a s-2 revert"], ["s-2", "s-1"]),
        (["a s-1", "a s-2", "a s-3", "a s-1 revert", "a s-4"], ["s-4", "s-1"]),
        (["a s-1", "a s-2", "a s-1 revert", "a s-2"], ["s-2", "s-1"]),
        (["a s-1", "a s-2", "a s-1"], ["s-1", "s-2"]),
    ],
)
def test_way_back(lines: list[str], expected: list[str]) -> None:
    """Each step back leads further, and what was gone back from is no way back."""
    assert way_back(moves(*lines), "a") == expected


def test_what_was_held() -> None:
    """All of it, the newest first, each once; of one channel only."""
    assert held(moves("a s-1", "a s-2", "a s-1 revert"), "a") == ["s-1", "s-2"]
    row = {"class": "a", "snapshot": "s-1", "action": "seed", "at": 1.0}
    rows = [{**row, "channel": "el8"}, {**row, "channel": "el9"}]
    assert moves_of(rows, "el9") == [Move("a", "s-1", "seed", 1.0)]


def test_repositories_for_some_classes() -> None:
    """One that names classes is for no other, and enters at the first of them in their order."""
    assert is_for((), "testing") and is_for(("testing",), "testing")
    assert not is_for(("production",), "testing")
    assert enters_at(("production", "testing"), CLASSES) == "testing"
    assert enters_at((), CLASSES) == "development"
    assert enters_at(("gone",), CLASSES) is None
