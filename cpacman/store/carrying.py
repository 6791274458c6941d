"""What rollouts and chains have in common: one process carries each on, and people stop it.

Invariants: nobody becomes the owner of what another one took meanwhile; what has ended takes no
wish; it moves only from the state that its mover saw. All of it happens inside a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.journal import record
from cpacman.store.rows import as_json

OPEN = ("running", "waiting", "paused")
CLOSED = ("done", "halted", "cancelled")


def take_over(connection: Connection, table: sa.Table, number: str, seen: str, owner: str) -> None:
    """Take one over from the owner that the caller saw.

    Raises:
        ConflictError: somebody else was faster.
    """
    mine = sa.and_(table.c.id == number, table.c.owner == seen)
    if connection.execute(table.update().where(mine).values(owner=owner)).rowcount != 1:
        words = "is carried on by another process"
        raise ConflictError(Problem(short_id(number), words, "look again"))


def write_wish(
    connection: Connection,
    table: sa.Table,
    number: str,
    wish: str,
    *,
    at: float,
    who: str,
    reason: str | None,
) -> None:
    """Write down what whoever carries one on is to do with it, and journal that.

    Raises:
        ConflictError: it has ended meanwhile.
    """
    where = sa.and_(table.c.id == number, table.c.state.in_(OPEN))
    if connection.execute(table.update().where(where).values(wish=wish)).rowcount != 1:
        raise ConflictError(Problem(short_id(number), "has ended", "look at it: rollout"))
    entry = {"action": f"wish {wish}", "subject": number, "at": at, "who": who,
             "reason": reason, "detail": "{}"}  # fmt: skip
    record(connection, entry)


def wish_of(connection: Connection, table: sa.Table, number: str) -> str | None:
    """Return what somebody wishes of one."""
    wish = connection.execute(sa.select(table.c.wish).where(table.c.id == number)).scalar()
    return None if wish is None else str(wish)


def move(
    connection: Connection,
    table: sa.Table,
    number: str,
    *,
    expected: str,
    state: str,
    at: float,
    who: str,
    why: str,
    until: float | None,
    owner: str | None,
    reason: str | None,
    ticket: str | None = None,
    also: Mapping[str, Any],
) -> None:
    """Move one to its next state, and journal that; an end forgets a wish.

    Args:
        connection: of the transaction.
        table: of rollouts, or of chains.
        number: its id.
        expected: the state that the caller saw.
        state: the next one.
        at: seconds since the epoch.
        who: for the journal.
        why: what brought it there, "" for nothing.
        until: when it may go on by itself, in seconds since the epoch.
        owner: who owns it from now on; None leaves that as it is.
        reason: for the journal.
        ticket: for the journal.
        also: further columns.

    Raises:
        ConflictError: it is not in the state that the caller saw.
    """
    values = {"state": state, "why": why or None, "until": until, "ended": None, **also}
    if state in CLOSED:
        values.update(ended=at, wish=None)
    if owner is not None:
        values["owner"] = owner
    where = sa.and_(table.c.id == number, table.c.state == expected)
    if connection.execute(table.update().where(where).values(values)).rowcount != 1:
        raise ConflictError(Problem(short_id(number), f"is not {expected} any more"))
    detail = {"why": why, "until": until} if why or until else {}
    entry = {"action": state, "subject": number, "at": at, "who": who, "reason": reason,
             "ticket": ticket, "detail": as_json(detail)}  # fmt: skip
    record(connection, entry)
