"""What the database says of rollouts and chains at one moment, read by plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple


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
    class_: str
    plan: str

    def setting(self, name: str) -> Any:
        """One of its settings, None for none."""
        return json.loads(self.settings or "{}").get(name)


class Stage(NamedTuple):
    """One level of one rollout."""

    rollout: str
    level: str
    position: int
    state: str
    since: float
    limits: str


class ChainRow(NamedTuple):
    """One chain."""

    id: str
    classes: str
    steps: str
    state: str
    wish: str | None
    owner: str

    @property
    def entered(self) -> list[dict[str, Any]]:
        """The classes that were begun, each with `class_`, `rollout` and `at`."""
        return list(json.loads(self.steps))


class Picture(NamedTuple):
    """All that the database says at one moment; `last` is the newest action in the journal."""

    headers: Mapping[str, Header]
    levels: Mapping[tuple[str, str], Stage]
    rows: Mapping[tuple[str, str], Row]
    locks: Mapping[str, str]
    chains: Mapping[str, ChainRow]
    pointers: Mapping[str, str]
    last: str


def read_picture(database: sqlite3.Connection) -> Picture:
    """Read all of it, in one transaction."""

    def rows(sql: str) -> list[Any]:
        return database.execute(sql).fetchall()

    headers = [Header(*row) for row in rows(
        "SELECT id, state, owner, wish, settings, who, class, plan FROM rollouts")]  # fmt: skip
    levels = [Stage(*row) for row in rows(
        "SELECT rollout, level, position, state, since, limits FROM rollout_levels")]  # fmt: skip
    hosts = [Row(*row) for row in rows(
        "SELECT rollout, host, level, state, outcome, code, attempt, manifest"
        " FROM rollout_hosts")]  # fmt: skip
    chains = [ChainRow(*row) for row in rows(
        "SELECT id, classes, steps, state, wish, owner FROM chains")]  # fmt: skip
    last = rows("SELECT action FROM journal ORDER BY seq DESC LIMIT 1")
    return Picture(
        {one.id: one for one in headers},
        {(one.rollout, one.level): one for one in levels},
        {(one.rollout, one.host): one for one in hosts},
        dict(rows("SELECT host, rollout FROM host_locks")),
        {one.id: one for one in chains},
        dict(rows("SELECT class, snapshot FROM pointers")),
        last[0][0] if last else "",
    )
