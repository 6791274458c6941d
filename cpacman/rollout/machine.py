"""The states of rollouts, their levels and their hosts, and the tables of transitions: pure.

Invariants: everything moves only along its table; a host that is `ended` has exactly one outcome,
and begins anew only when somebody says so (resume, retry); a host that was told to start never
becomes `skipped`; nothing is restarted and nobody rebooted but who proved its transaction; a level
that is `passed` stays so, `done` and `cancelled` are final. Members equal their values, so what the
database has as text is looked for in the sets as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from cpacman.errors import Problem, SafetyError
from cpacman.model import Outcome


class HostState(str, Enum):
    """Where a host is in a rollout."""

    WAITING = "waiting"
    STAGING = "staging"
    STAGED = "staged"
    APPLYING = "applying"
    INSTALLED = "installed"
    RESTARTING = "restarting"
    REBOOTING = "rebooting"
    ENDED = "ended"


class LevelState(str, Enum):
    """Where a level is in a rollout."""

    WAITING = "waiting"
    RUNNING = "running"
    CHECKING = "checking"
    SOAKING = "soaking"
    PASSED = "passed"


class RolloutState(str, Enum):
    """Where a rollout is."""

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    DONE = "done"
    HALTED = "halted"
    CANCELLED = "cancelled"


class Wish(str, Enum):
    """What an operator asked of a rollout that a process carries out."""

    HALT = "halt"
    CANCEL = "cancel"


TRANSITIONS: dict[HostState, frozenset[HostState]] = {
    HostState.WAITING: frozenset({HostState.STAGING, HostState.ENDED}),
    HostState.STAGING: frozenset({HostState.STAGED, HostState.WAITING, HostState.ENDED}),
    HostState.STAGED: frozenset({HostState.APPLYING, HostState.WAITING, HostState.ENDED}),
    HostState.APPLYING: frozenset({HostState.INSTALLED, HostState.ENDED}),
    HostState.INSTALLED: frozenset({HostState.RESTARTING, HostState.REBOOTING, HostState.ENDED}),
    HostState.RESTARTING: frozenset({HostState.ENDED}),
    HostState.REBOOTING: frozenset({HostState.ENDED}),
    HostState.ENDED: frozenset({HostState.WAITING, HostState.APPLYING}),
}

LEVEL_TRANSITIONS: dict[LevelState, frozenset[LevelState]] = {
    LevelState.WAITING: frozenset({LevelState.RUNNING}),
    LevelState.RUNNING: frozenset({LevelState.CHECKING}),
    LevelState.CHECKING: frozenset({LevelState.SOAKING, LevelState.PASSED, LevelState.RUNNING}),
    LevelState.SOAKING: frozenset({LevelState.PASSED, LevelState.CHECKING, LevelState.RUNNING}),
    LevelState.PASSED: frozenset({LevelState.RUNNING}),
}
"""A level goes back to `running` when hosts of it are tried again."""

ROLLOUT_TRANSITIONS: dict[RolloutState, frozenset[RolloutState]] = {
    RolloutState.RUNNING: frozenset(RolloutState) - {RolloutState.RUNNING},
    RolloutState.WAITING: frozenset(
        {
            RolloutState.RUNNING,
            RolloutState.PAUSED,
            RolloutState.HALTED,
            RolloutState.CANCELLED,
        }
    ),
    RolloutState.PAUSED: frozenset(
        {RolloutState.RUNNING, RolloutState.HALTED, RolloutState.CANCELLED}
    ),
    RolloutState.HALTED: frozenset({RolloutState.RUNNING, RolloutState.CANCELLED}),
    RolloutState.DONE: frozenset({RolloutState.RUNNING}),
    RolloutState.CANCELLED: frozenset(),
}
"""A rollout that is done runs again only for hosts that are tried again."""

NOT_STARTED = frozenset({HostState.WAITING, HostState.STAGING, HostState.STAGED})
"""States in which nothing was installed and the host was not told to start."""

IN_FLIGHT = frozenset({HostState.APPLYING, HostState.RESTARTING, HostState.REBOOTING})
"""States in which a host was told to do something, and its report is waited for."""

OPEN = frozenset({RolloutState.RUNNING, RolloutState.WAITING, RolloutState.PAUSED})
"""States of a rollout that has its hosts locked and will go on."""

OVER = frozenset({RolloutState.DONE, RolloutState.CANCELLED})
"""States of a rollout that nobody resumes."""

THERE = frozenset({Outcome.APPLIED, Outcome.UNCHANGED})
"""Outcomes of a host that has what was planned."""

COUNTS_AS_FAILURE = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.SILENT})

_UNTOUCHED = frozenset({Outcome.UNCHANGED, Outcome.REFUSED, Outcome.SKIPPED})
OUTCOMES: dict[HostState, frozenset[Outcome]] = {
    HostState.WAITING: _UNTOUCHED,
    HostState.STAGING: _UNTOUCHED,
    HostState.STAGED: _UNTOUCHED,
    HostState.APPLYING: frozenset(Outcome) - {Outcome.SKIPPED},
    HostState.INSTALLED: frozenset({Outcome.APPLIED}),
    HostState.RESTARTING: frozenset({Outcome.APPLIED, Outcome.FAILED}),
    HostState.REBOOTING: frozenset({Outcome.APPLIED, Outcome.FAILED}),
    HostState.ENDED: frozenset(),
}
"""How a host may end from each state."""

_State = TypeVar("_State", HostState, LevelState, RolloutState)


def _check(
    what: str, table: Mapping[_State, frozenset[_State]], source: _State, target: _State
) -> None:
    if target not in table[source]:
        raise SafetyError(Problem(what, f"cannot go from {source.value} to {target.value}"))


def check_move(host: str, source: HostState, target: HostState) -> None:
    """Check that the table of hosts has this transition.

    Raises:
        SafetyError: it has not.
    """
    _check(host, TRANSITIONS, source, target)


def check_level(level: str, source: LevelState, target: LevelState) -> None:
    """Check that the table of levels has this transition.

    Raises:
        SafetyError: it has not.
    """
    _check(f"level {level}", LEVEL_TRANSITIONS, source, target)


def check_rollout(rollout: str, source: RolloutState, target: RolloutState) -> None:
    """Check that the table of rollouts has this transition.

    Raises:
        SafetyError: it has not.
    """
    _check(rollout, ROLLOUT_TRANSITIONS, source, target)


def check_end(host: str, source: HostState, outcome: Outcome) -> None:
    """Check that a host in this state may end with this outcome.

    Raises:
        SafetyError: it may not: `skipped` is only for hosts that were never told to start,
            `applied`, `failed` and `silent` only for those that were.
    """
    check_move(host, source, HostState.ENDED)
    if outcome not in OUTCOMES[source]:
        raise SafetyError(Problem(host, f"cannot end as {outcome.value} from {source.value}"))
