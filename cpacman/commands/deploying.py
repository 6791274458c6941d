"""Carrying out a plan: every check first, then the rollout.

Invariants: nothing ever means "everything" by default; a plan is only carried out while its class
still points at the snapshots it was made from; what is configured as a safeguard and can't be
enforced stops the deploy; a rollout whose process died is brought to an end before another starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from cpacman.commands import blocking, planning
from cpacman.commands.answers import plan_body, rollout_body
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, place_all
from cpacman.commands.gatekeeping import (
    class_windows,
    gone_names,
    missing_names,
    missing_windows,
)
from cpacman.commands.jobs import NO_BOUNDS, Bounds, Terms, new_job, tools_of
from cpacman.commands.latecomers import besides
from cpacman.commands.provenance import signature_problems
from cpacman.commands.safeguards import missing_profile, profile_problems, safeguards
from cpacman.depot.promotion import is_for, moves_of
from cpacman.errors import (
    EXIT_NOT_PLANNED,
    EXIT_NOT_THERE,
    Problem,
    SafetyError,
    UsageError,
)
from cpacman.model import Request, short_id
from cpacman.rollout.job import Job
from cpacman.rollout.machine import OPEN, THERE
from cpacman.rollout.runner import begin_rollout, run_rollout
from cpacman.rollout.staging import check_files
from cpacman.store import StoredPlan

NOTHING = Request()


def deploy(
    context: Context,
    selection: Selection,
    *,
    plan: str | None = None,
    levels: Sequence[str] = (),
    request: Request = NOTHING,
    now: bool = False,
    test: bool = False,
    background: bool = False,
    profile: str | None = None,
    bounds: Bounds = NO_BOUNDS,
    reason: str | None = None,
    ticket: str | None = None,
    patience: float = math.inf,
    limit: float = math.inf,
) -> dict[str, Any]:
    """Carry out a stored plan; or plan the selection, and carry that out only with `now`.

    With `background` the rollout is created, and the engine carries it out. A window or a soak
    that takes longer than `patience` seconds, or is not over at the moment `limit`, leaves it
    waiting. `bounds` are tighter ones than those configured.

    Raises:
        UsageError: neither a plan nor hosts are named, or both.
        SafetyError: a check failed; nothing was started.
        ConflictError: another rollout has one of the hosts; nothing was started.
    """
    _check_usage(selection, plan, request)
    close_abandoned(context)
    if plan is None:
        answer = planning.plan(
            context, selection, request=request, refresh="all" if now else "stale"
        )
        if not now:
            return answer
        plan = str(answer["plan"]["plan_id"])
    stored = context.store.plan(plan)
    job = new_job(
        context, stored, levels, reason, ticket, Terms(profile or "", background, "", bounds)
    )
    check_job(context, stored, job)
    tools = tools_of(context, stored, job, patience=patience, limit=limit)
    if test:
        return _rehearse(context, stored, job)
    if background:
        begin_rollout(job._replace(owner=""), tools)
    else:
        run_rollout(job, tools)
    return result_of(context, job.rollout)


def _check_usage(selection: Selection, plan: str | None, request: Request) -> None:
    if plan is None and selection.is_empty:
        raise UsageError(
            Problem("deploy", "nothing is deployed by default",
                    "name a plan (plan=p-...) or hosts (class=, level=, a target such as 'web*')")
        )  # fmt: skip
    if plan is not None and (request != NOTHING or not selection.is_empty):
        raise UsageError(
            Problem("plan", "is frozen: hosts, packages and modes can't be named beside it",
                    "limit it by levels=, or make another plan")
        )  # fmt: skip


# ---- the checks ----------------------------------------------------------------------------


def check_job(
    context: Context, stored: StoredPlan, job: Job, *, begun: float | None = None
) -> None:
    """Check all that must hold before a rollout begins or goes on.

    Args:
        context: the outside world.
        stored: its plan.
        job: the rollout.
        begun: when it began, where it is open: snapshots that its class took since stop it not.

    Raises:
        SafetyError: something does not; everything is named at once.
    """
    names = [level.name for level in job.levels]
    hosts = _busy_hosts(job)
    profile = str(job.settings.get("profile") or "")
    gone = missing_profile(context, profile)
    problems = [
        *gone_names(context.settings, job.class_, job.levels),
        *(gone or profile_problems(context, profile, job.reason)),
        *safeguards(context, stored.class_, job.ticket, verb="deploy", who=job.who),
        *missing_names(context.settings, stored.class_, names),
        *_missing_windows(context, job),
        *plan_problems(context, stored, hosts, begun),
    ]
    if problems:
        raise SafetyError(problems)


def _missing_windows(context: Context, job: Job) -> list[Problem]:
    """Return the windows that hosts name for themselves and that nobody describes."""
    if class_windows(context.settings, job.class_).by is None:
        return []
    placements = place_all(context, [h for level in job.levels for h in level.hosts]).placements
    meta = {name: one.host.meta for name, one in placements.items()}
    return missing_windows(context.settings, job.class_, meta)


def _busy_hosts(job: Job) -> list[str]:
    hosts = [host for level in job.levels for host in level.hosts]
    return [h for h in hosts if job.plan.transactions[job.plan.hosts[h]].actions]


def plan_problems(
    context: Context, stored: StoredPlan, hosts: Sequence[str], begun: float | None = None
) -> list[Problem]:
    """Return why nothing of a frozen plan may be sent to these hosts, or done there, any more.

    `begun` is when its rollout began, where that is open.
    """
    return [
        *moved_pointers(context, stored, begun),
        *_limited_since(context, stored),
        *blocking.problems_of(context, stored.plan),
        *signature_problems(context, stored.plan),
        *context.transport.check(hosts),
    ]


def moved_pointers(
    context: Context, stored: StoredPlan, begun: float | None = None
) -> list[Problem]:
    """Return the channels in which the class points elsewhere now: that plan is of the past.

    Mirrors go on while a rollout soaks: what its class only took up since is for the next one.
    """
    pointers = context.store.pointers()
    problems = []
    for channel, snapshot in sorted(stored.plan.snapshots.items()):
        pointer = pointers.get((stored.class_, channel))
        held = pointer["snapshot"] if pointer else "nothing"
        if held != snapshot and not _took_up(context, stored.class_, channel, begun):
            message = f"holds {short_id(held)} now, the plan was made from {short_id(snapshot)}"
            mend = f"plan again: salt-run cpacman.plan class={stored.class_}"
            problems.append(Problem(f"{stored.class_} {channel}", message, mend))
    return problems


def _took_up(context: Context, class_: str, channel: str, since: float | None) -> bool:
    """Whether all that a class did in a channel since then was to take snapshots."""
    if since is None:
        return False
    moves = moves_of(context.store.moves(), channel)
    later = [one.action for one in moves if one.class_ == class_ and one.at >= since]
    return set(later) == {"snapshot"}


def _limited_since(context: Context, stored: StoredPlan) -> list[Problem]:
    """Return the repositories that a plan takes from and that are not for its class any more."""
    taken = {action.repository for one in stored.plan.transactions.values()
             for action in one.actions if action.sha256}  # fmt: skip
    settings, class_ = context.settings, stored.class_
    channels = [settings.channels[name] for name in stored.plan.snapshots
                if name in settings.channels]  # fmt: skip
    limited = {
        name: one.classes
        for channel in channels
        for name, one in channel.repositories.items()
        if name in taken and not is_for(one.classes, class_)
    }
    mend = f"plan again: salt-run cpacman.plan class={class_}"
    return [
        Problem(name, f"is for {', '.join(classes)} only by now, not for {class_}", mend)
        for name, classes in sorted(limited.items())
    ]


def _rehearse(context: Context, stored: StoredPlan, job: Job) -> dict[str, Any]:
    """Run every check that a deploy runs; ask the hosts, change nothing."""
    tools = tools_of(context, stored, job)
    busy = _busy_hosts(job)
    check_files(stored.plan, busy, tools)
    found = tools.recheck(busy)
    would = {
        host: "apply" if one.inventory else f"skip: {one.detail}" for host, one in found.items()
    }
    body = {**plan_body(context, stored, stored.plan), "test": True, "would": would}
    return {"plan": body, "retcode": _planned_code(stored)}


def result_of(context: Context, rollout: str) -> dict[str, Any]:
    """Return how a rollout stands, with the exit code that says whether all hosts are there."""
    row, hosts = context.store.rollout(rollout)
    stored = context.store.plan(row["plan"])
    missed = [host for host in hosts if host.outcome not in THERE]
    failed = msgspec.to_builtins(stored.plan.failed)
    levels = context.store.rollout_levels(rollout)
    body = {**rollout_body(row, hosts, levels), **besides(context, row, hosts), "failed": failed}
    if row["state"] in OPEN:
        return {"rollout": body}
    return {"rollout": body, "retcode": EXIT_NOT_THERE if missed else _planned_code(stored)}


def _planned_code(stored: StoredPlan) -> int:
    return EXIT_NOT_PLANNED if stored.plan.failed else 0
