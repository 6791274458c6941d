"""What rollouts showed: how hosts of a class ended, from which snapshots, with what.

Invariant: this only reads; what it means is judged in `rollout.evidence`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from cpacman.model import Transaction
from cpacman.store.engine import Database
from cpacman.store.rows import parts, unpack
from cpacman.store.tables import (
    plans_table,
    rollout_hosts_table,
    rollout_levels_table,
    rollouts_table,
    transactions_table,
)


class Ended(NamedTuple):
    """How one host ended in one rollout, and whether a gate passed its level.

    Times are seconds since the epoch.
    """

    rollout: str
    plan: str
    host: str
    transaction: str
    outcome: str
    at: float
    healthy: bool = False


class _Header(msgspec.Struct):
    snapshots: dict[str, str]


class Evidence(Database):
    """Look back at rollouts."""

    def ended(self, class_: str | None = None, *, since: float = 0) -> list[Ended]:
        """Return how hosts ended in rollouts (of a class) since a moment, oldest first."""
        h, r, v = rollout_hosts_table.c, rollouts_table.c, rollout_levels_table.c
        # A level without a gate passes, too, but nobody looked at its hosts.
        healthy = sa.and_(v.state == "passed", v.findings.is_not(None))
        query = (
            sa.select(
                h.rollout,
                r.plan,
                h.host,
                h.transaction,
                h.outcome,
                h.updated,
                sa.func.coalesce(healthy, sa.false()),
            )
            .join(rollouts_table, r.id == h.rollout)
            .outerjoin(rollout_levels_table, sa.and_(v.rollout == h.rollout, v.level == h.level))
            .where(h.outcome.is_not(None), h.updated >= since)
            .order_by(h.updated, h.host)
        )
        if class_ is not None:
            query = query.where(r["class"] == class_)
        with self._read() as connection:
            return [Ended._make((*row[:-1], bool(row[-1]))) for row in connection.execute(query)]

    def snapshots_of_plans(self, plans: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return plan -> channel -> the snapshot that it was made from."""
        p = plans_table.c
        found: dict[str, dict[str, str]] = {}
        with self._read() as connection:
            for part in parts(sorted(set(plans))):
                query = sa.select(p.id, p.document).where(p.id.in_(part))
                for number, blob in connection.execute(query):
                    found[number] = unpack(blob, _Header).snapshots
        return found

    def transactions(self, numbers: Iterable[str]) -> dict[str, Transaction]:
        """Return transactions by their ids."""
        t = transactions_table.c
        found: dict[str, Transaction] = {}
        with self._read() as connection:
            for part in parts(sorted(set(numbers))):
                query = sa.select(t.id, t.document).where(t.id.in_(part))
                found.update(
                    (n, unpack(blob, Transaction)) for n, blob in connection.execute(query)
                )
        return found

    def hosts_at(self, snapshot: str) -> list[str]:
        """Return the hosts whose last successful rollout was made from a snapshot, sorted."""
        last = {one.host: one.plan for one in self.ended() if one.outcome in _THERE}
        snapshots = self.snapshots_of_plans(last.values())
        return sorted(h for h, p in last.items() if snapshot in snapshots.get(p, {}).values())


_THERE = frozenset({"applied", "unchanged"})
