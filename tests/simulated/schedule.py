"""Processes on a virtual clock: threads of which one runs at a time, chosen by the seed's dice.

Invariants: only who has the turn runs; turns change at a `point`, in a `sleep` and at an end, so
that one seed is one sequence of events; who was killed does nothing any more, but unwind; time
passes only while everybody sleeps.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable


class Killed(BaseException):
    """The process is gone: no code of ours runs any more."""


class Stuck(Exception):
    """Nothing came to an end within the time that everything must."""


class Process:
    """One process: a thread that waits for its turn.

    Attributes:
        wake: when it wants its turn next.
        dead: whether it was killed; it unwinds at its next turn.
        over: whether it has ended, by itself or by that.
        error: what it ended with, if that is a bug.
    """

    def __init__(self, name: str, wake: float, parent: Process | None) -> None:
        self.name, self.wake, self.parent = name, wake, parent
        self.dead = self.over = self.stopping = False
        self.error: Exception | None = None
        self.turn = threading.Lock()
        self.turn.acquire()

    @property
    def alive(self) -> bool:
        """Whether others see it run."""
        return not (self.dead or self.over)


class Schedule:
    """All processes of one simulation.

    Args:
        dice: decides who is next.
        now: seconds since the epoch, at the beginning.
        limit: how many seconds may pass before everything has ended.
    """

    def __init__(self, dice: random.Random, now: float, limit: float) -> None:
        self.dice, self.now, self._end = dice, now, now + limit
        self.processes: list[Process] = []
        self.running: Process | None = None
        self._main = threading.Lock()
        self._main.acquire()
        self.stuck = False

    def spawn(
        self, name: str, function: Callable[[], object], *, after: float = 0.0, child: bool = False
    ) -> Process:
        """Start a process; a child dies with who started it."""
        made = Process(name, self.now + after, self.running if child else None)
        self.processes.append(made)
        thread = threading.Thread(target=self._live, args=(made, function), name=name, daemon=True)
        thread.start()
        return made

    def _live(self, me: Process, function: Callable[[], object]) -> None:
        me.turn.acquire()
        try:
            if not me.dead:
                function()
        except Killed:
            pass
        except Exception as error:
            me.error = error
        me.over = True
        self._hand_over(self._choose())

    def run(self) -> None:
        """Let everybody go on until nobody is left.

        Raises:
            Stuck: the time is up.
        """
        self._hand_over(self._choose())
        self._main.acquire()
        if self.stuck:
            raise Stuck(f"still at it: {[one.name for one in self.processes if not one.over]}")

    def _choose(self) -> Process | None:
        left = [one for one in self.processes if not one.over]
        if not left:
            return None
        ready = [one for one in left if one.wake <= self.now]
        if not ready:
            self.now = min(one.wake for one in left)
            ready = [one for one in left if one.wake <= self.now]
        if self.now > self._end and not self.stuck:
            self.stuck = True
            for one in left:
                self.kill(one)
        return self.dice.choice(ready)

    def _hand_over(self, chosen: Process | None) -> None:
        self.running = chosen
        (self._main if chosen is None else chosen.turn).release()

    def point(self) -> None:
        """Give others a turn; here a process that was killed ends."""
        me = self.running
        assert me is not None
        if me.dead:
            raise Killed
        chosen = self._choose()
        if chosen is not me:
            self._hand_over(chosen)
            me.turn.acquire()
        if me.dead:
            raise Killed

    def sleep(self, seconds: float) -> None:
        """Let this process rest."""
        assert self.running is not None
        if not self.running.dead:
            self.running.wake = self.now + max(seconds, 0.0)
        self.point()

    def clock(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def kill(self, process: Process) -> None:
        """End a process at once, and its children with it."""
        process.dead = True
        process.wake = self.now
        for one in self.processes:
            if one.parent is process and one.alive:
                self.kill(one)

    def owner(self) -> str:
        """Return who runs now, as the database calls it."""
        assert self.running is not None
        return self.running.name

    def is_alive(self, owner: str, beat: float | None = None, now: float = 0.0) -> bool:
        """Whether the process of this name runs; it is of this machine."""
        return any(one.name == owner and one.alive for one in self.processes)
