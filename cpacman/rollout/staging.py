"""Bringing the bytes to the hosts of a level: manifests, pushes, and the proof that all is there.

Invariants: every file is hashed before it leaves; a host gets only what its own plan names,
whatever it asks for; who is not ready ends here, as `skipped` or `refused`, and nothing of it was
changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from cpacman.errors import CpacmanError, SafetyError
from cpacman.model import Action, Inventory, Outcome, Plan, Transaction
from cpacman.rollout.job import ALREADY, Job, Tools
from cpacman.rollout.machine import HostState
from cpacman.rollout.manifest import write_manifest
from cpacman.rollout.reader import Reader
from cpacman.transport.chunks import merged
from cpacman.transport.port import UNREACHABLE, Answer, PushProgress, Segment
from cpacman.words import many

HASHED = 25e6
"""Bytes in a second that also a slow disk reads and a slow processor hashes."""


def check_files(plan: Plan, hosts: Iterable[str], tools: Tools) -> None:
    """Hash every file that these hosts' transactions need, before anything is sent.

    Raises:
        SafetyError: files are missing or altered; all of them are named.
    """
    wanted: dict[str, Action] = {}
    for number in {plan.hosts[host] for host in hosts}:
        for action in plan.transactions[number].actions:
            if action.sha256 and action.size:
                wanted[action.sha256] = action
    problems = []
    for count, (sha256, action) in enumerate(sorted(wanted.items()), 1):
        try:
            tools.files.check(sha256, action.size)
        except CpacmanError as error:
            problems += [p._replace(path=f"{action.nevra}: {p.path}") for p in error.problems]
        tools.reporter.progress("checking files", count, len(wanted), "files")
    if problems:
        raise SafetyError(problems)


class Keeps(Protocol):
    """Where it is kept how far each host is: a rollout's record, or that of a mere staging."""

    def transaction(self, host: str) -> Transaction:
        """Return what is planned for a host."""
        ...

    def session(self, host: str) -> str:
        """Return the name of the host's session."""
        ...

    def in_state(self, hosts: Iterable[str], *states: HostState) -> list[str]:
        """Return those of these hosts that are in one of the states, in order."""
        ...

    def move(self, host: str, state: HostState, **values: Any) -> None:
        """Move one host."""
        ...

    def end(self, host: str, outcome: Outcome, code: str | None, detail: str) -> None:
        """Give one host its outcome."""
        ...

    def journal(self, action: str, host: str, detail: str) -> None:
        """Append to the journal."""
        ...


class Stager:
    """Stages hosts of one rollout.

    Args:
        job: what is carried out.
        tools: what with.
        record: where it is kept how far each host is.
        look: raises when somebody wants it to stop; called again and again while bytes are sent.

    Attributes:
        lacked: bytes that hosts were found to lack.
        unsent: hosts of the last staging that lack something while nothing may be sent to them.
    """

    def __init__(
        self, job: Job, tools: Tools, record: Keeps, look: Callable[[], None] = lambda: None
    ) -> None:
        self._job = job
        self._tools = tools
        self._record = record
        self._look = look
        self.lacked = 0
        self.unsent: list[str] = []

    def still_planned(self, hosts: Sequence[str]) -> dict[str, Inventory]:
        """Ask hosts whether the plan still holds for them; end those for which it does not."""
        found: dict[str, Inventory] = {}
        for host, checked in sorted(self._tools.recheck(hosts).items()):
            if checked.inventory is None:
                already = checked.code == ALREADY
                outcome = Outcome.UNCHANGED if already else Outcome.SKIPPED
                self._record.end(host, outcome, None if already else checked.code, checked.detail)
                continue
            if checked.detail:
                self._record.journal("replanned", host, checked.detail)
            found[host] = checked.inventory
        return found

    def stage(self, inventories: Mapping[str, Inventory], batches: int) -> list[str]:
        """Bring the bytes to the hosts; return those that are ready to start, sorted.

        The manifests hold as long as all batches may take: each start has an order of its own.
        """
        return self.stage_for(inventories, self._tools.times.apply * (batches + 1))

    def stage_for(self, inventories: Mapping[str, Inventory], seconds: float) -> list[str]:
        """Do the same with manifests that hold so long."""
        if not inventories:
            return []
        manifests = {
            host: self._manifest(host, inventories[host], seconds) for host in sorted(inventories)
        }
        for host, text in manifests.items():
            self._record.move(host, HostState.STAGING, manifest=text)
        requests = {
            host: {"manifest": text, "signature": self._tools.signer.sign_manifest(text)}
            for host, text in manifests.items()
        }
        needs = self._needs(self._ask("begin", requests))
        lacking = {host: segments for host, segments in needs.items() if segments}
        may = self._tools.gates.openings(list(lacking), "stage")
        self.unsent = [host for host in lacking if not may[host].is_open]
        self._push({host: one for host, one in lacking.items() if may[host].is_open})
        sent = [host for host in needs if host not in set(self.unsent)]
        return self._confirm(self._record.in_state(sent, HostState.STAGING))

    def _manifest(self, host: str, inventory: Inventory, seconds: float) -> str:
        now = self._tools.clock()
        return write_manifest(
            host=host,
            plan=self._job.plan.plan_id,
            transaction_id=self._job.plan.hosts[host],
            transaction=self._record.transaction(host),
            rollout=self._job.rollout,
            session=self._record.session(host),
            sequence=self._tools.store.next_sequence(host, at=now),
            nonce=secrets.token_hex(16),
            created=now,
            expires=now + seconds,
            inventory=inventory,
            names=self._job.names,
            protected=sorted({*self._job.protected, *self._tools.protects(inventory)}),
            demands=self._job.demands,
            recovers=self._recovers(inventory),
            cache=self._job.host_cache,
        )

    def _recovers(self, inventory: Inventory) -> str:
        """Return what was cut off on a host, when this rollout is the way back."""
        cut_off = inventory.facts.get("interrupted")
        return str(cut_off) if cut_off and self._job.plan.request.rollback else ""

    def _needs(self, answers: Iterable[Answer]) -> dict[str, list[Segment]]:
        needs: dict[str, list[Segment]] = {}
        for answer in answers:
            segments = self._read_needs(answer)
            if segments is not None:
                needs[answer.host] = segments
        return needs

    def _read_needs(self, answer: Answer) -> list[Segment] | None:
        try:
            return self._missing(answer)
        except msgspec.ValidationError as error:
            said = f"answer to begin: {error}"
            self._record.end(answer.host, Outcome.REFUSED, "garbled", said)
            return None

    def _missing(self, answer: Answer) -> list[Segment]:
        """Return what a host says it lacks of the files of its own plan, whatever else it asks for.

        No byte more than they have: who asks for the same ones again and again gets them once.

        Raises:
            msgspec.ValidationError: that is no list of segments.
        """
        actions = self._record.transaction(answer.host).actions
        declared = {a.sha256: a.size for a in actions if a.size}
        asked = msgspec.convert(answer.value.get("missing"), list[Segment])
        return merged(
            (sha256, offset, length)
            for sha256, offset, length in asked
            if offset >= 0 and 0 < length <= declared.get(sha256, 0) - offset
        )

    def _push(self, needs: Mapping[str, list[Segment]]) -> None:
        if not needs:
            return
        total = sum(length for segments in needs.values() for _, _, length in segments)
        self.lacked += total
        self._tools.reporter.line(f"pushing {total / 1e6:.1f} MB to {many(len(needs), 'host')}")
        sessions: dict[str, dict[str, list[Segment]]] = {}
        for host, segments in needs.items():
            sessions.setdefault(self._record.session(host), {})[host] = segments
        for session, part in sorted(sessions.items()):
            with Reader(self._tools.files.path_of) as read:
                answers = self._tools.transport.push(session, part, read, self._pushed)
            for answer in answers:
                if answer.code:
                    self._end_unstarted(answer)

    def _pushed(self, progress: PushProgress) -> None:
        self._look()
        self._tools.reporter.progress("pushing", progress.done, progress.total, "bytes")

    def _confirm(self, hosts: Sequence[str]) -> list[str]:
        """Return the hosts that have proved that all is there.

        Bytes of an earlier push may have been lost in a power cut, of which only the hash of the
        whole file tells: what a host lacks after all is sent once more.
        """
        ready, lacking = self._prove(hosts)
        if lacking:
            words = "damaged files on its disk were dropped, and are sent again"
            for host in sorted(lacking):
                self._record.journal("resend", host, words)
                self._tools.reporter.line(f"{host}: {words}")
            self._push(lacking)
            more, still = self._prove(self._record.in_state(lacking, HostState.STAGING))
            ready += more
            for host, segments in still.items():
                self._record.end(host, Outcome.REFUSED, "bytes", self._damaged(segments))
        return sorted(ready)

    def _prove(self, hosts: Sequence[str]) -> tuple[list[str], dict[str, list[Segment]]]:
        """Return the hosts that have all, which are staged by it, and what the others lack."""
        ready, lacking = [], {}
        requests = {host: {"session": self._record.session(host)} for host in hosts}
        for answer in self._ask("staged", requests):
            if answer.value.get("complete") is True:
                self._record.move(answer.host, HostState.STAGED)
                ready.append(answer.host)
                continue
            with suppress(msgspec.ValidationError):
                lacking[answer.host] = self._missing(answer)
            if not lacking.get(answer.host):
                lacking.pop(answer.host, None)
                said = "its files are not complete, and it does not say what it lacks"
                self._record.end(answer.host, Outcome.REFUSED, "bytes", said)
        return ready, lacking

    def _damaged(self, segments: Sequence[Segment]) -> str:
        names = sorted({self._job.names.get(sha256, sha256) for sha256, _, _ in segments})
        some = " ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        return f"damaged on its disk each time: {some}; is its disk or memory broken?"

    def _ask(self, function: str, requests: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
        """Call a function of hosts that were not told to start; end those that say no."""
        good = []
        timeout = self._tools.times.answer + self._hashing(requests)
        for answer in self._tools.transport.call(function, requests, timeout=timeout):
            if answer.code:
                self._end_unstarted(answer)
            else:
                good.append(answer)
        return good

    def _hashing(self, hosts: Iterable[str]) -> float:
        """Return the seconds that a slow host may need to hash what its transaction names."""
        actions = (self._record.transaction(host).actions for host in hosts)
        return max((sum(a.size for a in one if a.sha256) for one in actions), default=0) / HASHED

    def _end_unstarted(self, answer: Answer) -> None:
        """End a host that was not told to start: it did not answer, or it said no."""
        silent = answer.code == UNREACHABLE
        outcome = Outcome.SKIPPED if silent else Outcome.REFUSED
        self._record.end(answer.host, outcome, answer.code, answer.error)
