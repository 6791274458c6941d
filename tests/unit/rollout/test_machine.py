"""The table of transitions, and the budgets: pure rules."""

from __future__ import annotations

import itertools

import pytest

from cpacman.errors import SafetyError
from cpacman.model import Outcome
from cpacman.rollout.gate import over_budget
from cpacman.rollout.machine import TRANSITIONS, HostState, check_end, check_move


@pytest.mark.parametrize(("source", "target"), list(itertools.product(HostState, repeat=2)))
def test_only_the_table_moves(source: HostState, target: HostState) -> None:
    """A move that the table lacks is refused, whichever it is."""
    if target in TRANSITIONS[source]:
        check_move("web1", source, target)
    else:
        with pytest.raises(SafetyError, match="cannot go"):
            check_move("web1", source, target)


def test_every_state_can_end() -> None:
    """From every state but the last there is a way to the end, so no host is left without one."""
    assert all(HostState.ENDED in TRANSITIONS[s] for s in HostState if s is not HostState.ENDED)


def test_started_hosts_are_never_skipped() -> None:
    """A host that was told to start is never `skipped`, one that was not never `applied`."""
    with pytest.raises(SafetyError):
        check_end("web1", HostState.APPLYING, Outcome.SKIPPED)
    for outcome in (Outcome.APPLIED, Outcome.FAILED, Outcome.SILENT):
        with pytest.raises(SafetyError):
            check_end("web1", HostState.STAGED, outcome)


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED, Outcome.SILENT])
def test_budget_counts_failures(outcome: Outcome) -> None:
    """Refused, failed and silent count, and only more than the limit stops."""
    ended = [(outcome, None), (Outcome.APPLIED, None), (Outcome.SKIPPED, "unreachable")]
    assert over_budget(ended, max_failures=1, max_unreachable=1) == ""
    assert over_budget(ended, max_failures=0, max_unreachable=1) == "failed 1 > 0"


def test_unreachable_has_a_budget_of_its_own() -> None:
    """Hosts that were never told to start don't count as failures."""
    ended = [(Outcome.SKIPPED, "unreachable")] * 2 + [(Outcome.SKIPPED, "changed")]
    assert over_budget(ended, max_failures=0, max_unreachable=1) == "unreachable 2 > 1"
