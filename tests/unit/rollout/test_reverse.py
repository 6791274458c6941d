"""Transactions turned round: what comes leaves, what left comes, and nothing is guessed."""

from __future__ import annotations

import pytest

from cpacman.model import Action, ActionKind
from cpacman.rollout.reverse import undo


def action(kind: str, nevra: str, old: str | None = None) -> Action:
    """An action of a transaction, as far as turning it round needs it."""
    name, version = nevra.split("-")
    return Action(
        action=ActionKind(kind), name=name, epoch=0, version=version, release="1", arch="noarch",
        nevra_=f"{nevra}-1.noarch", from_=f"{old}-1.noarch" if old else None,
    )  # fmt: skip


def back(*actions: Action, present: str, cut_off: bool = False) -> tuple[list[str], list[str]]:
    """Return the steps as `kind nevra <- from`, and what changed since."""
    have = {f"{label}-1.noarch" for label in present.split()}
    found = undo(actions, have, cut_off=cut_off)
    steps = [
        " ".join(filter(None, (s.action.value, s.nevra.split("-1.")[0],
                               s.from_ and "<- " + s.from_.split("-1.")[0])))
        for s in found.steps
    ]  # fmt: skip
    return steps, list(found.changed)


@pytest.mark.parametrize(
    ("one", "present", "expected"),
    [
        (action("upgrade", "a-2", "a-1"), "a-2", ["downgrade a-1 <- a-2"]),
        (action("downgrade", "a-1", "a-2"), "a-1", ["upgrade a-2 <- a-1"]),
        (action("install", "b-1"), "b-1", ["remove b-1"]),
        (action("remove", "c-1"), "b-1", ["install c-1"]),
        (action("obsolete", "n-2", "o-1"), "n-2", ["remove n-2", "install o-1"]),
        (action("reinstall", "a-1"), "a-1", []),
        (action("upgrade", "a-2", "a-1"), "a-1", []),
        (action("install", "b-1"), "a-1", []),
    ],
)
def test_each_kind(one: Action, present: str, expected: list[str]) -> None:
    """Each kind of action has its opposite; what is as before needs none."""
    steps, changed = back(one, present=present)
    assert (sorted(steps), changed) == (sorted(expected), [])


def test_one_that_upgrades_itself_and_replaces_another() -> None:
    """It goes back to its own old version, and the other one comes back; it is not removed."""
    steps, _ = back(
        action("upgrade", "n-2", "n-1"), action("obsolete", "n-2", "o-1"), present="n-2"
    )
    assert sorted(steps) == ["downgrade n-1 <- n-2", "install o-1"]


def test_no_way_back_from_what_changed_since() -> None:
    """A version that is neither the old nor the new one is somebody's later decision."""
    steps, changed = back(action("upgrade", "a-2", "a-1"), present="a-3")
    assert changed == ["a-2-1.noarch"] and steps


def test_cut_off_everything_is_put_right() -> None:
    """After a cut a package that looks as before may lack files, so it comes again, too."""
    steps, changed = back(
        action("upgrade", "a-2", "a-1"), action("install", "b-1"), action("reinstall", "c-1"),
        present="a-1 a-2 c-1", cut_off=True,
    )  # fmt: skip
    assert sorted(steps) == ["downgrade a-1 <- a-2", "reinstall c-1", "remove b-1"]
    assert changed == []
