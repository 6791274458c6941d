"""What a rollout tells while it goes on: how far it is, and in the database how far a push is.

Invariant: telling is never a step of the rollout: it comes seldom, and what it says is looked up.
"""

from __future__ import annotations

from collections.abc import Callable

from cpacman.report.progress import Reporter
from cpacman.report.watching import one_line
from cpacman.rollout.view import view_of
from cpacman.store import Store

PUSHING = "pushing"
NOTED = 1.0
"""Seconds between two notes of one push."""
SHOWN = 5.0
"""Seconds between two lines about the whole rollout."""


class Noting:
    """A reporter that keeps how far pushes are, and tells how far all of it is.

    Args:
        reporter: who is told.
        store: the database.
        rollout: its id.
        clock: tells the time in seconds since the epoch.
    """

    def __init__(
        self, reporter: Reporter, store: Store, rollout: str, clock: Callable[[], float]
    ) -> None:
        self._reporter = reporter
        self._store = store
        self._rollout = rollout
        self._clock = clock
        self._since = self._noted = self._shown = 0.0
        self._done = 0

    def line(self, text: str) -> None:
        """See `Reporter.line`."""
        self._reporter.line(text)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """See `Reporter.progress`; what hosts do is told as the line of the whole rollout."""
        if what == PUSHING:
            self._note(done, total)
            self._reporter.progress(what, done, total, unit)
        now = self._clock()
        if now - self._shown >= SHOWN and what != PUSHING:
            self._shown = now
            row = self._store.rollout_row(self._rollout)
            self._reporter.line(one_line(view_of(self._store, row, now)))

    def _note(self, done: int, total: int) -> None:
        now = self._clock()
        if done < self._done or not self._since:
            self._since = now
        self._done = done
        if done < total and now - self._noted < NOTED:
            return
        self._noted = now
        push = {"done": done, "total": total, "since": self._since, "at": now}
        self._store.note_progress(self._rollout, push)
