"""Hosts whose end nobody has seen: which they are, and how they are collected once more.

Invariant: who is collected again is locked and of a rollout that runs, so that whatever dies
meanwhile is found like any other rollout without a process.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rollouts import RolloutHost, lock_hosts
from cpacman.store.rows import as_json, parts
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
        owner: str,
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> None:
        """Lock ended hosts of a rollout and set them back to `applying`; their attempt stays.

        Raises:
            ConflictError: a host is locked, or has not ended; nothing was changed.
        """
        r = rollouts_table
        opened = {"state": "running", "ended": None, "owner": owner, "beat": at}
        with self._write() as connection:
            connection.execute(r.update().where(r.c.id == rollout).values(opened))
            _ask_again(connection, rollout, hosts, at)
            entry = {"action": "recover", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "ticket": ticket,
                     "detail": as_json({"hosts": sorted(hosts)})}  # fmt: skip
            record(connection, entry)

    def ask_again(
        self, rollout: str, hosts: Sequence[str], *, at: float, who: str, action: str
    ) -> None:
        """Let hosts that have their packages begin what follows anew, in the same session.

        Raises:
            ConflictError: a host is locked, or has not ended; nothing was changed.
        """
        with self._write() as connection:
            _ask_again(connection, rollout, hosts, at)
            entry = {"action": action, "subject": rollout, "at": at, "who": who,
                     "detail": as_json({"hosts": sorted(hosts)})}  # fmt: skip
            record(connection, entry)


def _ask_again(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Lock ended hosts and set them back to `applying`: their report is asked for again."""
    h = rollout_hosts_table
    values = {"state": "applying", "updated": at, "outcome": None, "code": None, "detail": None}
    lock_hosts(connection, rollout, hosts, at)
    for part in parts(sorted(hosts)):
        where = sa.and_(h.c.rollout == rollout, h.c.host.in_(part), h.c.state == "ended")
        if connection.execute(h.update().where(where).values(values)).rowcount != len(part):
            words = f"a host of {', '.join(part[:5])} is not ended any more"
            raise ConflictError(Problem(short_id(rollout), words))
