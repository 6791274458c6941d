"""What people type of rollouts and of chains alike: an id says which of them is meant.

Invariant: `halt all=True` stops all of both; the rest is that of `controlling` and `chains`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cpacman.commands import chaining, chains, consent, controlling, deploying, resuming
from cpacman.commands.context import Context
from cpacman.commands.deploying import NOTHING
from cpacman.commands.fleet import Selection
from cpacman.errors import ConflictError, Problem, SafetyError, UsageError
from cpacman.model import Request, short_id
from cpacman.rollout.machine import OPEN, Wish


def deploy(
    context: Context,
    selection: Selection,
    *,
    classes: Sequence[str] = (),
    plan: str | None = None,
    levels: Sequence[str] = (),
    request: Request = NOTHING,
    now: bool = False,
    test: bool = False,
    background: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Carry out a plan, or take what a class holds through several.

    Raises:
        UsageError: `classes` beside a plan or hosts.
    """
    if not classes:
        return deploying.deploy(
            context, selection, plan=plan, levels=levels, request=request, now=now, test=test,
            background=background, profile=profile, reason=reason, ticket=ticket,
        )  # fmt: skip
    if plan is not None or not selection.is_empty:
        mend = "every host of each class is meant; limit it by levels="
        raise UsageError(Problem("classes", "leaves nothing else to be chosen", mend))
    return chaining.deploy_chain(
        context, classes, levels, request=request, now=now, test=test, background=background,
        profile=profile, reason=reason, ticket=ticket,
    )  # fmt: skip


def rollouts(context: Context, *, active: bool = False) -> dict[str, Any]:
    """List rollouts and chains, the newest first."""
    body = controlling.rollouts(context, active=active)["rollouts"]
    found = context.store.chains(active=active)[::-1]
    now = context.clock()
    rows = [chains.chain_row(context.store, one, now) for one in found]
    return {"rollouts": {**body, "chains": rows}}


def rollout(
    context: Context, number: str, *, outcome: str | None = None, host: str | None = None
) -> dict[str, Any]:
    """Show a rollout, or a chain and how each of its classes stands.

    Raises:
        UsageError: a chain is asked for hosts.
    """
    if not chains.is_chain(number):
        return controlling.rollout(context, number, outcome=outcome, host=host)
    if outcome is not None or host is not None:
        words = "a chain has rollouts, and those have hosts"
        raise UsageError(Problem("host", words, "ask for one of its r-..."))
    return {"chain": chains.chain_body(context.store, context.store.chain(number), context.clock())}


def halt(
    context: Context, number: str | None = None, *, everything: bool = False,
    reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Halt a rollout, a chain with its rollout, or all of them."""
    if chains.is_chain(number):
        stopped = [chains.stop(context, str(number), Wish.HALT, reason=reason)]
        return {"halt": {"rollouts": stopped}}
    if number is not None or not everything:
        return controlling.halt(context, number, everything=everything, reason=reason)
    # Chains first: what one of them begins meanwhile would be forgotten.
    wished, refused = _wish_chains(context, reason)
    answer = controlling.halt(context, everything=True, reason=reason)
    flying = {one["id"]: one["in_flight"] for one in answer["halt"]["rollouts"]}
    stopped = [chains.end_by(context, one, Wish.HALT, flying) for one in wished]
    problems = [*refused, *(Problem(**one) for one in answer["halt"]["refused"])]
    return controlling.halt_answer([*stopped, *answer["halt"]["rollouts"]], problems)


def _wish_chains(context: Context, reason: str | None) -> tuple[list[str], list[Problem]]:
    """Let no chain begin anything; return those that were told so, and why others were not."""
    wished: list[str] = []
    refused: list[Problem] = []
    for one in [chain for chain in context.store.chains(active=True) if chain.state in OPEN]:
        try:
            wished.append(chains.wish_chain(context, one, Wish.HALT, reason))
        except ConflictError:
            pass  # it has ended meanwhile
        except SafetyError as error:
            refused += error.problems
    return wished, refused


def cancel(context: Context, number: str, *, reason: str | None = None) -> dict[str, Any]:
    """End a rollout, or a chain with its rollout, for good."""
    if chains.is_chain(number):
        return {"halt": {"rollouts": [chains.stop(context, number, Wish.CANCEL, reason=reason)]}}
    return controlling.cancel(context, number, reason=reason)


def resume(
    context: Context,
    number: str,
    *,
    force: bool = False,
    background: bool = False,
    reason: str | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """Go on with a rollout, or with a chain and its rollout."""
    if not chains.is_chain(number):
        answer = resuming.resume(
            context, number, force=force, background=background, reason=reason, patience=patience
        )
        return _with_chain(context, answer, background, reason, patience)
    chain = chains.reopen(
        context, number, force=force, background=background, reason=reason, patience=patience
    )
    if not background:
        chaining.carry(context, chain.id, patience=math.inf if patience is None else patience)
    return chains.chain_answer(context, chain.id)


def retry(
    context: Context,
    number: str,
    *,
    host: Sequence[str] = (),
    reason: str | None = None,
    patience: float | None = None,
) -> dict[str, Any]:
    """Try hosts of a rollout again, and go on with its chain when that was what it stood at."""
    answer = resuming.retry(context, number, host=host, reason=reason, patience=patience)
    return _with_chain(context, answer, False, reason, patience)


def _with_chain(
    context: Context,
    answer: dict[str, Any],
    background: bool,
    reason: str | None,
    patience: float | None,
) -> dict[str, Any]:
    """Go on with the chain of a rollout that was gone on with, unless the chain itself was stopped.

    Returns:
        the answer, with the chain: one that was stopped tells what to type.
    """
    number = answer["rollout"].get("chain")
    if not number:
        return answer
    if not chains.go_on(context, number, answer["rollout"]["id"], background, reason):
        chain = context.store.chain(number)
        return {**answer, "chain": chains.chain_body(context.store, chain, context.clock())}
    chaining.carry(context, number, patience=math.inf if patience is None else patience)
    return {**answer, **chains.chain_answer(context, number)}


def approve(
    context: Context, number: str, *, reason: str | None = None, ticket: str | None = None
) -> dict[str, Any]:
    """Approve of a rollout, of that at which a chain stands, or of a promotion.

    Raises:
        UsageError: the chain has begun no rollout yet.
    """
    if consent.is_promotion(number):
        return consent.approve_promotion(context, number, reason=reason, ticket=ticket)
    if chains.is_chain(number):
        chain = context.store.chain(number)
        if chain.rollout is None:
            raise UsageError(Problem(short_id(chain.id), "has no rollout yet", "wait for it"))
        number = chain.rollout
    return controlling.approve(context, number, reason=reason, ticket=ticket)
