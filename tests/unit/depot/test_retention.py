"""Which snapshots stay: pure rules, each with the case that misses it."""

from __future__ import annotations

import pytest

from cpacman.depot.retention import GRACE, Held, Rules, reasons_to_stay

DAY = 86400.0
NOW = 1_800_000_000.0
RULES = Rules(keep=2, seconds=30 * DAY)


def held(*moves: tuple[str, str, float]) -> list[Held]:
    """Return moves of classes in one channel; ages in days."""
    return [Held(class_, "el9", snapshot, NOW - age * DAY) for class_, snapshot, age in moves]


def staying(moves: list[Held], rules: Rules = RULES, **more: object) -> dict[str, tuple[str, ...]]:
    """Return what stays, of what was ever held; everything is a year old."""
    known = {one.snapshot: NOW - 365 * DAY for one in moves} | dict(more.pop("known", {}))  # type: ignore[call-overload]
    rollouts = more.pop("rollouts", {})
    found = reasons_to_stay(known, moves, rules=rules, rollouts=rollouts, now=NOW)  # type: ignore[arg-type]
    return {one: why for one, why in found.items() if why}


LONG = held(("dev", "s-a", 300), ("dev", "s-b", 200), ("dev", "s-c", 100), ("dev", "s-d", 90))


def test_current_and_previous_stay_however_old() -> None:
    """Of four that a class held, the last two stay."""
    assert staying(LONG) == {"s-d": ("dev",), "s-c": ("dev before",)}
    assert set(staying(LONG, Rules(3, 0))) == {"s-b", "s-c", "s-d"}


def test_the_window_is_about_when_it_was_left() -> None:
    """What a class held within the days stays, though it was put there long before."""
    moves = held(("dev", "s-a", 300), ("dev", "s-b", 29), ("dev", "s-c", 2), ("dev", "s-d", 1))
    assert set(staying(moves)) == {"s-a", "s-b", "s-c", "s-d"}
    assert set(staying(moves, Rules(2, 20 * DAY))) == {"s-b", "s-c", "s-d"}
    assert set(staying(moves, Rules(2, DAY / 2))) == {"s-c", "s-d"}


def test_the_last_ones_are_different_ones() -> None:
    """A class that went to and fro keeps two snapshots, not one twice."""
    moves = held(("dev", "s-a", 99), ("dev", "s-b", 98), ("dev", "s-c", 97), ("dev", "s-b", 96))
    assert staying(moves) == {"s-b": ("dev",), "s-c": ("dev before",)}


def test_every_class_counts_for_itself() -> None:
    """What another class still holds, or held before, stays."""
    moves = LONG + held(("prod", "s-a", 250))
    assert staying(moves)["s-a"] == ("prod",)
    assert "s-b" not in staying(moves)


def test_what_was_just_left_or_made_stays_in_any_case() -> None:
    """With no days at all there is an hour of grace, for whoever read the pointer before."""
    hour = GRACE / DAY
    moves = held(("dev", "s-a", 9), ("dev", "s-b", hour / 3), ("dev", "s-c", hour / 4))
    moves += held(("dev", "s-d", hour / 5))
    assert set(staying(moves, Rules(2, 0))) == {"s-a", "s-b", "s-c", "s-d"}
    young = {"s-x": NOW - GRACE / 2, "s-y": NOW - GRACE * 2, "s-z": NOW + 9 * DAY}
    found = staying([], known=young)
    assert found == {"s-x": ("new",), "s-z": ("new",)}


def test_rollouts_and_pins() -> None:
    """A rollout that has not ended, and a pin by prefix, keep what nothing else does."""
    assert staying(LONG, rollouts={"r-123456789abcdef": ["s-a"]})["s-a"] == (
        "rollout r-123456789abc",
    )
    pinned = staying(LONG, Rules(2, 0, ("s-b",)))
    assert pinned["s-b"] == ("pinned",) and "s-a" not in pinned


@pytest.mark.parametrize("keep", [2, 3, 9])
def test_what_is_unknown_is_not_invented(keep: int) -> None:
    """A move to a snapshot that is not in the depot any more says nothing of others."""
    found = reasons_to_stay({"s-d": 0.0}, LONG, rules=Rules(keep, 0), rollouts={}, now=NOW)
    assert found == {"s-d": ("dev",)}
