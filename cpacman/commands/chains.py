"""Looking at chains and steering them: a chain and its rollouts are halted and resumed as one.

Invariants: a chain is as its rollout is while that is not over, so that neither can go on alone; a
wish is in the database before anything else; which promotion was forced, by whom and why, is kept
with the chain and holds for that one only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from cpacman.commands import access, controlling, resuming
from cpacman.commands.context import Context
from cpacman.errors import EXIT_NOT_THERE, ConflictError, Problem, UsageError
from cpacman.model import short_id
from cpacman.rollout.machine import OPEN, OVER, THERE, RolloutState, Wish, check_rollout
from cpacman.rollout.owner import is_alive, owner_of
from cpacman.store import Chain, Store

LETTER = "c-"


def is_chain(number: str | None) -> bool:
    """Whether an id is one of a chain."""
    return number is not None and number.startswith(LETTER)


class Standing(NamedTuple):
    """How a chain stands: its state, why, and until when, as that of its rollout says."""

    state: str
    why: str = ""
    until: float | None = None


def rollout_of(store: Store, chain: Chain) -> dict[str, Any] | None:
    """Return the rollout of the class that a chain came to last."""
    return store.rollout_row(chain.rollout) if chain.rollout else None


def standing_of(chain: Chain, row: Mapping[str, Any] | None) -> Standing:
    """Return how a chain stands, beside its rollout."""
    own = Standing(chain.state, chain.why or "", chain.until)
    if chain.state != RolloutState.RUNNING.value or row is None or row["state"] in OVER:
        return own
    return Standing(row["state"], row["why"] or "", row["until"])


def is_carried(store: Store, chain: Chain, now: float) -> bool:
    """Return whether a process carries a chain on, be it by carrying out its rollout."""
    row = rollout_of(store, chain) if chain.owner else None
    beats = [chain.beat or 0.0, float(row["beat"] or 0.0) if row else 0.0]
    return is_alive(chain.owner, max(beats), now)


def chain_row(store: Store, chain: Chain, now: float) -> dict[str, Any]:
    """Return the line of a chain: what lists of rollouts show of it."""
    stands = standing_of(chain, rollout_of(store, chain))
    alive = is_carried(store, chain, now) if chain.owner and not chain.ended else None
    return {"id": chain.id, "classes": list(chain.classes), **stands._asdict(), "who": chain.who,
            "created": chain.created, "ended": chain.ended, "alive": alive,
            "rollout": chain.rollout}  # fmt: skip


def chain_body(store: Store, chain: Chain, now: float) -> dict[str, Any]:
    """Return a chain as a runner answers it: its classes, each with its rollout's sums."""
    settings = {k: v for k, v in chain.settings.items() if k != "request"}
    steps = []
    for step in chain.steps:
        one: dict[str, Any] = {"class": step.class_, "rollout": step.rollout, "at": step.at}
        if step.rollout:
            row, hosts = store.rollout(step.rollout)
            sums: dict[str, int] = {}
            for host in hosts:
                word = host.outcome or host.state
                sums[word] = sums.get(word, 0) + 1
            one.update({k: row[k] for k in ("state", "why", "until", "plan")}, hosts=sums)
        steps.append(one)
    more = {"reason": chain.reason, "ticket": chain.ticket, "wish": chain.wish, "test": False}
    return {**chain_row(store, chain, now), **more, **settings, "steps": steps}


def chain_answer(context: Context, number: str) -> dict[str, Any]:
    """Return how a chain stands, with the exit code that says whether all hosts are there."""
    body = chain_body(context.store, context.store.chain(number), context.clock())
    if body["state"] in OPEN:
        return {"chain": body}
    missed = any(set(step.get("hosts", ())) - THERE for step in body["steps"])
    bad = missed or body["state"] != RolloutState.DONE.value
    return {"chain": body, "retcode": EXIT_NOT_THERE if bad else 0}


# ---- stopping ------------------------------------------------------------------------------


def stop(
    context: Context, number: str, wish: Wish, *, reason: str | None = None, wait: float = 60.0
) -> dict[str, Any]:
    """Halt or cancel a chain, and its rollout with it; tell who was in flight at that moment.

    Raises:
        ConflictError: it has ended.
    """
    number = wish_chain(context, context.store.chain(number), wish, reason)
    cancels = wish is Wish.CANCEL
    # Read again: what was begun before the wish was written down is to be stopped, too.
    chain = context.store.chain(number)
    row = rollout_of(context.store, chain)
    flying: dict[str, list[str]] = {}
    if row is not None and (
        row["state"] in OPEN or (cancels and row["state"] == RolloutState.HALTED.value)
    ):
        order = controlling.cancel if cancels else controlling.halt
        told = order(context, row["id"], reason=reason, wait=wait)["halt"]["rollouts"]
        flying = {one["id"]: one["in_flight"] for one in told}
    return end_by(context, chain.id, wish, flying, wait=wait)


def wish_chain(context: Context, chain: Chain, wish: Wish, reason: str | None) -> str:
    """Commit that a chain shall begin nothing any more; return its id.

    Raises:
        SafetyError: this person may not.
        ConflictError: it has ended.
    """
    access.check_access(context.settings, "deploy", _class_of(chain), context.who)
    if not (wish is Wish.CANCEL and chain.state == RolloutState.HALTED.value):
        context.store.wish_chain(
            chain.id, wish.value, at=context.clock(), who=context.who, reason=reason
        )
    return chain.id


def end_by(
    context: Context,
    number: str,
    wish: Wish,
    flying: Mapping[str, Sequence[str]],
    *,
    wait: float = 60.0,
) -> dict[str, Any]:
    """Wait until a chain has ended by a wish, and tell how it stands.

    Args:
        context: the outside world.
        number: the chain.
        wish: what was committed.
        flying: rollout -> who was in flight in it at that moment.
        wait: seconds.
    """
    target = RolloutState.CANCELLED if wish is Wish.CANCEL else RolloutState.HALTED
    _await_end(context, number, target, wait)
    chain = context.store.chain(number)
    hosts = list(flying.get(chain.rollout or "", ()))
    return {"id": chain.id, "in_flight": hosts, "state": chain.state}


def _class_of(chain: Chain) -> str:
    return chain.steps[-1].class_ if chain.steps else chain.classes[0]


def _close(context: Context, chain: Chain, state: RolloutState, why: str) -> None:
    check_rollout(chain.id, RolloutState(chain.state), state)
    context.store.move_chain(
        chain.id, expected=chain.state, state=state.value, at=context.clock(), who=context.who,
        why=why, owner="",
    )  # fmt: skip


def _await_end(context: Context, number: str, target: RolloutState, wait: float) -> None:
    """Wait until whoever carries it on has seen the wish; where nobody does, end it here."""

    def ended() -> bool:
        chain = context.store.chain(number)
        if chain.state == target or chain.state in OVER:
            return True
        if is_carried(context.store, chain, context.clock()):
            return False
        with suppress(ConflictError):  # it was moved meanwhile: look again
            _close(context, chain, target, f"{target.value} by {context.who}")
            return True
        return False

    context.wait_until(ended, context.clock() + wait, controlling.LOOK)


# ---- going on ------------------------------------------------------------------------------


def reopen(
    context: Context,
    number: str,
    *,
    force: bool = False,
    background: bool = False,
    reason: str | None = None,
    patience: float | None = None,
) -> Chain:
    """Let a chain run again, and its rollout, when that is not over.

    Raises:
        UsageError: it is over, or `force` comes without a reason or has nothing to force.
        ConflictError: another process carries it on.
    """
    chain = context.store.chain(number)
    if chain.state in OVER:
        raise UsageError(Problem(short_id(chain.id), f"is {chain.state}", "deploy anew"))
    if is_carried(context.store, chain, context.clock()):
        words = "is carried on by another process"
        raise ConflictError(Problem(short_id(chain.id), words, "halt it first"))
    if force and not reason:
        raise UsageError(Problem("reason", "force overrides a refusal", "say why: reason='...'"))
    access.check_access(context.settings, "deploy", _class_of(chain), context.who)
    row = rollout_of(context.store, chain)
    stands = row is not None and row["state"] not in OVER
    settings = dict(chain.settings)
    if force and not stands:
        settings["forced"] = _forced(context, chain, str(reason))
    settings["background"] = bool(settings["background"]) or background
    me = owner_of(os.getpid())
    context.store.own_chain(chain.id, seen=chain.owner, owner=me, at=context.clock())
    try:
        _run_again(context, chain, settings, reason)
        if row is not None and stands:
            resuming.resume(
                context, row["id"], force=force, background=background, reason=reason,
                patience=patience,
            )  # fmt: skip
    finally:
        context.store.own_chain(chain.id, seen=me, owner="", at=context.clock())
    return context.store.chain(chain.id)


def go_on(
    context: Context, number: str, rollout: str, background: bool, reason: str | None
) -> bool:
    """Return whether a chain is to be carried on here, after its rollout was gone on with.

    Not when somebody stopped the chain itself, or another process has it. With `background` the
    engine is told to carry it on.
    """
    chain = context.store.chain(number)
    carried = is_carried(context.store, chain, context.clock())
    if chain.state != RolloutState.RUNNING.value or chain.rollout != rollout or carried:
        return False
    if background and not chain.settings["background"]:
        _run_again(context, chain, {**chain.settings, "background": True}, reason)
    return not background and not chain.settings["background"]


def _run_again(
    context: Context, chain: Chain, settings: Mapping[str, Any], reason: str | None
) -> None:
    """Move to `running`; one that runs already is only told on what terms."""
    if chain.state != RolloutState.RUNNING.value:
        check_rollout(chain.id, RolloutState(chain.state), RolloutState.RUNNING)
    context.store.move_chain(
        chain.id, expected=chain.state, state=RolloutState.RUNNING.value, at=context.clock(),
        who=context.who, why="resume", reason=reason, settings=settings, forgets=True,
    )  # fmt: skip


def _forced(context: Context, chain: Chain, reason: str) -> dict[str, Any]:
    """Return whose word passes the promotion at which a chain stands."""
    if not chain.steps or len(chain.steps) == len(chain.classes):
        raise UsageError(Problem("force", "no promotion of it is refused", "resume without force"))
    to = chain.classes[len(chain.steps)]
    access.check_access(context.settings, "promote", to, context.who)
    return {to: [context.who, reason]}


def due(context: Context) -> list[str]:
    """Return the chains in the background that somebody has to carry on now."""
    now = context.clock()
    return [one.id for one in context.store.chains(active=True) if _is_due(context, one, now)]


def _is_due(context: Context, chain: Chain, now: float) -> bool:
    if not chain.settings.get("background") or is_carried(context.store, chain, now):
        return False
    if chain.state == RolloutState.WAITING.value:
        return (chain.until or 0) <= now
    row = rollout_of(context.store, chain)
    return chain.state == RolloutState.RUNNING.value and (row is None or row["state"] in OVER)
