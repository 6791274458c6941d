"""Promotion: what each class but the first points at.

Invariants: a class receives only what the class before it holds; each channel's pointer moves
from where it was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.snapshots import changes_between, channels_of
from cpacman.depot.promotion import check_promotion
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, SafetyError, UsageError


def promote(
    context: Context,
    to: str,
    asked: Sequence[str] = (),
    *,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Point a class at what the class before it holds, channel by channel.

    Raises:
        UsageError: no such class, or it is the first, which takes snapshots.
        SafetyError: a safeguard is configured that this version can't enforce.
        ConflictError: somebody moved a pointer meanwhile.
    """
    source = check_promotion(context.settings.class_names, to)
    standing = context.settings.unenforced(to)
    if standing:
        raise SafetyError(standing)
    pointers = context.store.pointers()
    moves = {}
    for channel in channels_of(context, asked):
        held = pointers.get((source, channel))
        if held is not None:
            target = pointers.get((to, channel))
            moves[channel] = (target["snapshot"] if target else None, held["snapshot"])
    if not moves:
        mend = "take one: salt-run cpacman.snapshot" if source == context.settings.class_names[0] \
            else f"promote to {source} first"  # fmt: skip
        raise UsageError(Problem(source, "holds no snapshot yet", mend))
    rows = {
        c: _promote_one(context, to, c, move, test, reason, ticket) for c, move in moves.items()
    }
    return {"promote": {"from": source, "to": to, "channels": rows, "test": test}}


def _promote_one(
    context: Context,
    to: str,
    channel: str,
    move: tuple[str | None, str],
    test: bool,
    reason: str | None,
    ticket: str | None,
) -> dict[str, Any]:
    before, after = move
    snapshot = load_snapshot(context.settings.depot, after)
    if before != after and not test:
        context.store.point(
            to, channel, after, expected=before, action="promote", at=context.clock(),
            who=context.who, reason=reason, ticket=ticket,
        )  # fmt: skip
    row = {"before": before, "id": after, "new": before != after}
    return {**row, "packages": len(snapshot.packages), **changes_between(context, before, snapshot)}
