"""What rollouts showed: how hosts of a class ended, and which package versions came to them.

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
    changes_table,
    journal_table,
    plans_table,
    rollout_hosts_table,
    rollouts_table,
    transactions_table,
)


class Ended(NamedTuple):
    """How one host ended in one rollout. Times are seconds since the epoch."""

    rollout: str
    plan: str
    host: str
    transaction: str
    outcome: str
    at: float


class PackageChange(NamedTuple):
    """A package version that came to a host by a rollout, or left it (`arrived` is None)."""

    host: str
    rollout: str
    at: float
    arrived: str | None
    left: str | None


class _Header(msgspec.Struct):
    snapshots: dict[str, str]


class Evidence(Database):
    """Look back at rollouts."""

    def ended(self, class_: str | None = None, *, since: float = 0) -> list[Ended]:
        """Return how hosts ended in rollouts (of a class) since a moment, oldest first."""
        h, r = rollout_hosts_table.c, rollouts_table.c
        query = (
            sa.select(h.rollout, r.plan, h.host, h.transaction, h.outcome, h.updated)
            .join(rollouts_table, r.id == h.rollout)
            .where(h.outcome.is_not(None), h.updated >= since)
            .order_by(h.updated, h.host)
        )
        if class_ is not None:
            query = query.where(r["class"] == class_)
        with self._read() as connection:
            return [Ended(*row) for row in connection.execute(query)]

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

    def changes_of(self, names: Iterable[str], *, class_: str) -> list[PackageChange]:
        """Return when versions of packages came to hosts, and left, by rollouts of a class."""
        c, j, r = changes_table.c, journal_table.c, rollouts_table.c
        base = (
            sa.select(c.host, j.subject, j.at, c.action, c.nevra, c["from"])
            .join(journal_table, j.seq == c.seq)
            .join(rollouts_table, r.id == j.subject)
            .where(r["class"] == class_)
        )
        found: list[PackageChange] = []
        with self._read() as connection:
            for part in parts(sorted(set(names))):
                for host, rollout, at, action, nevra, old in connection.execute(
                    base.where(c.name.in_(part))
                ):
                    came = None if action == "remove" else nevra
                    left = nevra if action == "remove" else old
                    found.append(PackageChange(host, rollout, at, came, left))
        return sorted(found, key=lambda one: (one.at, one.host))

    def hosts_at(self, snapshot: str) -> list[str]:
        """Return the hosts whose last successful rollout was made from a snapshot, sorted."""
        last = {one.host: one.plan for one in self.ended() if one.outcome in _THERE}
        snapshots = self.snapshots_of_plans(last.values())
        return sorted(h for h, p in last.items() if snapshot in snapshots.get(p, {}).values())


_THERE = frozenset({"applied", "unchanged"})
