"""Which class may take which snapshot: the rules of promotion, pure.

Invariants: the first class takes snapshots; each next one takes what the class before it holds,
whole, and no class is skipped; what is refused says what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpacman.errors import Problem, SafetyError, UsageError


def first_class(classes: Sequence[str]) -> str:
    """Return the class that takes snapshots."""
    return classes[0]


def class_before(classes: Sequence[str], name: str) -> str | None:
    """Return the class that `name` is promoted from, None for the first.

    Raises:
        UsageError: there is no such class.
    """
    index = _index(classes, name)
    return classes[index - 1] if index else None


def next_class(classes: Sequence[str], name: str) -> str | None:
    """Return the class that takes what `name` holds, None for the last.

    Raises:
        UsageError: there is no such class.
    """
    index = _index(classes, name)
    return classes[index + 1] if index + 1 < len(classes) else None


def _index(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        known = ", ".join(classes)
        raise UsageError(Problem("to", f"there is no class {name!r}", f"there are: {known}"))
    return list(classes).index(name)


def check_promotion(classes: Sequence[str], to: str) -> str:
    """Return the class that class `to` takes its snapshots from.

    Raises:
        UsageError: there is no such class, or it is the first, which takes snapshots itself.
    """
    before = class_before(classes, to)
    if before is None:
        raise UsageError(
            Problem(
                "to",
                f"{to} is the first class, nothing is promoted to it",
                "it takes snapshots: salt-run cpacman.snapshot",
            )
        )
    return before


def snapshot_to_promote(
    classes: Sequence[str],
    pointers: Mapping[str, str],
    *,
    to: str,
    channel: str,
    snapshot: str | None = None,
) -> str:
    """Return the id of the snapshot that class `to` takes for a channel.

    Args:
        classes: their names, in order.
        pointers: class -> full snapshot id, for this channel; a class without one is left out.
        to: the class that takes it.
        channel: for messages.
        snapshot: the full id that was asked for, if any.

    Raises:
        UsageError: there is no such class, or it takes snapshots itself.
        SafetyError: the class before holds nothing, or another snapshot than the one asked for.
    """
    before = check_promotion(classes, to)
    held = pointers.get(before)
    if held is None:
        fault = f"the class before, {before}, holds no snapshot"
    elif snapshot not in (None, held):
        fault = f"takes what {before} holds, {held[:14]}, not {str(snapshot)[:14]}"
    else:
        return held
    raise SafetyError(Problem(f"{channel}: {to}", fault, _how_to_fill(classes, before, channel)))


def _how_to_fill(classes: Sequence[str], name: str, channel: str) -> str:
    if name == first_class(classes):
        return f"no class is skipped; first: salt-run cpacman.snapshot channel={channel}"
    return f"no class is skipped; first: salt-run cpacman.promote to={name} channel={channel}"
