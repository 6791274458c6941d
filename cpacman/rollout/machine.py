"""The states of a host in a rollout, and the one table of transitions: pure.

Invariants: a host moves only along the table; `ended` is final and carries exactly one outcome;
a host that was told to start never becomes `skipped`.
"""

from __future__ import annotations

from enum import Enum

from cpacman.errors import Problem, SafetyError
from cpacman.model import Outcome


class HostState(str, Enum):
    """Where a host is in a rollout."""

    WAITING = "waiting"
    STAGING = "staging"
    STAGED = "staged"
    APPLYING = "applying"
    ENDED = "ended"


class RolloutState(str, Enum):
    """Where a rollout is."""

    RUNNING = "running"
    DONE = "done"
    HALTED = "halted"


TRANSITIONS: dict[HostState, frozenset[HostState]] = {
    HostState.WAITING: frozenset({HostState.STAGING, HostState.ENDED}),
    HostState.STAGING: frozenset({HostState.STAGED, HostState.ENDED}),
    HostState.STAGED: frozenset({HostState.APPLYING, HostState.ENDED}),
    HostState.APPLYING: frozenset({HostState.ENDED}),
    HostState.ENDED: frozenset(),
}

NOT_STARTED = frozenset({HostState.WAITING, HostState.STAGING, HostState.STAGED})
"""States in which nothing was installed and the host was not told to start."""

COUNTS_AS_FAILURE = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.SILENT})


def check_move(host: str, source: HostState, target: HostState) -> None:
    """Check that the table has this transition.

    Raises:
        SafetyError: it has not.
    """
    if target not in TRANSITIONS[source]:
        raise SafetyError(Problem(host, f"cannot go from {source.value} to {target.value}"))


def check_end(host: str, source: HostState, outcome: Outcome) -> None:
    """Check that a host in this state may end with this outcome.

    Raises:
        SafetyError: it may not: `skipped` is only for hosts that were never told to start, and
            `applied`, `failed` and `silent` only for those that were.
    """
    check_move(host, source, HostState.ENDED)
    started = source not in NOT_STARTED
    told = outcome in {Outcome.APPLIED, Outcome.FAILED, Outcome.SILENT}
    if (outcome is Outcome.SKIPPED and started) or (told and not started):
        raise SafetyError(Problem(host, f"cannot end as {outcome.value} from {source.value}"))
