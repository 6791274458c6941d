"""The journal: who did what, when, with what result; only ever appended to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.store.engine import ENTRIES, Database
from cpacman.store.origins import note_origins
from cpacman.store.rows import as_json
from cpacman.store.tables import changes_table, journal_table


def record(
    connection: Connection,
    entry: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Append an entry within the transaction of what it tells."""
    row = {"host": None, "reason": None, "ticket": None, **entry}
    connection.info.setdefault(ENTRIES, []).append(row)
    seq = connection.execute(journal_table.insert().values(row)).inserted_primary_key
    rows = [{**change, "seq": seq[0] if seq else 0, "host": row["host"]} for change in changes]
    if rows:
        connection.execute(changes_table.insert(), [{"repository": None, **one} for one in rows])
        note_origins(connection, row["host"], changes)


class Journal(Database):
    """Append to the journal and look into it."""

    def record(
        self,
        action: str,
        subject: str,
        *,
        at: float,
        who: str,
        host: str | None = None,
        reason: str | None = None,
        ticket: str | None = None,
        detail: Mapping[str, Any] | None = None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Append one entry to the journal, with the package changes it made on `host`."""
        with self._write() as connection:
            record(
                connection,
                {"action": action, "subject": subject, "at": at, "who": who, "host": host,
                 "reason": reason, "ticket": ticket, "detail": as_json(detail or {})},
                changes,
            )  # fmt: skip

    def history(
        self,
        *,
        host: str | None = None,
        package: str | None = None,
        who: str | None = None,
        ticket: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 200,
    ) -> list[dict[str, Any]]:
        """Return the newest journal entries that match, oldest first, with their changes."""
        j, c = journal_table.c, changes_table.c
        query = sa.select(journal_table)
        if host is not None:
            query = query.where(j.host == host)
        if package is not None:
            inner = sa.select(c.seq).where(sa.or_(c.name == package, c.nevra == package))
            query = query.where(j.seq.in_(inner))
        if who is not None:
            query = query.where(j.who == who)
        if ticket is not None:
            query = query.where(j.ticket == ticket)
        if since is not None:
            query = query.where(j.at >= since)
        if until is not None:
            query = query.where(j.at <= until)
        rows = self._rows(query.order_by(j.seq.desc()).limit(limit))[::-1]
        changes = self._changes_of([row["seq"] for row in rows])
        return [
            {**row, "detail": msgspec.json.decode(row["detail"]), "changes": changes[row["seq"]]}
            for row in rows
        ]

    def asks(self, prefix: str) -> list[dict[str, Any]]:
        """Return the entries by which promotions of an id, or its beginning, were asked for."""
        j = journal_table.c
        mine = j.subject.startswith(prefix, autoescape=True)
        query = sa.select(journal_table).where(j.action == "ask", mine).order_by(j.seq)
        return self._rows(query)

    def _changes_of(self, seqs: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        found: dict[int, list[dict[str, Any]]] = {seq: [] for seq in seqs}
        query = sa.select(changes_table).where(changes_table.c.seq.in_(seqs))
        for row in self._rows(query):
            found[row.pop("seq")].append(row)
        return found
