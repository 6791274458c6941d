"""The hosts of rollouts: where each is, how it ended, and the locks on hosts.

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
    attempt: int = 1
    findings: str | None = None
    boot: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RolloutHost:
        """Return a row of the table as such."""
        return cls(**{key: value for key, value in row.items() if key != "rollout"})


class RolloutHosts(Database):
    """Hosts of rollouts."""

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
        findings: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Write a host's one outcome, journal it with what changed, and unlock the host."""
        found = as_json(findings) if findings else None
        values = {"state": "ended", "updated": at, "outcome": outcome, "code": code,
                  "detail": detail, "findings": found}  # fmt: skip
        with self._write() as connection:
            _move(connection, rollout, host, expected, values)
            k = locks_table.c
            mine = sa.and_(k.host == host, k.rollout == rollout)
            connection.execute(locks_table.delete().where(mine))
            entry = {"action": outcome, "subject": rollout, "at": at, "who": who, "host": host,
                     "ticket": ticket, "reason": reason,
                     "detail": as_json({"code": code, "detail": detail})}  # fmt: skip
            record(connection, entry, changes)

    def install_host(
        self,
        rollout: str,
        host: str,
        *,
        at: float,
        who: str,
        boot: str,
        findings: Mapping[str, Sequence[str]],
        changes: Sequence[Mapping[str, Any]],
        reason: str | None = None,
        ticket: str | None = None,
    ) -> None:
        """Keep that a host proved its transaction, and journal what that changed.

        Args:
            rollout: the host's.
            host: its id; it stays locked.
            at: seconds since the epoch.
            who: for the journal.
            boot: the boot that it is in.
            findings: what it found.
            changes: those of its packages, where they are not in the journal yet.
            reason: for the journal.
            ticket: for the journal.

        Raises:
            ConflictError: the host does not apply any more.
        """
        values = {"state": "installed", "updated": at, "boot": boot, "findings": as_json(findings)}
        entry = {"action": "installed", "subject": rollout, "at": at, "who": who, "host": host,
                 "reason": reason, "ticket": ticket, "detail": "{}"}  # fmt: skip
        with self._write() as connection:
            _move(connection, rollout, host, "applying", values)
            record(connection, entry, changes)

    def reopen_hosts(
        self, rollout: str, hosts: Sequence[str], *, at: float, who: str, action: str
    ) -> None:
        """Let hosts of a rollout begin anew, as their next attempt, and lock them again.

        Raises:
            ConflictError: another rollout has one of them; none was reopened.
        """
        with self._write() as connection:
            begin_hosts_anew(connection, rollout, hosts, at)
            note_hosts(connection, rollout, hosts, at, who, action)

    def locked_hosts(self) -> dict[str, str]:
        """Return host -> the rollout that has it just now."""
        k = locks_table.c
        return {row["host"]: row["rollout"] for row in self._rows(sa.select(k.host, k.rollout))}

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

    def manifest_of(self, rollout: str, host: str) -> str | None:
        """Return the manifest of a host's present attempt."""
        h = rollout_hosts_table.c
        rows = self._rows(sa.select(h.manifest).where(h.rollout == rollout, h.host == host))
        return rows[0]["manifest"] if rows else None

    # ---- looking -------------------------------------------------------------------------

    def unreached(self, rollout: str) -> list[str]:
        """Return the hosts of a rollout that were skipped as out of reach."""
        h = rollout_hosts_table.c
        query = sa.select(h.host).where(h.rollout == rollout, h.code == "unreachable")
        return [str(row["host"]) for row in self._rows(query.order_by(h.host))]

    def owed(self) -> dict[str, str]:
        """Return the hosts whose last rollout skipped them as out of reach -> that rollout."""
        h, r = rollout_hosts_table.c, rollouts_table.c
        missed = sa.select(h.host).where(h.code == "unreachable")
        query = (
            sa.select(h.host, h.rollout, h.code)
            .join(rollouts_table, r.id == h.rollout)
            .where(h.host.in_(missed))
            .order_by(r.created)
        )
        last = {row["host"]: row for row in self._rows(query)}
        return {host: row["rollout"] for host, row in sorted(last.items())
                if row["code"] == "unreachable"}  # fmt: skip

    def wrong_hosts(self, rollout: str, *, most: int) -> list[RolloutHost]:
        """Return hosts of a rollout that were refused, failed or fell silent, the latest first."""
        h = rollout_hosts_table
        bad = h.c.outcome.in_(("refused", "failed", "silent"))
        query = sa.select(h).where(h.c.rollout == rollout, bad).order_by(h.c.updated.desc())
        return [RolloutHost.of(row) for row in self._rows(query.limit(most))]

    def tally(self, rollout: str) -> dict[str, dict[tuple[str, str | None], int]]:
        """Return level -> (outcome or state, code of a skipped host) -> how many hosts."""
        h = rollout_hosts_table.c
        word = sa.func.coalesce(h.outcome, h.state)
        code = sa.case((h.outcome == "skipped", h.code))
        query = (
            sa.select(h.level, word.label("word"), code.label("code"), sa.func.count().label("n"))
            .where(h.rollout == rollout)
            .group_by(h.level, word, code)
        )
        found: dict[str, dict[tuple[str, str | None], int]] = {}
        for row in self._rows(query):
            found.setdefault(row["level"], {})[row["word"], row["code"]] = row["n"]
        return found


def lock_hosts(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Lock hosts for a rollout, inside a transaction.

    Raises:
        ConflictError: another rollout has one of them.
    """
    taken = _locked(connection, hosts)
    if taken:
        raise ConflictError(
            [Problem(h, f"is being changed by rollout {short_id(r)}", "wait for it, or cancel it")
             for h, r in sorted(taken.items())]
        )  # fmt: skip
    rows = [{"host": host, "rollout": rollout, "since": at} for host in hosts]
    if rows:
        connection.execute(locks_table.insert(), rows)


def _locked(connection: Connection, hosts: Sequence[str]) -> dict[str, str]:
    k = locks_table.c
    found: dict[str, str] = {}
    for part in parts(hosts):
        rows = connection.execute(sa.select(k.host, k.rollout).where(k.host.in_(part)))
        found.update((row[0], row[1]) for row in rows)
    return found


def begin_hosts_anew(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Let hosts begin anew, as their next attempt, inside a transaction; lock those that ended.

    Raises:
        ConflictError: another rollout has one of them.
    """
    h = rollout_hosts_table
    mine = _rows_of(connection, rollout, hosts)
    lock_hosts(connection, rollout, [host for host, one in mine.items() if one == "ended"], at)
    values = {"state": "waiting", "outcome": None, "code": None, "detail": None,
              "manifest": None, "updated": at, "boot": None,
              "attempt": h.c.attempt + 1}  # fmt: skip
    for part in parts(sorted(hosts)):
        where = sa.and_(h.c.rollout == rollout, h.c.host.in_(part))
        connection.execute(h.update().where(where).values(values))


def _rows_of(connection: Connection, rollout: str, hosts: Sequence[str]) -> dict[str, str]:
    h = rollout_hosts_table.c
    found: dict[str, str] = {}
    for part in parts(sorted(hosts)):
        query = sa.select(h.host, h.state).where(h.rollout == rollout, h.host.in_(part))
        found.update((row.host, row.state) for row in connection.execute(query))
    return found


def ask_hosts_again(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Lock ended hosts and set them back to `applying`: their report is asked for again.

    Raises:
        ConflictError: a host is locked, or has not ended.
    """
    lock_hosts(connection, rollout, hosts, at)
    values = {"state": "applying", "updated": at, "outcome": None, "code": None, "detail": None}
    move_hosts(connection, rollout, hosts, "ended", values)


def note_hosts(
    connection: Connection, rollout: str, hosts: Sequence[str], at: float, who: str, action: str
) -> None:
    """Journal, inside a transaction, that something was done about several hosts."""
    entry = {"action": action, "subject": rollout, "at": at, "who": who,
             "detail": as_json({"hosts": sorted(hosts)})}  # fmt: skip
    record(connection, entry)


def move_hosts(
    connection: Connection,
    rollout: str,
    hosts: Sequence[str],
    expected: str,
    values: Mapping[str, Any],
) -> None:
    """Move hosts to their next state, inside a transaction.

    Raises:
        ConflictError: one is not in the expected state any more.
    """
    h = rollout_hosts_table
    for part in parts(sorted(hosts)):
        where = sa.and_(h.c.rollout == rollout, h.c.host.in_(part), h.c.state == expected)
        if connection.execute(h.update().where(where).values(dict(values))).rowcount != len(part):
            words = f"a host of {', '.join(part[:5])} is not {expected} any more"
            raise ConflictError(Problem(short_id(rollout), words))


def _move(
    connection: Connection, rollout: str, host: str, expected: str, values: Mapping[str, Any]
) -> None:
    h = rollout_hosts_table
    mine = sa.and_(h.c.rollout == rollout, h.c.host == host, h.c.state == expected)
    done = connection.execute(h.update().where(mine).values(dict(values)))
    if done.rowcount != 1:
        raise ConflictError(Problem(host, f"is not {expected} any more in {short_id(rollout)}"))
