"""What takes a transaction back: its actions the other way round, for what a host has now. Pure.

Invariant: the packages that an undoing leaves are those from before the transaction and nothing
else; where that can't be said, because they changed again since, it is an error and no guess.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from cpacman.model import Action, ActionKind

_OPPOSITE = {
    ActionKind.UPGRADE: ActionKind.DOWNGRADE,
    ActionKind.DOWNGRADE: ActionKind.UPGRADE,
}


class Undo(NamedTuple):
    """One step back: `nevra` comes or leaves, `from_` is what it replaces."""

    action: ActionKind
    nevra: str
    from_: str | None = None


class Undoing(NamedTuple):
    """The steps back, and what has changed again since, so that there is no way back."""

    steps: tuple[Undo, ...]
    changed: tuple[str, ...]


def undo(actions: Iterable[Action], present: Collection[str], *, cut_off: bool = False) -> Undoing:
    """Return how to take a transaction back.

    Args:
        actions: those of the transaction.
        present: the NEVRAs that the host has now.
        cut_off: whether the transaction was cut off; then every package of it is put right, also
            one that looks as before, for its files may not be.
    """
    done = list(actions)
    came = {a.nevra for a in done if a.action is not ActionKind.REMOVE}
    replaced = {a.nevra for a in done if a.action in _OPPOSITE}
    steps: set[Undo] = set()
    for action in done:
        steps.update(_steps(action, replaced))
    if cut_off:
        return Undoing(_sorted(steps), ())
    needed = [one for one in steps if _is_needed(one, present)]
    left = {one.nevra for one in needed if one.action is not ActionKind.REMOVE}
    changed = [
        one.from_ for one in needed if one.from_ and one.from_ not in present and one.from_ in came
    ]
    changed += sorted(left & set(present))
    return Undoing(_sorted(needed), tuple(sorted(changed)))


def _steps(action: Action, replaced: Collection[str]) -> Iterable[Undo]:
    if action.action is ActionKind.REMOVE:
        yield Undo(ActionKind.INSTALL, action.nevra)
    elif action.action is ActionKind.REINSTALL:
        yield Undo(ActionKind.REINSTALL, action.nevra)
    elif action.action in _OPPOSITE and action.from_:
        yield Undo(_OPPOSITE[action.action], action.from_, action.nevra)
    else:
        if action.from_:
            yield Undo(ActionKind.INSTALL, action.from_)
        if action.nevra not in replaced:
            yield Undo(ActionKind.REMOVE, action.nevra)


def _is_needed(one: Undo, present: Collection[str]) -> bool:
    if one.action is ActionKind.REINSTALL:
        return False
    if one.action is ActionKind.REMOVE:
        return one.nevra in present
    return one.nevra not in present


def _sorted(steps: Iterable[Undo]) -> tuple[Undo, ...]:
    return tuple(sorted(steps, key=lambda one: (one.nevra, one.action.value, one.from_ or "")))
