"""Looking at rollouts and steering them: halt, cancel, pause, skip, approve.

Invariants: a wish is in the database before anything else, so that no host starts after it; a
rollout is only ever ended by the process that carries it out, or by whoever becomes that; who
halts, skips or approves answers for that with a name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cpacman.commands import access
from cpacman.commands.answers import rollout_body
from cpacman.commands.collecting import is_abandoned, is_background
from cpacman.commands.context import Context
from cpacman.commands.gatekeeping import soak_every
from cpacman.commands.jobs import job_again, own_job, tools_of
from cpacman.commands.latecomers import besides
from cpacman.errors import EXIT_OTHER, ConflictError, InputError, Problem, SafetyError, UsageError
from cpacman.model import Outcome, short_id
from cpacman.rollout.job import HALTED
from cpacman.rollout.machine import (
    IN_FLIGHT,
    NOT_STARTED,
    OPEN,
    LevelState,
    RolloutState,
    Wish,
    check_rollout,
)
from cpacman.rollout.owner import is_alive, lives
from cpacman.rollout.runner import close_rollout

LOOK = 0.2
"""Seconds between two looks at whether a wish was heeded."""


def rollouts(context: Context, *, active: bool = False) -> dict[str, Any]:
    """List rollouts, the newest first."""
    rows, now = context.store.rollouts(active=active)[::-1], context.clock()
    shown = [
        {**{k: row[k] for k in ("id", "plan", "class", "state", "why", "until", "who", "created")},
         "alive": lives(row, now)}
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
    job = own_job(context, row, job_again(context, row))
    state = RolloutState.CANCELLED if wish is Wish.CANCEL else RolloutState.HALTED
    tools = tools_of(context, context.store.plan(row["plan"]), job)
    close_rollout(job, tools, state, f"{state.value} by {context.who}")


def _await_end(context: Context, numbers: Sequence[str], wait: float) -> None:
    def ended() -> bool:
        return all(_row(context, number)["state"] not in OPEN for number in numbers)

    context.wait_until(ended, context.clock() + wait, LOOK)


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
