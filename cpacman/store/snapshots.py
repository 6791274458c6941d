"""Snapshots that lie in the depot, and which of them each class points at.

Invariant: a pointer moves only from where its mover saw it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json
from cpacman.store.tables import pointers_table, snapshots_table


class Snapshots(Database):
    """Snapshots and the classes that point at them."""

    def add_snapshot(
        self, snapshot_id: str, *, channel: str, packages: int, at: float, who: str
    ) -> bool:
        """Note a snapshot that lies in the depot; return whether it was new."""
        with self._write() as connection:
            known = connection.execute(
                sa.select(snapshots_table.c.id).where(snapshots_table.c.id == snapshot_id)
            ).first()
            if known:
                return False
            connection.execute(
                snapshots_table.insert(),
                {"id": snapshot_id, "channel": channel, "taken": at, "who": who,
                 "packages": packages},
            )  # fmt: skip
            entry = {"action": "snapshot", "subject": snapshot_id, "at": at, "who": who,
                     "detail": as_json({"channel": channel, "packages": packages})}  # fmt: skip
            record(connection, entry)
        return True

    def snapshots(self, channel: str | None = None) -> list[dict[str, Any]]:
        """Return every snapshot (of one channel), oldest first."""
        query = sa.select(snapshots_table).order_by(snapshots_table.c.taken)
        if channel is not None:
            query = query.where(snapshots_table.c.channel == channel)
        return self._rows(query)

    def pointers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return `(class, channel)` -> snapshot, previous, since, who."""
        return {(r["class"], r["channel"]): r for r in self._rows(sa.select(pointers_table))}

    def point(
        self,
        class_: str,
        channel: str,
        snapshot: str,
        *,
        expected: str | None,
        action: str,
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> None:
        """Point a class at a snapshot, if it still points where the caller saw it pointing.

        Raises:
            ConflictError: somebody moved the pointer meanwhile.
        """
        with self._write() as connection:
            p = pointers_table.c
            where = sa.and_(p["class"] == class_, p.channel == channel)
            row = connection.execute(sa.select(p.snapshot).where(where)).first()
            now = row[0] if row else None
            if now != expected:
                raise ConflictError(_moved(class_, channel, expected, now))
            values = {"class": class_, "channel": channel, "snapshot": snapshot,
                      "previous": now, "since": at, "who": who}  # fmt: skip
            if row:
                connection.execute(pointers_table.update().where(where).values(values))
            else:
                connection.execute(pointers_table.insert(), values)
            detail = {"class": class_, "channel": channel, "from": now, "to": snapshot}
            entry = {"action": action, "subject": class_, "at": at, "who": who, "reason": reason,
                     "ticket": ticket, "detail": as_json(detail)}  # fmt: skip
            record(connection, entry)


def _moved(class_: str, channel: str, expected: str | None, now: str | None) -> Problem:
    return Problem(
        f"{class_} {channel}",
        f"points at {short_id(now or 'nothing')} now, not at {short_id(expected or 'nothing')}",
        "somebody moved it meanwhile: look again",
    )
