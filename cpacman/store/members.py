"""The members of the fleet: which host was accepted as what.

Invariant: what is accepted and the journal's entry of it are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from cpacman.membership import Member
from cpacman.store.engine import Database
from cpacman.store.origins import drop_origins
from cpacman.store.rows import as_json, parts
from cpacman.store.tables import journal_table, metadata

members_table = sa.Table(
    "members",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("class", sa.String, nullable=False),
    sa.Column("was", sa.String, nullable=False),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("machine", sa.String, nullable=False),
    sa.Column("noted", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("who", sa.String, nullable=False),
)


class Members(Database):
    """Who was accepted, who waits, who is gone."""

    def members(self) -> dict[str, Member]:
        """Return every host that was ever looked at, as it was accepted."""
        return {
            row["host"]: Member(class_=row.pop("class"), **row)
            for row in self._rows(sa.select(members_table))
        }

    def put_members(
        self,
        members: Iterable[Member],
        *,
        entries: Sequence[tuple[str, str, Mapping[str, Any]]] = (),
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
        forget_origins: Sequence[str] = (),
    ) -> None:
        """Keep these hosts as they are now, and tell the journal.

        Args:
            members: each whole.
            entries: `(action, host, detail)` for the journal.
            at: now.
            who: whoever decided it.
            reason: why.
            ticket: by which order.
            forget_origins: hosts that are no more, or that are other machines now.
        """
        rows = [_row_of(one) for one in members]
        told = [
            {"at": at, "who": who, "action": action, "subject": host, "host": host,
             "reason": reason, "ticket": ticket, "detail": as_json(detail)}
            for action, host, detail in entries
        ]  # fmt: skip
        m = members_table
        with self._write() as connection:
            for part in parts([row["host"] for row in rows]):
                connection.execute(m.delete().where(m.c.host.in_(part)))
            if rows:
                connection.execute(m.insert(), rows)
            if told:
                connection.execute(journal_table.insert(), told)
            drop_origins(connection, forget_origins)

    def last_plan_of(self, class_: str) -> float:
        """Return when a plan of a class was last kept; 0 when never."""
        from cpacman.store.tables import plans_table

        p = plans_table.c
        query = sa.select(sa.func.max(p.created).label("at")).where(p["class"] == class_)
        return float(self._rows(query)[0]["at"] or 0.0)


def _row_of(member: Member) -> dict[str, Any]:
    row = msgspec.structs.asdict(member)
    row["class"] = row.pop("class_")
    return row
