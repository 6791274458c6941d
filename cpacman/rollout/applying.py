"""Telling staged hosts to start, and waiting for their verified reports.

Invariants: a start is ordered by the plan key, for minutes; no answer may still mean that it
started, so only a host's signed report ends it, or the time in which that must come; a report
counts when it is of this host, session, plan and of the question that was asked just now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpacman.model import Outcome
from cpacman.rollout.asking import Asker
from cpacman.rollout.job import Tools
from cpacman.rollout.machine import HostState
from cpacman.rollout.manifest import signed_order
from cpacman.rollout.record import Record
from cpacman.rollout.reports import RECOVERIES, findings_of, is_cut_off, judge_report
from cpacman.rollout.settling import Settler
from cpacman.transport.port import UNREACHABLE

APPLY_AGAIN = 10.0
"""Seconds after which a host that was told to start and did not is told again."""
RECOVER_AGAIN = 4.0
"""Seconds that a host which was cut off and started again has to show that it is at it."""


class Applier:
    """The hosts of one rollout that apply; who has something to follow goes to the `Settler`."""

    def __init__(self, tools: Tools, record: Record, asker: Asker, settler: Settler) -> None:
        self._tools = tools
        self._record = record
        self._asker = asker
        self._settler = settler
        self._deadlines: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._recoveries: dict[str, list[float]] = {}
        self._cut_off: list[str] = []

    def start(self, hosts: Sequence[str]) -> bool:
        """Tell hosts to start; return False, with nobody told, when a halt was wished for."""
        if not self._record.order(hosts):
            return False
        self.watch(hosts)
        self._tell(hosts)
        return True

    def watch(self, hosts: Sequence[str]) -> None:
        """Wait for the reports of hosts that were told to start, from now on."""
        now = self._tools.clock()
        self._deadlines.update(dict.fromkeys(hosts, now + self._tools.times.apply))
        self._again.update(dict.fromkeys(hosts, now + APPLY_AGAIN))

    def watch_new(self, hosts: Sequence[str]) -> None:
        """Wait for the reports of those that nobody waits for yet."""
        self.watch([host for host in hosts if host not in self._deadlines])

    def in_flight(self) -> list[str]:
        """Return the hosts that were told to start and have no outcome yet."""
        return self._record.in_state(self._deadlines, HostState.APPLYING)

    def poll(self) -> list[str]:
        """Ask the hosts in flight once; return those that have ended by it."""
        hosts = self.in_flight()
        idle = self._ask(hosts)
        now = self._tools.clock()
        for host in self._record.in_state(hosts, HostState.APPLYING):
            if now > self._deadlines[host]:
                self._record.end(host, Outcome.SILENT, "silent", "no verified report in time")
        late = [h for h in idle if now > self._again[h] and h in self.in_flight()]
        if late:
            self._again.update(dict.fromkeys(late, now + APPLY_AGAIN))
            self._tell(late)
        self._recover([host for host in self._cut_off if host in self.in_flight()])
        return self._record.in_state(hosts, HostState.ENDED)

    def _recover(self, hosts: Sequence[str]) -> None:
        """Start hosts again whose transaction was cut off: they carry on where they were."""
        now = self._tools.clock()
        due = [h for h in hosts if now > self._recoveries.get(h, [0.0])[-1] + RECOVER_AGAIN]
        for host in due:
            self._recoveries.setdefault(host, []).append(now)
            self._record.journal("recover", host, "its transaction was cut off: started again")
            self._tools.reporter.line(f"{host}: was cut off, started again")
        if due:
            self._tell(due)

    def _tell(self, hosts: Sequence[str]) -> None:
        timeout, now = self._tools.times.answer, self._tools.clock()
        sign = self._tools.signer.sign_manifest
        requests = {
            host: signed_order(self._record.session(host), sign, now=now, answer=timeout)
            for host in hosts
        }
        for answer in self._tools.transport.call("apply", requests, timeout=timeout):
            if answer.code and answer.code != UNREACHABLE:
                self._record.end(answer.host, Outcome.REFUSED, answer.code, answer.error)

    def _ask(self, hosts: Sequence[str]) -> list[str]:
        """Ask for reports; return the hosts that have not started yet."""
        self._cut_off.clear()
        if not hosts:
            return []
        idle = []
        for host, report in self._asker.reports(hosts, min(5.0, self._tools.times.answer)):
            if report.get("state") == "staged":
                idle.append(host)
            elif is_cut_off(report) and len(self._recoveries.get(host, ())) < RECOVERIES:
                self._cut_off.append(host)
            elif report.get("outcome"):
                self._take(host, report)
        return idle

    def _take(self, host: str, report: Mapping[str, Any]) -> None:
        outcome, code, detail = judge_report(report, self._asker.after(host))
        if outcome is Outcome.APPLIED and self._settler.keeps(host, report):
            return
        self._record.end(host, outcome, code, detail, findings_of(report))
