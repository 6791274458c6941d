"""What people decided about a rollout: who approves of it, whom it leaves out, whom it forgives.

Invariant: who decided what is in the journal; to forgive is a part of going on, which stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json, parts
from cpacman.store.tables import (
    approvals_table,
    rollout_hosts_table,
    rollouts_table,
    skips_table,
)


class Decisions(Database):
    """Approvals, levels that begin by a word, and hosts that are skipped or forgiven."""

    def approve(
        self, rollout: str, *, at: float, who: str, reason: str | None, ticket: str | None
    ) -> bool:
        """Keep that somebody approves of a rollout; return False if they did before."""
        table = approvals_table
        with self._write() as connection:
            where = sa.and_(table.c.rollout == rollout, table.c.who == who)
            if connection.execute(sa.select(table.c.who).where(where)).first():
                return False
            connection.execute(table.insert(), {"rollout": rollout, "who": who, "at": at})
            entry = {"action": "approve", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "ticket": ticket, "detail": "{}"}  # fmt: skip
            record(connection, entry)
        return True

    def let_begin(
        self, rollout: str, levels: Sequence[str], *, at: float, who: str, reason: str | None
    ) -> None:
        """Keep which levels may begin in spite of their gate, the last one by a person's word."""
        with self._write() as connection:
            keep_setting(connection, rollout, "passed_before", list(levels))
            entry = {"action": "gate passed by force", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "detail": as_json({"level": levels[-1]})}  # fmt: skip
            record(connection, entry)

    def approvals(self, rollout: str) -> list[str]:
        """Return who approved of a rollout, sorted."""
        table = approvals_table
        query = sa.select(table.c.who).where(table.c.rollout == rollout).order_by(table.c.who)
        return [str(row["who"]) for row in self._rows(query)]

    def skip_host(
        self, rollout: str, host: str, *, at: float, who: str, reason: str | None
    ) -> None:
        """Keep that a host is to be skipped before its turn comes.

        Raises:
            ConflictError: it was told to start meanwhile.
        """
        table, h = skips_table, rollout_hosts_table.c
        with self._write() as connection:
            mine = sa.and_(h.rollout == rollout, h.host == host)
            state = connection.execute(sa.select(h.state).where(mine)).scalar()
            if state in ("applying", "installed", "restarting", "rebooting"):
                raise ConflictError(Problem(host, f"is {state} by now", "it ends by itself"))
            where = sa.and_(table.c.rollout == rollout, table.c.host == host)
            if connection.execute(sa.select(table.c.who).where(where)).first():
                return
            connection.execute(table.insert(), {"rollout": rollout, "host": host, "who": who})
            entry = {"action": "skip", "subject": rollout, "at": at, "who": who, "host": host,
                     "reason": reason, "detail": "{}"}  # fmt: skip
            record(connection, entry)

    def skips(self, rollout: str) -> dict[str, str]:
        """Return host -> who wants it to be skipped."""
        table = skips_table
        query = sa.select(table.c.host, table.c.who).where(table.c.rollout == rollout)
        return {row["host"]: row["who"] for row in self._rows(query)}

    def forgive(self, rollout: str, hosts: Sequence[str]) -> None:
        """Keep whose failure does not count against the budgets of a rollout any more."""
        with self._write() as connection:
            keep_setting(connection, rollout, "forgiven", list(hosts))


def skip_no_more(connection: Connection, rollout: str, hosts: Sequence[str]) -> None:
    """Forget that hosts were to be skipped."""
    k = skips_table.c
    for part in parts(sorted(hosts)):
        mine = sa.and_(k.rollout == rollout, k.host.in_(part))
        connection.execute(skips_table.delete().where(mine))


def keep_setting(connection: Connection, rollout: str, name: str, value: Any) -> None:
    """Keep a plain value among the settings of a rollout."""
    r = rollouts_table
    where = r.c.id == rollout
    text = connection.execute(sa.select(r.c.settings).where(where)).scalar()
    settings = {**msgspec.json.decode(text or "{}"), name: value}
    connection.execute(r.update().where(where).values(settings=as_json(settings)))
