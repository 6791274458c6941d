"""Hosts whose end nobody has seen: which they are, and how they are collected once more.

Invariant: who is collected again is locked and of a rollout that runs, so that whatever dies
meanwhile is found like any other rollout without a process.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rollout_hosts import RolloutHost, ask_hosts_again
from cpacman.store.rows import as_json
from cpacman.store.tables import rollout_hosts_table, rollouts_table

_TOLD = ("applying", "installed", "restarting", "rebooting")


class Recovery(Database):
    """Hosts that fell silent or were cut off."""

    def last_told(
        self, *, hosts: Sequence[str] | None = None, rollout: str | None = None
    ) -> dict[str, tuple[str, RolloutHost]]:
        """Return host -> (rollout, row) of the last rollout that told the host to start.

        Args:
            hosts: only these; all when not given.
            rollout: only rows of this rollout, when they are the host's last.
        """
        h, r = rollout_hosts_table.c, rollouts_table.c
        told = h.outcome.in_(("applied", "failed", "silent")) | (h.state.in_(_TOLD))
        query = (
            sa.select(rollout_hosts_table)
            .join(rollouts_table, r.id == h.rollout)
            .where(told)
            .order_by(r.created)
        )
        rows = {row["host"]: row for row in self._rows(query)}
        wanted = rows.keys() if hosts is None else rows.keys() & set(hosts)
        return {
            host: (rows[host]["rollout"], RolloutHost.of(rows[host]))
            for host in sorted(wanted)
            if rollout in (None, rows[host]["rollout"])
        }

    def collect_again(
        self,
        rollout: str,
        hosts: Sequence[str],
        *,
        expected: str,
        owner: str,
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> None:
        """Lock ended hosts of a closed rollout and set them back to `applying`.

        Their attempt stays. A wish stands meanwhile, so that nobody starts another host of it and
        what was cancelled is closed as such, whoever does that.

        Raises:
            ConflictError: the rollout is not in the state that the caller saw, a host is locked, or
                has not ended; nothing was changed.
        """
        r = rollouts_table
        wish = "cancel" if expected == "cancelled" else "halt"
        opened = {"state": "running", "ended": None, "owner": owner, "wish": wish}
        with self._write() as connection:
            mine = sa.and_(r.c.id == rollout, r.c.state == expected)
            if connection.execute(r.update().where(mine).values(opened)).rowcount != 1:
                raise ConflictError(Problem(short_id(rollout), f"is not {expected} any more"))
            ask_hosts_again(connection, rollout, hosts, at)
            entry = {"action": "recover", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "ticket": ticket,
                     "detail": as_json({"hosts": sorted(hosts)})}  # fmt: skip
            record(connection, entry)
