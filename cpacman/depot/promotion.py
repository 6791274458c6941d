"""Which class may take which snapshot: the rules of promotion, pure.

Invariants: the first class takes snapshots; each next one takes what the class before it holds or
held, and skips none unless that is said; what a class went back from is not what it goes back to;
a repository is for the classes that it names, and for all of them when it names none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cpacman.errors import Problem, UsageError

if TYPE_CHECKING:
    from cpacman.depot.snapshot import Snapshot


class Move(NamedTuple):
    """One move of a class's pointer in one channel; `at` is in seconds since the epoch."""

    class_: str
    snapshot: str
    action: str
    at: float


def moves_of(rows: Iterable[Mapping[str, Any]], channel: str) -> list[Move]:
    """Return one channel's moves from the rows of the store, in their order."""
    return [
        Move(row["class"], row["snapshot"], row["action"], row["at"])
        for row in rows
        if row["channel"] == channel
    ]


# ---- classes in their order ------------------------------------------------------------------


def class_before(classes: Sequence[str], name: str) -> str | None:
    """Return the class that `name` is promoted from, None for the first.

    Raises:
        UsageError: there is no such class.
    """
    index = index_of(classes, name)
    return classes[index - 1] if index else None


def index_of(classes: Sequence[str], name: str, what: str = "to") -> int:
    """Return a class's place in the order.

    Raises:
        UsageError: there is no such class; `what` is the argument that named it.
    """
    if name not in classes:
        known = ", ".join(classes)
        raise UsageError(Problem(what, f"there is no class {name!r}", f"there are: {known}"))
    return list(classes).index(name)


def check_promotion(classes: Sequence[str], to: str) -> str:
    """Return the class that class `to` takes its snapshots from.

    Raises:
        UsageError: there is no such class, or it is the first, which takes snapshots itself.
    """
    before = class_before(classes, to)
    if before is None:
        what = f"{to} is the first class, nothing is promoted to it"
        raise UsageError(Problem("to", what, "it takes snapshots: salt-run cpacman.snapshot"))
    return before


# ---- what classes hold and held --------------------------------------------------------------


def held(moves: Iterable[Move], class_: str) -> list[str]:
    """Return the snapshots that a class holds or held, the newest first, each once."""
    mine = [move.snapshot for move in moves if move.class_ == class_]
    return list(dict.fromkeys(reversed(mine)))


def held_at(moves: Iterable[Move], class_: str, moment: float) -> str | None:
    """Return the snapshot that a class pointed at in a moment."""
    mine = [move.snapshot for move in moves if move.class_ == class_ and move.at <= moment]
    return mine[-1] if mine else None


def way_back(moves: Iterable[Move], class_: str) -> list[str]:
    """Return the snapshots that a class came by, the newest first; it stands on the first.

    Who goes back takes the steps off that lie between, so going back twice leads further back.
    """
    path: list[str] = []
    for move in moves:
        if move.class_ != class_:
            continue
        if move.action == "revert" and move.snapshot in path:
            del path[path.index(move.snapshot) :]
        path = [one for one in path if one != move.snapshot]
        path.append(move.snapshot)
    return path[::-1]


class Choice(NamedTuple):
    """What a class is to take, and the classes before it that never held it."""

    snapshot: str
    skipped: tuple[str, ...] = ()


def choose(
    classes: Sequence[str],
    moves: Sequence[Move],
    *,
    to: str,
    channel: str,
    snapshot: str | None = None,
    until: float | None = None,
) -> Choice | Problem:
    """Return the snapshot that class `to` takes for a channel, or why there is none.

    Args:
        classes: their names, in order.
        moves: of this channel, in their order.
        to: the class that takes it.
        channel: for messages.
        snapshot: the full id that was asked for; nothing means what the class before holds.
        until: what the class before held in this moment is meant.

    Raises:
        UsageError: there is no such class, or it takes snapshots itself.
    """
    before = check_promotion(classes, to)
    if snapshot is not None:
        return Choice(snapshot, skipped(classes, moves, to=to, snapshot=snapshot))
    found = held_at(moves, before, float("inf") if until is None else until)
    if found is not None:
        return Choice(found)
    if until is not None and held(moves, before):
        return Problem(f"{channel}: {before}", "held nothing yet by then", "name a later date")
    how = "take one: salt-run cpacman.snapshot" if before == classes[0] else (
        f"no class is skipped; first: salt-run cpacman.promote to={before}"
    )  # fmt: skip
    return Problem(f"{channel}: {before}", "holds no snapshot yet", f"{how} channel={channel}")


def skipped(
    classes: Sequence[str], moves: Sequence[Move], *, to: str, snapshot: str
) -> tuple[str, ...]:
    """Return the classes right before `to` that hold and held a snapshot at no time.

    What one class has proved need not have been in all before it: only what lies between counts.
    """
    found: list[str] = []
    for name in reversed(classes[: index_of(classes, to)]):
        if snapshot in held(moves, name):
            break
        found.append(name)
    return tuple(reversed(found))


# ---- repositories for some classes -----------------------------------------------------------


def is_for(named: Sequence[str], class_: str) -> bool:
    """Whether a repository that names these classes is for a class."""
    return not named or class_ in named


def enters_at(named: Sequence[str], classes: Sequence[str]) -> str | None:
    """Return the first class that a repository is for, where its evidence begins."""
    return next((name for name in classes if is_for(named, name)), None)


def seen_by(snapshot: Snapshot, class_: str) -> Snapshot:
    """Return a snapshot as a class sees it: without the repositories that are not for it.

    What is not there can't be planned, named, needed, or come as anything's successor; an advisory
    that delivers nothing else is not there either.
    """
    return leaving_out(
        snapshot, {one.name for one in snapshot.repositories if not is_for(one.classes, class_)}
    )


def leaving_out(snapshot: Snapshot, unseen: Set[str]) -> Snapshot:
    """Return a snapshot as if it had been taken without some repositories."""
    rows = tuple(one for one in snapshot.repositories if one.name not in unseen)
    if len(rows) == len(snapshot.repositories):
        return snapshot
    names = {one.name for one in rows}
    packages = tuple(one for one in snapshot.packages if one.repository in names)
    there = {one.nevra for one in packages}
    hidden = {one.nevra for one in snapshot.packages} - there
    advisories = tuple(
        one
        for one in snapshot.advisories
        if hidden.isdisjoint(one.packages) or not there.isdisjoint(one.packages)
    )
    return msgspec.structs.replace(
        snapshot, repositories=rows, packages=packages, advisories=advisories
    )
