"""What must always hold of rollouts, checked after every commit and at every message to a host.

The checker reads the database by itself, knows the truth of every simulated host, and reasons
with tables and limits of its own: it shares no rule with what it checks but the names of states.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.simulated.hosts import AFTER, Host, Session
from tests.simulated.schedule import Schedule

MOVES = {
    ("waiting", "staging"), ("waiting", "ended"), ("staging", "staged"), ("staging", "waiting"),
    ("staging", "ended"), ("staged", "applying"), ("staged", "waiting"), ("staged", "ended"),
    ("applying", "ended"), ("ended", "waiting"), ("ended", "applying"),
    ("applying", "installed"), ("installed", "restarting"), ("installed", "rebooting"),
    ("installed", "ended"), ("restarting", "ended"), ("rebooting", "ended"),
}  # fmt: skip
LEVEL_MOVES = {
    ("waiting", "running"), ("running", "checking"), ("checking", "soaking"),
    ("checking", "passed"), ("checking", "running"), ("soaking", "passed"),
    ("soaking", "checking"), ("soaking", "running"), ("passed", "running"),
}  # fmt: skip
CLOSED = ("done", "halted", "cancelled")
FAILURES = ("refused", "failed", "silent")
HALT_SECONDS = 1.0
"""From the commit of a wish to the last message that starts somebody."""


class Row(NamedTuple):
    """One host of one rollout."""

    rollout: str
    host: str
    level: str
    state: str
    outcome: str | None
    code: str | None
    attempt: int
    manifest: str | None

    @property
    def session(self) -> str:
        """The host's session in this attempt."""
        return self.rollout if self.attempt == 1 else f"{self.rollout}.{self.attempt}"


class Header(NamedTuple):
    """One rollout."""

    id: str
    state: str
    owner: str
    wish: str | None
    settings: str | None
    who: str


class Stage(NamedTuple):
    """One level of one rollout."""

    rollout: str
    level: str
    position: int
    state: str
    since: float
    limits: str


class Picture(NamedTuple):
    """All that the database says of rollouts at one moment."""

    headers: Mapping[str, Header]
    levels: Mapping[tuple[str, str], Stage]
    rows: Mapping[tuple[str, str], Row]
    locks: Mapping[str, str]


class Rules(NamedTuple):
    """What the scenario demands, told to the checker beside the configuration.

    Attributes:
        failures: how many of the whole rollout may fail.
        unreachable: how many of it may be out of reach.
        approvers: how many others must approve.
        closed: spans of time in which nobody may start.
        gates: levels that have a gate.
    """

    failures: int
    unreachable: int
    approvers: int
    closed: list[tuple[float, float]]
    gates: frozenset[str]


class Checker:
    """Looks at everything, and writes down what is wrong."""

    def __init__(
        self, database: Path, schedule: Schedule, hosts: Mapping[str, Host], rules: Rules
    ) -> None:
        self._database = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._schedule, self._hosts, self.rules = schedule, hosts, rules
        self.violations: list[str] = []
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self._wished: dict[str, float] = {}
        self._never: set[str] = set()
        self._orders: set[str] = set()
        self._verdicts: dict[tuple[str, str], tuple[float, str, str]] = {}
        self._drained: Counter[tuple[str, str]] = Counter()
        self.seen = self._read()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _read(self) -> Picture:
        def rows(sql: str) -> list[Any]:
            return self._database.execute(sql).fetchall()

        headers = [Header(*row) for row in rows(
            "SELECT id, state, owner, wish, settings, who FROM rollouts")]  # fmt: skip
        levels = [Stage(*row) for row in rows(
            "SELECT rollout, level, position, state, since, limits"
            " FROM rollout_levels")]  # fmt: skip
        hosts = [Row(*row) for row in rows(
            "SELECT rollout, host, level, state, outcome, code, attempt, manifest"
            " FROM rollout_hosts")]  # fmt: skip
        return Picture(
            {one.id: one for one in headers},
            {(one.rollout, one.level): one for one in levels},
            {(one.rollout, one.host): one for one in hosts},
            dict(rows("SELECT host, rollout FROM host_locks")),
        )

    def wrong(self, text: str) -> None:
        """Write a violation down."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)

    def note(self, text: str) -> None:
        """Write an event down, for who reads why."""
        who = self._schedule.running.name if self._schedule.running else "-"
        self.log.append(f"{self._schedule.now - 1_800_000_000:9.1f} {who:12} {text}")

    # ---- after each commit -----------------------------------------------------------------

    def committed(self) -> None:
        """Compare the database with what it was, and with what is true."""
        before, self.seen = self.seen, self._read()
        now = self.seen
        for number, header in now.headers.items():
            self._header(before.headers.get(number), header)
        for key, stage in now.levels.items():
            if (old := before.levels.get(key)) is not None and old.state != stage.state:
                self._level(old, stage)
        moved = [(before.rows[key], row) for key, row in now.rows.items()
                 if key in before.rows and before.rows[key] != row]  # fmt: skip
        for old, row in moved:
            self._moved(old, row)
        # From `ended` it is collected again by recover, and nobody starts.
        ordered = [row for old, row in moved
                   if (old.state, row.state) == ("staged", "applying")]  # fmt: skip
        if ordered:
            self._ordered(ordered, before)
        self._locked(now)

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
            self._wished.setdefault(new.id, self._schedule.now)
        final = new.state == "cancelled" or new.wish == "cancel"
        if old is not None and old.state == "cancelled" and not final:
            self.wrong(f"{new.id} is {new.state} after it was cancelled")

    def _level(self, old: Stage, new: Stage) -> None:
        where = f"{new.rollout} {new.level}"
        self.note(f"{where}: {old.state} -> {new.state}")
        if (old.state, new.state) not in LEVEL_MOVES and new.state != "passed":
            self.wrong(f"{where}: {old.state} -> {new.state} is no move")
        if new.state in ("soaking", "passed") and not self._forced(new):
            self._passes(old, new)

    def _passes(self, old: Stage, new: Stage) -> None:
        """A gate was asked and passed since the level was ready, and the soak is over."""
        where = f"{new.rollout} {new.level}"
        asked = self._verdicts.get((new.rollout, new.level))
        if old.state == "checking" and new.level in self.rules.gates and self._witnesses(new):
            ok = asked and asked[0] >= old.since and asked[1:] == ("checking", "pass")
            if not ok:
                self.wrong(f"{where} went on without its gate: {asked}")
        limits = json.loads(new.limits)
        if old.state == "checking" and new.state == "passed" and limits.get("soak"):
            self.wrong(f"{where} passed without its soak")
        if old.state == "soaking":
            if self._schedule.now < old.since + limits["soak"]:
                self.wrong(f"{where} soaked {self._schedule.now - old.since} s only")
            ok = asked and asked[0] >= old.since and asked[1:] == ("soaking", "pass")
            if new.level in self.rules.gates and self._witnesses(new) and not ok:
                self.wrong(f"{where} passed its soak with {asked}")

    def _witnesses(self, stage: Stage) -> bool:
        """Whether a host of the level has the plan, so that its health says something."""
        return any(row.outcome in ("applied", "unchanged") for row in self.seen.rows.values()
                   if (row.rollout, row.level) == (stage.rollout, stage.level))  # fmt: skip

    def _forced(self, stage: Stage) -> bool:
        """Whether a person passes this gate: the entry is of the next transaction or of this."""
        return self._schedule.owner() in self.forcing

    forcing: frozenset[str] = frozenset()

    def _moved(self, old: Row, new: Row) -> None:
        where = f"{new.host} of {new.session}"
        self.note(f"{where}: {old.state} -> {new.state} {new.outcome or ''} {new.code or ''}")
        if old.state != new.state and (old.state, new.state) not in MOVES:
            self.wrong(f"{where}: {old.state} -> {new.state} is no move")
        if old.state == new.state and (old.outcome, old.attempt) != (new.outcome, new.attempt):
            self.wrong(f"{where}: {old} became {new}")
        if (old.state, new.state) == ("ended", "applying") and not (
            old.outcome == "silent" or old.code == "interrupted"
        ):
            self.wrong(f"{where} is collected again after {old.outcome}")
        if new.state == "waiting" and new.attempt != old.attempt + 1:
            self.wrong(f"{where}: begins anew as attempt {new.attempt} after {old.attempt}")
        if new.state == "ended":
            self._ended(old, new, where)

    def _ended(self, old: Row, new: Row, where: str) -> None:
        """The recorded outcome is what is true of the host."""
        host = self._hosts[new.host]
        host.settle(self._schedule.now)
        one = host.sessions.get(new.session)
        self.counts[str(new.outcome)] += 1
        told = old.state == "applying"
        true = {
            "applied": told and one is not None and one.outcome == "applied"
            and host.truth == AFTER,
            "unchanged": host.truth == AFTER,
            "refused": _untouched(one),
            "skipped": not told and (one is None or one.starts == 0),
            "failed": told and one is not None and one.starts > 0,
            "silent": told,
        }[str(new.outcome)]  # fmt: skip
        if not true:
            self.wrong(f"{where} ended {new.outcome} ({new.code}) from {old.state}: {host.truth}"
                       f" {one}")  # fmt: skip
        if new.outcome in ("refused", "skipped"):
            self._never.add(f"{new.host} {new.session}")

    # ---- orders ----------------------------------------------------------------------------

    def _ordered(self, rows: Iterable[Row], before: Picture) -> None:
        """All that must hold at the moment in which hosts are told to start."""
        found = list(rows)
        header = self.seen.headers[found[0].rollout]
        self.counts["orders"] += len(found)
        if header.state != "running" or header.wish is not None:
            self.wrong(f"hosts of {header.id} start while it is {header.state} {header.wish}")
        if header.owner != self._schedule.owner():
            self.wrong(f"{self._schedule.owner()} starts hosts of {header.owner}")
        if any(start <= self._schedule.now < end for start, end in self.rules.closed):
            self.wrong(f"{header.id} starts hosts outside its window")
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
        if len(names - {header.who}) < self.rules.approvers:
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
                  if (r.rollout, r.level, r.state) == (header.id, name, "applying")]  # fmt: skip
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
                self.rules.failures, self.rules.unreachable)  # fmt: skip
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
        if wished is not None and fresh and self._schedule.now > wished + HALT_SECONDS:
            late = self._schedule.now - wished
            self.wrong(f"{host} is told to start {late:.1f} s after a wish to stop")

    def _row(self, host: str, session: str) -> Row | None:
        return self.seen.rows.get((session.partition(".")[0], host))

    def starts(self, host: Host, session: str) -> None:
        """Somebody really begins."""
        row = self._row(host.name, session)
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

    def gate(self, level: str, verdict: str) -> None:
        """A gate was asked of a level, by the process that carries its rollout out."""
        owner = self._schedule.owner()
        for header in self.seen.headers.values():
            stage = self.seen.levels.get((header.id, level))
            if header.owner == owner and header.state == "running" and stage is not None:
                self._verdicts[header.id, level] = (self._schedule.now, stage.state, verdict)
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
