"""How the packages of a plan or snapshot stand with their channel's keys, as commands show it.

Invariant: what a repository requires to be signed is not deployed unless it was verified under the
keys as they are configured now, whenever it came into the depot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cpacman.commands.context import Context
from cpacman.depot.provenance import Standing, is_required, standing_of
from cpacman.depot.snapshot import Snapshot, load_remaining
from cpacman.errors import Problem
from cpacman.model import Package, Plan


def plan_signatures(context: Context, plan: Plan) -> dict[str, Any]:
    """Return `counts` of a plan's packages by verdict, and `packages`: those not verified."""
    found = [one for _, one in _standings(context, plan)]
    counts: dict[str, int] = {}
    for one in found:
        for status, number in one.counts.items():
            counts[status] = counts.get(status, 0) + number
    return {"counts": counts, "packages": [r for one in found for r in _rows(one)]}


def snapshot_signatures(context: Context, snapshot: Snapshot) -> dict[str, Any]:
    """Return `counts` of a snapshot's packages by verdict, and `packages`: those not verified."""
    return told(_standing(context, snapshot.channel, snapshot.packages))


def told(standing: Standing) -> dict[str, Any]:
    """Return how packages stand as plain values."""
    return {"counts": standing.counts, "packages": _rows(standing)}


def signature_problems(context: Context, plan: Plan) -> Iterator[Problem]:
    """Yield the packages that must be verified and are not: they are not sent."""
    for channel, standing in _standings(context, plan):
        settings = context.settings.channels.get(channel)
        for package, detail in standing.problems:
            if is_required(settings, package.repository):
                where = f"package {package.nevra} of {package.repository}"
                yield Problem(where, detail, "salt-run cpacman.verify checks what classes hold")


def _standings(context: Context, plan: Plan) -> Iterator[tuple[str, Standing]]:
    pushed = {
        (action.repository, action.sha256)
        for transaction in plan.transactions.values()
        for action in transaction.actions
        if action.sha256
    }
    for channel, number in sorted(plan.snapshots.items()):
        settings = context.settings.channels.get(channel)
        if settings is None or not settings.keys:
            continue  # nothing to say, and snapshots are large
        # One that was removed is held by no class, so a plan from it is refused for that already.
        for snapshot in load_remaining(context.settings.depot, [number]):
            packages = snapshot.packages
            mine = [one for one in packages if (one.repository, one.sha256) in pushed]
            yield channel, _standing(context, channel, mine)


def _standing(context: Context, channel: str, packages: Iterable[Package]) -> Standing:
    settings = context.settings.channels.get(channel)
    return standing_of(settings, packages, context.settings.depot)


def _rows(standing: Standing) -> list[dict[str, str]]:
    return [
        {"nevra": one.nevra, "repository": one.repository, "detail": detail}
        for one, detail in standing.problems
    ]
