"""What must hold of levels: their moves, their gates, and how long they soak."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from tests.simulated.picture import Stage

if TYPE_CHECKING:
    from tests.simulated.checker import Checker

MOVES = {
    ("waiting", "running"), ("running", "checking"), ("checking", "soaking"),
    ("checking", "passed"), ("checking", "running"), ("soaking", "passed"),
    ("soaking", "checking"), ("soaking", "running"), ("passed", "running"),
}  # fmt: skip
Key = tuple[str, str]


class Asked(NamedTuple):
    """The last time that a level's gate was asked: when, in which state, and what it said."""

    at: float
    state: str
    verdict: str


class LevelRules:
    """The part of the checker that looks at levels.

    Attributes:
        forcing: processes in which a person passes gates just now.
    """

    def __init__(self, checker: Checker) -> None:
        self._all = checker
        self._asked: dict[Key, Asked] = {}
        self._soaking: dict[Key, float] = {}
        self.forcing: frozenset[str] = frozenset()

    def asked(self, stage: Stage, verdict: str) -> None:
        """A gate was asked."""
        key = (stage.rollout, stage.level)
        self._asked[key] = Asked(self._all.schedule.now, stage.state, verdict)

    def committed(self, old: Stage | None, new: Stage, anew: Collection[Key]) -> None:
        """Compare a level with what it was; those in `anew` have hosts that are tried again."""
        if old is None:
            self._fixed(new)
        elif old.state != new.state:
            self._moved(old, new, anew)

    def _fixed(self, stage: Stage) -> None:
        """What is fixed of a level when its rollout begins is what is demanded."""
        checker, limits = self._all, json.loads(stage.limits)
        soak = checker.scenario.soak(checker.seen.headers[stage.rollout], stage.level)
        own = checker.scenario.levels[stage.level]
        if limits["soak"] != soak or limits["concurrency"] > own["concurrency"]:
            checker.wrong(f"{stage.rollout} {stage.level} begins with {limits}, not {soak} {own}")

    def _moved(self, old: Stage, new: Stage, anew: Collection[Key]) -> None:
        key, checker = (new.rollout, new.level), self._all
        checker.note(f"{new.rollout} {new.level}: {old.state} -> {new.state}")
        if (old.state, new.state) not in MOVES and new.state != "passed":
            checker.wrong(f"{new.rollout} {new.level}: {old.state} -> {new.state} is no move")
        if new.state == "running":
            self._runs_again(old, new, anew)
        if new.state in ("soaking", "passed") and checker.schedule.owner() not in self.forcing:
            self._passes(old, new)
        if new.state == "soaking":
            self._soaking.setdefault(key, checker.schedule.now)

    def _runs_again(self, old: Stage, new: Stage, anew: Collection[Key]) -> None:
        """For hosts that are tried again it soaks anew; for those that come late it need not."""
        key, checker = (new.rollout, new.level), self._all
        if old.state == "waiting" or key in anew:
            self._soaking.pop(key, None)
        elif not checker.scenario.late or not self._has_owed(new):
            checker.wrong(f"{new.rollout} {new.level} runs again for nobody")

    def _has_owed(self, stage: Stage) -> bool:
        return any(row.code == "unreachable" for row in self._all.seen.rows.values()
                   if (row.rollout, row.level) == (stage.rollout, stage.level))  # fmt: skip

    def _passes(self, old: Stage, new: Stage) -> None:
        """A gate was asked and passed since the level was ready, and the soak is over."""
        where, limits = f"{new.rollout} {new.level}", json.loads(new.limits)
        if old.state == "checking":
            self._has_passed(old, new)
            if new.state == "passed" and limits.get("soak"):
                self._all.wrong(f"{where} passed without its soak")
        if old.state == "soaking":
            begun, now = self._soaking[new.rollout, new.level], self._all.schedule.now
            if now < begun + limits["soak"]:
                self._all.wrong(f"{where} soaked {now - begun} s only")
            # Who came late when the soak was over was looked at before it, and soaks no more.
            if old.since < begun + limits["soak"]:
                self._has_passed(old, new)

    def _has_passed(self, old: Stage, new: Stage) -> None:
        scenario, checker = self._all.scenario, self._all
        if not scenario.has_gate(new.level) or not self._witnesses(new):
            return
        asked = self._asked.get((new.rollout, new.level))
        if asked is None or asked.at < old.since or asked[1:] != (old.state, "pass"):
            checker.wrong(f"{new.rollout} {new.level} went on without its gate: {asked}")

    def _witnesses(self, stage: Stage) -> bool:
        """Whether a host of the level has the plan, so that its health says something."""
        return any(row.outcome in ("applied", "unchanged") for row in self._all.seen.rows.values()
                   if (row.rollout, row.level) == (stage.rollout, stage.level))  # fmt: skip
