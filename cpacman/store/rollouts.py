"""Rollouts, the states of their hosts, and the locks on hosts.

Invariants: a host is locked by at most one rollout; it moves only from the state that its mover
saw; its outcome, its journal entry and the end of its lock are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json, parts
from cpacman.store.tables import (
    locks_table,
    rollout_hosts_table,
    rollouts_table,
    sequences_table,
)


class RolloutHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host of one rollout as the database has it."""

    host: str
    level: str
    transaction: str
    state: str
    outcome: str | None
    code: str | None
    detail: str | None
    manifest: str | None
    updated: float


class Rollouts(Database):
    """Rollouts and their hosts."""

    def start_rollout(
        self,
        rollout: Mapping[str, Any],
        hosts: Sequence[tuple[str, str, str]],
        *,
        at: float,
    ) -> None:
        """Create a rollout with its `(host, level, transaction)` and lock every host for it.

        Raises:
            ConflictError: a host is locked by another rollout; nothing was created.
        """
        names = [host for host, _, _ in hosts]
        with self._write() as connection:
            taken = _locked(connection, names)
            if taken:
                raise ConflictError(
                    [Problem(h, f"is being changed by rollout {short_id(r)}", "wait for it")
                     for h, r in sorted(taken.items())]
                )  # fmt: skip
            connection.execute(rollouts_table.insert(), {**rollout, "created": at})
            rows = [
                {"rollout": rollout["id"], "host": host, "level": level, "transaction": number,
                 "state": "waiting", "updated": at}
                for host, level, number in hosts
            ]  # fmt: skip
            locks = [{"host": h, "rollout": rollout["id"], "since": at} for h in names]
            if rows:
                connection.execute(rollout_hosts_table.insert(), rows)
                connection.execute(locks_table.insert(), locks)
            detail = {"plan": rollout["plan"], "class": rollout["class"], "hosts": len(hosts)}
            entry = {"action": "rollout", "subject": rollout["id"], "at": at,
                     "who": rollout["who"], "reason": rollout.get("reason"),
                     "ticket": rollout.get("ticket"), "detail": as_json(detail)}  # fmt: skip
            record(connection, entry)

    def next_sequence(self, host: str, *, at: float) -> int:
        """Return the next manifest sequence for a host; never the same one twice.

        It is the time in seconds or one more than the last, so that a master whose database was
        lost still gives numbers that hosts take for new.
        """
        s = sequences_table
        with self._write() as connection:
            row = connection.execute(sa.select(s.c.sequence).where(s.c.host == host)).first()
            number = max(int(row[0]) + 1, int(at)) if row else int(at)
            if row:
                connection.execute(s.update().where(s.c.host == host).values(sequence=number))
            else:
                connection.execute(s.insert(), {"host": host, "sequence": number})
        return number

    def move_host(
        self, rollout: str, host: str, *, expected: str, state: str, at: float, **values: Any
    ) -> None:
        """Move one host of a rollout from the state the caller saw to the next one.

        Raises:
            ConflictError: the host is not in the expected state any more.
        """
        with self._write() as connection:
            _move(connection, rollout, host, expected, {"state": state, "updated": at, **values})

    def end_host(
        self,
        rollout: str,
        host: str,
        *,
        expected: str,
        outcome: str,
        at: float,
        who: str,
        code: str | None = None,
        detail: str | None = None,
        ticket: str | None = None,
        reason: str | None = None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write a host's one outcome, journal it with what changed, and unlock the host."""
        values = {"state": "ended", "updated": at, "outcome": outcome, "code": code,
                  "detail": detail}  # fmt: skip
        with self._write() as connection:
            _move(connection, rollout, host, expected, values)
            k = locks_table.c
            mine = sa.and_(k.host == host, k.rollout == rollout)
            connection.execute(locks_table.delete().where(mine))
            entry = {"action": outcome, "subject": rollout, "at": at, "who": who, "host": host,
                     "ticket": ticket, "reason": reason,
                     "detail": as_json({"code": code, "detail": detail})}  # fmt: skip
            record(connection, entry, changes)

    def end_rollout(self, rollout: str, *, state: str, at: float, who: str) -> None:
        """Close a rollout as `done` or `halted`."""
        r = rollouts_table
        with self._write() as connection:
            connection.execute(r.update().where(r.c.id == rollout).values(state=state, ended=at))
            entry = {"action": state, "subject": rollout, "at": at, "who": who, "detail": "{}"}
            record(connection, entry)

    def rollouts(self, *, active: bool = False) -> list[dict[str, Any]]:
        """Return the rollouts, oldest first; with `active` only those that have not ended."""
        query = sa.select(rollouts_table).order_by(rollouts_table.c.created)
        if active:
            query = query.where(rollouts_table.c.ended.is_(None))
        return self._rows(query)

    def rollout(self, prefix: str) -> tuple[dict[str, Any], list[RolloutHost]]:
        """Return one rollout and its hosts, by id or unique prefix.

        Raises:
            InputError: no rollout, or more than one, begins like that.
        """
        full = self._resolve(rollouts_table, "rollout", prefix)
        row = self._rows(sa.select(rollouts_table).where(rollouts_table.c.id == full))[0]
        h = rollout_hosts_table
        rows = self._rows(sa.select(h).where(h.c.rollout == full).order_by(h.c.host))
        return row, [RolloutHost(**{k: v for k, v in r.items() if k != "rollout"}) for r in rows]


def _locked(connection: Connection, hosts: Sequence[str]) -> dict[str, str]:
    k = locks_table.c
    found: dict[str, str] = {}
    for part in parts(hosts):
        rows = connection.execute(sa.select(k.host, k.rollout).where(k.host.in_(part)))
        found.update((row[0], row[1]) for row in rows)
    return found


def _move(
    connection: Connection, rollout: str, host: str, expected: str, values: Mapping[str, Any]
) -> None:
    h = rollout_hosts_table
    mine = sa.and_(h.c.rollout == rollout, h.c.host == host, h.c.state == expected)
    done = connection.execute(h.update().where(mine).values(dict(values)))
    if done.rowcount != 1:
        raise ConflictError(Problem(host, f"is not {expected} any more in {short_id(rollout)}"))
