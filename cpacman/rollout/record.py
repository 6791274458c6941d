"""The hosts of one rollout as the database has them: every move goes through here.

Invariants: each step is in the database before its effect; a host moves along the table of
`machine`; every host ends with exactly one outcome, which the operator is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpacman.model import Outcome, Transaction
from cpacman.rollout.job import Job, Tools, session_of
from cpacman.rollout.machine import HostState, check_end, check_move
from cpacman.rollout.reports import changes_of
from cpacman.store import RolloutHost


class Record:
    """States and outcomes of a rollout's hosts; what is in memory is what was last written."""

    def __init__(self, job: Job, tools: Tools, rows: Iterable[RolloutHost]) -> None:
        self._job = job
        self._tools = tools
        self.states: dict[str, HostState] = {}
        self.outcomes: dict[str, tuple[Outcome, str | None]] = {}
        self.attempts: dict[str, int] = {}
        for row in rows:
            self.states[row.host] = HostState(row.state)
            self.attempts[row.host] = row.attempt
            if row.outcome is not None:
                self.outcomes[row.host] = (Outcome(row.outcome), row.code)

    def transaction(self, host: str) -> Transaction:
        """Return what is planned for a host."""
        return self._job.plan.transactions[self._job.plan.hosts[host]]

    def session(self, host: str) -> str:
        """Return the name of the host's session in its present attempt."""
        return session_of(self._job.rollout, self.attempts[host])

    def in_state(self, hosts: Iterable[str], *states: HostState) -> list[str]:
        """Return those of these hosts that are in one of the states, in order."""
        return [host for host in hosts if self.states[host] in states]

    def move(self, host: str, state: HostState, **values: Any) -> None:
        """Move one host."""
        source = self.states[host]
        check_move(host, source, state)
        self._tools.store.move_host(
            self._job.rollout, host, expected=source.value, state=state.value,
            at=self._tools.clock(), **values,
        )  # fmt: skip
        self.states[host] = state

    def order(self, hosts: Sequence[str]) -> bool:
        """Commit that staged hosts are told to start; False when an operator wished for a halt."""
        for host in hosts:
            check_move(host, self.states[host], HostState.APPLYING)
        ordered = self._tools.store.order_hosts(
            self._job.rollout, hosts, owner=self._job.owner, at=self._tools.clock()
        )
        if ordered:
            self.states.update(dict.fromkeys(hosts, HostState.APPLYING))
        return ordered

    def begin_anew(self, hosts: Sequence[str]) -> None:
        """Let hosts that were not told to start begin their staging again, in a new session."""
        if not hosts:
            return
        for host in hosts:
            check_move(host, self.states[host], HostState.WAITING)
        self._tools.store.reopen_hosts(
            self._job.rollout, hosts, at=self._tools.clock(), who=self._job.who, action="restage"
        )
        for host in hosts:
            self.states[host] = HostState.WAITING
            self.attempts[host] += 1

    def end(
        self,
        host: str,
        outcome: Outcome,
        code: str | None,
        detail: str,
        findings: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Give a host its outcome, and unlock it."""
        check_end(host, self.states[host], outcome)
        changes = changes_of(self.transaction(host)) if outcome is Outcome.APPLIED else []
        self._tools.store.end_host(
            self._job.rollout, host, expected=self.states[host].value, outcome=outcome.value,
            at=self._tools.clock(), who=self._job.who, code=code, detail=detail,
            reason=self._job.reason, ticket=self._job.ticket, changes=changes, findings=findings,
        )  # fmt: skip
        self.states[host] = HostState.ENDED
        self.outcomes[host] = (outcome, code)
        self._tools.reporter.line(f"{host}: {outcome.value}{_why(outcome, detail)}")

    def journal(self, action: str, host: str, detail: str) -> None:
        """Note something about a host that is no move."""
        self._tools.store.record(
            action, self._job.rollout, at=self._tools.clock(), who=self._job.who, host=host,
            reason=self._job.reason, ticket=self._job.ticket, detail={"detail": detail},
        )  # fmt: skip


def _why(outcome: Outcome, detail: str) -> str:
    quiet = outcome in {Outcome.APPLIED, Outcome.UNCHANGED} or not detail
    return "" if quiet else f" ({detail.splitlines()[0]})"
