"""Hosts that were told to start, and whose end nobody has seen yet.

Invariants: how a host ended is what its verified report says, whoever collects it and whenever; a
transaction that was cut off is started again, never given up as done; a host is locked as long as
something may be at work on it.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from cpacman.commands.answers import rollout_body
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, select
from cpacman.commands.jobs import job_again, tools_of
from cpacman.commands.refresh import introduce, refresh_hosts
from cpacman.errors import EXIT_NOT_THERE, ConflictError, CpacmanError, Problem, UsageError
from cpacman.model import Outcome, short_id
from cpacman.rollout.around import left_behind, undo
from cpacman.rollout.job import HALTED, Job, Tools, session_of
from cpacman.rollout.machine import IN_FLIGHT, NOT_STARTED, HostState, RolloutState, Wish
from cpacman.rollout.manifest import ORDER_SLACK, after_of, signed_order
from cpacman.rollout.owner import is_alive, owner_of
from cpacman.rollout.reports import (
    INTERRUPTED,
    NOT_REACHED,
    RECOVERIES,
    UNSTARTED,
    changes_of,
    findings_of,
    is_cut_off,
    judge_report,
    read_findings,
    read_report,
    was_rebooted,
)
from cpacman.rollout.restarts import (
    OWED,
    REBOOT_TIMEOUT,
    Need,
    ending_of,
    ending_of_late,
    need_of,
    read_restarts,
)
from cpacman.store import RolloutHost

AT_WORK = frozenset({"checking", "running", "verifying"})
_PAUSE = 2.0
_GONE = "the process of the rollout died"
_NOT_FOLLOWED = "collected afterwards: its reboot, or restarts of services, did not follow"


def close_abandoned(context: Context, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Give every host of a rollout whose process died its outcome, and unlock it.

    Args:
        context: the outside world.
        rows: the open rollouts; left out, they are read.
    """
    for row in context.store.rollouts(active=True) if rows is None else rows:
        if is_abandoned(row, context.clock()):
            # Who is faster collects them.
            with suppress(ConflictError):
                _close_abandoned(context, row)


def close_one(context: Context, number: str) -> None:
    """Do so for one rollout, if its process is dead and nobody else was faster."""
    close_abandoned(context, [context.store.rollout_row(number)])


def _close_abandoned(context: Context, row: Mapping[str, Any]) -> None:
    number, me = row["id"], owner_of(os.getpid())
    context.store.own_rollout(number, seen=row["owner"], owner=me)
    context.reporter.line(f"{short_id(number)}: its process died, collecting its hosts")
    wished = row["wish"] == Wish.CANCEL.value
    after = RolloutState.CANCELLED if wished else RolloutState.HALTED
    if not _Collection(context, row, after).close(patience=0.0):
        # Somebody is still at work: whoever looks next goes on.
        context.store.own_rollout(number, seen=me, owner="")


def is_abandoned(row: Mapping[str, Any], now: float) -> bool:
    """Whether a rollout's process died, and nobody else will go on with it, or should."""
    if is_alive(row["owner"], row["beat"], now):
        return False
    died = row["state"] == RolloutState.RUNNING.value and not is_background(row)
    return died or row["wish"] is not None


def is_background(row: Mapping[str, Any]) -> bool:
    """Whether the engine goes on with a rollout when its process died."""
    return bool(msgspec.json.decode(row["settings"] or "{}").get("background"))


def recover(
    context: Context,
    selection: Selection,
    *,
    rollout: str | None = None,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Collect the hosts that fell silent, and bring those that were cut off to their plan.

    Raises:
        UsageError: nothing was named.
        ConflictError: another rollout has one of the hosts.
    """
    if rollout is None and selection.is_empty:
        mend = "name hosts ('*' is all of them), or a rollout: rollout=r-..."
        raise UsageError(Problem("recover", "nothing is changed by default", mend))
    close_abandoned(context)
    found = _unsettled(context, selection, rollout)
    back: dict[str, str] = {}
    if not test:
        for number in sorted({number for number, _ in found.values()}):
            hosts = [host for host, (other, _) in found.items() if other == number]
            _reopen(context, number, hosts, reason, ticket)
            back.update(_take_back(context, number, hosts, reason, ticket))
    return _answer(context, found, test, back)


def _take_back(
    context: Context, number: str, hosts: Sequence[str], reason: str | None, ticket: str | None
) -> dict[str, str]:
    """Bring hosts that can't be brought to their plan back to where they were.

    Returns:
        host -> `applied`, or why the way back was not gone.
    """
    from cpacman.commands.rollback import rollback

    _, rows = context.store.rollout(number)
    stuck = [h.host for h in rows if h.host in hosts and h.code == INTERRUPTED]
    told = {}
    for host in stuck:
        try:
            answer = rollback(
                context, rollout=number, host=host, now=True, reason=reason, ticket=ticket
            )
            told[host] = str(answer["rollout"]["hosts"][host]["outcome"])
        except CpacmanError as error:
            told[host] = str(error)
    return told


def _unsettled(
    context: Context, selection: Selection, rollout: str | None
) -> dict[str, tuple[str, RolloutHost]]:
    """Return the hosts that are silent, cut off or away since their last start, and where."""
    hosts = None if selection.is_empty else sorted(select(context, selection).placements)
    number = context.store.rollout_row(rollout)["id"] if rollout else None
    found = {
        host: (other, one)
        for host, (other, one) in context.store.last_told(hosts=hosts, rollout=number).items()
        if one.outcome == Outcome.SILENT.value
        or (one.outcome == Outcome.FAILED.value and one.code in (INTERRUPTED, REBOOT_TIMEOUT))
    }
    still = {row["id"] for row in context.store.rollouts(active=True)}
    for host, (other, _) in found.items():
        if other in still:
            context.reporter.line(f"{host}: {short_id(other)} goes on; recover it when that ended")
    return {host: one for host, one in found.items() if one[0] not in still}


def _reopen(
    context: Context, number: str, hosts: Sequence[str], reason: str | None, ticket: str | None
) -> None:
    row = context.store.rollout_row(number)
    owner = owner_of(os.getpid())
    context.store.collect_again(
        number, hosts, expected=row["state"], owner=owner, at=context.clock(), who=context.who,
        reason=reason, ticket=ticket,
    )  # fmt: skip
    after = RolloutState(row["state"])
    if not _Collection(context, row, after).close(patience=context.settings.transport.apply):
        context.store.own_rollout(number, seen=owner, owner="")


def _answer(
    context: Context,
    found: Mapping[str, tuple[str, RolloutHost]],
    test: bool,
    back: Mapping[str, str],
) -> dict[str, Any]:
    hosts = {}
    for host, (number, before) in sorted(found.items()):
        row, rows = context.store.rollout(number)
        told = rollout_body(row, rows)["hosts"][host]
        way = {"before": before.outcome, "back": back.get(host, "")}
        hosts[host] = {"rollout": number, **way, **told}
    there = {Outcome.APPLIED.value, Outcome.UNCHANGED.value}
    missed = [h for h, one in hosts.items() if not there & {one["outcome"], one["back"]}]
    body = {"test": test, "hosts": hosts}
    return {"recover": body, "retcode": EXIT_NOT_THERE if missed and not test else 0}


class _Collection:
    """The hosts of one rollout that were told to start and have no outcome yet."""

    def __init__(
        self, context: Context, row: Mapping[str, Any], after: RolloutState = RolloutState.HALTED
    ) -> None:
        self._context = context
        self._row = row
        self._after = after
        self._plan = context.store.plan(row["plan"])
        self._starts: dict[str, int] = {}
        self._policies = {
            one.level: read_restarts(one.limits.get("restarts", {}))
            for one in context.store.rollout_levels(row["id"])
        }

    def close(self, *, patience: float) -> bool:
        """End the hosts that have ended, and the rollout when none is left: then it is closed.

        Args:
            patience: seconds for which hosts that are at work are waited for. Those that had to be
                started again are given as long as an answer may take in any case.
        """
        context = self._context
        started = context.clock()
        _, hosts = context.store.rollout(self._row["id"])
        waiting = {h.host: h for h in hosts if HostState(h.state) in IN_FLIGHT}
        self._undo_left(hosts)
        self._undo({h.host for h in hosts if h.state == HostState.INSTALLED.value})
        for one in hosts:
            if HostState(one.state) in NOT_STARTED:
                self._end(one, Outcome.SKIPPED, HALTED, _GONE)
            elif one.state == HostState.INSTALLED.value:
                self._end(one, Outcome.APPLIED, OWED, _GONE, read_findings(one.findings))
        asked = sorted(waiting)
        while waiting:
            before, waiting = waiting, self._poll(waiting)
            self._undo(before.keys() - waiting.keys())
            least = context.settings.transport.answer if waiting.keys() & self._starts else 0.0
            if not waiting or context.clock() > started + max(patience, least):
                break
            context.sleep(_PAUSE)
        refresh_hosts(context, [host for host in asked if host not in waiting])
        if not waiting:
            context.store.end_rollout(
                self._row["id"], state=self._after.value, at=context.clock(), who=context.who
            )
        return not waiting

    def _undo_left(self, rows: Sequence[RolloutHost]) -> None:
        """Undo what the process that died did before the change of hosts."""
        for level in self._job.levels:
            left = left_behind(level, rows, self._row["beat"] or 0.0)
            undo(level, left, self._tools, self._note)

    def _undo(self, hosts: Collection[str]) -> None:
        for level in self._job.levels:
            mine = [host for host in level.hosts if host in hosts]
            undo(level, mine, self._tools, self._note)

    def _note(self, action: str, host: str, words: str) -> None:
        context = self._context
        context.store.record(
            action, self._row["id"], at=context.clock(), who=context.who, host=host,
            detail={"detail": words},
        )  # fmt: skip

    @functools.cached_property
    def _job(self) -> Job:
        return job_again(self._context, self._row)

    @functools.cached_property
    def _tools(self) -> Tools:
        return tools_of(self._context, self._plan, self._job)

    def _poll(self, waiting: Mapping[str, RolloutHost]) -> dict[str, RolloutHost]:
        """Ask hosts how it ended; return those that are still at it."""
        context = self._context
        nonce = secrets.token_hex(16)
        requests = {
            host: {"session": self._session(one), "nonce": nonce} for host, one in waiting.items()
        }
        timeout = context.settings.transport.answer
        still, again = {}, []
        for answer in context.transport.call("result", requests, timeout=timeout):
            one = waiting[answer.host]
            report = self._report(one, answer.value, nonce)
            if one.state != HostState.APPLYING.value:
                if not self._end_following(one, report):
                    still[answer.host] = one
                continue
            if is_cut_off(report) and self._starts.get(answer.host, 0) < RECOVERIES:
                again.append(one)
            if one in again or report.get("state") in AT_WORK or self._is_early(
                one, report):  # fmt: skip
                still[answer.host] = one
            else:
                self._end_by(one, report)
        self._start(again)
        return still

    def _end_following(self, one: RolloutHost, report: Mapping[str, Any]) -> bool:
        """End a host that was told to reboot or to restart services, if that is known by now."""
        state, boot = HostState(one.state), one.boot or ""
        after, within = after_of(one.manifest), self._policies[one.level].within
        ending = ending_of(state, report, boot=boot, since=one.updated, after=after)
        # The process that died may have told it at the last moment, and that order holds.
        holds = self._context.settings.transport.answer + ORDER_SLACK
        if ending is None and self._context.clock() > one.updated + within + holds:
            ending = ending_of_late(state, within, read_findings(one.findings))
        if ending is not None:
            self._end(one, *ending)
        return ending is not None

    def _is_early(self, one: RolloutHost, report: Mapping[str, Any]) -> bool:
        """Whether the order to start may still be on its way to a host that did not begin."""
        late = one.updated + self._context.settings.transport.answer + ORDER_SLACK
        return report.get("state") in (None, "staged") and self._context.clock() < late

    def _session(self, one: RolloutHost) -> str:
        return session_of(self._row["id"], one.attempt)

    def _start(self, hosts: Sequence[RolloutHost]) -> None:
        """Start hosts again whose transaction was cut off: they carry on where they were."""
        if not hosts:
            return
        context, timeout = self._context, self._context.settings.transport.answer
        introduce(context, [one.host for one in hosts])
        requests = {}
        for one in hosts:
            self._starts[one.host] = self._starts.get(one.host, 0) + 1
            context.reporter.line(f"{one.host}: was cut off, started again")
            requests[one.host] = signed_order(
                "order", one.host, self._session(one), context.key.sign_manifest,
                now=context.clock(), answer=timeout,
            )  # fmt: skip
        for answer in context.transport.call("apply", requests, timeout=timeout):
            if answer.code:
                context.reporter.line(f"{answer.host}: was not started again: {answer.error}")

    def _end_by(self, one: RolloutHost, report: Mapping[str, Any]) -> None:
        if report.get("outcome"):
            outcome, code, detail = judge_report(report, after_of(one.manifest))
            findings = findings_of(report)
            need = need_of(self._policies[one.level], findings)
            if outcome is Outcome.APPLIED and need is not Need.NOTHING and not was_rebooted(report):
                code, detail = OWED, _NOT_FOLLOWED
            self._end(one, outcome, code, detail, findings)
        elif report.get("state") == "staged":
            self._end(one, Outcome.REFUSED, UNSTARTED, NOT_REACHED)
        elif one.boot:
            self._end(one, Outcome.FAILED, REBOOT_TIMEOUT, "told to reboot, and still not back")
        else:
            self._end(one, Outcome.SILENT, "silent", "no verified report")

    def _report(self, one: RolloutHost, value: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        wanted = {"nonce": nonce, "plan": self._row["plan"], "session": self._session(one)}
        context = self._context
        return read_report(context.transport.verify, one.host, value, wanted, context.reporter.line)

    def _end(
        self,
        one: RolloutHost,
        outcome: Outcome,
        code: str | None,
        detail: str,
        findings: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        context, row = self._context, self._row
        transaction = self._plan.plan.transactions[one.transaction]
        changed = outcome is Outcome.APPLIED and not one.boot
        changes = changes_of(transaction) if changed else ()
        context.store.end_host(
            row["id"], one.host, expected=one.state, outcome=outcome.value, at=context.clock(),
            who=context.who, code=code, detail=detail, ticket=row["ticket"], reason=row["reason"],
            changes=changes, findings=findings,
        )  # fmt: skip
        context.reporter.line(f"{one.host}: {outcome.value}")
