"""Bringing the bytes of a plan to its hosts ahead of time: installing them needs none then.

Invariants: nothing is started; hosts that a rollout has at the moment are left to it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from cpacman.commands.access import problems_of
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context
from cpacman.commands.deploying import plan_problems
from cpacman.commands.gatekeeping import class_windows, missing_names, opening_of
from cpacman.commands.jobs import Terms, new_job, tools_of
from cpacman.commands.safeguards import profile_of, profile_problems
from cpacman.config.stages import WindowNames
from cpacman.errors import EXIT_NOT_THERE, Problem, SafetyError, UsageError
from cpacman.rollout.job import Job, NoGates
from cpacman.rollout.machine import HostState
from cpacman.rollout.prestage import Staged, prestage
from cpacman.rollout.staging import check_files


def stage(
    context: Context,
    *,
    plan: str | None = None,
    levels: Sequence[str] = (),
    test: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Push what the hosts of a plan lack, and prove that it is there.

    Raises:
        UsageError: no plan is named, or no such profile.
        SafetyError: a file is altered, the class points elsewhere, bytes would reach others, or
            the class has a window for this that is closed.
    """
    if plan is None:
        raise UsageError("name a plan: salt-run cpacman.stage plan=p-...")
    close_abandoned(context)
    stored = context.store.plan(plan)
    job = new_job(context, stored, levels, reason, ticket, Terms(profile or ""))
    job = job._replace(rollout=f"g-{secrets.token_hex(8)}")
    hosts = [host for level in job.levels for host in level.hosts if _changes(job, host)]
    problems = [
        *problems_of(context.settings, "deploy", stored.class_, context.who),
        *profile_problems(context, profile or "", reason),
        *_closed(context, stored.class_, profile_of(context, profile or "").windows),
        *plan_problems(context, stored, hosts),
    ]
    if problems:
        raise SafetyError(problems)
    busy = _in_rollouts(context)
    wanted = [host for host in hosts if host not in busy]
    # Its window was looked at; what has begun is let finish.
    tools = tools_of(context, stored, job)._replace(gates=NoGates())
    check_files(job.plan, wanted, tools)
    rows: dict[str, Any] = {
        host: _row("busy", "a rollout has it") for host in hosts if host in busy
    }
    lacked = 0
    if test:
        found = tools.recheck(wanted)
        rows |= {h: _row("would" if r.inventory else "skipped", r.detail) for h, r in found.items()}
    else:
        record, lacked = prestage(job, tools, wanted)
        rows |= {host: _standing(record, host) for host in wanted}
    body = {"id": job.rollout, "plan": job.plan.plan_id, "test": test, "bytes": lacked,
            "hosts": dict(sorted(rows.items()))}  # fmt: skip
    there = {"staged", "would"}
    missed = [host for host, row in rows.items() if row["state"] not in there]
    return {"stage": body, "retcode": EXIT_NOT_THERE if missed else 0}


def _closed(context: Context, class_: str, instead: WindowNames) -> list[Problem]:
    """Return why nothing may be sent now: there is a window for that, and it is closed.

    Args:
        context: the outside world.
        class_: the class, which may name one.
        instead: the windows of a profile, which go first.
    """
    settings = context.settings
    if (instead.stage or class_windows(settings, class_).stage) is None:
        return []
    found = opening_of(settings, class_, context.clock(), "stage", instead)
    if found.is_open:
        return []
    if missing := missing_names(settings, class_, ()):
        return missing
    mend = f"wait until {found.until:%Y-%m-%d %H:%M %Z}" if found.until else ""
    return [Problem(class_, f"nothing is sent now: {found.why}", mend)]


def _changes(job: Job, host: str) -> bool:
    return bool(job.plan.transactions[job.plan.hosts[host]].actions)


def _in_rollouts(context: Context) -> set[str]:
    """Return the hosts that a rollout has: their sessions must stay the newest."""
    found: set[str] = set()
    for one in context.store.rollouts(active=True):
        _, hosts = context.store.rollout(one["id"])
        found |= {row.host for row in hosts if row.state != HostState.ENDED.value}
    return found


def _standing(record: Staged, host: str) -> dict[str, Any]:
    if host in record.ended:
        outcome, code, detail = record.ended[host]
        return {**_row(outcome.value, detail), "code": code}
    return _row("staged" if record.states.get(host) is HostState.STAGED else "skipped", "")


def _row(state: str, detail: str) -> dict[str, Any]:
    return {"state": state, "code": None, "detail": detail}
