"""Listing the snapshots in the depot, why each stays, and removing those that need not.

Invariants: what goes is shown by `test=True` as it would go; nothing goes while somebody adds to
the depot, or relies on a snapshot that no class points at yet; the journal has it before it
happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.needing import having, needed_packages
from cpacman.commands.snapshots import channels_of
from cpacman.depot.locks import removing, writing
from cpacman.depot.pool import io_error, sweep_temporary
from cpacman.depot.prune import Garbage, find_garbage, remove_garbage
from cpacman.depot.retention import Held, Rules, reasons_to_stay
from cpacman.depot.snapshot import SnapshotHead, list_snapshots
from cpacman.depot.wayback import keep_for_packages

DAY = 86400


def snapshots(context: Context, asked: Sequence[str] = ()) -> dict[str, Any]:
    """List the snapshots in the depot, newest first: who took each, when, and why it stays."""
    channels = channels_of(context, asked) if asked else None
    heads = list_snapshots(context.settings.depot)
    reasons = _reasons(context, heads)
    noted = {row["id"]: row for row in context.store.snapshots()}
    return {
        "snapshots": {
            "snapshots": [
                _row(one, noted.get(one.id), reasons[one.id])
                for one in heads
                if channels is None or one.channel in channels
            ]
        }
    }


def _row(head: SnapshotHead, noted: dict[str, Any] | None, why: Sequence[str]) -> dict[str, Any]:
    return {
        "id": head.id,
        "channel": head.channel,
        "created": head.created,
        "who": noted["who"] if noted else None,
        "packages": noted["packages"] if noted else None,
        "lineage": msgspec.to_builtins(head.lineage),
        "needed": list(why),
    }


def prune(
    context: Context, *, test: bool = False, reason: str | None = None, ticket: str | None = None
) -> dict[str, Any]:
    """Remove the snapshots that nothing needs, and the files that no other needs.

    Raises:
        ConflictError: somebody adds to the depot, or relies on a snapshot, for long.
        SafetyError: a snapshot that stays can't be read.
    """
    depot = context.settings.depot
    if not depot.is_dir():
        return _answer([], [], Garbage((), (), (), 0, 0), test)
    try:
        with writing(depot, "removing snapshots"), removing(depot):
            return _prune(context, test=test, reason=reason, ticket=ticket)
    except OSError as error:
        raise io_error(depot, error) from error


def _prune(
    context: Context, *, test: bool, reason: str | None, ticket: str | None
) -> dict[str, Any]:
    depot = context.settings.depot
    if not test:
        sweep_temporary(depot)
    heads = list_snapshots(depot)
    reasons = _reasons(context, heads)
    garbage = find_garbage(depot, {one for one, why in reasons.items() if why})
    rows = [_row(one, None, reasons[one.id]) for one in heads]
    if not test and (garbage.snapshots or garbage.files or garbage.metadata):
        context.store.record(
            "prune",
            "depot",
            at=context.clock(),
            who=context.who,
            reason=reason,
            ticket=ticket,
            detail={"snapshots": list(garbage.snapshots), "files": len(garbage.files)},
        )
        remove_garbage(depot, garbage, context.reporter)
    gone = [row for row in rows if not row["needed"]]
    return _answer(gone, [row for row in rows if row["needed"]], garbage, test)


def _answer(
    gone: list[dict[str, Any]], kept: list[dict[str, Any]], garbage: Garbage, test: bool
) -> dict[str, Any]:
    body = {"removed": gone, "kept": kept, "files": len(garbage.files), "test": test}
    return {"prune": {**body, "freed": garbage.freed, "shared": garbage.shared}}


def _reasons(context: Context, heads: Sequence[SnapshotHead]) -> dict[str, tuple[str, ...]]:
    retention = context.settings.retention
    active = context.store.rollouts(active=True)
    reasons = reasons_to_stay(
        {one.id: one.created for one in heads},
        [
            Held(row["class"], row["channel"], row["snapshot"], row["at"])
            for row in context.store.moves()
        ],
        rules=Rules(retention.keep, retention.days * DAY, retention.pins),
        rollouts={row["id"]: _planned_from(context, row) for row in active},
        now=context.clock(),
    )
    since = context.clock() - retention.days * DAY
    needed = needed_packages(context, active, since=since)
    return keep_for_packages(reasons, having(context, heads, needed))


def _planned_from(context: Context, row: dict[str, Any]) -> list[str]:
    """Return the snapshots of a rollout's plan.

    Raises:
        CpacmanError: the plan is not there; then nobody knows what the rollout needs.
    """
    return list(context.store.plan(row["plan"]).plan.snapshots.values())
