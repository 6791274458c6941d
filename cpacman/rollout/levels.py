"""The levels of one rollout as the database has them: every move goes through here.

Invariants: each step is in the database before its effect; a level moves along the table of
`machine`; its limits are those that were fixed when the rollout began; its soak counts from when it
first came to that, whichever process looks on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.rollout.job import Job, Level, Tools
from cpacman.rollout.machine import LevelState, check_level
from cpacman.rollout.restarts import read_restarts


def limits_of(level: Level) -> dict[str, object]:
    """Return what is fixed of a level when its rollout begins, as plain values."""
    kept = {k: v for k, v in level._asdict().items() if k not in ("name", "hosts")}
    return {**kept, "restarts": level.restarts._asdict()}


def level_of(name: str, hosts: tuple[str, ...], limits: Mapping[str, Any]) -> Level:
    """Return a level from what `limits_of` gave, read back from the database."""
    known: dict[str, Any] = dict(limits)
    known["around"] = tuple(known.get("around", ()))
    known["restarts"] = read_restarts(known.get("restarts", {}))
    return Level(name=name, hosts=hosts, **known)


class Levels:
    """States of a rollout's levels; what is in memory is what was last written."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._states: dict[str, LevelState] = {}
        self._soaking: dict[str, float | None] = {}
        for one in tools.store.rollout_levels(job.rollout):
            self._states[one.level] = LevelState(one.state)
            self._soaking[one.level] = one.soaking

    def state(self, level: Level) -> LevelState:
        """Return where a level is."""
        return self._states[level.name]

    def begun(self) -> list[Level]:
        """Return the levels that wait for their turn no longer, in order."""
        return [one for one in self._job.levels if self.state(one) is not LevelState.WAITING]

    def soaking(self, level: Level) -> float | None:
        """Return since when a level soaks, in seconds since the epoch; None before that."""
        return self._soaking[level.name]

    def move(self, level: Level, state: LevelState, *, late: bool = False) -> None:
        """Move a level; with `late` it runs again for hosts that came back, and soaks on."""
        source, now = self.state(level), self._tools.clock()
        check_level(level.name, source, state)
        self._tools.store.move_level(
            self._job.rollout, level.name, expected=source.value, state=state.value, at=now,
            late=late,
        )  # fmt: skip
        self._states[level.name] = state
        if state is LevelState.SOAKING and self._soaking[level.name] is None:
            self._soaking[level.name] = now
