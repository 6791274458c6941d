"""What has to hold before a class is changed at all, and that no force overrides.

Invariant: no safeguard is asked in one command and forgotten in another.
"""

from __future__ import annotations

import datetime
import re

from cpacman.commands import access
from cpacman.commands.context import Context
from cpacman.commands.gatekeeping import IGNORE, freeze_of
from cpacman.config import Profile
from cpacman.errors import Problem, UsageError
from cpacman.rollout.windows import Opening, judge


def safeguards(
    context: Context,
    class_: str,
    ticket: str | None,
    *,
    verb: str = "promote",
    who: str | None = None,
) -> list[Problem]:
    """Return why a class must not be changed now.

    Args:
        context: the outside world.
        class_: the class that is deployed, promoted to or pointed elsewhere.
        ticket: what was typed.
        verb: what is to be done, as `access` calls it.
        who: who wants it; left out, who asks now.
    """
    return [
        *access.problems_of(context.settings, verb, class_, who or context.who),
        *_ticket_problems(context, class_, ticket),
    ]


def profile_of(context: Context, name: str) -> Profile:
    """Return a profile; one without exceptions when none is named.

    Raises:
        UsageError: there is no such profile.
    """
    if problems := missing_profile(context, name):
        raise UsageError(problems)
    return context.settings.profiles[name] if name else Profile()


def missing_profile(context: Context, name: str) -> list[Problem]:
    """Return that there is no such profile, unless there is, or none is named."""
    profiles = context.settings.profiles
    if not name or name in profiles:
        return []
    mend = f"known are: {', '.join(profiles) or 'none'}"
    return [Problem("profile", f"there is no profile {name!r}", mend)]


def profile_problems(context: Context, name: str, reason: str | None) -> list[Problem]:
    """Return why a profile's exceptions can't be taken: they are for people who say why."""
    profile = profile_of(context, name)
    if name and not reason:
        return [Problem("reason", f"profile {name} makes exceptions", "say why: reason='...'")]
    if profile.until is not None and context.today() > profile.until:
        return [Problem(f"profiles.{name}", f"was valid until {profile.until}", "renew it")]
    known = {*context.settings.windows, IGNORE, None}
    return [
        Problem(f"profiles.{name}.windows.{key}", f"there is no window {window!r}",
                f"describe it: windows: {{{window}: ...}}")
        for key, window in (("apply", profile.windows.apply), ("stage", profile.windows.stage))
        if window not in known
    ]  # fmt: skip


def freeze_now(context: Context, class_: str) -> Opening:
    """Return whether a class is free of freezes now, and if not, until when it is not."""
    moment = datetime.datetime.fromtimestamp(context.clock(), datetime.timezone.utc)
    freezes = [freeze_of(one) for one in context.settings.freeze]
    return judge(None, freezes, class_=class_, now=moment)


def frozen(context: Context, class_: str) -> list[Problem]:
    """Return why nothing new may come to a class now: a freeze, if there is one."""
    found = freeze_now(context, class_)
    if found.is_open:
        return []
    mend = f"wait until {found.until:%Y-%m-%d %H:%M %Z}" if found.until else ""
    return [Problem(class_, f"is {found.why}", mend)]


def _ticket_problems(context: Context, class_: str, ticket: str | None) -> list[Problem]:
    pattern = next((one.ticket for one in context.settings.classes if one.name == class_), None)
    if pattern is None or (ticket is not None and re.fullmatch(pattern, ticket)):
        return []
    said = f"{ticket!r} is none" if ticket is not None else "is missing"
    return [Problem("ticket", f"{said}; {class_} wants one that fits {pattern}", "ticket=...")]


def check_force(force: bool, reason: str | None) -> None:
    """Refuse force without a reason: it is journaled, and somebody will ask.

    Raises:
        UsageError: there is none.
    """
    if force and not (reason or "").strip():
        raise UsageError(Problem("force", "needs a reason", "reason='...'"))
