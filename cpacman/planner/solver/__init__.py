"""libsolv behind plain values: the only package that imports `solv`.

Invariants: no id of libsolv leaves it; packages are fed in one canonical order, so equal input
gives equal output; a solve never changes the universe, so any number of hosts can be solved one
after the other. Nothing here knows a rule of ours: what a host must not get arrives as a set of
hidden candidates, what it wants as tasks.
"""

from cpacman.planner.solver.health import broken_dependencies
from cpacman.planner.solver.pools import Versions, asked_names
from cpacman.planner.solver.universe import Universe
from cpacman.planner.solver.values import (
    Candidate,
    Clash,
    Finding,
    Matches,
    Solution,
    Source,
    Step,
    Task,
    Verb,
)
from cpacman.planner.solver.view import HostView

__all__ = [
    "Candidate",
    "Clash",
    "Finding",
    "HostView",
    "Matches",
    "Solution",
    "Source",
    "Step",
    "Task",
    "Universe",
    "Verb",
    "Versions",
    "asked_names",
    "broken_dependencies",
]
