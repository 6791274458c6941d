"""Promotion: in order, whole, and no class skipped."""

from __future__ import annotations

import pytest

from cpacman.depot.promotion import (
    check_promotion,
    class_before,
    first_class,
    next_class,
    snapshot_to_promote,
)
from cpacman.errors import SafetyError, UsageError

CLASSES = ("development", "testing", "production")


def test_order() -> None:
    """Each class has the one before and the one after it, the ends have none."""
    assert first_class(CLASSES) == "development"
    assert [class_before(CLASSES, one) for one in CLASSES] == [None, "development", "testing"]
    assert [next_class(CLASSES, one) for one in CLASSES] == ["testing", "production", None]


def test_what_is_promoted() -> None:
    """A class takes what the class before it holds, by name or without naming it."""
    held = {"development": "s-2", "testing": "s-1"}
    assert snapshot_to_promote(CLASSES, held, to="testing", channel="el9") == "s-2"
    assert snapshot_to_promote(CLASSES, held, to="production", channel="el9") == "s-1"
    assert (
        snapshot_to_promote(CLASSES, held, to="production", channel="el9", snapshot="s-1") == "s-1"
    )


@pytest.mark.parametrize("to", ["development", "prod", ""])
def test_classes_that_nothing_is_promoted_to(to: str) -> None:
    """The first class takes snapshots; unknown ones are named with those there are."""
    with pytest.raises(UsageError):
        check_promotion(CLASSES, to)


def test_skipping_is_refused() -> None:
    """A snapshot that the class before does not hold is refused, with what to do first."""
    held = {"development": "s-2", "testing": "s-1"}
    with pytest.raises(SafetyError, match="promote to=testing"):
        snapshot_to_promote(CLASSES, held, to="production", channel="el9", snapshot="s-2")
    with pytest.raises(SafetyError, match="promote to=testing"):
        snapshot_to_promote(CLASSES, {"development": "s-2"}, to="production", channel="el9")
    with pytest.raises(SafetyError, match="snapshot channel=el9"):
        snapshot_to_promote(CLASSES, {}, to="testing", channel="el9")
