"""What is done around the change of a host: before it, and undone after it, however that ended.

Invariants: what came before is undone also where the process died in between: twice at worst,
never not at all; an undo that fails is told and journaled, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cpacman.model import Outcome
from cpacman.rollout import gate
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import Job, Level, Tools
from cpacman.rollout.machine import HostState
from cpacman.rollout.record import Record
from cpacman.rollout.restarts import OWED
from cpacman.store import RolloutHost

ACTION = "action"
"""The code of a host that could not be prepared."""

Note = Callable[[str, str, str], None]
"""Notes an action on a host, with words, in the journal."""


def undo(level: Level, hosts: Sequence[str], tools: Tools, note: Note) -> None:
    """Undo what came before the change of these hosts, the last first."""
    for name in reversed(level.around if hosts else ()):
        for one in tools.gates.after(name, hosts):
            if one.verdict is not Verdict.PASS:
                tools.reporter.line(gate.told(one))
                note("undo failed", one.host, f"{name}: {one.detail}")


def left_behind(level: Level, rows: Sequence[RolloutHost], beat: float) -> list[str]:
    """Return the hosts of a level for which a process that died may have undone nothing.

    Those that were staged may have been prepared; of those that have ended, all that ended before
    the last sign of life were seen to.

    Args:
        level: the level.
        rows: the hosts of its rollout, as that process left them.
        beat: its last sign of life.
    """
    if not level.around:
        return []
    return [
        row.host
        for row in rows
        if row.level == level.name
        and (row.state == HostState.STAGED.value
             or (row.state == HostState.ENDED.value and row.updated >= beat))
    ]  # fmt: skip


class Around:
    """What was done on the hosts of one rollout before their change, and has to be undone.

    Args:
        job: the rollout.
        tools: what it works with.
        record: its hosts.
        rows: these as the process before left them.
        beat: the last sign of life of that one, in seconds since the epoch.
    """

    def __init__(
        self, job: Job, tools: Tools, record: Record, rows: Sequence[RolloutHost], beat: float
    ) -> None:
        self._tools = tools
        self._record = record
        self._left = {level.name: left_behind(level, rows, beat) for level in job.levels}
        self._prepared: set[str] = set()
        self._parked: set[str] = set()

    def is_prepared(self, host: str) -> bool:
        """Whether this process did on a host what comes before, and has not undone it to wait."""
        return host in self._prepared

    def prepare(self, level: Level, hosts: Sequence[str]) -> list[str]:
        """Do what comes before a change; a host on which that fails is not changed."""
        ready = list(hosts)
        for name in level.around if ready else ():
            found = {one.host: one for one in self._tools.gates.before(name, ready)}
            bad = [h for h in ready if h not in found or found[h].verdict is not Verdict.PASS]
            self.undo(level, bad)
            for host in bad:
                why = found[host].detail if host in found else "no answer"
                self._leave(host, f"{name}: {why}")
            ready = [host for host in ready if host not in bad]
        self._prepared.update(ready)
        self._parked.difference_update(ready)
        return ready

    def _leave(self, host: str, why: str) -> None:
        """End a host that could not be prepared, as far as it came."""
        if self._record.states[host] is HostState.INSTALLED:
            self._record.end(host, Outcome.APPLIED, OWED, why, self._record.findings[host])
        else:
            self._record.end(host, Outcome.SKIPPED, ACTION, why)

    def undo(self, level: Level, hosts: Sequence[str]) -> None:
        """Undo what came before on these hosts."""
        undo(level, hosts, self._tools, self._record.journal)

    def undo_left(self, level: Level) -> None:
        """Undo what a process that died may have left behind."""
        self.undo(level, self._left.pop(level.name))

    def undo_all(self, level: Level) -> None:
        """Undo it on those that get nothing more, and on those that were left behind.

        Who is staged is prepared only to be started at once: of those nothing is to be undone, and
        what somebody else did to them must not be.
        """
        open_ = {*self._record.in_state(level.hosts, HostState.INSTALLED)} - self._parked
        self.undo(level, sorted({*open_, *self._left.pop(level.name, ())}))

    def park(self, level: Level) -> None:
        """Undo what came before on hosts whose reboot has to wait: that may be for days."""
        due = self._record.in_state(level.hosts, HostState.INSTALLED)
        fresh = [host for host in due if host not in self._parked]
        self.undo(level, fresh)
        self._parked.update(fresh)
        self._prepared.difference_update(fresh)
