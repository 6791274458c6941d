"""What rollouts showed: how hosts of a class ended, from which snapshots, with what.

Invariant: this only reads; what it means is judged in `rollout.evidence`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from cpacman.model import Request, Transaction
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
    """How one host ended in one rollout, and whether a gate found it well afterwards.

    Times are seconds since the epoch. What a gate found before the change says nothing of it, nor
    does a level that was let pass by force.
    """

    rollout: str
    plan: str
    host: str
    transaction: str
    outcome: str
    at: float
    healthy: bool = False


class _Finding(msgspec.Struct):
    """What a check said of a host, or of all (`host` is ""); `when` is the gate's moment."""

    host: str = ""
    verdict: str = ""
    required: bool = True
    when: str = ""


_AFTERWARDS = frozenset({"after", "soak"})
_PASS = "pass"  # noqa: S105
_EVERYBODY = ""


class Asked(msgspec.Struct):
    """What a plan was made from, channel -> snapshot, and what it was asked for."""

    snapshots: dict[str, str] = {}
    request: Request = Request()


class Evidence(Database):
    """Look back at rollouts."""

    def ended(self, class_: str | None = None, *, since: float = 0) -> list[Ended]:
        """Return how hosts ended in rollouts (of a class) since a moment, oldest first."""
        h, r = rollout_hosts_table.c, rollouts_table.c
        query = (
            sa.select(h.rollout, r.plan, h.host, h.transaction, h.outcome, h.updated, h.level)
            .join(rollouts_table, r.id == h.rollout)
            .where(h.outcome.is_not(None), h.updated >= since)
            .order_by(h.updated, h.host)
        )
        if class_ is not None:
            query = query.where(r["class"] == class_)
        well = self._well(class_)
        with self._read() as connection:
            return [
                Ended(*row[:-1], healthy=not {row[2], _EVERYBODY}.isdisjoint(
                    well.get((row[0], row[-1]), ())))
                for row in connection.execute(query)
            ]  # fmt: skip

    def _well(self, class_: str | None) -> dict[tuple[str, str], Collection[str]]:
        """Return rollout and level -> whom its gate found well after the change."""
        v, r = rollout_levels_table.c, rollouts_table.c
        query = (
            sa.select(v.rollout, v.level, v.findings)
            .join(rollouts_table, r.id == v.rollout)
            .where(v.state == "passed", v.findings.is_not(None))
        )
        if class_ is not None:
            query = query.where(r["class"] == class_)
        with self._read() as connection:
            rows = connection.execute(query).all()
        return {
            (rollout, level): _found_well(msgspec.json.decode(text, type=list[_Finding]))
            for rollout, level, text in rows
        }

    def plans_asked(self, plans: Iterable[str]) -> dict[str, Asked]:
        """Return plan -> the snapshots that it was made from, and its request."""
        p = plans_table.c
        found: dict[str, Asked] = {}
        with self._read() as connection:
            for part in parts(sorted(set(plans))):
                query = sa.select(p.id, p.document).where(p.id.in_(part))
                for number, blob in connection.execute(query):
                    found[number] = unpack(blob, Asked)
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
        plans = self.plans_asked(last.values())
        return sorted(h for h, p in last.items() if snapshot in plans[p].snapshots.values())


_THERE = frozenset({"applied", "unchanged"})


def _found_well(findings: Iterable[_Finding]) -> Collection[str]:
    """Return the hosts that a gate found well after their change, or `_EVERYBODY`."""
    later = [one for one in findings if one.when in _AFTERWARDS]
    if any(one.required and one.verdict != _PASS for one in later):
        return ()
    return {one.host for one in later if one.verdict == _PASS}
