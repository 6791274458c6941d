"""What ends the work of one process on a rollout or a chain: how far that came, and why.

Invariants: nothing more is begun once `Stop` is raised; a wish of an operator names how it ends; a
process that lost the rollout to another one stops at once.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from cpacman.rollout.job import Job, Tools
from cpacman.rollout.machine import RolloutState, Wish

BEAT = 1.0
"""Seconds between two signs of life, and so the most that a wish is seen late between starts."""


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


class Pulse:
    """The signs of life of one process on one rollout, and what it is told with them."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._beaten = 0.0

    def look(self, *, at_once: bool = False) -> None:
        """Show that we are alive, and stop when somebody wants us to.

        Raises:
            Stop: somebody does.
            ConflictError: another process owns the rollout.
        """
        if self._tools.stopping():
            raise Stop(RolloutState.HALTED, "stopped by the operator")
        now = self._tools.clock()
        # A clock that was put back must not make us deaf until it is where it was.
        if not at_once and 0 <= now - self._beaten < BEAT:
            return
        self._beaten = now
        wish = self._tools.store.beat_rollout(self._job.rollout, owner=self._job.owner, at=now)
        if wish:
            raise Stop(*end_by(wish))

    def stop_by_wish(self) -> NoReturn:
        """Stop as the wish says that forbade an order."""
        self.look(at_once=True)
        raise Stop(RolloutState.HALTED, "an operator wished for it")
