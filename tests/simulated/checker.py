"""What must always hold of rollouts, checked after every commit and at every message to a host.

The checker reads the database by itself, knows the truth of every simulated host, and reasons
with tables and limits of its own: it shares no rule with what it checks but the names of states.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.simulated.chains import ChainRules
from tests.simulated.hosts import AFTER, Host, Session
from tests.simulated.levels import LevelRules
from tests.simulated.picture import Header, Picture, Row, read_picture
from tests.simulated.scenario import Scenario
from tests.simulated.schedule import Schedule

MOVES = {
    ("waiting", "staging"), ("waiting", "ended"), ("staging", "staged"), ("staging", "waiting"),
    ("staging", "ended"), ("staged", "applying"), ("staged", "waiting"), ("staged", "ended"),
    ("applying", "ended"), ("ended", "waiting"), ("ended", "applying"),
    ("applying", "installed"), ("installed", "restarting"), ("installed", "rebooting"),
    ("installed", "ended"), ("restarting", "ended"), ("rebooting", "ended"),
}  # fmt: skip
ORDERS = {("staged", "applying"), ("installed", "restarting"), ("installed", "rebooting")}
AWAY = {"restart": "restarting", "reboot": "rebooting"}
TOLD = ("applying", "installed", "restarting", "rebooting")
IN_FLIGHT = ("applying", "restarting", "rebooting")
CLOSED = ("done", "halted", "cancelled")
FAILURES = ("refused", "failed", "silent")
ASKED_AGAIN = ("interrupted", "restart", "reboot", "reboot-timeout", "owed")
"""Codes of hosts that are collected again, or whose restart or reboot is tried again."""
HALT_SECONDS = 1.0
"""From the commit of a wish to the last message that starts somebody."""


class Checker:
    """Looks at everything, and writes down what is wrong."""

    def __init__(
        self, database: Path, schedule: Schedule, hosts: Mapping[str, Host], scenario: Scenario
    ) -> None:
        self._database = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self.schedule, self._hosts, self.scenario = schedule, hosts, scenario
        self.violations: list[str] = []
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self._wished: dict[str, float] = {}
        self._never: set[str] = set()
        self._orders: set[str] = set()
        self._following: Counter[str] = Counter()
        self._followed: Counter[str] = Counter()
        self._drained: Counter[tuple[str, str]] = Counter()
        self.levels, self._chains = LevelRules(self), ChainRules(self)
        self.seen = read_picture(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def wrong(self, text: str) -> None:
        """Write a violation down."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)

    def note(self, text: str) -> None:
        """Write an event down, for who reads why."""
        who = self.schedule.running.name if self.schedule.running else "-"
        self.log.append(f"{self.schedule.now - 1_800_000_000:9.1f} {who:12} {text}")

    # ---- after each commit -----------------------------------------------------------------

    def committed(self) -> None:
        """Compare the database with what it was, and with what is true."""
        before, self.seen = self.seen, read_picture(self._database)
        now = self.seen
        for number, header in now.headers.items():
            self._header(before.headers.get(number), header)
        moved = [(before.rows[key], row) for key, row in now.rows.items()
                 if key in before.rows and before.rows[key] != row]  # fmt: skip
        anew = {(row.rollout, row.level) for old, row in moved
                if old.state == "ended" and now.last != "late"}  # fmt: skip
        for key, stage in now.levels.items():
            self.levels.committed(before.levels.get(key), stage, anew)
        for old, row in moved:
            self._moved(old, row)
        # From `ended` it is collected again by recover, and nobody starts.
        ordered = [row for old, row in moved if (old.state, row.state) in ORDERS]
        if ordered:
            self._ordered(ordered, before)
        self._locked(now)
        self._chains.committed(before, now)

    def _locked(self, now: Picture) -> None:
        """One host is never in two rollouts, and locked exactly as long as it is in one."""
        opened: dict[str, str] = {}
        for row in now.rows.values():
            if row.state != "ended":
                if row.host in opened:
                    self.wrong(f"{row.host} is in {opened[row.host]} and in {row.rollout}")
                opened[row.host] = row.rollout
                if now.headers[row.rollout].state in CLOSED:
                    self.wrong(f"{row.host} is {row.state} in a rollout that is closed")
        if opened != now.locks:
            self.wrong(f"locks {dict(now.locks)} are not those of open hosts {opened}")

    def _header(self, old: Header | None, new: Header) -> None:
        if old is None or old.state != new.state:
            self.note(f"{new.id} is {new.state}")
            self.counts[f"rollout {new.state}"] += 1
        if old is not None and old.wish != new.wish:
            self.note(f"{new.id} wish {new.wish}")
        if new.wish is None:
            self._wished.pop(new.id, None)
            if old is not None and old.wish and new.state not in CLOSED:
                self.wrong(f"{new.id}: the wish {old.wish} was forgotten, it is {new.state}")
        else:
            self._wished.setdefault(new.id, self.schedule.now)
        final = new.state == "cancelled" or new.wish == "cancel"
        if old is not None and old.state == "cancelled" and not final:
            self.wrong(f"{new.id} is {new.state} after it was cancelled")

    def _moved(self, old: Row, new: Row) -> None:
        where = f"{new.host} of {new.session}"
        self.note(f"{where}: {old.state} -> {new.state} {new.outcome or ''} {new.code or ''}")
        if old.state != new.state and (old.state, new.state) not in MOVES:
            self.wrong(f"{where}: {old.state} -> {new.state} is no move")
        if old.state == new.state and (old.outcome, old.attempt) != (new.outcome, new.attempt):
            self.wrong(f"{where}: {old} became {new}")
        if (old.state, new.state) == ("ended", "applying") and not (
            old.outcome == "silent" or old.code in ASKED_AGAIN
        ):
            self.wrong(f"{where} is collected again after {old.outcome}")
        if old.state == "ended" and self.seen.last == "late":
            self._joins(old, where)
        if new.state in AWAY.values():
            self._following[f"{new.host} {new.session}"] += 1
        if new.state == "waiting" and new.attempt != old.attempt + 1:
            self.wrong(f"{where}: begins anew as attempt {new.attempt} after {old.attempt}")
        if new.state == "ended":
            self._ended(old, new, where)

    def _joins(self, old: Row, where: str) -> None:
        """Only who was out of reach joins late, and where that is wanted."""
        self.counts["joins late"] += 1
        if not self.scenario.late:
            self.wrong(f"{where} joins though nobody may")
        if old.code != "unreachable":
            self.wrong(f"{where} joins after it was {old.outcome} {old.code}")

    def _ended(self, old: Row, new: Row, where: str) -> None:
        """The recorded outcome is what is true of the host."""
        host = self._hosts[new.host]
        host.settle(self.schedule.now)
        one = host.sessions.get(new.session)
        self.counts[str(new.outcome)] += 1
        told = old.state in TOLD
        true = {
            "applied": told and one is not None and one.outcome == "applied"
            and host.truth == AFTER and (new.code == "owed" or self._is_settled(new, host, one)),
            "unchanged": host.truth == AFTER,
            "refused": _untouched(one),
            "skipped": not told and (one is None or one.starts == 0),
            "failed": told and one is not None and one.starts > 0,
            "silent": old.state == "applying",
        }[str(new.outcome)]  # fmt: skip
        if not true:
            self.wrong(f"{where} ended {new.outcome} ({new.code}) from {old.state}: {host.truth}"
                       f" {one}")  # fmt: skip
        if new.outcome in ("refused", "skipped"):
            self._never.add(f"{new.host} {new.session}")

    def _is_settled(self, row: Row, host: Host, one: Session) -> bool:
        """Whether what its level demands to follow a transaction did follow."""
        if host.has_rebooted(one):
            return True
        if self.scenario.must_reboot(row.level, host.needs):
            return False
        return not self.scenario.must_restart(row.level, host.needs) or host.has_restarted(one)

    # ---- orders ----------------------------------------------------------------------------

    def _ordered(self, rows: Iterable[Row], before: Picture) -> None:
        """All that must hold at the moment in which hosts are told to start."""
        found = list(rows)
        header = self.seen.headers[found[0].rollout]
        self.counts["orders"] += len(found)
        if header.state != "running" or header.wish is not None:
            self.wrong(f"hosts of {header.id} start while it is {header.state} {header.wish}")
        if header.owner != self.schedule.owner():
            self.wrong(f"{self.schedule.owner()} starts hosts of {header.owner}")
        now = self.schedule.now
        if late := [r.host for r in found if self.scenario.is_closed(header, r.host, now)]:
            self.wrong(f"{header.id} starts {late} outside their window")
        if any(row.state in AWAY.values() for row in found):
            self.counts["orders of restarts and reboots"] += 1
        if header.setting("profile"):
            self.counts["orders by a profile"] += 1
        self._chains.ordered(header)
        self._approved(header)
        skips = {row[0] for row in self._database.execute(
            "SELECT host FROM rollout_skips WHERE rollout = ?", [header.id])}  # fmt: skip
        for name in {row.level for row in found}:
            self._level_allows(header, name)
        self._budget(header, before)
        # A wish to skip that comes while its host's group is prepared may come too late for it.
        late = [row.host for row in found if row.host in skips and row.host in self._skipped_before]
        if late:
            self.wrong(f"{late} start though they are to be skipped")
        self._skipped_before = skips

    _skipped_before: frozenset[str] | set[str] = frozenset()

    def _approved(self, header: Header) -> None:
        names = {row[0] for row in self._database.execute(
            "SELECT who FROM approvals WHERE rollout = ?", [header.id])}  # fmt: skip
        if len(names - {header.who}) < self.scenario.approvers(header):
            self.wrong(f"hosts of {header.id} start, approved by {sorted(names)}")

    def _level_allows(self, header: Header, name: str) -> None:
        stages = [one for one in self.seen.levels.values() if one.rollout == header.id]
        mine = next(one for one in stages if one.level == name)
        if mine.state != "running":
            self.wrong(f"hosts of {header.id} {name} start while it is {mine.state}")
        for one in stages:
            if one.position < mine.position and one.state != "passed":
                self.wrong(f"hosts of {name} start while {one.level} is {one.state}")
        flying = [r.host for r in self.seen.rows.values()
                  if (r.rollout, r.level) == (header.id, name)
                  and r.state in IN_FLIGHT]  # fmt: skip
        bound = json.loads(mine.limits)["concurrency"]
        self.counts["orders with others in flight"] += len(flying) > 1
        if len(flying) > bound:
            self.wrong(f"{flying} are in flight at once, {bound} may be")

    def _budget(self, header: Header, before: Picture) -> None:
        forgiven = set(json.loads(header.settings or "{}").get("forgiven", ()))
        mine = [row for row in before.rows.values()
                if row.rollout == header.id and row.host not in forgiven]  # fmt: skip
        limits = {one.level: json.loads(one.limits) for one in before.levels.values()
                  if one.rollout == header.id}  # fmt: skip
        for name in [*limits, None]:
            rows = [row for row in mine if name in (None, row.level)]
            failed = sum(row.outcome in FAILURES for row in rows)
            lost = sum(row.code == "unreachable" for row in rows)
            most = (limits[name]["max_failures"], limits[name]["max_unreachable"]) if name else (
                self.scenario.failures, self.scenario.unreachable)  # fmt: skip
            if failed > most[0] or lost > most[1]:
                self.wrong(f"hosts start after {failed} failed and {lost} lost of {most} in {name}")

    # ---- messages --------------------------------------------------------------------------

    def asked(self, function: str, host: str, arguments: Mapping[str, Any]) -> None:
        """Every step is in the database before the message that makes it true."""
        if function == "begin":
            manifest = json.loads(arguments["manifest"])
            row = self._row(host, manifest["session"])
            if row is not None and (row.state, row.manifest) != ("staging", arguments["manifest"]):
                self.wrong(f"{host} is staged while it is {row.state}")
        elif function == "apply":
            self._told(host, arguments["session"])
        elif function in AWAY:
            self._told_after(function, host, arguments["session"])

    def pushes(self, session: str, hosts: Sequence[str]) -> None:
        """Bytes are about to leave."""
        for host in hosts:
            row = self._row(host, session)
            if row is None or row.state != "staging" or row.session != session:
                self.wrong(f"{host} is sent files of {session} while {row}")
                continue
            header = self.seen.headers[row.rollout]
            self.counts["pushes"] += 1
            if self.scenario.is_closed_for_bytes(header, host, self.schedule.now):
                self.wrong(f"{host} is sent files of {session} outside its window")

    def _told_after(self, verb: str, host: str, session: str) -> None:
        """It is told to restart services, or to reboot."""
        row = self._row(host, session)
        if row is None or row.state != AWAY[verb] or row.session != session:
            self.wrong(f"{host} is told to {verb} for {session} while {row}")
            return
        key = f"{host} {session}"
        wished = self._wished.get(row.rollout)
        if wished is not None and self._followed[key] < self._following[key] and (
            self.schedule.now > wished + HALT_SECONDS):  # fmt: skip
            late = self.schedule.now - wished
            self.wrong(f"{host} is told to {verb} {late:.1f} s after a wish to stop")

    def _told(self, host: str, session: str) -> None:
        row = self._row(host, session)
        if row is None or row.state != "applying" or row.session != session:
            self.wrong(f"{host} is told to start {session} while {row}")
            return
        self.counts["told again" if f"{host} {session}" in self._orders else "told"] += 1
        self._orders.add(f"{host} {session}")
        one = self._hosts[host].sessions.get(session)
        wished = self._wished.get(row.rollout)
        fresh = one is None or one.starts == 0
        if wished is not None and fresh and self.schedule.now > wished + HALT_SECONDS:
            late = self.schedule.now - wished
            self.wrong(f"{host} is told to start {late:.1f} s after a wish to stop")

    def _row(self, host: str, session: str) -> Row | None:
        return self.seen.rows.get((session.partition(".")[0], host))

    def starts(self, host: Host, verb: str, session: str) -> None:
        """Somebody really begins: to apply, to restart services, or to reboot."""
        row = self._row(host.name, session)
        if verb != "apply":
            self._follows(host, verb, session, row)
            return
        self.counts["starts"] += 1
        self.note(f"{host.name} starts {session}")
        if f"{host.name} {session}" in self._never:
            self.wrong(f"{host.name} starts {session}, which was said never to have")
        if (
            row is None
            or row.session != session
            or not (row.state == "applying" or row.outcome in ("silent", "failed"))
        ):
            self.wrong(f"{host.name} starts {session} while {row}")
        holder = self.seen.locks.get(host.name)
        if row is not None and holder not in (None, row.rollout):
            self.wrong(f"{host.name} starts for {row.rollout} and belongs to {holder}")

    def _follows(self, host: Host, verb: str, session: str, row: Row | None) -> None:
        key = f"{host.name} {session}"
        self._followed[key] += 1
        self.note(f"{host.name}: {verb} for {session}")
        if self._followed[key] > self._following[key]:
            self.wrong(f"{host.name} does {verb} for {session} once more than it was ordered")
        if row is None or row.session != session or row.state != AWAY[verb]:
            self.wrong(f"{host.name} does {verb} for {session} while {row}")
        elif self.seen.locks.get(host.name) not in (None, row.rollout):
            self.wrong(f"{host.name} does {verb} for {session} and belongs to another rollout")

    def works(self, engine: str) -> None:
        """An engine is about to begin a piece of work."""
        held = self._database.execute("SELECT owner FROM leases WHERE name = 'engine'").fetchone()
        self.counts["engine works"] += 1
        if held is None or held[0] != engine:
            self.wrong(f"{engine} works without the lease of {held}")

    def gate(self, level: str, verdict: str) -> None:
        """A gate was asked of a level, by the process that carries its rollout out."""
        owner = self.schedule.owner()
        for header in self.seen.headers.values():
            stage = self.seen.levels.get((header.id, level))
            if header.owner == owner and header.state == "running" and stage is not None:
                self.levels.asked(stage, verdict)
                self.note(f"{header.id} {level}: gate {verdict} while {stage.state}")
        self.counts[f"gate {verdict}"] += 1

    def around(self, side: str, host: str) -> None:
        """Something was done around a host."""
        self._drained["open", host] = side == "on"
        self.counts[f"drain {side}"] += 1

    # ---- at the end ------------------------------------------------------------------------

    def over(self) -> None:
        """Everybody went home: nothing is open, everything is told once, nothing stays drained."""
        self.committed()
        for header in self.seen.headers.values():
            if header.state not in CLOSED:
                self.wrong(f"{header.id} is {header.state} for ever, owner {header.owner!r}")
        self._chains.over()
        self.violations += [
            f"{host} stays drained" for (_, host), on in self._drained.items() if on
        ]
        ends: Counter[tuple[str, str]] = Counter()
        for subject, host in self._database.execute(
            "SELECT subject, host FROM journal WHERE action IN "
            "('applied', 'unchanged', 'refused', 'failed', 'silent', 'skipped')"
        ):
            ends[subject, host] += 1
        for key, row in self.seen.rows.items():
            if ends[key] < 1:
                self.wrong(f"{row.host} of {row.rollout}: the journal knows no end")
            if sum(one.starts > 0 for one in self._mine(row)) > row.attempt:
                self.wrong(f"{row.host} of {row.rollout} ran more sessions than attempts")

    def _mine(self, row: Row) -> list[Session]:
        sessions = self._hosts[row.host].sessions
        return [one for name, one in sessions.items() if name.partition(".")[0] == row.rollout]


def _untouched(one: Session | None) -> bool:
    return one is None or not (one.changed or one.state in ("running", "cut"))
