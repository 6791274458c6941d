"""What follows on hosts that proved their transaction: restarts of services, reboots.

Invariants: an order is in the database before it is sent, in one transaction with a look at the
wish to halt, and once halted none is given, nor one repeated that was lost; the boot that is to end
is kept, and every order names what it is about, so that nothing is done twice whoever dies; only a
verified report ends a host, or the time in which it must come, and not while an order holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpacman.model import Outcome
from cpacman.rollout.asking import Asker
from cpacman.rollout.job import Job, Tools
from cpacman.rollout.machine import HostState
from cpacman.rollout.manifest import ORDER_SLACK, signed_order
from cpacman.rollout.record import Record
from cpacman.rollout.reports import findings_of, was_rebooted
from cpacman.rollout.restarts import (
    OWED,
    REBOOT,
    RESTART,
    Need,
    boot_of,
    ending_of,
    ending_of_late,
    is_aware,
    need_of,
    number_of,
)
from cpacman.transport.port import UNREACHABLE

AGAIN = 10.0
"""Seconds after which a host that knows of no order is sent it again."""
EVERY = 2.0
"""Seconds between two looks at hosts that are away."""
_VERBS = {HostState.RESTARTING: RESTART, HostState.REBOOTING: REBOOT}


class Settler:
    """The hosts of one rollout on which something follows their transaction."""

    def __init__(self, job: Job, tools: Tools, record: Record, asker: Asker) -> None:
        self._tools = tools
        self._record = record
        self._asker = asker
        self._policies = {host: one.restarts for one in job.levels for host in one.hosts}
        self._deadlines: dict[str, float] = {}
        self._again: dict[str, float] = {}
        self._run_out: dict[str, float] = {}
        self._told: set[str] = set()
        self._looked = 0.0
        self._halted = ""

    def keeps(self, host: str, report: Mapping[str, Any]) -> bool:
        """Take over a host that applied, if something has to follow; else return False."""
        findings = findings_of(report)
        if need_of(self._policies[host], findings) is Need.NOTHING or was_rebooted(report):
            return False
        if self._halted:
            self._record.end(host, Outcome.APPLIED, OWED, self._halted, findings)
        else:
            self._record.install(host, findings, boot_of(report))
        return True

    def stop(self, why: str) -> None:
        """Order nothing from now on: who waits for an order ends without what was to follow."""
        self._halted = why
        for host in self._record.in_state(self._policies, HostState.INSTALLED):
            self._record.end(host, Outcome.APPLIED, OWED, why, self._record.findings[host])

    def order(self, hosts: Sequence[str]) -> bool:
        """Tell hosts what has to follow; return False when a halt was wished for meanwhile."""
        for state, verb in _VERBS.items():
            mine = [host for host in hosts if self._state_for(host) is state]
            if not mine:
                continue
            if not self._record.order(mine, state):
                return False
            now = self._tools.clock()
            for host in mine:
                self._deadlines[host] = now + self._policies[host].within
                self._tools.reporter.line(f"{host}: told to {verb}")
            self._tell(mine)
        return True

    def _state_for(self, host: str) -> HostState:
        need = need_of(self._policies[host], self._record.findings[host])
        return HostState.REBOOTING if need is Need.REBOOT else HostState.RESTARTING

    def watch_new(self, hosts: Iterable[str]) -> None:
        """Wait for hosts that somebody else ordered to do something."""
        now = self._tools.clock()
        for host in hosts:
            if host not in self._deadlines:
                usual = self._record.since[host] + self._policies[host].within
                self._deadlines[host] = max(usual, now + self._tools.times.answer)
                # Whoever was at it before may have told it just now.
                self._run_out[host] = now + self._order_life

    def in_flight(self) -> list[str]:
        """Return the hosts that were ordered to do something and have no outcome yet."""
        return self._record.in_state(self._deadlines, *_VERBS)

    def poll(self) -> list[str]:
        """Ask the hosts in flight, not too often; return those that have ended by it."""
        hosts, now = self.in_flight(), self._tools.clock()
        if not hosts or now < self._looked + EVERY:
            return []
        self._looked = now
        unaware = []
        for host, report in self._asker.reports(hosts, min(3.0, self._tools.times.answer)):
            state, boot, since = self._order_of(host)
            after = self._asker.after(host)
            ending = ending_of(state, report, boot=boot, since=since, after=after)
            if ending is not None:
                self._record.end(host, *ending)
            elif report and not is_aware(state, report, boot=boot, since=since):
                unaware.append(host)
        self._end_unreached(unaware)
        self._end_late(hosts)
        self._tell_again(self._record.in_state(unaware, *_VERBS))
        return self._record.in_state(hosts, HostState.ENDED)

    def _tell_again(self, unaware: Sequence[str]) -> None:
        """Tell those again whose order was lost, while they have time and nobody wants a halt."""
        now = self._tools.clock()
        late = [h for h in unaware if self._again.get(h, 0.0) < now < self._deadlines[h]]
        if late and not self._halted and not self._record.is_stopped():
            self._tell(late)

    def _end_unreached(self, unaware: Sequence[str]) -> None:
        """End those that a halt kept from being told again, once no order can reach them."""
        now = self._tools.clock()
        for host in unaware if self._halted else ():
            if now > self._run_out[host]:
                findings = self._record.findings[host]
                self._record.end(host, Outcome.APPLIED, OWED, self._halted, findings)

    @property
    def _order_life(self) -> float:
        return self._tools.times.answer + ORDER_SLACK

    def _order_of(self, host: str) -> tuple[HostState, str, float]:
        record = self._record
        return record.states[host], record.boots[host], record.since[host]

    def _end_late(self, hosts: Sequence[str]) -> None:
        now = self._tools.clock()
        for host in self._record.in_state(hosts, *_VERBS):
            if now > max(self._deadlines[host], self._run_out[host]):
                within, findings = self._policies[host].within, self._record.findings[host]
                self._record.end(host, *ending_of_late(self._record.states[host], within, findings))

    def _tell(self, hosts: Sequence[str]) -> None:
        timeout, now = self._tools.times.answer, self._tools.clock()
        self._again.update(dict.fromkeys(hosts, now + AGAIN))
        self._run_out.update(dict.fromkeys(hosts, now + self._order_life))
        for state, verb in _VERBS.items():
            mine = self._record.in_state(hosts, state)
            requests = {host: self._order(verb, host, now, timeout) for host in mine}
            if not requests:
                continue
            for answer in self._tools.transport.call(verb, requests, timeout=timeout):
                self._heard(answer.host, verb, answer.code, answer.error)

    def _heard(self, host: str, verb: str, code: str, error: str) -> None:
        """Count the time from the first answer on: who is told late is given all of it."""
        if code and code != UNREACHABLE:
            findings = self._record.findings[host]
            self._record.end(host, Outcome.FAILED, verb, f"{code}: {error}", findings)
        elif not code and host not in self._told:
            self._told.add(host)
            self._deadlines[host] = self._tools.clock() + self._policies[host].within

    def _order(self, verb: str, host: str, now: float, timeout: float) -> dict[str, str]:
        policy = self._policies[host]
        number = number_of(self._record.since[host])
        more: dict[str, object] = {"boot_id": self._record.boots[host], "number": number}
        if verb == RESTART:
            names = list(policy.names) if policy.services == "listed" else ["*"]
            more = {"number": number, "names": names,
                    "timeout": int(policy.timeout), "within": int(policy.within)}  # fmt: skip
        session, sign = self._record.session(host), self._tools.signer.sign_manifest
        return signed_order(verb, host, session, sign, now=now, answer=timeout, **more)
