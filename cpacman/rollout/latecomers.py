"""Hosts that were out of reach when their turn came, and are back while the rollout goes on.

Invariants: their levels run again before they do, so that a crash between forgets nobody; a level
does not soak anew for them; who is gone again each time keeps no rollout going for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from cpacman.errors import ConflictError
from cpacman.model import Outcome
from cpacman.rollout.job import Job, Tools
from cpacman.rollout.levels import Levels
from cpacman.rollout.machine import LevelState
from cpacman.rollout.record import Record
from cpacman.transport.port import UNREACHABLE
from cpacman.words import many

AGAIN = 60.0
"""Seconds after which hosts that are out of reach are asked again."""
JOINS = 3
"""How often one process takes a host in that was out of reach, and is again."""
_MISSED = (Outcome.SKIPPED, UNREACHABLE)
_SHOWN = 12


class HostsAreBack(Exception):
    """Levels that had passed run again for hosts that have come back."""


class Latecomers:
    """Those of one rollout that are owed their change."""

    def __init__(self, job: Job, tools: Tools, record: Record, levels: Levels) -> None:
        self._job = job
        self._tools = tools
        self._record = record
        self._levels = levels
        # Who goes on with a rollout asks at once: it may be gone on with because a host is back.
        self._asked = 0.0 if levels.begun() else tools.clock()
        self._joined: Counter[str] = Counter()

    def join(self, *, at_once: bool = False) -> None:
        """Let hosts that are back have the plan, too, where that is wanted.

        Raises:
            HostsAreBack: there are some; their levels run again, without soaking anew.
        """
        owed = self._owed() if self._tools.gates.late() else []
        now = self._tools.clock()
        if not owed or not (at_once or now >= self._asked + AGAIN):
            return
        self._asked = now
        taken = self._tools.store.locked_hosts()
        found = self._tools.recheck([h for h in self._tools.open_now(owed) if h not in taken])
        back = [host for host in owed if host in found and found[host].code != UNREACHABLE]
        if back:
            self._reopen(back)
            raise HostsAreBack

    def _owed(self) -> list[str]:
        """Return the hosts of levels that have begun which were skipped as out of reach."""
        hosts = [host for level in self._levels.begun() for host in level.hosts]
        owed = [host for host in hosts if self._record.outcomes.get(host) == _MISSED]
        return [host for host in owed if self._joined[host] < JOINS]

    def _reopen(self, hosts: Sequence[str]) -> None:
        for level in self._job.levels:
            passed = self._levels.state(level) not in (LevelState.WAITING, LevelState.RUNNING)
            if passed and not set(hosts).isdisjoint(level.hosts):
                self._levels.move(level, LevelState.RUNNING, late=True)
        names = " ".join(hosts[:_SHOWN])
        self._tools.reporter.line(f"{many(len(hosts), 'host')} came back: {names}")
        self._joined.update(hosts)
        with suppress(ConflictError):  # another rollout was faster; that one has them now
            self._record.begin_anew(hosts, "late")
