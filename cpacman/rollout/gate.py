"""What must hold before the next hosts start: pure rules.

Invariant: unknown is never ok. `silent` counts as a failure like `failed` and `refused`.
"""

from __future__ import annotations

from collections.abc import Iterable

from cpacman.model import Outcome
from cpacman.rollout.machine import COUNTS_AS_FAILURE


def is_conclusive(outcomes: Iterable[Outcome]) -> bool:
    """Whether a level showed anything: a host of it was changed, or has the plan already."""
    return any(one in {Outcome.APPLIED, Outcome.UNCHANGED} for one in outcomes)


def over_budget(
    outcomes: Iterable[tuple[Outcome, str | None]], *, max_failures: int, max_unreachable: int
) -> str:
    """Return why no more hosts may start, or "" when they may.

    Args:
        outcomes: outcome and code of each host that has ended.
        max_failures: hosts that may end refused, failed or silent.
        max_unreachable: hosts that may not have answered before they were told to start.
    """
    ended = list(outcomes)
    failed = sum(outcome in COUNTS_AS_FAILURE for outcome, _ in ended)
    lost = sum(code == "unreachable" for _, code in ended)
    if failed > max_failures:
        return f"failed {failed} > {max_failures}"
    if lost > max_unreachable:
        return f"unreachable {lost} > {max_unreachable}"
    return ""
