"""The levels of rollouts: where each is, its limits, and what its checks found.

Invariants: a level moves only from the state that its mover saw; who lets one pass without its gate
is in the journal.
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
from cpacman.store.tables import rollout_hosts_table, rollout_levels_table


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


class RolloutLevels(Database):
    """Levels of rollouts."""

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


def reopen_levels(connection: Connection, rollout: str, hosts: Sequence[str], at: float) -> None:
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
