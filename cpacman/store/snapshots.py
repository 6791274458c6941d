"""Snapshots that lie in the depot, which of them each class points at, and every move there was.

Invariants: a pointer moves only from where its mover saw it; moves that belong together are one
transaction, with the journal's entries and what was made for them; a class's moves end where its
pointer stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.chains import Guard
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json
from cpacman.store.tables import metadata, pointers_table, snapshots_table

moves_table = sa.Table(
    "moves",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("class", sa.String, nullable=False, index=True),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("snapshot", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("who", sa.String, nullable=False),
)


class PointerMove(NamedTuple):
    """A class that is to point at another snapshot; `detail` is for the journal.

    `packages` is how many a snapshot has that was made for this move, and that nobody noted yet.
    """

    class_: str
    channel: str
    snapshot: str
    expected: str | None
    detail: Mapping[str, Any] = {}
    packages: int | None = None


class Snapshots(Database):
    """Snapshots and the classes that point at them."""

    def add_snapshot(
        self, snapshot_id: str, *, channel: str, packages: int, at: float, who: str
    ) -> bool:
        """Note a snapshot that lies in the depot; return whether it was new."""
        with self._write() as connection:
            return _add(connection, snapshot_id, channel, packages, at, who)

    def snapshots(self, channel: str | None = None) -> list[dict[str, Any]]:
        """Return every snapshot (of one channel), oldest first."""
        query = sa.select(snapshots_table).order_by(snapshots_table.c.taken)
        if channel is not None:
            query = query.where(snapshots_table.c.channel == channel)
        return self._rows(query)

    def pointers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return `(class, channel)` -> snapshot, previous, since, who."""
        return {(r["class"], r["channel"]): r for r in self._rows(sa.select(pointers_table))}

    def moves(self, channel: str | None = None) -> list[dict[str, Any]]:
        """Return every move of a pointer (in one channel), oldest first."""
        query = sa.select(moves_table).order_by(moves_table.c.seq)
        if channel is not None:
            query = query.where(moves_table.c.channel == channel)
        return self._rows(query)

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
        move = PointerMove(class_, channel, snapshot, expected)
        self.point_all([move], action=action, at=at, who=who, reason=reason, ticket=ticket)

    def point_all(
        self,
        moves: Sequence[PointerMove],
        *,
        action: str,
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        """Make all these moves or none of them; `guard` may refuse in the same transaction.

        Raises:
            ConflictError: somebody moved one of the pointers meanwhile; each is named.
        """
        said = {"action": action, "at": at, "who": who, "reason": reason, "ticket": ticket}
        with self._write() as connection:
            if guard is not None:
                guard(connection)
            found = [(move, _pointed(connection, move)) for move in moves]
            problems = [_moved(move, now) for move, now in found if now != move.expected]
            if problems:
                raise ConflictError(problems)
            for move in moves:
                _point(connection, move, said)


def _add(
    connection: Connection, snapshot: str, channel: str, packages: int, at: float, who: str
) -> bool:
    known = sa.select(snapshots_table.c.id).where(snapshots_table.c.id == snapshot)
    if connection.execute(known).first():
        return False
    row = {"id": snapshot, "channel": channel, "taken": at, "who": who, "packages": packages}
    connection.execute(snapshots_table.insert(), row)
    detail = as_json({"channel": channel, "packages": packages})
    entry = {"action": "snapshot", "subject": snapshot, "at": at, "who": who, "detail": detail}
    record(connection, entry)
    return True


def _where(move: PointerMove) -> sa.ColumnElement[bool]:
    p = pointers_table.c
    return sa.and_(p["class"] == move.class_, p.channel == move.channel)


def _pointed(connection: Connection, move: PointerMove) -> str | None:
    row = connection.execute(sa.select(pointers_table.c.snapshot).where(_where(move))).first()
    return str(row[0]) if row else None


def _point(connection: Connection, move: PointerMove, said: Mapping[str, Any]) -> None:
    at, who = said["at"], said["who"]
    if move.packages is not None:
        _add(connection, move.snapshot, move.channel, move.packages, at, who)
    place = {"class": move.class_, "channel": move.channel}
    values = {**place, "snapshot": move.snapshot, "since": at, "who": who}
    pointer = {**values, "previous": move.expected}
    _set(connection, move, pointer)
    row = {**place, "snapshot": move.snapshot, "action": said["action"], "at": at, "who": who}
    connection.execute(moves_table.insert(), row)
    detail = {**place, "from": move.expected, "to": move.snapshot, **move.detail}
    record(connection, {**said, "subject": move.class_, "detail": as_json(detail)})


def _set(connection: Connection, move: PointerMove, pointer: Mapping[str, Any]) -> None:
    """Set a pointer from what its mover saw: PostgreSQL lets others write since it was read."""
    seen = sa.and_(_where(move), pointers_table.c.snapshot == move.expected)
    try:
        if move.expected is None:
            connection.execute(pointers_table.insert(), dict(pointer))
        elif connection.execute(pointers_table.update().where(seen).values(pointer)).rowcount != 1:
            raise ConflictError(_moved(move, _pointed(connection, move)))
    except sa.exc.IntegrityError:
        raise ConflictError(_moved(move, "another")) from None


def _moved(move: PointerMove, now: str | None) -> Problem:
    seen = short_id(move.expected or "nothing")
    return Problem(
        f"{move.class_} {move.channel}",
        f"points at {short_id(now or 'nothing')} now, not at {seen}",
        "somebody moved it meanwhile: look again",
    )
