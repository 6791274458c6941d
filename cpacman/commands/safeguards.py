"""What has to hold before a class is changed at all, and that no force overrides.

Invariant: a safeguard that is configured and that nothing enforces refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cpacman.commands.context import Context
from cpacman.errors import Problem, UsageError


def safeguards(
    context: Context, class_: str, ticket: str | None, levels: Iterable[str] = ()
) -> list[Problem]:
    """Return why a class must not be changed now.

    Args:
        context: the outside world.
        class_: the class that is deployed, promoted to or pointed elsewhere.
        ticket: what was typed.
        levels: the levels that are deployed; none means all of them.
    """
    standing = context.settings.unenforced(class_, levels)
    return [*standing, *_ticket_problems(context, class_, ticket)]


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
