"""What ends the work of one process on a rollout or a chain: how far that came, and why.

Invariants: nothing more is begun once `Stop` is raised; a wish of an operator names how it ends.
"""

from __future__ import annotations

from typing import NamedTuple

from cpacman.rollout.machine import RolloutState, Wish


class End(NamedTuple):
    """How far it came: its state, why, and when it may go on by itself."""

    state: RolloutState
    why: str = ""
    until: float | None = None


class Stop(Exception):
    """Nothing more is begun by this process."""

    def __init__(self, state: RolloutState, why: str = "", until: float | None = None) -> None:
        super().__init__(why)
        self.end = End(state, why, until)


def end_by(wish: str) -> End:
    """Return how it ends by the wish of an operator."""
    if wish == Wish.CANCEL:
        return End(RolloutState.CANCELLED, "cancelled by an operator")
    return End(RolloutState.HALTED, "halted by an operator")
