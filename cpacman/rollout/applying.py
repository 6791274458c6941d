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
from cpacman.rollout.manifest import ORDER_SLACK, signed_order
from cpacman.rollout.record import Record
from cpacman.rollout.reports import (
    NOT_REACHED,
    RECOVERIES,
    UNSTARTED,
    findings_of,
    is_cut_off,
    judge_report,
)
from cpacman.rollout.settling import Settler
from cpacman.transport.port import UNREACHABLE, Answer

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
        self._run_out: dict[str, float] = {}
        self._refusals: dict[str, Answer] = {}
        self._recoveries: dict[str, list[float]] = {}
        self._cut_off: list[str] = []
        self._closing = False

    @property
    def _order_life(self) -> float:
        return self._tools.times.answer + ORDER_SLACK

    @property
    def is_busy(self) -> bool:
        """Whether hosts are in flight, or ended and `poll` did not tell of it yet."""
        return bool(self._deadlines)

    def start(self, hosts: Sequence[str]) -> bool:
        """Tell hosts to start; return False, with nobody told, when a halt was wished for."""
        if not self._record.order(hosts):
            return False
        self.watch(hosts)
        for answer in self._tell(hosts):
            # It was told for the first time: no earlier order can start it after all.
            self._record.end(answer.host, Outcome.REFUSED, answer.code, answer.error)
        return True

    def watch(self, hosts: Sequence[str]) -> None:
        """Wait for the reports of hosts that were told to start, from now on."""
        now = self._tools.clock()
        self._deadlines.update(dict.fromkeys(hosts, now + self._tools.times.apply))
        self._again.update(dict.fromkeys(hosts, now + APPLY_AGAIN))
        self._run_out.update(dict.fromkeys(hosts, now + self._order_life))

    def watch_new(self, hosts: Sequence[str]) -> None:
        """Wait for the reports of those that nobody waits for yet."""
        self.watch([host for host in hosts if host not in self._deadlines])

    def tell_no_more(self) -> None:
        """From now on only collect: who was told to start and did not is not told again."""
        self._closing = True

    def in_flight(self) -> list[str]:
        """Return the hosts that were told to start and have no outcome yet."""
        return self._record.in_state(self._deadlines, HostState.APPLYING)

    def poll(self) -> list[str]:
        """Ask the hosts in flight once; return those that have ended since the last time."""
        idle = self._ask(self.in_flight())
        self._tell_again(idle)
        self._give_up(idle)
        self._recover([host for host in self._cut_off if host in self.in_flight()])
        done = [h for h in self._deadlines if self._record.states[h] is not HostState.APPLYING]
        for host in done:
            del self._deadlines[host]
        return self._record.in_state(done, HostState.ENDED)

    def _tell_again(self, idle: Sequence[str]) -> None:
        """Tell those again whose order was lost on its way, unless a halt is wished for."""
        now = self._tools.clock()
        late = [
            host
            for host in idle
            if self._may_be_told(host)
            and now > self._again[host]
            and now + self._order_life < self._deadlines[host]
        ]
        if late and not self._record.is_stopped():
            self._again.update(dict.fromkeys(late, now + APPLY_AGAIN))
            for answer in self._tell(late):
                # The first order may be under way still: only time tells that it is not.
                self._refusals[answer.host] = answer

    def _may_be_told(self, host: str) -> bool:
        return not self._closing and host not in self._refusals

    def _give_up(self, idle: Sequence[str]) -> None:
        """End those that did not report in time, and those whom no order can start any more."""
        now = self._tools.clock()
        for host in idle:
            if not self._may_be_told(host) and now > self._run_out[host]:
                no = self._refusals.get(host, Answer(host, {}, UNSTARTED, NOT_REACHED))
                self._record.end(host, Outcome.REFUSED, no.code, no.error)
        for host in self.in_flight():
            # While an order holds it may still start its host, which was not given up then.
            if now > max(self._deadlines[host], self._run_out[host]):
                why = self._asker.ignored.get(host, "")
                words = "no verified report in time" + (f"; {why}" if why else "")
                self._record.end(host, Outcome.SILENT, "silent", words)

    def _recover(self, hosts: Sequence[str]) -> None:
        """Start hosts again whose transaction was cut off: they carry on where they were."""
        now = self._tools.clock()
        due = [h for h in hosts if now > self._recoveries.get(h, [0.0])[-1] + RECOVER_AGAIN]
        for host in due:
            self._recoveries.setdefault(host, []).append(now)
            self._record.journal("recover", host, "its transaction was cut off: started again")
            self._tools.reporter.line(f"{host}: was cut off, started again")
        for answer in self._tell(due) if due else ():
            # It was changed already, whatever it refuses now; its report says how it stands.
            self._tools.reporter.line(f"{answer.host}: was not started again: {answer.error}")

    def _tell(self, hosts: Sequence[str]) -> list[Answer]:
        """Send the order to start; return the answers of those that refuse it."""
        timeout, now = self._tools.times.answer, self._tools.clock()
        sign = self._tools.signer.sign_manifest
        requests = {
            host: signed_order(
                "order", host, self._record.session(host), sign, now=now, answer=timeout
            )
            for host in hosts
        }
        self._run_out.update(dict.fromkeys(hosts, now + self._order_life))
        answers = self._tools.transport.call("apply", requests, timeout=timeout)
        return [one for one in answers if one.code and one.code != UNREACHABLE]

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
