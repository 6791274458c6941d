"""Asking the hosts of a rollout for their reports.

Invariant: what is returned was verified just now, and is of the session that was asked for.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpacman.rollout.job import Job, Tools
from cpacman.rollout.manifest import after_of
from cpacman.rollout.record import Record
from cpacman.rollout.reports import read_report


class Asker:
    """Asks hosts of one rollout.

    Attributes:
        ignored: host -> why its last report did not count.
    """

    def __init__(self, job: Job, tools: Tools, record: Record) -> None:
        self._job = job
        self._tools = tools
        self._record = record
        self.ignored: dict[str, str] = {}

    def reports(
        self, hosts: Sequence[str], timeout: float
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each host with its report; an empty one when it gave none that counts."""
        nonce = secrets.token_hex(16)
        sessions = {host: self._record.session(host) for host in hosts}
        requests = {host: {"session": one, "nonce": nonce} for host, one in sessions.items()}
        wanted = {"nonce": nonce, "plan": self._job.plan.plan_id}
        for answer in self._tools.transport.call("result", requests, timeout=timeout):
            host, mine = answer.host, {**wanted, "session": sessions[answer.host]}
            tell = functools.partial(self._ignore, host)
            yield host, read_report(self._tools.verify, host, answer.value, mine, tell)

    def _ignore(self, host: str, words: str) -> None:
        """Keep why a report does not count, and tell it once, not with every question."""
        if self.ignored.get(host) != words:
            self.ignored[host] = words
            self._tools.reporter.line(words)

    def after(self, host: str) -> str:
        """Return the digest of the packages that a host must have."""
        return after_of(self._tools.store.manifest_of(self._job.rollout, host))
