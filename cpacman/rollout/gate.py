"""What must hold before the next hosts start: pure rules.

Invariant: unknown is never ok. `silent` counts as a failure like `failed` and `refused`.
"""

from __future__ import annotations

from collections.abc import Iterable

from cpacman.model import Outcome
from cpacman.rollout.machine import COUNTS_AS_FAILURE


def allowed(limit: int | str, hosts: int) -> int:
    """Return a limit as a number of hosts; a percentage is of `hosts`, rounded down.

    Args:
        limit: a number, or a text like `5%`.
        hosts: how many hosts the limit is for.
    """
    if isinstance(limit, str) and limit.endswith("%"):
        return int(float(limit[:-1]) * hosts / 100)
    return int(limit)


def batch_size(concurrency: int | str | None, hosts: int) -> int:
    """Return how many hosts of a level may be changed at once: at least one."""
    return hosts if concurrency is None else max(1, allowed(concurrency, hosts))


def failures(outcomes: Iterable[Outcome]) -> int:
    """Return how many of these outcomes count against the failure budget."""
    return sum(outcome in COUNTS_AS_FAILURE for outcome in outcomes)


def unreachable(codes: Iterable[str | None]) -> int:
    """Return how many hosts did not answer before they were told to start."""
    return sum(code == "unreachable" for code in codes)
