"""Looking at rollouts and steering them: halt, resume, cancel, skip, retry, approve.

Invariants: a wish is in the database before anything else, so that no host starts after it; a
rollout is only ever carried out by one process; who goes on with one answers for that with a name;
what a person decided (to go on in spite of a gate, not to count a failure) is in the journal.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from cpacman.commands import access
from cpacman.commands.answers import rollout_body
from cpacman.commands.collecting import is_abandoned, is_background
from cpacman.commands.context import Context
from cpacman.commands.deploying import check_job, result_of
from cpacman.commands.gatekeeping import soak_every
from cpacman.commands.jobs import job_again, tools_of
from cpacman.commands.latecomers import besides
from cpacman.errors import EXIT_OTHER, ConflictError, InputError, Problem, SafetyError, UsageError
from cpacman.model import Outcome, short_id
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import HALTED, Job
from cpacman.rollout.judging import PASSED_BEFORE
from cpacman.rollout.machine import (
    COUNTS_AS_FAILURE,
    IN_FLIGHT,
    NOT_STARTED,
    OPEN,
    OVER,
    LevelState,
    RolloutState,
    Wish,
    check_rollout,
)
from cpacman.rollout.owner import is_alive, owner_of
from cpacman.rollout.restarts import OWED, TRIED_AGAIN
from cpacman.rollout.runner import OPERATOR, close_rollout, continue_rollout
from cpacman.store import RolloutHost, RolloutLevel
from cpacman.transport.port import UNREACHABLE

LOOK = 0.2
"""Seconds between two looks at whether a wish was heeded."""
_RETRIED = COUNTS_AS_FAILURE | {Outcome.SKIPPED}


def rollouts(context: Context, *, active: bool = False) -> dict[str, Any]:
    """List rollouts, the newest first."""
    rows, now = context.store.rollouts(active=active)[::-1], context.clock()
    shown = [
        {**{k: row[k] for k in ("id", "plan", "class", "state", "why", "until", "who", "created")},
         "alive": is_alive(row["owner"], row["beat"], now) if row["owner"] else None}
        for row in rows
    ]  # fmt: skip
    return {"rollouts": {"rollouts": shown, "active": active}}


def rollout(
    context: Context, number: str, *, outcome: str | None = None, host: str | None = None
) -> dict[str, Any]:
    """Show one rollout, or those hosts of it that ended in one way.

    Raises:
        InputError: no such rollout, or no such host in it.
        UsageError: no such outcome.
    """
    known = [one.value for one in Outcome]
    if outcome is not None and outcome not in known:
        mend = f"known are: {', '.join(known)}"
        raise UsageError(Problem("outcome", f"there is no outcome {outcome!r}", mend))
    row, hosts = context.store.rollout(number)
    if host is not None and host not in {h.host for h in hosts}:
        raise InputError(Problem(host, f"is not in {short_id(row['id'])}"))
    body = rollout_body(row, hosts, context.store.rollout_levels(row["id"]))
    body["hosts"] = {
        name: one
        for name, one in body["hosts"].items()
        if host in (None, name) and outcome in (None, one["outcome"])
    }
    return {"rollout": {**body, **besides(context, row, hosts), "full": True}}


# ---- stopping ------------------------------------------------------------------------------


def halt(
    context: Context, number: str | None = None, *, everything: bool = False,
    reason: str | None = None, wait: float = 60.0,
) -> dict[str, Any]:  # fmt: skip
    """Let no more hosts of a rollout start, and tell what was in flight at that moment.

    Args:
        context: the outside world.
        number: the rollout.
        everything: every rollout that is open and that this person may halt; the others are told.
        reason: kept in the journal.
        wait: seconds to wait for those in flight.

    Raises:
        UsageError: neither a rollout nor all of them is named, or both.
        ConflictError: it has ended.
    """
    if (number is None) == (not everything):
        mend = "name one rollout, or say all=True"
        raise UsageError(Problem("id", "halts one rollout or all", mend))
    rows = context.store.rollouts(active=True) if number is None else [_row(context, number)]
    stopped: list[dict[str, Any]] = []
    refused: list[Problem] = []
    # All wishes first: to end one of them may take as long as its hosts that are in flight.
    for row in rows:
        try:
            stopped.append(_wish(context, row, Wish.HALT, reason))
        except (ConflictError, SafetyError) as error:
            if not everything:
                raise
            # Who has ended meanwhile is halted; whom this person may not halt is told.
            refused += error.problems if isinstance(error, SafetyError) else ()
    for one in stopped:
        _end_unowned(context, one["id"], Wish.HALT)
    _await_end(context, [one["id"] for one in stopped], wait)
    for one in stopped:
        one["state"] = _row(context, one["id"])["state"]
    return halt_answer(stopped, refused)


def halt_answer(stopped: Sequence[Mapping[str, Any]], refused: Sequence[Problem]) -> dict[str, Any]:
    """Return what was halted, and why the rest was not."""
    told = [problem._asdict() for problem in dict.fromkeys(refused)]
    body = {"halt": {"rollouts": list(stopped), "refused": told}}
    return {**body, "retcode": EXIT_OTHER} if told else body


def cancel(
    context: Context, number: str, *, reason: str | None = None, wait: float = 60.0
) -> dict[str, Any]:
    """End a rollout for good; who has not started is skipped.

    Raises:
        ConflictError: it has ended for good already.
    """
    row = _row(context, number)
    access.check_access(context.settings, "deploy", row["class"], context.who)
    if row["state"] == RolloutState.HALTED.value:
        context.store.move_rollout(
            row["id"], expected=row["state"], state=RolloutState.CANCELLED.value,
            at=context.clock(), who=context.who, why=row["why"] or "", reason=reason,
        )  # fmt: skip
        return {"halt": {"rollouts": [{"id": row["id"], "in_flight": [], "state": "cancelled"}]}}
    stopped = _stop(context, row, Wish.CANCEL, reason)
    _await_end(context, [row["id"]], wait)
    stopped["state"] = _row(context, row["id"])["state"]
    return {"halt": {"rollouts": [stopped]}}


def _row(context: Context, number: str) -> dict[str, Any]:
    return context.store.rollout_row(number)


def _stop(
    context: Context, row: Mapping[str, Any], wish: Wish, reason: str | None
) -> dict[str, Any]:
    """Commit the wish; end the rollout here and now when no process carries it out."""
    stopped = _wish(context, row, wish, reason)
    _end_unowned(context, row["id"], wish)
    return stopped


def _wish(
    context: Context, row: Mapping[str, Any], wish: Wish, reason: str | None
) -> dict[str, Any]:
    """Commit the wish, and return who was in flight at that moment."""
    access.check_access(context.settings, "deploy", row["class"], context.who)
    number = row["id"]
    context.store.wish_rollout(
        number, wish.value, at=context.clock(), who=context.who, reason=reason
    )
    flying = [h.host for h in context.store.rollout(number)[1] if h.state in IN_FLIGHT]
    return {"id": number, "in_flight": flying}


def _end_unowned(context: Context, number: str, wish: Wish) -> None:
    row = _row(context, number)
    if not is_alive(row["owner"], row["beat"], context.clock()):
        # Who is faster closes it: the wish stands, and whoever has the rollout heeds it.
        with suppress(ConflictError):
            _close(context, row, wish)


def _close(context: Context, row: Mapping[str, Any], wish: Wish) -> None:
    job = _own(context, row, job_again(context, row))
    state = RolloutState.CANCELLED if wish is Wish.CANCEL else RolloutState.HALTED
    tools = tools_of(context, context.store.plan(row["plan"]), job)
    close_rollout(job, tools, state, f"{state.value} by {context.who}")


def _await_end(context: Context, numbers: Sequence[str], wait: float) -> None:
    def ended() -> bool:
        return all(_row(context, number)["state"] not in OPEN for number in numbers)

    context.wait_until(ended, context.clock() + wait, LOOK)


def _own(context: Context, row: Mapping[str, Any], job: Job) -> Job:
    """Become the one process that carries a rollout out.

    Raises:
        ConflictError: another process does.
    """
    if row["state"] in OPEN and is_alive(row["owner"], row["beat"], context.clock()):
        words = "is being carried out by another process"
        raise ConflictError(Problem(short_id(row["id"]), words, "halt it first"))
    me = owner_of(os.getpid())
    context.store.own_rollout(row["id"], seen=row["owner"], owner=me)
    return job._replace(owner=me)


def pause(context: Context, number: str, why: str) -> None:
    """Pause a rollout that nobody carries out and that must not go on as it is."""
    row = _row(context, number)
    going = (RolloutState.RUNNING, RolloutState.WAITING)
    if row["state"] not in going or is_alive(row["owner"], row["beat"], context.clock()):
        return
    check_rollout(row["id"], RolloutState(row["state"]), RolloutState.PAUSED)
    context.store.own_rollout(row["id"], seen=row["owner"], owner="")
    context.store.move_rollout(
        row["id"], expected=row["state"], state=RolloutState.PAUSED.value, at=context.clock(),
        who=context.who, why=why,
    )  # fmt: skip


# ---- going on ------------------------------------------------------------------------------


def resume(
    context: Context,
    number: str,
    *,
    force: bool = False,
    background: bool = False,
    reason: str | None = None,
    patience: float | None = None,
    limit: float = math.inf,
) -> dict[str, Any]:
    """Go on with a rollout that was halted, paused, waits, or lost its process.

    Hosts that were skipped by the halt begin anew, and those that it kept from their reboot go on
    with that; those that failed stay failed, and do not count any more. With `force` the level at
    which it stands passes its gate, or passes though it showed nothing.

    Args:
        context: the outside world.
        number: the rollout.
        force: pass the gate of the level that stands at it; wants a reason.
        background: leave the rest to the engine.
        reason: kept in the journal.
        patience: seconds to wait here for windows and soaks; left out, as long as it takes.
        limit: the moment up to which to wait at all.

    Raises:
        UsageError: it is over, or `force` comes without a reason.
        SafetyError: a check failed; nothing goes on.
        ConflictError: another process carries it out, or another rollout has one of its hosts.
    """
    if force and not reason:
        raise UsageError(Problem("reason", "force passes a gate", "say why: reason='...'"))
    row = _row(context, number)
    _check_resumable(row)
    if force:
        _standing(context, row["id"])
    way = _Way("resume", force, background, reason, patience, limit)
    return _go_on(context, row, _stopped, way)


def _stopped(hosts: Sequence[RolloutHost]) -> list[str]:
    return [h.host for h in hosts if h.code in (HALTED, OWED)]


def _check_resumable(row: Mapping[str, Any]) -> None:
    if row["state"] in OVER:
        mend = "failed hosts are tried again by: salt-run cpacman.retry"
        raise UsageError(Problem(short_id(row["id"]), f"is {row['state']}", mend))


def retry(
    context: Context,
    number: str,
    *,
    host: Sequence[str] = (),
    reason: str | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """Try hosts of a rollout again that did not end where they should.

    Args:
        context: the outside world.
        number: the rollout.
        host: only these; without any, all that were refused, failed, silent or skipped, but for
            those that somebody skipped by name.
        reason: kept in the journal.
        patience: seconds to wait here for windows and soaks; left out, as long as it takes.

    Raises:
        UsageError: no host is left to be tried, or one that is named has the plan or is at it.
    """
    row, hosts = context.store.rollout(number)
    wrong = set(host) - {h.host for h in hosts}
    if wrong:
        raise InputError([Problem(h, f"is not in {short_id(row['id'])}") for h in sorted(wrong)])

    def pick(rows: Sequence[RolloutHost]) -> list[str]:
        missed = [h for h in rows if h.outcome in _RETRIED or h.code == OWED]
        return [h.host for h in missed if h.host in host or not (host or h.code == OPERATOR)]

    again = pick(hosts)
    left = sorted(set(host) - set(again))
    if left or not again:
        faults = [Problem(h, "has the plan, or is still at it", "leave it out") for h in left]
        raise UsageError(faults or Problem(short_id(row["id"]), "has no host to be tried again"))
    if row["state"] == RolloutState.CANCELLED.value:
        raise UsageError(Problem(short_id(row["id"]), "is cancelled", "plan and deploy again"))
    way = _Way("retry", reason=reason, patience=patience, wanted=tuple(host))
    return _go_on(context, row, pick, way)


class _Way(NamedTuple):
    """How a rollout is gone on with: by which command, and on what terms."""

    verb: str
    force: bool = False
    background: bool = False
    reason: str | None = None
    patience: float | None = None
    limit: float = math.inf
    wanted: tuple[str, ...] = ()


def _go_on(
    context: Context,
    row: Mapping[str, Any],
    pick: Callable[[Sequence[RolloutHost]], list[str]],
    way: _Way,
) -> dict[str, Any]:
    number, plan = row["id"], context.store.plan(row["plan"])
    job = job_again(context, row)
    # Who asks must be allowed to; the starter's own right was checked when it began.
    begun = row["created"] if row["state"] in OPEN else None
    asked = job._replace(who=context.who, reason=way.reason or job.reason)
    check_job(context, plan, asked, begun=begun)
    job = _own(context, row, job)
    # Only now nobody else moves its hosts.
    hosts = context.store.rollout(number)[1]
    again = pick(hosts)
    forgiven = sorted(_forgiven(row, hosts) - set(again))
    context.store.forgive(number, forgiven)
    # Who has its packages needs no other attempt: what follows them is tried again.
    has_them = {h.host for h in hosts if h.code in TRIED_AGAIN}
    try:
        context.store.go_on_rollout(
            number, expected=row["state"], owner=job.owner, at=context.clock(), who=context.who,
            anew=[host for host in again if host not in has_them],
            following=[host for host in again if host in has_them], wanted=way.wanted,
            verb=way.verb, reason=way.reason, background=way.background or None,
        )  # fmt: skip
    except ConflictError:
        # A host is taken: whoever tries it later must not find it owned by a process that lives on.
        context.store.own_rollout(number, seen=job.owner, owner="")
        raise
    if way.force:
        _pass_gate(context, number, way.reason)
    if way.background:
        context.store.own_rollout(number, seen=job.owner, owner="")
        return result_of(context, number)
    settings = msgspec.json.decode(_row(context, number)["settings"] or "{}")
    job = job._replace(forgiven=frozenset(forgiven), settings=settings)
    patience = math.inf if way.patience is None else way.patience
    continue_rollout(job, tools_of(context, plan, job, patience=patience, limit=way.limit))
    return result_of(context, number)


def _forgiven(row: Mapping[str, Any], hosts: Sequence[RolloutHost]) -> set[str]:
    """Return the hosts whose failure does not count any more.

    Those that were forgiven before; and when a person goes on with what was halted, all that
    had failed by then.
    """
    before = set(msgspec.json.decode(row["settings"] or "{}").get("forgiven", ()))
    if row["state"] not in (RolloutState.HALTED.value, RolloutState.DONE.value):
        return before
    return before | {
        h.host for h in hosts if h.outcome in COUNTS_AS_FAILURE or h.code == UNREACHABLE
    }


def _standing(context: Context, number: str) -> RolloutLevel:
    """Return the level that stands at its gate, or would begin but for it.

    Raises:
        UsageError: none does.
    """
    at_gate = (LevelState.CHECKING, LevelState.SOAKING)
    left = [one for one in context.store.rollout_levels(number) if one.state != LevelState.PASSED]
    if left and (left[0].state in at_gate or _is_kept_out(left[0])):
        return left[0]
    words = "no level of it stands at a gate"
    raise UsageError(Problem("force", words, "resume it without force"))


def _is_kept_out(level: RolloutLevel) -> bool:
    """Whether the last word on a level is that of its gate: that its hosts were not well before."""
    return level.state == LevelState.WAITING and any(
        one["required"] and one["verdict"] != Verdict.PASS.value for one in level.findings or ()
    )


def _pass_gate(context: Context, number: str, reason: str | None) -> None:
    """Let the level that stands at its gate pass, or begin, by an operator's word."""
    one, store = _standing(context, number), context.store
    if one.state != LevelState.WAITING:
        store.pass_level(
            number, one.level, expected=one.state, at=context.clock(), who=context.who,
            reason=reason,
        )  # fmt: skip
        return
    settings = msgspec.json.decode(_row(context, number)["settings"] or "{}")
    levels = [*settings.get(PASSED_BEFORE, ()), one.level]
    store.let_begin(number, levels, at=context.clock(), who=context.who, reason=reason)


# ---- hosts and approvals -------------------------------------------------------------------


def skip(
    context: Context, number: str, host: Sequence[str], *, reason: str | None = None
) -> dict[str, Any]:
    """Leave hosts of a rollout out before their turn comes.

    Raises:
        UsageError: no host is named.
        InputError: a host is not in the rollout.
        SafetyError: a host was told to start already, or has ended.
    """
    row, hosts = context.store.rollout(number)
    if not host:
        raise UsageError(Problem("host", "nobody is named", "host=web1"))
    access.check_access(context.settings, "deploy", row["class"], context.who)
    states = {one.host: one.state for one in hosts}
    unknown = [Problem(h, f"is not in {short_id(row['id'])}") for h in host if h not in states]
    if unknown:
        raise InputError(unknown)
    # Whom a halt kept from starting begins anew with a resume, but not who is skipped now.
    early = {one.host for one in hosts if one.state in NOT_STARTED or one.code == HALTED}
    late = [h for h in host if h not in early]
    if late:
        raise SafetyError([Problem(h, f"is {states[h]} already") for h in late])
    for one in host:
        context.store.skip_host(row["id"], one, at=context.clock(), who=context.who, reason=reason)
    return {"skip": {"id": row["id"], "hosts": sorted(host)}}


def approve(
    context: Context, number: str, *, reason: str | None = None, ticket: str | None = None
) -> dict[str, Any]:
    """Approve of a rollout, as somebody else than who started it.

    Raises:
        SafetyError: the starter approves, or somebody who may not.
        UsageError: it is over.
    """
    row = _row(context, number)
    if row["state"] not in OPEN:
        raise UsageError(Problem(short_id(row["id"]), f"is {row['state']}"))
    access.check_access(context.settings, "approve", row["class"], context.who)
    if access.person_of(context.who) == access.person_of(row["who"]):
        mend = "ask somebody else"
        raise SafetyError(Problem("approve", f"{context.who} started it", mend))
    new = context.store.approve(
        row["id"], at=context.clock(), who=context.who, reason=reason, ticket=ticket
    )
    approved = context.store.approvals(row["id"])
    return {"approve": {"id": row["id"], "new": new, "by": approved, "state": row["state"]}}


# ---- the engine's part ---------------------------------------------------------------------


def due(context: Context) -> list[str]:
    """Return the rollouts in the background that somebody has to go on with now."""
    rows = context.store.rollouts(active=True)
    mine = [
        row
        for row in rows
        if is_background(row) and not is_alive(row["owner"], row["beat"], context.clock())
    ]
    return [
        row["id"]
        for row in mine
        if _is_ripe(context, row) and not is_abandoned(row, context.clock())
    ]


def abandoned(context: Context) -> list[str]:
    """Return the rollouts whose hosts somebody has to collect."""
    return [
        row["id"]
        for row in context.store.rollouts(active=True)
        if is_abandoned(row, context.clock())
    ]


def _is_ripe(context: Context, row: Mapping[str, Any]) -> bool:
    if row["state"] != RolloutState.WAITING.value:
        return bool(row["state"] == RolloutState.RUNNING.value)
    now = context.clock()
    return bool((row["until"] or 0) <= now or _next_look(context, row) <= now)


def _next_look(context: Context, row: Mapping[str, Any]) -> float:
    """Return when the checks of a soak are due that no process sits out."""
    gates = [
        str(one.limits.get("gate") or "")
        for one in context.store.rollout_levels(row["id"])
        if one.state == LevelState.SOAKING.value
    ]
    every = [soak_every(context.settings, name) for name in gates]
    return float(min([(row["beat"] or 0.0) + one for one in every if one], default=math.inf))
