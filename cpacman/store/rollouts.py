"""Rollouts: how each begins, who carries it out, what is wished of it, how it ends.

Invariants: a rollout begins with all of its hosts locked, or not at all; no host is told to start
once a wish to halt is committed, nor by a process that does not own the rollout; what is closed has
no host that is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store import carrying
from cpacman.store.chains import Guard
from cpacman.store.decisions import keep_setting, skip_no_more
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rollout_hosts import (
    RolloutHost,
    ask_hosts_again,
    begin_hosts_anew,
    lock_hosts,
    move_hosts,
    note_hosts,
)
from cpacman.store.rollout_levels import reopen_levels
from cpacman.store.rows import as_json
from cpacman.store.tables import rollout_hosts_table, rollout_levels_table, rollouts_table

_ORDERED = {"restarting": "restart", "rebooting": "reboot"}


class Rollouts(Database):
    """Rollouts as a whole."""

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
            move_hosts(connection, rollout, hosts, expected, {"state": state, "updated": at})
            for host in hosts if expected == "installed" else ():
                entry = {"action": _ORDERED[state], "subject": rollout, "at": at, "who": who,
                         "host": host, "detail": "{}"}  # fmt: skip
                record(connection, entry)
        return True

    def go_on_rollout(
        self,
        rollout: str,
        *,
        expected: str,
        owner: str,
        anew: Sequence[str] = (),
        following: Sequence[str] = (),
        wanted: Sequence[str] = (),
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
            wanted: hosts that somebody wanted to be skipped, and are not to be any more.
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
            begin_hosts_anew(connection, rollout, anew, at)
            ask_hosts_again(connection, rollout, following, at)
            skip_no_more(connection, rollout, wanted)
            if hosts := [*anew, *following]:
                reopen_levels(connection, rollout, hosts, at)
                note_hosts(connection, rollout, hosts, at, who, verb)
            if background is not None:
                keep_setting(connection, rollout, "background", background)
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
        with self._write() as connection:
            carrying.take_over(connection, rollouts_table, rollout, seen, owner)

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
        with self._write() as connection:
            carrying.write_wish(
                connection, rollouts_table, rollout, wish, at=at, who=who, reason=reason
            )

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
        closed = state in carrying.CLOSED
        with self._write() as connection:
            wish = carrying.wish_of(connection, rollouts_table, rollout)
            if wish and (not closed or (wish, state) == ("cancel", "halted")):
                return wish
            carrying.move(
                connection, rollouts_table, rollout, expected=expected, state=state, at=at,
                who=who, why=why, until=until, owner=owner, reason=reason, ticket=ticket,
                also={"beat": at},
            )  # fmt: skip
        return None

    def end_rollout(self, rollout: str, *, state: str, at: float, who: str) -> None:
        """Close a rollout as `done`, `halted` or `cancelled`; a wish to cancel goes before that."""
        now = self.rollout_row(rollout)["state"]
        wish = self.move_rollout(rollout, expected=now, state=state, at=at, who=who)
        if wish is not None:
            self.move_rollout(rollout, expected=now, state="cancelled", at=at, who=who)

    def hasten_rollout(self, rollout: str, *, at: float) -> None:
        """Let a rollout that waits be gone on with now: what it waits for is looked at again."""
        r = rollouts_table
        with self._write() as connection:
            where = sa.and_(r.c.id == rollout, r.c.state == "waiting")
            connection.execute(r.update().where(where).values(until=at))

    def note_progress(self, rollout: str, progress: Mapping[str, Any]) -> None:
        """Keep how far the push of a rollout is, for who watches it."""
        r = rollouts_table
        with self._write() as connection:
            connection.execute(
                r.update().where(r.c.id == rollout).values(progress=as_json(dict(progress)))
            )

    # ---- looking -------------------------------------------------------------------------

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
