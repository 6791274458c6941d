"""The hosts of one rollout as the database has them: every move goes through here.

Invariants: each step is in the database before its effect; a host moves along the table of
`machine`; every host ends with exactly one outcome, which the operator is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cpacman.model import Outcome, Transaction
from cpacman.rollout.job import Job, Tools, session_of
from cpacman.rollout.machine import HostState, check_end, check_move
from cpacman.rollout.reports import Findings, changes_of, read_findings
from cpacman.store import RolloutHost


class Record:
    """States and outcomes of a rollout's hosts; what is in memory is what was last written."""

    def __init__(self, job: Job, tools: Tools, rows: Iterable[RolloutHost]) -> None:
        self._job = job
        self._tools = tools
        self.states: dict[str, HostState] = {}
        self.outcomes: dict[str, tuple[Outcome, str | None]] = {}
        self.attempts: dict[str, int] = {}
        self.findings: dict[str, Findings] = {}
        self.boots: dict[str, str] = {}
        self.since: dict[str, float] = {}
        for row in rows:
            self.states[row.host] = HostState(row.state)
            self.attempts[row.host] = row.attempt
            self.since[row.host] = row.updated
            self.boots[row.host] = row.boot or ""
            self.findings[row.host] = read_findings(row.findings)
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

    def install(self, host: str, findings: Findings, boot: str) -> None:
        """Keep that a host proved its transaction, what it found, and the boot that it is in."""
        check_move(host, self.states[host], HostState.INSTALLED)
        self._tools.store.install_host(
            self._job.rollout, host, at=self._tools.clock(), who=self._job.who, boot=boot,
            reason=self._job.reason, ticket=self._job.ticket, findings=findings,
            changes=() if self.boots[host] else changes_of(self.transaction(host)),
        )  # fmt: skip
        self.states[host] = HostState.INSTALLED
        self.findings[host], self.boots[host] = findings, boot

    def order(self, hosts: Sequence[str], state: HostState = HostState.APPLYING) -> bool:
        """Commit that hosts are told to do something; False when an operator wished for a halt."""
        for host in hosts:
            check_move(host, self.states[host], state)
        now = self._tools.clock()
        ordered = self._tools.store.order_hosts(
            self._job.rollout, hosts, owner=self._job.owner, at=now, state=state.value,
            who=self._job.who,
        )  # fmt: skip
        if ordered:
            self.states.update(dict.fromkeys(hosts, state))
            self.since.update(dict.fromkeys(hosts, now))
        return ordered

    def is_stopped(self) -> bool:
        """Whether somebody wished that no more hosts start."""
        return self._tools.store.rollout_row(self._job.rollout)["wish"] is not None

    def begin_anew(self, hosts: Sequence[str], action: str = "restage") -> None:
        """Let hosts that were not told to start begin their staging again, in a new session."""
        if not hosts:
            return
        for host in hosts:
            check_move(host, self.states[host], HostState.WAITING)
        self._tools.store.reopen_hosts(
            self._job.rollout, hosts, at=self._tools.clock(), who=self._job.who, action=action
        )
        for host in hosts:
            self.outcomes.pop(host, None)
            self.states[host] = HostState.WAITING
            self.attempts[host] += 1
            self.boots[host] = ""

    def end(
        self,
        host: str,
        outcome: Outcome,
        code: str | None,
        detail: str,
        findings: Findings | None = None,
    ) -> None:
        """Give a host its outcome, and unlock it."""
        check_end(host, self.states[host], outcome)
        # Of who has a boot, the changes are in the journal since it was found to have them.
        changed = outcome is Outcome.APPLIED and not self.boots[host]
        changes = changes_of(self.transaction(host)) if changed else []
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
