"""Bringing bytes to hosts ahead of a rollout: the same pushes and proofs, and nothing is started.

Invariant: what a host is sent here stays in its cache until the manifest's time is over; no order
is ever signed for these sessions, so nothing of them can be installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cpacman.errors import UsageError
from cpacman.model import Outcome, Transaction
from cpacman.rollout.job import Job, Tools
from cpacman.rollout.machine import HostState
from cpacman.rollout.staging import Stager

KEEP = 7 * 86400.0
"""Seconds for which hosts keep what was staged, whatever else fills their caches."""


class Staged:
    """How each host stands; there is no rollout, so only the journal is written.

    Attributes:
        states: of hosts whose staging began.
        ended: hosts that were given up, with outcome, code and detail.
    """

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self.states: dict[str, HostState] = {}
        self.ended: dict[str, tuple[Outcome, str | None, str]] = {}

    def transaction(self, host: str) -> Transaction:
        """Return what is planned for a host."""
        return self._job.plan.transactions[self._job.plan.hosts[host]]

    def session(self, host: str) -> str:
        """Return the one session of all."""
        return self._job.rollout

    def in_state(self, hosts: Iterable[str], *states: HostState) -> list[str]:
        """Return those of these hosts that are in one of the states, in order."""
        return [host for host in hosts if self.states.get(host) in states]

    def move(self, host: str, state: HostState, **_: Any) -> None:
        """Note how far a host is."""
        self.states[host] = state

    def end(self, host: str, outcome: Outcome, code: str | None, detail: str) -> None:
        """Give a host up."""
        self.states[host] = HostState.ENDED
        self.ended[host] = (outcome, code, detail)
        self._tools.reporter.line(f"{host}: {outcome.value} ({detail or code})")

    def journal(self, action: str, host: str, detail: str) -> None:
        """Append to the journal."""
        self._tools.store.record(
            action, self._job.rollout, at=self._tools.clock(), who=self._job.who, host=host,
            reason=self._job.reason, ticket=self._job.ticket, detail={"detail": detail},
        )  # fmt: skip


def _look(tools: Tools) -> None:
    """Stop when the operator wants that: what came so far stays on the hosts.

    Raises:
        UsageError: he does.
    """
    if tools.stopping():
        raise UsageError("stopped by the operator; what came so far stays on the hosts")


def prestage(job: Job, tools: Tools, hosts: Iterable[str]) -> tuple[Staged, int]:
    """Bring the bytes of a plan to hosts; return how each stands, and the bytes that were lacking.

    Args:
        job: `rollout` is the name of the session.
        tools: as for a rollout.
        hosts: those that have something to do.
    """
    record = Staged(job, tools)
    stager = Stager(job, tools, record, lambda: _look(tools))
    ready = stager.stage_for(stager.still_planned(sorted(hosts)), KEEP)
    for host in ready:
        record.journal("staged", host, job.plan.plan_id)
    return record, stager.lacked
