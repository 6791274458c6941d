"""Who must agree before a promotion goes over what refuses it, or is made under a profile.

Invariants: what somebody approves of is a class and the very snapshots that it would get, and
counts for nothing else; neither who asked nor who promotes counts; no force replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cpacman.commands import access
from cpacman.commands.context import Context
from cpacman.config import Profile
from cpacman.errors import InputError, Problem, SafetyError
from cpacman.model import content_id, short_id

LETTER = "a-"
_ASK = "ask"
_LEAST = len("a-00")


class Consent(NamedTuple):
    """How many must agree to a promotion, and who did.

    `id` is that of the class `to` and the `snapshots` (by channel) that it would get; `asked` are
    those who asked for it.
    """

    id: str
    to: str
    snapshots: Mapping[str, str]
    needed: int
    by: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    def lacking(self, *, test: bool = False) -> list[Problem]:
        """Return what is missing; with `test` nobody has been asked by that."""
        if len(self.by) >= self.needed:
            return []
        words = f"approved by {len(self.by)} of {self.needed}, other than who asks"
        how = f"salt-run cpacman.approve {short_id(self.id)}"
        return [Problem("approvals", words, "" if test and not self.asked else how)]

    def body(self) -> dict[str, Any] | None:
        """Return it as a runner answers it; nothing where nobody must agree."""
        return {"id": self.id, "needed": self.needed, "by": list(self.by)} if self.needed else None


def approvers_of(context: Context, to: str, profile: Profile, *, over: bool) -> int:
    """Return how many people must agree to a promotion.

    Args:
        context: the outside world.
        to: the class that receives.
        profile: the one that is named, or one without exceptions.
        over: whether it goes over something that refuses.
    """
    if profile.approvers is not None:
        return profile.approvers
    return next(one.approvers for one in context.settings.classes if one.name == to) if over else 0


def consent_to(context: Context, to: str, snapshots: Mapping[str, str], needed: int) -> Consent:
    """Return how a promotion stands with those who must agree.

    Args:
        context: the outside world; who promotes can't agree with himself.
        to: the class that receives.
        snapshots: channel -> what it would get.
        needed: how many must agree.
    """
    wanted = dict(sorted(snapshots.items()))
    number = content_id(LETTER[0], [to, wanted])
    asked = {str(entry["who"]) for entry in context.store.asks(number)}
    said = context.store.approvals(number)
    by = access.approvers(context.settings, to, said, [context.who, *asked])
    # Where nothing moves nobody is bothered.
    return Consent(number, to, wanted, needed if wanted else 0, tuple(by), tuple(sorted(asked)))


def ask(
    context: Context,
    consent: Consent,
    refused: Sequence[Problem],
    reason: str | None,
    ticket: str | None,
) -> None:
    """Journal that somebody wants a promotion to be approved of, once."""
    if context.who in consent.asked:
        return
    detail = {"class": consent.to, "channels": dict(consent.snapshots), "needed": consent.needed,
              "refused": [str(problem) for problem in refused]}  # fmt: skip
    context.store.record(
        _ASK, consent.id, at=context.clock(), who=context.who, reason=reason, ticket=ticket,
        detail=detail,
    )  # fmt: skip


def is_promotion(number: str) -> bool:
    """Whether an id is that of a promotion that was asked for."""
    return number.startswith(LETTER)


def approve_promotion(
    context: Context, prefix: str, *, reason: str | None = None, ticket: str | None = None
) -> dict[str, Any]:
    """Approve of a promotion, as somebody else than who asked for it.

    Raises:
        InputError: nobody asked for such a one, or several begin like that.
        SafetyError: who asked approves, or somebody who may not.
    """
    entry = _find(context, prefix)
    number, detail = str(entry["subject"]), msgspec.json.decode(entry["detail"])
    access.check_access(context.settings, "approve", detail["class"], context.who)
    asked = {access.person_of(str(one["who"])) for one in context.store.asks(number)}
    if access.person_of(context.who) in asked:
        fault = f"{context.who} asked for it"
        raise SafetyError(Problem("approve", fault, "ask somebody else"))
    new = context.store.approve(
        number, at=context.clock(), who=context.who, reason=reason, ticket=ticket
    )
    told = ", ".join(f"{channel} {short_id(one)}" for channel, one in detail["channels"].items())
    return {
        "approve": {
            "id": number,
            "new": new,
            "by": context.store.approvals(number),
            "state": f"promotion to {detail['class']} of {told}",
        }
    }


def _find(context: Context, prefix: str) -> Mapping[str, Any]:
    found = {str(one["subject"]): one for one in context.store.asks(prefix)}
    if len(prefix) < _LEAST or not found:
        mend = "a promotion that lacks approvals shows its id"
        raise InputError(Problem("id", f"nobody asked for a promotion {prefix}", mend))
    if len(found) > 1:
        several = ", ".join(sorted(map(short_id, found)))
        raise InputError(Problem("id", f"{prefix} is the beginning of several: {several}"))
    return next(iter(found.values()))
