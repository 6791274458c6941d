"""Which packages in the depot rollouts need, whatever class holds them.

Invariants: what a host could be taken back to by a rollback stays for `retention.days` after the
rollout that changed it; what a rollout under way replaces, and what a rollback brings, stays until
it is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cpacman.commands.context import Context
from cpacman.depot.snapshot import SnapshotHead
from cpacman.depot.wayback import Build
from cpacman.model import Outcome, Package
from cpacman.planner.reverse import leaving

TOLD = frozenset({Outcome.APPLIED.value, Outcome.FAILED.value, Outcome.SILENT.value})
"""Outcomes of hosts that were told to start, so that a rollback has something to take back."""


class _Manifest(msgspec.Struct):
    packages: tuple[Package, ...]


def needed_packages(
    context: Context, active: Sequence[Mapping[str, Any]], *, since: float
) -> dict[str, str]:
    """Return NEVRA -> why it must stay in the depot.

    Args:
        context: the outside world.
        active: the rollouts that are not over.
        since: how far back a way back is kept, seconds since the epoch.
    """
    return {**dict(_left(context, since)), **dict(_under_way(context, active))}


def _left(context: Context, since: float) -> Iterator[tuple[str, str]]:
    """Yield what the last rollout of each host took from it."""
    last = {row.host: row for row in context.store.ended(since=since) if row.outcome in TOLD}
    rollouts = {row.transaction: row.rollout for row in last.values()}
    for number, transaction in context.store.transactions(rollouts).items():
        for nevra in leaving(transaction):
            yield nevra, f"way back of {rollouts[number][:14]}"


def _under_way(context: Context, active: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what rollouts that are not over replace, and what rollbacks bring.

    What other plans bring is of the snapshot that they are from; those of rollbacks are from none.
    """
    for row in active:
        plan = context.store.plan(row["plan"]).plan
        for transaction in plan.transactions.values():
            bringing = transaction.actions if plan.request.rollback else ()
            coming = (action.nevra for action in bringing if action.sha256)
            for nevra in (*leaving(transaction), *coming):
                yield nevra, f"rollout {row['id'][:14]}"


def having(
    context: Context, heads: Sequence[SnapshotHead], needed: Mapping[str, str]
) -> Iterator[tuple[str, dict[Build, str]]]:
    """Yield each snapshot with those of its packages that are needed, and why they are."""
    for head in heads if needed else ():
        file = context.settings.depot / "snapshots" / head.id / "manifest.msgpack"
        try:
            packages = msgspec.msgpack.decode(file.read_bytes(), type=_Manifest).packages
        except (OSError, msgspec.MsgspecError):
            continue  # gone meanwhile; or damaged, which stops the clean-up if it has to stay
        yield (
            head.id,
            {
                (head.channel, one.nevra, one.sha256): needed[one.nevra]
                for one in packages
                if one.nevra in needed
            },
        )
