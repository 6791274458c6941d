"""Carrying a chain on: one rollout through several classes, with a promotion between each two.

Invariants: a class is entered only when the rollout of the one before it is done, and its promotion
passed proof and evidence, or a person forced it with a reason; what goes on to a class is what the
one before it held when its rollout began, never what came there since; each step is in the database
before its effect, and is the same again after a crash; all is done in the name of who started it.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from cpacman.commands import access, planning
from cpacman.commands.chains import chain_answer, rollout_of
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context
from cpacman.commands.deploying import check_job, deploy
from cpacman.commands.fleet import Selection, everyone, place_all
from cpacman.commands.gatekeeping import IGNORE, missing_names
from cpacman.commands.jobs import ALL, Terms, known_levels, new_job, tools_of
from cpacman.commands.promoting import met_at, promote
from cpacman.commands.safeguards import freeze_now, profile_of, profile_problems, safeguards
from cpacman.depot.promotion import held_at, moves_of
from cpacman.errors import ConflictError, CpacmanError, Problem, SafetyError, UsageError
from cpacman.model import Request, short_id
from cpacman.rollout.machine import RolloutState, check_rollout
from cpacman.rollout.owner import owner_of
from cpacman.rollout.runner import begin_rollout, continue_rollout
from cpacman.rollout.stopping import BEAT, End, Stop, end_by
from cpacman.store import Chain, Step, chain_guard

AGAIN = 60.0
"""Seconds after which a chain that found something taken looks again."""
_TOLD = 3
"""Reasons of a refusal that are kept with a chain; the promotion itself tells all of them."""


def deploy_chain(
    context: Context,
    classes: Sequence[str],
    levels: Sequence[str] = (),
    *,
    request: Request,
    now: bool = False,
    test: bool = False,
    background: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    patience: float = math.inf,
) -> dict[str, Any]:
    """Take what the first of these classes holds through all of them; with `now` only.

    Without `now`, or with `test`, the plan of the first class and the promotion to the second
    are shown, and nothing is started.

    Raises:
        UsageError: no such classes or levels, or they don't follow on each other.
        SafetyError: a check of one of the classes failed; nothing was started.
    """
    wanted = _known(context, classes)
    close_abandoned(context)
    _check(context, wanted, known_levels(context, levels), profile, reason, ticket)
    settings = {"levels": list(levels), "profile": profile or "", "background": background,
                "request": msgspec.to_builtins(request)}  # fmt: skip
    chain = Chain(
        id=f"c-{secrets.token_hex(8)}", classes=wanted, who=context.who, reason=reason,
        ticket=ticket, settings=settings,
    )  # fmt: skip
    if test or not now:
        return _look_ahead(context, chain, test)
    context.store.start_chain(chain, at=context.clock())
    if not background:
        carry(context, chain.id, patience=patience)
    return chain_answer(context, chain.id)


def _known(context: Context, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a chain, in the order of promotion."""
    known = context.settings.class_names
    if tuple(asked) == ALL and ALL[0] not in known:
        return known
    wrong = [name for name in asked if name not in known]
    if wrong:
        mend = f"known are: {', '.join(known)}"
        raise UsageError([Problem("classes", f"there is no class {n!r}", mend) for n in wrong])
    wanted = [name for name in known if name in asked]
    left = [n for n in known[known.index(wanted[0]) : known.index(wanted[-1])] if n not in wanted]
    if left:
        mend = "name those between them, too"
        raise UsageError(Problem("classes", f"no class is skipped: {', '.join(left)}", mend))
    return tuple(wanted)


def _check(
    context: Context,
    classes: Sequence[str],
    levels: Sequence[str],
    profile: str | None,
    reason: str | None,
    ticket: str | None,
) -> None:
    """Check what each class demands of who starts, before anything is begun in the first one."""
    settings, who = context.settings, context.who
    problems = profile_problems(context, profile or "", reason)
    for number, class_ in enumerate(classes):
        problems += safeguards(context, class_, ticket, verb="deploy")
        for verb in ("plan", "promote") if number else ("plan",):
            problems += access.problems_of(settings, verb, class_, who)
        problems += missing_names(settings, class_, levels or settings.level_names)
    if problems:
        raise SafetyError(list(dict.fromkeys(problems)))


def _look_ahead(context: Context, chain: Chain, test: bool) -> dict[str, Any]:
    """Return what the first class would get, and what a promotion of that would say now."""
    settings, first = chain.settings, chain.classes[0]
    request = msgspec.convert(settings["request"], Request)
    answer = planning.plan(context, Selection(class_=first), request=request)
    if test and answer["plan"]["hosts"]:
        answer = deploy(
            context, Selection(), plan=str(answer["plan"]["plan_id"]), levels=settings["levels"],
            profile=settings["profile"] or None, reason=chain.reason, ticket=chain.ticket,
            test=True,
        )  # fmt: skip
    body = {"id": None, "state": None, "classes": list(chain.classes), "test": test,
            "levels": settings["levels"], "steps": []}  # fmt: skip
    if len(chain.classes) > 1:
        told = promote(
            context, chain.classes[1], test=True, profile=settings["profile"] or None,
            reason=chain.reason, ticket=chain.ticket,
        )  # fmt: skip
        answer = {**answer, "promote": told["promote"]}
    return {**answer, "chain": body}


# ---- going on ------------------------------------------------------------------------------


def carry(context: Context, number: str, *, patience: float = math.inf) -> None:
    """Carry a chain on from where the database has it, as far as that goes by itself.

    Args:
        context: the outside world.
        number: its id.
        patience: seconds to wait here in all for evidence, freezes and other rollouts, and for
            the windows and soaks of each rollout.

    Raises:
        ConflictError: another process does.
    """
    _Carrier(context, number, patience).run()


class _Gone(Exception):
    """It has ended, by a wish, while this process was about to let it wait or go on."""


class _Carrier:
    """One process's part in one chain."""

    def __init__(self, context: Context, number: str, patience: float) -> None:
        chain = context.store.chain(number)
        self._store, self._id, self._patience = context.store, chain.id, patience
        # The engine has no rights of its own: who started the chain must still have them.
        self._context = context._replace(who=chain.who)
        self._me = owner_of(os.getpid())
        self._store.own_chain(chain.id, seen=chain.owner, owner=self._me, at=context.clock())
        self._chain = chain

    def run(self) -> None:
        """Go from class to class, until something has to be waited for."""
        try:
            if self._chain.state == RolloutState.WAITING.value:
                self._move(End(RolloutState.RUNNING))
            while self._advance():
                pass
        except Stop as stop:
            with suppress(_Gone):
                self._move(stop.end, owner="")
            return
        except _Gone:
            return
        self._store.own_chain(self._id, seen=self._me, owner="", at=self._context.clock())

    def _advance(self) -> bool:
        """Take one step; return False when it is the turn of somebody else."""
        self._look()
        row = rollout_of(self._store, self._chain)
        if row is not None and row["state"] == RolloutState.CANCELLED.value:
            raise Stop(RolloutState.CANCELLED, f"{short_id(row['id'])} was cancelled")
        if row is not None and row["state"] != RolloutState.DONE.value:
            return False
        if len(self._chain.steps) == len(self._chain.classes):
            raise Stop(RolloutState.DONE)
        try:
            self._enter(self._chain.classes[len(self._chain.steps)])
        except ConflictError as error:
            self._look()
            self._wait(self._context.clock() + AGAIN, str(error))
        except CpacmanError as error:
            raise Stop(RolloutState.PAUSED, _told(error.problems)) from error
        return True

    def _look(self) -> None:
        """Read the chain anew, and stop when somebody wants us to."""
        self._chain = self._store.beat_chain(self._id, owner=self._me, at=self._context.clock())
        if self._chain.owner != self._me:
            words = "is carried on by another process now"
            raise ConflictError(Problem(short_id(self._id), words, "this one stops"))
        if self._chain.wish:
            raise Stop(*end_by(self._chain.wish))
        if self._context.stopping():
            raise Stop(RolloutState.HALTED, "stopped by the operator")

    def _move(self, end: End, owner: str | None = None) -> None:
        now = self._store.chain(self._id)
        check_rollout(self._id, RolloutState(now.state), end.state)
        wish = self._store.move_chain(
            self._id, expected=now.state, state=end.state.value, why=end.why,
            until=end.until, at=self._context.clock(), who=self._chain.who, owner=owner,
        )  # fmt: skip
        if wish is not None:
            # It came since we looked: what is to be halted does not wait.
            self._move(end_by(wish), owner="")
            raise _Gone

    def _wait(self, moment: float, why: str) -> None:
        """Wait here until a moment, or leave the chain waiting when that is too long."""
        context = self._context
        if moment - context.clock() > self._patience:
            raise Stop(RolloutState.WAITING, why, moment)
        # All waits together: what others hold is looked at again and again.
        self._patience -= moment - context.clock()
        context.reporter.line(f"{short_id(self._id)}: {why}")
        self._move(End(RolloutState.WAITING, why, moment))
        while (left := moment - context.clock()) > 0:
            self._look()
            context.sleep(min(left, BEAT))
        self._move(End(RolloutState.RUNNING))

    # ---- one class -----------------------------------------------------------------------

    def _enter(self, class_: str) -> None:
        if self._chain.steps:
            self._promote(class_, self._chain.steps[-1])
        self._look()
        self._deploy(class_)

    def _promote(self, class_: str, before: Step) -> None:
        """Let a class take what the one before it held when its rollout began."""
        chain, context = self._chain, self._context
        profile = str(chain.settings["profile"])
        forced = chain.settings.get("forced", {}).get(class_)
        if not forced and (moved := self._moved_since(class_, before)):
            raise Stop(RolloutState.PAUSED, moved)
        while True:
            self._look()
            self._await_thaw(class_, profile)
            who, reason = forced or (chain.who, chain.reason)
            body = promote(
                context._replace(who=who), class_, until=before.at, force=bool(forced),
                profile=profile or None, reason=reason, ticket=chain.ticket,
                guard=chain_guard(chain.id, self._me),
            )["promote"]  # fmt: skip
            if not body["refused"]:
                return
            problems = [Problem(**p) for row in body["channels"].values() for p in row["refused"]]
            why = f"promotion to {class_} refused: {_told(problems)}"
            if (met := met_at(body)) is None:
                raise Stop(RolloutState.PAUSED, why)
            self._wait(met, why)

    def _moved_since(self, class_: str, before: Step) -> str:
        """Return what somebody did to these two classes meanwhile that must not be undone."""
        rows = self._store.moves()
        for channel in self._context.settings.channels:
            moves = moves_of(rows, channel)
            later = [one for one in moves if one.at > before.at]
            if any((one.class_, one.action) == (before.class_, "revert") for one in later):
                return f"{before.class_} was taken back meanwhile ({channel})"
            mine = [one.snapshot for one in later if one.class_ == class_]
            if mine and mine[-1] != held_at(moves, before.class_, before.at):
                return f"{class_} was pointed at {short_id(mine[-1])} meanwhile ({channel})"
        return ""

    def _await_thaw(self, class_: str, profile: str) -> None:
        if profile_of(self._context, profile).windows.apply == IGNORE:
            return
        while not (opening := freeze_now(self._context, class_)).is_open:
            why = f"promotion to {class_}: {opening.why}"
            if opening.until is None:
                raise Stop(RolloutState.PAUSED, why)
            self._wait(opening.until.timestamp(), why)

    def _deploy(self, class_: str) -> None:
        """Plan a class from what it holds now, and begin its rollout."""
        chain, context = self._chain, self._context
        hosts = place_all(context, everyone(context)).hosts.values()
        if not any(host.class_ == class_ for host in hosts):
            step = Step(class_=class_, rollout=None, at=context.clock())
            self._store.step_chain(self._id, step, owner=self._me)
            return
        request = msgspec.convert(chain.settings["request"], Request)
        told = planning.plan(context, Selection(class_=class_), request=request, refresh="all")
        stored = context.store.plan(str(told["plan"]["plan_id"]))
        background = bool(chain.settings["background"])
        terms = Terms(str(chain.settings["profile"]), background, chain.id)
        levels = chain.settings["levels"]
        job = new_job(context, stored, levels, chain.reason, chain.ticket, terms)
        check_job(context, stored, job)
        tools = tools_of(context, stored, job, patience=self._patience)
        step = Step(class_=class_, rollout=job.rollout, at=context.clock())
        owner = "" if background else job.owner
        begin_rollout(job._replace(owner=owner), tools, chain_guard(self._id, self._me, step))
        if not background:
            continue_rollout(job, tools)


def _told(problems: Sequence[Problem]) -> str:
    """Return the first of some problems in one line."""
    more = len(problems) - _TOLD
    words = "; ".join(str(one).replace("\n", " ") for one in problems[:_TOLD])
    return f"{words}; and {more} more" if more > 0 else words
