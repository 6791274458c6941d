"""Rollouts, the states of their levels and hosts, and the locks on hosts.

Invariants: a host is locked by at most one rollout; everything moves only from the state that its
mover saw; a host's outcome, its journal entry and the end of its lock are one transaction; no host
is told to start once a wish to halt is committed, nor by a process that does not own the rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store.chains import Guard
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json, parts
from cpacman.store.tables import (
    approvals_table,
    locks_table,
    rollout_hosts_table,
    rollout_levels_table,
    rollouts_table,
    sequences_table,
    skips_table,
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


class RolloutLevel(msgspec.Struct, frozen=True, kw_only=True):
    """One level of one rollout: its state since when, its limits, what its checks found last.

    `soaking` is since when it soaks, or soaked; None while it has to begin that.
    """

    level: str
    position: int
    state: str
    since: float
    limits: dict[str, Any]
    findings: list[Any] | None = None
    soaking: float | None = None


_ORDERED = {"restarting": "restart", "rebooting": "reboot"}


class Rollouts(Database):
    """Rollouts and their hosts."""

    def start_rollout(
        self,
        rollout: Mapping[str, Any],
        hosts: Sequence[tuple[str, str, str]],
        *,
        at: float,
        levels: Sequence[tuple[str, Mapping[str, Any]]] = (),
        guard: Guard | None = None,
    ) -> None:
        """Create a rollout with its `(host, level, transaction)` and lock every host for it.

        Args:
            rollout: its header, a value for each column.
            hosts: in the order of the levels.
            at: seconds since the epoch.
            levels: `(name, limits)`, in order.
            guard: may refuse, in the same transaction.

        Raises:
            ConflictError: a host is locked by another rollout; nothing was created.
        """
        names = [host for host, _, _ in hosts]
        with self._write() as connection:
            if guard is not None:
                guard(connection)
            lock_hosts(connection, rollout["id"], names, at)
            connection.execute(rollouts_table.insert(), {"beat": at, **rollout, "created": at})
            rows = [
                {"rollout": rollout["id"], "host": host, "level": level, "transaction": number,
                 "state": "waiting", "updated": at, "attempt": 1}
                for host, level, number in hosts
            ]  # fmt: skip
            if rows:
                connection.execute(rollout_hosts_table.insert(), rows)
            stages = [
                {"rollout": rollout["id"], "level": level, "position": position,
                 "state": "waiting", "since": at, "limits": as_json(limits)}
                for position, (level, limits) in enumerate(levels)
            ]  # fmt: skip
            if stages:
                connection.execute(rollout_levels_table.insert(), stages)
            detail = {"plan": rollout["plan"], "class": rollout["class"], "hosts": len(hosts)}
            entry = {"action": "rollout", "subject": rollout["id"], "at": at,
                     "who": rollout["who"], "reason": rollout.get("reason"),
                     "ticket": rollout.get("ticket"), "detail": as_json(detail)}  # fmt: skip
            record(connection, entry)

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

    def order_hosts(
        self,
        rollout: str,
        hosts: Sequence[str],
        *,
        owner: str,
        at: float,
        state: str = "applying",
        who: str = "",
    ) -> bool:
        """Commit that hosts are told to do something; return False when a wish forbids it.

        This is what makes a halt exact: it is one transaction with the look at the wish.

        Args:
            rollout: theirs.
            hosts: who is told.
            owner: the process that tells them.
            at: seconds since the epoch.
            state: `applying`, or `restarting` or `rebooting`, which are journaled by host.
            who: for the journal.

        Raises:
            ConflictError: another process owns the rollout, or a host is not ready any more.
        """
        expected = "staged" if state == "applying" else "installed"
        with self._write() as connection:
            row = _owned(connection, rollout, owner)
            if row.wish is not None or row.state != "running":
                return False
            _move_all(connection, rollout, hosts, expected, {"state": state, "updated": at})
            for host in hosts if expected == "installed" else ():
                entry = {"action": _ORDERED[state], "subject": rollout, "at": at, "who": who,
                         "host": host, "detail": "{}"}  # fmt: skip
                record(connection, entry)
        return True

    def reopen_hosts(
        self, rollout: str, hosts: Sequence[str], *, at: float, who: str, action: str
    ) -> None:
        """Let hosts of a rollout begin anew, as their next attempt, and lock them again.

        Raises:
            ConflictError: another rollout has one of them; none was reopened.
        """
        with self._write() as connection:
            _reopen(connection, rollout, hosts, at)
            _note_hosts(connection, rollout, hosts, at, who, action)

    def go_on_rollout(
        self,
        rollout: str,
        *,
        expected: str,
        owner: str,
        anew: Sequence[str] = (),
        following: Sequence[str] = (),
        at: float,
        who: str,
        verb: str,
        reason: str | None = None,
        background: bool | None = None,
    ) -> None:
        """Let a rollout run again, some of its hosts begin anew, and with them their levels.

        One transaction: a rollout that is closed never has a host that is open, and no host waits
        in a level that has passed. A wish that stands is not forgotten by it.

        Args:
            rollout: its id.
            expected: the state that the caller saw.
            owner: who carries it on, and owns it already.
            anew: hosts that begin anew, as their next attempt.
            following: hosts that have their packages, and try again what follows these.
            at: seconds since the epoch.
            who: whoever wants it.
            verb: why, as the journal has it.
            reason: kept in the journal.
            background: whether the engine carries it on from now on; left out, as before.

        Raises:
            ConflictError: it is not as the caller saw it, or another rollout has one of the hosts.
        """
        r = rollouts_table
        with self._write() as connection:
            row = _owned(connection, rollout, owner)
            if row.state != expected:
                raise ConflictError(Problem(short_id(rollout), f"is not {expected} any more"))
            _reopen(connection, rollout, anew, at)
            ask_hosts_again(connection, rollout, following, at)
            if hosts := [*anew, *following]:
                _reopen_levels(connection, rollout, hosts, at)
                _note_hosts(connection, rollout, hosts, at, who, verb)
            if background is not None:
                _set(connection, rollout, "background", background)
            if expected != "running":
                values = {"state": "running", "why": verb, "until": None, "ended": None}
                connection.execute(r.update().where(r.c.id == rollout).values(values))
                entry = {"action": "running", "subject": rollout, "at": at, "who": who,
                         "reason": reason, "detail": as_json({"why": verb})}  # fmt: skip
                record(connection, entry)

    def own_rollout(self, rollout: str, *, seen: str, owner: str) -> None:
        """Take a rollout over from the owner that the caller saw, who is gone, or from nobody.

        The last sign of life stays that of the one before: it tells what that one has seen to.

        Raises:
            ConflictError: somebody else was faster.
        """
        r = rollouts_table
        with self._write() as connection:
            mine = sa.and_(r.c.id == rollout, r.c.owner == seen)
            done = connection.execute(r.update().where(mine).values(owner=owner))
            if done.rowcount != 1:
                words = "is carried out by another process"
                raise ConflictError(Problem(short_id(rollout), words, "look again"))

    def beat_rollout(self, rollout: str, *, owner: str, at: float) -> str | None:
        """Say that the owner is at it, and return what an operator wishes meanwhile.

        Raises:
            ConflictError: another process owns the rollout.
        """
        r = rollouts_table
        with self._write() as connection:
            row = _owned(connection, rollout, owner)
            connection.execute(r.update().where(r.c.id == rollout).values(beat=at))
        return None if row.wish is None else str(row.wish)

    def wish_rollout(
        self, rollout: str, wish: str, *, at: float, who: str, reason: str | None = None
    ) -> None:
        """Ask whoever carries a rollout out to halt or cancel it; no host starts from now on.

        Raises:
            ConflictError: it has ended meanwhile.
        """
        r = rollouts_table
        with self._write() as connection:
            where = sa.and_(r.c.id == rollout, r.c.state.in_(("running", "waiting", "paused")))
            done = connection.execute(r.update().where(where).values(wish=wish))
            if done.rowcount != 1:
                raise ConflictError(Problem(short_id(rollout), "has ended", "look at it: show"))
            entry = {"action": f"wish {wish}", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "detail": "{}"}  # fmt: skip
            record(connection, entry)

    def move_rollout(
        self,
        rollout: str,
        *,
        expected: str,
        state: str,
        at: float,
        who: str,
        why: str = "",
        until: float | None = None,
        owner: str | None = None,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> str | None:
        """Move a rollout to where it ends or waits, and journal that; an end forgets a wish.

        Returns:
            the wish that forbids it, and then nothing was moved: what is to be halted does not
            wait, and what is to be cancelled is not halted.

        Raises:
            ConflictError: it is not in the state that the caller saw.
        """
        r = rollouts_table
        closed = state in ("done", "halted", "cancelled")
        values: dict[str, Any] = {"state": state, "why": why or None, "until": until,
                                  "ended": at if closed else None, "beat": at}  # fmt: skip
        if closed:
            values["wish"] = None
        if owner is not None:
            values["owner"] = owner
        with self._write() as connection:
            wish = connection.execute(sa.select(r.c.wish).where(r.c.id == rollout)).scalar()
            if wish and (not closed or (wish, state) == ("cancel", "halted")):
                return str(wish)
            where = sa.and_(r.c.id == rollout, r.c.state == expected)
            if connection.execute(r.update().where(where).values(values)).rowcount != 1:
                raise ConflictError(Problem(short_id(rollout), f"is not {expected} any more"))
            detail = {"why": why, "until": until} if why or until else {}
            entry = {"action": state, "subject": rollout, "at": at, "who": who, "reason": reason,
                     "ticket": ticket, "detail": as_json(detail)}  # fmt: skip
            record(connection, entry)
        return None

    def end_rollout(self, rollout: str, *, state: str, at: float, who: str) -> None:
        """Close a rollout as `done`, `halted` or `cancelled`; a wish to cancel goes before that."""
        now = self.rollout_row(rollout)["state"]
        wish = self.move_rollout(rollout, expected=now, state=state, at=at, who=who)
        if wish is not None:
            self.move_rollout(rollout, expected=now, state="cancelled", at=at, who=who)

    def manifest_of(self, rollout: str, host: str) -> str | None:
        """Return the manifest of a host's present attempt."""
        h = rollout_hosts_table.c
        rows = self._rows(sa.select(h.manifest).where(h.rollout == rollout, h.host == host))
        return rows[0]["manifest"] if rows else None

    # ---- levels and approvals ------------------------------------------------------------

    def rollout_levels(self, rollout: str) -> list[RolloutLevel]:
        """Return the levels of a rollout, in order."""
        table = rollout_levels_table
        query = sa.select(table).where(table.c.rollout == rollout).order_by(table.c.position)
        return [
            RolloutLevel(
                level=row["level"], position=row["position"], state=row["state"],
                since=row["since"], limits=msgspec.json.decode(row["limits"]),
                findings=msgspec.json.decode(row["findings"]) if row["findings"] else None,
                soaking=row["soaking"],
            )
            for row in self._rows(query)
        ]  # fmt: skip

    def move_level(
        self, rollout: str, level: str, *, expected: str, state: str, at: float, late: bool = False
    ) -> None:
        """Move a level to its next state.

        Its soak begins when it first comes to that. It begins anew when the level runs again,
        unless that is for hosts which come `late`.

        Raises:
            ConflictError: it is not in the state that the caller saw.
        """
        with self._write() as connection:
            _move_level(connection, rollout, level, expected, state, at, late)

    def pass_level(
        self, rollout: str, level: str, *, expected: str, at: float, who: str, reason: str | None
    ) -> None:
        """Let a level pass by a person's word, and journal that.

        Raises:
            ConflictError: it is not in the state that the caller saw.
        """
        with self._write() as connection:
            _move_level(connection, rollout, level, expected, "passed", at)
            entry = {"action": "gate passed by force", "subject": rollout, "at": at, "who": who,
                     "reason": reason, "detail": as_json({"level": level})}  # fmt: skip
            record(connection, entry)

    def put_findings(
        self,
        rollout: str,
        level: str,
        findings: Sequence[Mapping[str, Any]],
        *,
        at: float,
        who: str,
        add: bool = False,
    ) -> None:
        """Keep what the checks of a level's gate found, and journal it.

        With `add` what other checks found before, or the same ones of other hosts, stays.
        """
        table = rollout_levels_table
        with self._write() as connection:
            where = sa.and_(table.c.rollout == rollout, table.c.level == level)
            row = connection.execute(sa.select(table.c.findings).where(where)).first()
            before = msgspec.json.decode((row[0] if row and add else None) or "[]")
            again = {(one.get("check"), one.get("host")) for one in findings}
            kept = [one for one in before if (one.get("check"), one.get("host")) not in again]
            values = {"findings": as_json([*kept, *findings])}
            connection.execute(table.update().where(where).values(values))
            detail = as_json({"level": level, "findings": findings})
            record(
                connection,
                {"action": "gate", "subject": rollout, "at": at, "who": who, "detail": detail},
            )

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

    def approvals(self, rollout: str) -> list[str]:
        """Return who approved of a rollout, sorted."""
        table = approvals_table
        query = sa.select(table.c.who).where(table.c.rollout == rollout).order_by(table.c.who)
        return [str(row["who"]) for row in self._rows(query)]

    def skip_host(
        self, rollout: str, host: str, *, at: float, who: str, reason: str | None
    ) -> None:
        """Keep that a host is to be skipped before its turn comes."""
        table = skips_table
        with self._write() as connection:
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
            _set(connection, rollout, "forgiven", list(hosts))

    # ---- who was out of reach -------------------------------------------------------------

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

    def hasten_rollout(self, rollout: str, *, at: float) -> None:
        """Let a rollout that waits be gone on with now: what it waits for is looked at again."""
        r = rollouts_table
        with self._write() as connection:
            where = sa.and_(r.c.id == rollout, r.c.state == "waiting")
            connection.execute(r.update().where(where).values(until=at))

    # ---- looking -------------------------------------------------------------------------

    def note_progress(self, rollout: str, progress: Mapping[str, Any]) -> None:
        """Keep how far the push of a rollout is, for who watches it."""
        r = rollouts_table
        with self._write() as connection:
            connection.execute(
                r.update().where(r.c.id == rollout).values(progress=as_json(dict(progress)))
            )

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

    def rollouts(self, *, active: bool = False) -> list[dict[str, Any]]:
        """Return the rollouts, oldest first; with `active` only those that have not ended."""
        query = sa.select(rollouts_table).order_by(rollouts_table.c.created)
        if active:
            query = query.where(rollouts_table.c.ended.is_(None))
        return self._rows(query)

    def rollout_row(self, prefix: str) -> dict[str, Any]:
        """Return one rollout without its hosts, by id or unique prefix.

        Raises:
            InputError: no rollout, or more than one, begins like that.
        """
        full = self._resolve(rollouts_table, "rollout", prefix)
        return self._rows(sa.select(rollouts_table).where(rollouts_table.c.id == full))[0]

    def rollout(self, prefix: str) -> tuple[dict[str, Any], list[RolloutHost]]:
        """Return one rollout and its hosts, by id or unique prefix.

        Raises:
            InputError: no rollout, or more than one, begins like that.
        """
        row = self.rollout_row(prefix)
        h = rollout_hosts_table
        rows = self._rows(sa.select(h).where(h.c.rollout == row["id"]).order_by(h.c.host))
        return row, [RolloutHost.of(one) for one in rows]


def _owned(connection: Connection, rollout: str, owner: str) -> Any:
    r = rollouts_table.c
    row = connection.execute(sa.select(r.owner, r.wish, r.state).where(r.id == rollout)).first()
    if row is None or row.owner != owner:
        words = "is carried out by another process now"
        raise ConflictError(Problem(short_id(rollout), words, "this one stops"))
    return row


def _set(connection: Connection, rollout: str, name: str, value: Any) -> None:
    """Keep a plain value among the settings of a rollout."""
    r = rollouts_table
    where = r.c.id == rollout
    text = connection.execute(sa.select(r.c.settings).where(where)).scalar()
    settings = {**msgspec.json.decode(text or "{}"), name: value}
    connection.execute(r.update().where(where).values(settings=as_json(settings)))


def _reopen(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    h = rollout_hosts_table
    mine = _rows_of(connection, rollout, hosts)
    lock_hosts(connection, rollout, [host for host, one in mine.items() if one == "ended"], at)
    values = {"state": "waiting", "outcome": None, "code": None, "detail": None,
              "manifest": None, "updated": at, "boot": None,
              "attempt": h.c.attempt + 1}  # fmt: skip
    for part in parts(sorted(hosts)):
        where = sa.and_(h.c.rollout == rollout, h.c.host.in_(part))
        connection.execute(h.update().where(where).values(values))


def ask_hosts_again(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Lock ended hosts and set them back to `applying`: their report is asked for again.

    Raises:
        ConflictError: a host is locked, or has not ended.
    """
    lock_hosts(connection, rollout, hosts, at)
    values = {"state": "applying", "updated": at, "outcome": None, "code": None, "detail": None}
    _move_all(connection, rollout, hosts, "ended", values)


def _note_hosts(
    connection: Connection, rollout: str, hosts: Sequence[str], at: float, who: str, action: str
) -> None:
    entry = {"action": action, "subject": rollout, "at": at, "who": who,
             "detail": as_json({"hosts": sorted(hosts)})}  # fmt: skip
    record(connection, entry)


def _reopen_levels(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
    """Let the levels of hosts that begin anew run again, where they had come further."""
    h, table = rollout_hosts_table.c, rollout_levels_table
    for part in parts(sorted(hosts)):
        names = sa.select(h.level).where(h.rollout == rollout, h.host.in_(part))
        where = sa.and_(
            table.c.rollout == rollout,
            table.c.level.in_(names),
            table.c.state.in_(("checking", "soaking", "passed")),
        )
        values = {"state": "running", "since": at, "soaking": None}
        connection.execute(table.update().where(where).values(values))


def _move_level(
    connection: Connection,
    rollout: str,
    level: str,
    expected: str,
    state: str,
    at: float,
    late: bool = False,
) -> None:
    table = rollout_levels_table
    values: dict[str, Any] = {"state": state, "since": at}
    if state == "soaking":
        values["soaking"] = sa.func.coalesce(table.c.soaking, at)
    elif state == "running" and not late:
        values["soaking"] = None
    where = sa.and_(table.c.rollout == rollout, table.c.level == level, table.c.state == expected)
    if connection.execute(table.update().where(where).values(values)).rowcount != 1:
        words = f"level {level} is not {expected} any more"
        raise ConflictError(Problem(short_id(rollout), words))


def _rows_of(connection: Connection, rollout: str, hosts: Sequence[str]) -> dict[str, str]:
    h = rollout_hosts_table.c
    found: dict[str, str] = {}
    for part in parts(sorted(hosts)):
        query = sa.select(h.host, h.state).where(h.rollout == rollout, h.host.in_(part))
        found.update((row.host, row.state) for row in connection.execute(query))
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


def _move_all(
    connection: Connection,
    rollout: str,
    hosts: Sequence[str],
    expected: str,
    values: Mapping[str, Any],
) -> None:
    h = rollout_hosts_table
    for part in parts(sorted(hosts)):
        where = sa.and_(h.c.rollout == rollout, h.c.host.in_(part), h.c.state == expected)
        if connection.execute(h.update().where(where).values(dict(values))).rowcount != len(part):
            words = f"a host of {', '.join(part[:5])} is not {expected} any more"
            raise ConflictError(Problem(short_id(rollout), words))


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
