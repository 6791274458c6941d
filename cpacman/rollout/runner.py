"""Carrying out a plan: the effects around the pure rules of `machine` and `gate`.

Invariants: each step is in the database before its effect; every host ends with exactly one
outcome; nothing that was not verified counts as applied; once halted, no host starts any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from cpacman.errors import CpacmanError, Problem, SafetyError
from cpacman.model import Action, Inventory, Outcome, Plan, Transaction
from cpacman.report.progress import Reporter
from cpacman.rollout import gate
from cpacman.rollout.machine import NOT_STARTED, HostState, RolloutState, check_end, check_move
from cpacman.rollout.manifest import write_manifest, write_order
from cpacman.store import Store
from cpacman.transport.port import UNREACHABLE, Answer, PushProgress, Segment, Transport

HALTED = "halted"
CHANGED = "changed"
ALREADY = "already"
ORDER_SLACK = 60.0
"""Seconds by which a host's clock may be behind when it is told to start."""
_FIRST_POLL, _LAST_POLL = 0.2, 2.0
_APPLY_AGAIN = 10.0


class Files(Protocol):
    """The depot, as far as a push needs it."""

    def check(self, sha256: str, size: int) -> object:
        """Raise when the file is not there or not the one that its name says."""
        ...

    def path_of(self, sha256: str) -> Path:
        """Return where the file is."""
        ...


class Signer(Protocol):
    """The plan key."""

    def sign_manifest(self, text: str) -> str:
        """Return the signature of a manifest or an order, in base64."""
        ...


class Level(NamedTuple):
    """One level of a rollout: its hosts in order and its limits."""

    name: str
    hosts: tuple[str, ...]
    concurrency: int
    max_failures: int
    max_unreachable: int


class Job(NamedTuple):
    """What is to be carried out, and for whom."""

    rollout: str
    plan: Plan
    class_: str
    levels: tuple[Level, ...]
    inventories: Mapping[str, Inventory]
    names: Mapping[str, str]
    protected: tuple[str, ...]
    who: str
    reason: str | None
    ticket: str | None
    owner: str


class Times(NamedTuple):
    """How long things may take, in seconds."""

    answer: float = 30.0
    apply: float = 1800.0


class Recheck(NamedTuple):
    """Whether the plan still holds for a host: its inventory now, or why not."""

    inventory: Inventory | None
    code: str = ""
    detail: str = ""


class Tools(NamedTuple):
    """What a rollout works with."""

    store: Store
    transport: Transport
    files: Files
    signer: Signer
    verify: Callable[[str, str, str], Mapping[str, Any]]
    recheck: Callable[[Sequence[str]], Mapping[str, Recheck]]
    refresh: Callable[[Sequence[str]], None]
    reporter: Reporter
    stopping: Callable[[], bool]
    times: Times = Times()
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def new_rollout_id() -> str:
    """Return a fresh rollout id: random, because the same plan may be carried out twice."""
    return f"r-{secrets.token_hex(8)}"


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
    problems: list[Problem] = []
    for count, (sha256, action) in enumerate(sorted(wanted.items()), 1):
        try:
            tools.files.check(sha256, action.size)
        except CpacmanError as error:
            problems += [p._replace(path=f"{action.nevra}: {p.path}") for p in error.problems]
        tools.reporter.progress("checking files", count, len(wanted), "files")
    if problems:
        raise SafetyError(problems)


def run_rollout(job: Job, tools: Tools) -> None:
    """Carry out a job level by level; the database has the outcome of every host afterwards.

    Raises:
        SafetyError: a file is not what the plan says; nothing was started.
        ConflictError: another rollout has one of the hosts; nothing was started.
    """
    hosts = [(host, level.name) for level in job.levels for host in level.hosts]
    check_files(job.plan, [host for host, _ in hosts], tools)
    header = {"id": job.rollout, "plan": job.plan.plan_id, "class": job.class_,
              "state": RolloutState.RUNNING.value, "who": job.who, "reason": job.reason,
              "ticket": job.ticket, "owner": job.owner}  # fmt: skip
    rows = [(host, level, job.plan.hosts[host]) for host, level in hosts]
    tools.store.start_rollout(header, rows, at=tools.clock())
    _Rollout(job, tools).run()


class _Rollout:
    """One run of one job. States live in the database; `_states` is what we last wrote there."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._halted = ""
        self._states = {h: HostState.WAITING for level in job.levels for h in level.hosts}
        self._outcomes: dict[str, tuple[Outcome, str | None]] = {}

    def run(self) -> None:
        """Go through the levels; whatever happens, every host gets its outcome."""
        try:
            for level in self._job.levels:
                if not self._stopped():
                    self._run_level(level)
        finally:
            for host in [h for h, s in self._states.items() if s in NOT_STARTED]:
                self._end(host, Outcome.SKIPPED, HALTED, self._halted or "the rollout stopped")
            unfinished = [h for h, s in self._states.items() if s is not HostState.ENDED]
            if not unfinished:
                state = RolloutState.HALTED if self._halted else RolloutState.DONE
                self._tools.store.end_rollout(
                    self._job.rollout, state=state.value, at=self._tools.clock(), who=self._job.who
                )

    def _stopped(self) -> bool:
        if not self._halted and self._tools.stopping():
            self._halted = "stopped by the operator"
        return bool(self._halted)

    def _transaction(self, host: str) -> Transaction:
        return self._job.plan.transactions[self._job.plan.hosts[host]]

    def _run_level(self, level: Level) -> None:
        inventories = self._still_planned(level.hosts)
        idle = [host for host in inventories if not self._transaction(host).actions]
        for host in idle:
            self._end(host, Outcome.UNCHANGED, None, "nothing to do")
        busy = {host: one for host, one in inventories.items() if host not in idle}
        if busy:
            self._tools.reporter.line(f"level {level.name}: {counted(len(busy))} to change")
        staged = self._stage(busy, -(-len(busy) // level.concurrency))
        self._check_budget(level)
        for batch in _batches(staged, level.concurrency):
            if self._stopped():
                return
            self._apply(batch)
            self._check_budget(level)
        self._check_result(level)

    # ---- staging -------------------------------------------------------------------------

    def _stage(self, inventories: Mapping[str, Inventory], batches: int) -> list[str]:
        """Bring the bytes to the hosts; return those that are ready to start.

        The manifests hold as long as all batches may take: each start has an order of its own.
        """
        if not inventories or self._stopped():
            return []
        seconds = self._tools.times.apply * (batches + 1)
        manifests = {
            host: self._manifest(host, inventories[host], seconds) for host in sorted(inventories)
        }
        for host, text in manifests.items():
            self._move(host, HostState.STAGING, manifest=text)
        requests = {
            host: {"manifest": text, "signature": self._tools.signer.sign_manifest(text)}
            for host, text in manifests.items()
        }
        begun = self._ask("begin", requests)
        needs = self._needs(begun)
        self._push({host: segments for host, segments in needs.items() if segments})
        return self._confirm([h for h in needs if self._states[h] is HostState.STAGING])

    def _still_planned(self, hosts: Sequence[str]) -> dict[str, Inventory]:
        found: dict[str, Inventory] = {}
        for host, checked in sorted(self._tools.recheck(hosts).items()):
            if checked.inventory is None:
                already = checked.code == ALREADY
                outcome = Outcome.UNCHANGED if already else Outcome.SKIPPED
                self._end(host, outcome, None if already else checked.code, checked.detail)
                continue
            if checked.detail:
                self._journal("replanned", host, checked.detail)
            found[host] = checked.inventory
        return found

    def _manifest(self, host: str, inventory: Inventory, seconds: float) -> str:
        now = self._tools.clock()
        return write_manifest(
            host=host,
            plan=self._job.plan.plan_id,
            transaction_id=self._job.plan.hosts[host],
            transaction=self._transaction(host),
            rollout=self._job.rollout,
            sequence=self._tools.store.next_sequence(host, at=now),
            nonce=secrets.token_hex(16),
            created=now,
            expires=now + seconds,
            inventory=inventory,
            names=self._job.names,
            protected=self._job.protected,
        )

    def _needs(self, answers: Iterable[Answer]) -> dict[str, list[Segment]]:
        needs: dict[str, list[Segment]] = {}
        for answer in answers:
            segments = self._read_needs(answer)
            if segments is not None:
                needs[answer.host] = segments
        return needs

    def _read_needs(self, answer: Answer) -> list[Segment] | None:
        declared = {a.sha256: a.size for a in self._transaction(answer.host).actions if a.size}
        try:
            missing = msgspec.convert(answer.value.get("missing"), list[Segment])
        except msgspec.ValidationError as error:
            self._end(answer.host, Outcome.REFUSED, "garbled", f"answer to begin: {error}")
            return None
        # A host only gets what its own plan names, whatever it asks for.
        return [
            (sha256, offset, length)
            for sha256, offset, length in missing
            if offset >= 0 and 0 < length <= declared.get(sha256, 0) - offset
        ]

    def _push(self, needs: Mapping[str, list[Segment]]) -> None:
        if not needs:
            return
        total = sum(length for segments in needs.values() for _, _, length in segments)
        self._tools.reporter.line(f"pushing {_megabytes(total)} to {counted(len(needs))}")
        with _Reader(self._tools.files) as read:
            answers = self._tools.transport.push(self._job.rollout, needs, read, self._pushed)
        for answer in answers:
            if answer.code:
                self._end_unstarted(answer)

    def _pushed(self, progress: PushProgress) -> None:
        self._tools.reporter.progress("pushing", progress.done, progress.total, "bytes")

    def _confirm(self, hosts: Sequence[str]) -> list[str]:
        ready = []
        for answer in self._ask("staged", self._sessions(hosts)):
            if answer.value.get("complete") is True:
                self._move(answer.host, HostState.STAGED)
                ready.append(answer.host)
            else:
                detail = f"files are not complete on the host: {answer.value.get('bad')!r:.200}"
                self._end(answer.host, Outcome.REFUSED, "bytes", detail)
        return sorted(ready)

    def _sessions(self, hosts: Sequence[str], **more: str) -> dict[str, dict[str, str]]:
        return {host: {"session": self._job.rollout, **more} for host in hosts}

    def _ask(self, function: str, requests: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
        """Call a function of hosts that were not told to start; end those that say no."""
        good = []
        timeout = self._tools.times.answer
        for answer in self._tools.transport.call(function, requests, timeout=timeout):
            if answer.code:
                self._end_unstarted(answer)
            else:
                good.append(answer)
        return good

    def _end_unstarted(self, answer: Answer) -> None:
        """End a host that was not told to start: it did not answer, or it said no."""
        silent = answer.code == UNREACHABLE
        outcome = Outcome.SKIPPED if silent else Outcome.REFUSED
        self._end(answer.host, outcome, answer.code, answer.error)

    # ---- applying ------------------------------------------------------------------------

    def _apply(self, hosts: Sequence[str]) -> None:
        """Start the transaction on these hosts and wait for their verified reports."""
        for host in hosts:
            self._move(host, HostState.APPLYING)
        self._start(hosts)
        self._collect(hosts)
        done = [h for h in hosts if self._outcomes[h][0] is not Outcome.SILENT]
        # What was applied is known; a failed look at the host afterwards must not undo that.
        with suppress(CpacmanError):
            self._tools.refresh(done)

    def _start(self, hosts: Sequence[str]) -> None:
        timeout = self._tools.times.answer
        now = self._tools.clock()
        order = write_order(self._job.rollout, created=now, expires=now + timeout + ORDER_SLACK)
        signature = self._tools.signer.sign_manifest(order)
        requests = self._sessions(hosts, order=order, signature=signature)
        for answer in self._tools.transport.call("apply", requests, timeout=timeout):
            # No answer may still mean that it started: only its report will tell.
            if answer.code and answer.code != UNREACHABLE:
                self._end(answer.host, Outcome.REFUSED, answer.code, answer.error)

    def _collect(self, hosts: Sequence[str]) -> None:
        now, pause = self._tools.clock, _FIRST_POLL
        deadline, again = now() + self._tools.times.apply, now() + _APPLY_AGAIN
        while waiting := [h for h in hosts if self._states[h] is HostState.APPLYING]:
            if now() > deadline:
                for host in waiting:
                    self._end(host, Outcome.SILENT, "silent", "no verified report in time")
                return
            self._stopped()
            self._tools.reporter.progress(
                "applying", len(hosts) - len(waiting), len(hosts), "hosts"
            )
            not_started = self._poll(waiting)
            if not_started and now() > again:
                self._start(not_started)
                again = now() + _APPLY_AGAIN
            self._tools.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)

    def _poll(self, hosts: Sequence[str]) -> list[str]:
        """Ask for reports; return the hosts that have not started yet."""
        nonce = secrets.token_hex(16)
        idle = []
        requests = self._sessions(hosts, nonce=nonce)
        timeout = min(5.0, self._tools.times.answer)
        for answer in self._tools.transport.call("result", requests, timeout=timeout):
            report = self._verified(answer, nonce)
            if report.get("state") == "staged":
                idle.append(answer.host)
            elif report.get("outcome"):
                self._end_by_report(answer.host, report)
        return idle

    def _verified(self, answer: Answer, nonce: str) -> Mapping[str, Any]:
        text, signature = answer.value.get("report"), answer.value.get("signature")
        if not isinstance(text, str) or not isinstance(signature, str):
            return {}
        try:
            report = self._tools.verify(answer.host, text, signature)
        except CpacmanError as error:
            self._tools.reporter.line(f"ignored a report: {error}")
            return {}
        wanted = {"host": answer.host, "nonce": nonce, "session": self._job.rollout,
                  "plan": self._job.plan.plan_id}  # fmt: skip
        return report if wanted.items() <= report.items() else {}

    def _end_by_report(self, host: str, report: Mapping[str, Any]) -> None:
        outcome, code, detail = judge_report(report, self._after(host))
        self._end(host, outcome, code, detail)

    def _after(self, host: str) -> str:
        _, rows = self._tools.store.rollout(self._job.rollout)
        manifest = next(row.manifest for row in rows if row.host == host)
        return str(msgspec.json.decode(manifest or "{}").get("after"))

    # ---- bookkeeping ---------------------------------------------------------------------

    def _move(self, host: str, state: HostState, **values: Any) -> None:
        source = self._states[host]
        check_move(host, source, state)
        self._tools.store.move_host(
            self._job.rollout, host, expected=source.value, state=state.value,
            at=self._tools.clock(), **values,
        )  # fmt: skip
        self._states[host] = state

    def _end(self, host: str, outcome: Outcome, code: str | None, detail: str) -> None:
        check_end(host, self._states[host], outcome)
        changes = changes_of(self._transaction(host)) if outcome is Outcome.APPLIED else []
        self._tools.store.end_host(
            self._job.rollout, host, expected=self._states[host].value, outcome=outcome.value,
            at=self._tools.clock(), who=self._job.who, code=code, detail=detail,
            reason=self._job.reason, ticket=self._job.ticket, changes=changes,
        )  # fmt: skip
        self._states[host] = HostState.ENDED
        self._outcomes[host] = (outcome, code)
        self._tools.reporter.line(f"{host}: {outcome.value}{_why(outcome, detail)}")

    def _journal(self, action: str, host: str, detail: str) -> None:
        self._tools.store.record(
            action, self._job.rollout, at=self._tools.clock(), who=self._job.who, host=host,
            reason=self._job.reason, ticket=self._job.ticket, detail={"detail": detail},
        )  # fmt: skip

    def _check_result(self, level: Level) -> None:
        """Stop after a level that showed nothing: a canary that never ran proves nothing."""
        ended = [self._outcomes[host][0] for host in level.hosts if host in self._outcomes]
        last = level is self._job.levels[-1]
        if not last and not self._halted and not gate.is_conclusive(ended):
            self._halt(f"level {level.name}: no host of it has the plan")

    def _halt(self, why: str) -> None:
        self._halted = why
        self._tools.reporter.line(f"HALTED in {why}")

    def _check_budget(self, level: Level) -> None:
        ended = [self._outcomes[host] for host in level.hosts if host in self._outcomes]
        why = gate.over_budget(
            ended, max_failures=level.max_failures, max_unreachable=level.max_unreachable
        )
        if why and not self._halted:
            self._halt(f"level {level.name}: {why}")


class _Reader:
    """Reads segments; keeps the file of the last one open, since segments come in order."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sha256 = ""
        self._handle: Any = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.close()

    def __call__(self, sha256: str, offset: int, length: int) -> bytes:
        if sha256 != self._sha256:
            self.__exit__()
            self._handle = self._files.path_of(sha256).open("rb")
            self._sha256 = sha256
        self._handle.seek(offset)
        return bytes(self._handle.read(length))


def judge_report(report: Mapping[str, Any], after: str) -> tuple[Outcome, str | None, str]:
    """Return outcome, code and detail of a verified report.

    Args:
        report: what the host said.
        after: the digest of the packages that the host must have to count as applied.
    """
    told = {Outcome.APPLIED, Outcome.UNCHANGED, Outcome.REFUSED, Outcome.FAILED}
    code, detail = report.get("code"), str(report.get("detail") or "")[:2000]
    outcome = next((o for o in told if o.value == report.get("outcome")), None)
    if outcome is None:
        return Outcome.FAILED, "garbled", f"outcome {report.get('outcome')!r:.100}"
    if outcome in {Outcome.APPLIED, Outcome.UNCHANGED} and report.get("packages") != after:
        return Outcome.FAILED, "differs", "the host's packages are not those of the plan"
    return outcome, str(code)[:100] if code else None, detail


def changes_of(transaction: Transaction) -> list[dict[str, Any]]:
    """Return what a transaction changes, as the journal keeps it."""
    return [
        {"action": a.action.value, "name": a.name, "nevra": a.nevra, "from": a.from_}
        for a in transaction.actions
    ]


def _why(outcome: Outcome, detail: str) -> str:
    quiet = outcome in {Outcome.APPLIED, Outcome.UNCHANGED} or not detail
    return "" if quiet else f" ({detail.splitlines()[0]})"


def counted(hosts: int) -> str:
    """Return how many hosts, as people say it."""
    return "1 host" if hosts == 1 else f"{hosts} hosts"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _batches(hosts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (hosts[i : i + size] for i in range(0, len(hosts), size))
