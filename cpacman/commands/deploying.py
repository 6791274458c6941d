"""Carrying out a plan: every check first, then the rollout.

Invariants: nothing ever means "everything" by default; a plan is only carried out while its class
still points at the snapshots it was made from; what is configured as a safeguard and can't be
enforced stops the deploy; a rollout whose process died is brought to an end before another starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cpacman.commands import blocking, planning
from cpacman.commands.answers import plan_body, rollout_body
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, Selection, place_all
from cpacman.commands.provenance import signature_problems
from cpacman.commands.refresh import Refreshed, refresh_hosts
from cpacman.commands.safeguards import safeguards
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import (
    EXIT_NOT_PLANNED,
    EXIT_NOT_THERE,
    Problem,
    SafetyError,
    UsageError,
)
from cpacman.model import FailedError, Inventory, Outcome, Request, short_id
from cpacman.planner.policy import PROTECTED
from cpacman.rollout.job import (
    ALREADY,
    CHANGED,
    Job,
    Level,
    Recheck,
    Times,
    Tools,
    new_rollout_id,
)
from cpacman.rollout.manifest import is_done, nevras_of
from cpacman.rollout.owner import owner_of
from cpacman.rollout.reports import INTERRUPTED
from cpacman.rollout.runner import run_rollout
from cpacman.rollout.staging import check_files
from cpacman.store import StoredPlan

NOTHING = Request()
THERE = frozenset({Outcome.APPLIED.value, Outcome.UNCHANGED.value})


def deploy(
    context: Context,
    selection: Selection,
    *,
    plan: str | None = None,
    levels: Sequence[str] = (),
    request: Request = NOTHING,
    now: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Carry out a stored plan; or plan the selection, and carry that out only with `now`.

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
    job = _job(context, stored, levels, reason, ticket)
    _check(context, stored, job)
    if test:
        return _rehearse(context, stored, job)
    run_rollout(job, _tools(context, stored))
    return _result(context, job.rollout, stored)


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


def _check(context: Context, stored: StoredPlan, job: Job) -> None:
    names = [level.name for level in job.levels]
    hosts = _busy_hosts(job)
    problems = [
        *safeguards(context, stored.class_, job.ticket, names),
        *_moved_pointers(context, stored),
        *blocking.problems_of(context, stored.plan),
        *signature_problems(context, stored.plan),
        *context.transport.check(hosts),
    ]
    if problems:
        raise SafetyError(problems)


def _busy_hosts(job: Job) -> list[str]:
    hosts = [host for level in job.levels for host in level.hosts]
    return [h for h in hosts if job.plan.transactions[job.plan.hosts[h]].actions]


def _moved_pointers(context: Context, stored: StoredPlan) -> list[Problem]:
    """Return the channels in which the class points elsewhere now: that plan is of the past."""
    pointers = context.store.pointers()
    problems = []
    for channel, snapshot in sorted(stored.plan.snapshots.items()):
        pointer = pointers.get((stored.class_, channel))
        held = pointer["snapshot"] if pointer else "nothing"
        if held != snapshot:
            message = f"holds {short_id(held)} now, the plan was made from {short_id(snapshot)}"
            mend = f"plan again: salt-run cpacman.plan class={stored.class_}"
            problems.append(Problem(f"{stored.class_} {channel}", message, mend))
    return problems


def _job(
    context: Context,
    stored: StoredPlan,
    levels: Sequence[str],
    reason: str | None,
    ticket: str | None,
) -> Job:
    fleet = place_all(context, sorted(stored.plan.hosts))
    return Job(
        rollout=new_rollout_id(),
        plan=stored.plan,
        class_=stored.class_,
        levels=_levels(context, stored, fleet, levels),
        names=_file_names(context, stored),
        demands=_demands(context, stored),
        protected=PROTECTED,
        who=context.who,
        reason=reason,
        ticket=ticket,
        owner=owner_of(os.getpid()),
    )


def _levels(
    context: Context, stored: StoredPlan, fleet: Fleet, asked: Sequence[str]
) -> tuple[Level, ...]:
    known = context.settings.level_names
    wrong = [name for name in asked if name not in known]
    if wrong:
        mend = f"known are: {', '.join(known)}"
        raise UsageError([Problem("levels", f"there is no level {n!r}", mend) for n in wrong])
    members: dict[str, list[str]] = {name: [] for name in known}
    for host in sorted(stored.plan.hosts):
        # Who lost its place is told so by the recheck, in the last level, and gets nothing.
        level = fleet.placements[host].host.level
        members[level if level in members else known[-1]].append(host)
    wanted = [n for n in known if members[n] and (not asked or n in asked)]
    if not wanted:
        raise UsageError(Problem("levels", "the plan has no host in these levels"))
    return tuple(_level(context, name, members[name]) for name in wanted)


def _level(context: Context, name: str, hosts: Sequence[str]) -> Level:
    settings = next(one for one in context.settings.levels if one.name == name)
    budget, total = context.settings.budget, len(hosts)
    failures = budget.max_failures if settings.max_failures is None else settings.max_failures
    return Level(
        name=name,
        hosts=tuple(hosts),
        concurrency=settings.concurrency.of(total, least=1),
        max_failures=failures.of(total),
        # A share of a small level rounds to none, and one host that is down must not halt it.
        max_unreachable=budget.max_unreachable.of(total, least=1),
    )


def _demands(context: Context, stored: StoredPlan) -> dict[str, str]:
    """Return sha256 -> what the package's repository wants hosts to do about its signature."""
    found = {}
    for channel, snapshot in stored.plan.snapshots.items():
        modes = context.settings.channels[channel].signature_modes
        for package in load_snapshot(context.settings.depot, snapshot).packages:
            found[package.sha256] = modes.get(package.repository, "off")
    return found


def _file_names(context: Context, stored: StoredPlan) -> dict[str, str]:
    return {
        package.sha256: Path(package.location).name
        for snapshot in stored.plan.snapshots.values()
        for package in load_snapshot(context.settings.depot, snapshot).packages
    }


def _rehearse(context: Context, stored: StoredPlan, job: Job) -> dict[str, Any]:
    """Run every check that a deploy runs; ask the hosts, change nothing."""
    tools = _tools(context, stored)
    busy = _busy_hosts(job)
    check_files(stored.plan, busy, tools)
    found = tools.recheck(busy)
    would = {
        host: "apply" if one.inventory else f"skip: {one.detail}" for host, one in found.items()
    }
    body = {**plan_body(context, stored, stored.plan), "test": True, "would": would}
    return {"plan": body, "retcode": _planned_code(stored)}


# ---- the tools -----------------------------------------------------------------------------


def _tools(context: Context, stored: StoredPlan) -> Tools:
    return Tools(
        store=context.store,
        transport=context.transport,
        files=context.pool,
        signer=context.key,
        verify=context.transport.verify,
        recheck=lambda hosts: _recheck(context, stored, hosts),
        refresh=lambda hosts: _refresh(context, hosts),
        reporter=context.reporter,
        stopping=context.stopping,
        times=Times(context.settings.transport.answer, context.settings.transport.apply),
        clock=context.clock,
    )


def _refresh(context: Context, hosts: Sequence[str]) -> None:
    refresh_hosts(context, hosts)


def _recheck(context: Context, stored: StoredPlan, hosts: Sequence[str]) -> Mapping[str, Recheck]:
    """Ask hosts whether they are still what the plan was made for."""
    results = refresh_hosts(context, hosts)
    fleet = place_all(context, hosts)
    inventories = context.store.inventories(hosts)
    return {
        host: _judge(context, stored, host, results[host], fleet, inventories.get(host))
        for host in hosts
    }


def _judge(
    context: Context,
    stored: StoredPlan,
    host: str,
    asked: Refreshed,
    fleet: Fleet,
    inventory: Inventory | None,
) -> Recheck:
    if asked.error or inventory is None:
        return Recheck(None, asked.code, asked.error)
    if unfit := _unfit(stored, fleet, inventory):
        return unfit
    if inventory.cookie == stored.plan.inventories[host].cookie:
        return Recheck(inventory)
    if is_done(nevras_of(inventory), stored.plan.transactions[stored.plan.hosts[host]]):
        return Recheck(None, ALREADY, "has it already")
    return _solve_again(context, stored, host, fleet, inventory)


def _unfit(stored: StoredPlan, fleet: Fleet, inventory: Inventory) -> Recheck | None:
    """Return why a host can't be worked on at all, whatever it has installed."""
    host = inventory.host
    place = fleet.placements[host]
    if session := inventory.facts.get("interrupted"):
        mend = f"run: salt-run cpacman.recover {host}"
        return Recheck(None, INTERRUPTED, f"{session!s:.100} was cut off there; {mend}")
    if place.problems or place.host.class_ != stored.class_:
        return Recheck(None, CHANGED, f"is not of class {stored.class_} any more")
    if host in fleet.held:
        return Recheck(None, FailedError.NOT_ACCEPTED.value, fleet.held[host].words)
    return None


def _solve_again(
    context: Context, stored: StoredPlan, host: str, fleet: Fleet, inventory: Inventory
) -> Recheck:
    again = planning.make_plan(
        context, stored.class_, {host: fleet.hosts[host]}, stored.plan.request
    )
    if again.hosts.get(host) == stored.plan.hosts[host]:
        return Recheck(inventory, "", "packages changed since the plan; solved again, same actions")
    mend = f"plan again: salt-run cpacman.plan class={stored.class_}"
    return Recheck(None, CHANGED, f"its packages changed since the plan; {mend}")


def _result(context: Context, rollout: str, stored: StoredPlan) -> dict[str, Any]:
    row, hosts = context.store.rollout(rollout)
    missed = [host for host in hosts if host.outcome not in THERE]
    failed = msgspec.to_builtins(stored.plan.failed)
    body = {**rollout_body(row, hosts), "failed": failed}
    return {"rollout": body, "retcode": EXIT_NOT_THERE if missed else _planned_code(stored)}


def _planned_code(stored: StoredPlan) -> int:
    return EXIT_NOT_PLANNED if stored.plan.failed else 0
