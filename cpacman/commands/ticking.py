"""What the engine does: goes on with rollouts in the background, and runs what is due.

Invariants: what is to be done is read from the database and the configuration alone, so that an
event wakes and never decides; one engine acts, whoever holds the lease; each piece of work is done
by a process of its own, and can be begun again after any crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cpacman.commands import (
    chaining,
    chains,
    collecting,
    controlling,
    deploying,
    latecomers,
    planning,
    resuming,
    retention,
    snapshots,
)
from cpacman.commands.collecting import is_background
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.latecomers import LATE
from cpacman.commands.refresh import refresh_hosts
from cpacman.errors import ConflictError, SafetyError, UserError
from cpacman.model import Request, short_id
from cpacman.rollout.machine import RolloutState
from cpacman.store.leases import ENGINE as LEASE
from cpacman.store.leases import LIFETIME

PATIENCE = 60.0
"""Seconds that a process of the engine waits for a window or a soak before it leaves it."""
COLLECT = "collect"
CARRY = "carry"
CHAIN = "chain"
JOB = "job"
FAILED = "failed: "
_MOST_SETTLES = 6
AGAIN = 60.0
"""Seconds after which a rollout is gone on with whose process broke off."""


class Work(NamedTuple):
    """One piece of work: carry a rollout or a chain on, by its id, or a job by its name."""

    kind: str
    subject: str


def is_acting(context: Context, owner: str) -> bool:
    """Take or keep the lease; return whether this engine is the one that acts."""
    return context.store.hold_lease(LEASE, owner=owner, at=context.clock(), lifetime=LIFETIME)


def due_work(context: Context) -> list[Work]:
    """Return what is to be done now."""
    carried = [Work(COLLECT, number) for number in controlling.abandoned(context)]
    carried += [Work(CARRY, number) for number in controlling.due(context)]
    carried += [Work(CHAIN, number) for number in chains.due(context)]
    carried += [Work(JOB, LATE)] if latecomers.is_due(context) else []
    ready = [one for one in carried if not _failed_just_now(context, one)]
    return [*ready, *(Work(JOB, name) for name in JOBS if is_due(context, name))]


def _failed_just_now(context: Context, work: Work) -> bool:
    """Whether it broke off a moment ago: what breaks at once must not be begun all the time."""
    _, ran, result = context.store.jobs().get(_name_of(work), (0.0, 0.0, ""))
    return result.startswith(FAILED) and context.clock() < ran + AGAIN


def _name_of(work: Work) -> str:
    return work.subject if work.kind == JOB else f"{work.kind} {work.subject}"


def is_due(context: Context, name: str) -> bool:
    """Whether a job's time has come, or somebody wants it and has been quiet since."""
    wanted, ran, _ = context.store.jobs().get(name, (0.0, 0.0, ""))
    every, now = float(context.settings.engine.schedule[name]), context.clock()
    settle = context.settings.engine.settle
    # Any host can fire events: one that never falls silent must not put it off for ever.
    first, _, _ = context.store.jobs().get(_first(name), (wanted, 0.0, ""))
    if wanted > ran and now >= min(wanted + settle, first + _MOST_SETTLES * settle):
        return True
    return every > 0 and now >= ran + every


def _first(name: str) -> str:
    """Return under which name it is kept when a job was wanted first, since it ran."""
    return f"{name} first"


def do_work(context: Context, work: Work) -> dict[str, Any]:
    """Do one piece of work, and note how it ended.

    Raises:
        CpacmanError: it could not be done.
    """
    name = _name_of(work)
    if work.kind == JOB:
        context.store.ran_job(name, at=context.clock(), result="running")
    try:
        found = _WORK[work.kind](context, work.subject)
    except ConflictError:
        # Somebody else does it: that is no failure.
        if work.kind == JOB:
            context.store.ran_job(name, at=context.clock(), result="others are at it")
        raise
    except Exception as error:
        told = f"{FAILED}{str(error) or type(error).__name__}"
        context.store.ran_job(name, at=context.clock(), result=told)
        raise
    if work.kind == JOB or name in context.store.jobs():
        context.store.ran_job(name, at=context.clock(), result="ok")
    return found


def _run_job(context: Context, name: str) -> dict[str, Any]:
    return JOBS.get(name, latecomers.look_for_late)(context)


def _collect(context: Context, number: str) -> dict[str, Any]:
    collecting.close_one(context, number)
    return {}


def _chain(context: Context, number: str) -> dict[str, Any]:
    chaining.carry(context, number, patience=PATIENCE)
    return chains.chain_answer(context, number)


def _carry(context: Context, number: str) -> dict[str, Any]:
    """Carry a rollout on; one that must not go on is paused, so that a person sees why.

    Raises:
        SafetyError: it must not.
        UserError: somebody has to mend what is configured first.
    """
    try:
        return resuming.resume(context, number, patience=PATIENCE)
    except (SafetyError, UserError) as error:
        controlling.pause(context, number, str(error).splitlines()[0])
        raise


_WORK: Mapping[str, Callable[[Context, str], dict[str, Any]]] = {
    COLLECT: _collect,
    CARRY: _carry,
    CHAIN: _chain,
    JOB: _run_job,
}


def engine_now(context: Context) -> dict[str, Any]:
    """Return which engine acts, when it showed life last, what it does now and next.

    Returns:
        `owner` and `seen`, None when none ever was; `alive`; `doing`: the jobs that run; `failed`:
        what did not end well the last time, each with `what`, `at` and `why`; `next`: what it
        waits for, the earliest first, each with `what` and `at`.
    """
    held, now = context.store.lease(LEASE), context.clock()
    doing, coming = [], []
    for name, every in context.settings.engine.schedule.items():
        wanted, ran, result = context.store.jobs().get(name, (0.0, 0.0, ""))
        if result == "running":
            doing.append({"what": name, "since": ran})
        if wanted > ran:
            coming.append({"what": name, "at": wanted + context.settings.engine.settle})
        elif every:
            coming.append({"what": name, "at": max(now, ran + every)})
    coming += _waits(context)
    return {
        "owner": held[0] if held else None,
        "seen": held[1] if held else None,
        "alive": context.store.is_held(LEASE, at=now, lifetime=LIFETIME),
        "doing": doing,
        "failed": _failed(context),
        "next": sorted(coming, key=lambda one: (one["at"], one["what"])),
    }


def _failed(context: Context) -> list[dict[str, Any]]:
    """Return what failed the last time and is still to be done."""
    open_ = {row["id"] for row in context.store.rollouts(active=True)}
    open_ |= {chain.id for chain in context.store.chains(active=True)}
    return [
        {"what": _told(name), "at": ran, "why": result.removeprefix(FAILED).splitlines()[0]}
        for name, (_, ran, result) in sorted(context.store.jobs().items())
        if result.startswith(FAILED) and (" " not in name or name.split()[-1] in open_)
    ]


def _told(name: str) -> str:
    kind, _, number = name.partition(" ")
    return f"{kind} {short_id(number)}" if number else kind


def _waits(context: Context) -> list[dict[str, Any]]:
    """Return the rollouts and chains with which it goes on, and when."""
    rows = [row for row in context.store.rollouts(active=True) if is_background(row)]
    found = [(row["id"], row["state"], row["why"], row["until"]) for row in rows]
    for chain in context.store.chains(active=True):
        if chain.settings.get("background"):
            found.append((chain.id, chain.state, chain.why, chain.until))
    return [
        {"what": f"{short_id(number)} {why or ''}".rstrip(), "at": until}
        for number, state, why, until in found
        if state == RolloutState.WAITING.value and until
    ]


def wake(context: Context, *, hosts: bool = False) -> dict[str, Any]:
    """Note that mirrors may have changed, or that hosts may have come back.

    The engine looks at mirrors once they are quiet, and for hosts at once.
    """
    name, now = LATE if hosts else "snapshot", context.clock()
    wanted, ran, _ = context.store.jobs().get(name, (0.0, 0.0, ""))
    if wanted <= ran:
        context.store.want_job(_first(name), at=now)
    context.store.want_job(name, at=now)
    alive = context.store.is_held(LEASE, at=context.clock(), lifetime=LIFETIME)
    settle = 0 if hosts else context.settings.engine.settle
    return {"wake": {"engine": alive, "settle": settle, "hosts": hosts}}


def _snapshot(context: Context) -> dict[str, Any]:
    """Take snapshots; plan the first class when one is new, and deploy that where told to."""
    answer = snapshots.snapshot(context)
    new = any(row["new"] for row in answer["snapshot"]["channels"].values())
    if not (new and context.settings.engine.plan):
        return answer
    selection = Selection(class_=context.settings.class_names[0])
    answer = planning.plan(context, selection, request=Request())
    if context.settings.engine.deploy and answer["plan"]["transactions"]:
        number = answer["plan"]["plan_id"]
        return deploying.deploy(context, Selection(), plan=number, background=True)
    return answer


def _refresh(context: Context) -> dict[str, Any]:
    found = refresh_hosts(context, context.directory.accepted())
    return {"refresh": {"hosts": {host: one.state for host, one in found.items()}}}


JOBS: Mapping[str, Callable[[Context], dict[str, Any]]] = {
    "snapshot": _snapshot,
    "refresh": _refresh,
    "prune": retention.prune,
}
"""Name, as in the configuration's `engine`, -> what it does."""
