"""Going on with rollouts: resume what stands still, try hosts again that did not end well.

Invariants: a rollout is only ever carried out by one process; who goes on with one answers for that
with a name; what a person decided (to go on in spite of a gate, not to count a failure) is in the
journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.deploying import check_job, result_of
from cpacman.commands.jobs import job_again, own_job, tools_of
from cpacman.errors import ConflictError, InputError, Problem, UsageError
from cpacman.model import Outcome, short_id
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import HALTED, Job
from cpacman.rollout.judging import PASSED_BEFORE
from cpacman.rollout.machine import COUNTS_AS_FAILURE, OPEN, OVER, LevelState, RolloutState
from cpacman.rollout.restarts import OWED, TRIED_AGAIN
from cpacman.rollout.runner import OPERATOR, continue_rollout
from cpacman.store import RolloutHost, RolloutLevel, StoredPlan
from cpacman.transport.port import UNREACHABLE

_RETRIED = COUNTS_AS_FAILURE | {Outcome.SKIPPED}


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
    row = context.store.rollout_row(number)
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
    job = _own_checked(context, row, plan, way)
    forgiven = _reopen(context, row, pick, way, job)
    if way.force:
        _pass_gate(context, number, way.reason)
    if way.background:
        context.store.own_rollout(number, seen=job.owner, owner="")
        return result_of(context, number)
    settings = msgspec.json.decode(context.store.rollout_row(number)["settings"] or "{}")
    job = job._replace(forgiven=frozenset(forgiven), settings=settings)
    patience = math.inf if way.patience is None else way.patience
    continue_rollout(job, tools_of(context, plan, job, patience=patience, limit=way.limit))
    return result_of(context, number)


def _own_checked(context: Context, row: Mapping[str, Any], plan: StoredPlan, way: _Way) -> Job:
    """Own a rollout, once nothing forbids to go on with it."""
    job = job_again(context, row)
    # Who asks must be allowed to; the starter's own right was checked when it began.
    begun = row["created"] if row["state"] in OPEN else None
    asked = job._replace(who=context.who, reason=way.reason or job.reason)
    check_job(context, plan, asked, begun=begun)
    return own_job(context, row, job)


def _reopen(
    context: Context,
    row: Mapping[str, Any],
    pick: Callable[[Sequence[RolloutHost]], list[str]],
    way: _Way,
    job: Job,
) -> list[str]:
    """Let a rollout that we own run again with its hosts; return whose failure counts no more."""
    number = row["id"]
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
    return forgiven


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
    settings = msgspec.json.decode(context.store.rollout_row(number)["settings"] or "{}")
    levels = [*settings.get(PASSED_BEFORE, ()), one.level]
    store.let_begin(number, levels, at=context.clock(), who=context.who, reason=reason)
