"""Pointing a class elsewhere without a promotion: back to what it held, or its first fill.

Invariants: a class goes back only to what it held; only one that holds nothing is filled, and not
with what the class before it never held, unless that is said; no class is pointed at a blocked
snapshot; nothing comes to a class in a freeze, though it may go back; all channels move together
or none does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.commands.blocking import check_snapshots
from cpacman.commands.context import Context
from cpacman.commands.looking import end_of
from cpacman.commands.safeguards import check_force, frozen, safeguards
from cpacman.commands.snapshots import channels_of, check_there
from cpacman.depot.compare import diff_snapshots
from cpacman.depot.locks import using
from cpacman.depot.promotion import (
    Move,
    held,
    index_of,
    moves_of,
    seen_by,
    skipped,
    way_back,
)
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, SafetyError, UsageError
from cpacman.model import short_id
from cpacman.store import PointerMove

# ---- back ----------------------------------------------------------------------------------


def revert(
    context: Context,
    class_: str,
    asked: Sequence[str] = (),
    *,
    snapshot: str | None = None,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Point a class back: to what it held before, or to one that it held and that is named.

    Without channels those go back that moved last, together.

    Raises:
        UsageError: no such class, or nothing to go back to.
        SafetyError: a safeguard, or the snapshot is blocked.
        ConflictError: somebody moved a pointer meanwhile.
    """
    index_of(context.settings.class_names, class_, "class")
    _check(context, class_, ticket)
    rows = context.store.moves()
    moves = {channel: moves_of(rows, channel) for channel in channels_of(context, asked)}
    if snapshot is not None:
        targets = _named(context, class_, snapshot, moves)
    else:
        targets = _before(class_, moves if asked else _moved_last(class_, moves))
    return _point(context, "revert", class_, targets, {}, test, reason, ticket)


def _named(
    context: Context, class_: str, snapshot: str, moves: Mapping[str, Sequence[Move]]
) -> dict[str, str]:
    found = load_snapshot(context.settings.depot, snapshot)
    if found.id not in held(moves.get(found.channel, ()), class_):
        mend = f"name one that it held: {_short(held(moves.get(found.channel, ()), class_))}"
        raise UsageError(Problem(short_id(found.id), f"{class_} never held it", mend))
    return {found.channel: found.id}


def _moved_last(class_: str, moves: Mapping[str, Sequence[Move]]) -> dict[str, Sequence[Move]]:
    """Return the channels of the class's last promotion."""
    last = {
        channel: max(one.at for one in found if one.class_ == class_)
        for channel, found in moves.items()
        if held(found, class_)
    }
    newest = max(last.values(), default=0)
    return {channel: moves[channel] for channel, at in last.items() if at == newest}


def _before(class_: str, moves: Mapping[str, Sequence[Move]]) -> dict[str, str]:
    ways = {channel: way_back(found, class_) for channel, found in moves.items()}
    problems = [
        Problem(f"{channel}: {class_}", "held nothing else before", "there is no way back")
        for channel, way in ways.items()
        if len(way) < 2
    ]
    if problems or not ways:
        raise UsageError(problems or [Problem(class_, "holds no snapshot", "fill it: promote")])
    return {channel: way[1] for channel, way in ways.items()}


def _short(ids: Iterable[str]) -> str:
    return ", ".join(map(short_id, ids)) or "none"


# ---- the first fill ------------------------------------------------------------------------


class From(NamedTuple):
    """Where a class is filled from: exactly one of the three."""

    class_: str | None = None
    snapshot: str | None = None
    until: str | None = None


def seed(
    context: Context,
    class_: str,
    asked: Sequence[str] = (),
    *,
    source: From,
    force: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Fill a class that holds nothing: from another class, a snapshot, or a date.

    Raises:
        UsageError: it holds something, no such class or snapshot, or not exactly one source.
        SafetyError: a safeguard, a class would be skipped, or the snapshot is blocked.
        ConflictError: somebody moved a pointer meanwhile.
    """
    classes = context.settings.class_names
    index_of(classes, class_, "class")
    check_force(force, reason)
    if sum(value is not None for value in source) != 1:
        raise UsageError(Problem("seed", "name one of from_class=, snapshot=, until="))
    _check(context, class_, ticket, frozen(context, class_))
    rows = context.store.moves()
    moves = {channel: moves_of(rows, channel) for channel in channels_of(context, asked)}
    targets = _filling(context, class_, source, moves, explicit=bool(asked))
    details = {
        channel: {"skipped": list(out)}
        for channel, number in targets.items()
        if (out := _skips(classes, moves[channel], class_, number))
    }
    if details and not force:
        mend = "promote through them, or force=True reason=..."
        raise SafetyError(
            [Problem(c, f"{' and '.join(one['skipped'])} never held it", mend)
             for c, one in details.items()]
        )  # fmt: skip
    return _point(context, "seed", class_, targets, details, test, reason, ticket)


def _skips(
    classes: Sequence[str], moves: Sequence[Move], class_: str, snapshot: str
) -> tuple[str, ...]:
    """Return the classes that are skipped; none when a later class has held it already."""
    later = classes[index_of(classes, class_) + 1 :]
    if any(snapshot in held(moves, one) for one in later):
        return ()
    return skipped(classes, moves, to=class_, snapshot=snapshot)


def _filling(
    context: Context,
    class_: str,
    source: From,
    moves: Mapping[str, Sequence[Move]],
    *,
    explicit: bool,
) -> dict[str, str]:
    """Return what a class is to hold in each channel where it holds nothing."""
    full = {channel: held(found, class_) for channel, found in moves.items()}
    problems = [
        Problem(f"{channel}: {class_}", f"holds {short_id(ids[0])} already",
                "promote, or revert")
        for channel, ids in full.items()
        if ids
    ]  # fmt: skip
    free = {channel: moves[channel] for channel, ids in full.items() if not ids}
    if problems and (explicit or not free):
        raise UsageError(problems)
    found = _found(context, source, free)
    if not found:
        raise UsageError(Problem(class_, "there is nothing to fill it with, in any channel"))
    return found


def _found(context: Context, source: From, moves: Mapping[str, Sequence[Move]]) -> dict[str, str]:
    if source.snapshot is not None:
        one = load_snapshot(context.settings.depot, source.snapshot)
        return {one.channel: one.id} if one.channel in moves else {}
    if source.class_ is not None:
        index_of(context.settings.class_names, source.class_, "from_class")
        ids = {channel: held(found, source.class_) for channel, found in moves.items()}
        return {channel: one[0] for channel, one in ids.items() if one}
    moment = end_of(source.until, context.clock())
    taken = {row["id"]: row["taken"] for row in context.store.snapshots()}
    found = {
        channel: [one.snapshot for one in rows if moment is None or one.at <= moment]
        for channel, rows in moves.items()
    }
    return {channel: max(ids, key=lambda one: taken.get(one, 0))
            for channel, ids in found.items() if ids}  # fmt: skip


# ---- both ----------------------------------------------------------------------------------


def _check(context: Context, class_: str, ticket: str | None, more: Iterable[Problem] = ()) -> None:
    if standing := [*safeguards(context, class_, ticket), *more]:
        raise SafetyError(standing)


def _point(
    context: Context,
    action: str,
    class_: str,
    targets: Mapping[str, str],
    details: Mapping[str, Mapping[str, Any]],
    test: bool,
    reason: str | None,
    ticket: str | None,
) -> dict[str, Any]:
    check_snapshots(context, targets.values())
    pointers = context.store.pointers()
    moves = [
        PointerMove(class_, channel, number, _pointed(pointers, class_, channel),
                    details.get(channel, {}))
        for channel, number in targets.items()
    ]  # fmt: skip
    new = [one for one in moves if one.snapshot != one.expected]
    if new and not test:
        with using(context.settings.depot):
            check_there(context, (one.snapshot for one in new))
            context.store.point_all(
                new,
                action=action,
                at=context.clock(),
                who=context.who,
                reason=reason,
                ticket=ticket,
            )
    rows = {one.channel: _row(context, one) for one in moves}
    return {action: {"class": class_, "channels": rows, "test": test}}


def _pointed(pointers: Mapping[tuple[str, str], Any], class_: str, channel: str) -> str | None:
    row = pointers.get((class_, channel))
    return str(row["snapshot"]) if row else None


def _row(context: Context, move: PointerMove) -> dict[str, Any]:
    depot = context.settings.depot
    after = seen_by(load_snapshot(depot, move.snapshot), move.class_)
    row = {"before": move.expected, "id": move.snapshot, "new": move.snapshot != move.expected,
           "packages": len(after.packages), "skipped": move.detail.get("skipped", [])}  # fmt: skip
    if move.expected is None:
        return {**row, "added": 0, "updated": 0, "removed": 0}
    found = diff_snapshots(seen_by(load_snapshot(depot, move.expected), move.class_), after)
    sums = {"added": found.added, "updated": found.updated, "removed": found.removed}
    return {**row, **{name: len(changes) for name, changes in sums.items()}}
