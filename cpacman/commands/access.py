"""Who may do what to which class.

Invariants: a verb and class that `access` does not name is open to all who may use Salt's master;
one that it names is open to those people and groups only, root included, since then nobody knows
who it is: sudo keeps the name.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Sequence
from contextlib import suppress

from cpacman.config import Settings
from cpacman.errors import Problem, SafetyError

VERBS = ("plan", "deploy", "promote", "approve")
ENGINE = "the engine"
"""Who acts in the engine: no login is spelt like that, so nobody can be taken for it."""
_SUDO = "sudo_"


def person_of(who: str) -> str:
    """Return the login behind what Salt calls somebody: `alice` for `sudo_alice`."""
    return who.removeprefix(_SUDO)


def groups_of(person: str) -> set[str]:
    """Return the groups of the system that a person is in; a stranger to the system is in none."""
    try:
        entry = pwd.getpwnam(person)
    except KeyError:
        return set()
    found = {group.gr_name for group in grp.getgrall() if person in group.gr_mem}
    with suppress(KeyError):
        found.add(grp.getgrgid(entry.pw_gid).gr_name)
    return found


def is_allowed(allowed: Sequence[str], person: str) -> bool:
    """Whether a person is named, or in one of the groups that are."""
    return person in allowed or bool(groups_of(person) & set(allowed))


def problems_of(settings: Settings, verb: str, class_: str, who: str) -> list[Problem]:
    """Return why somebody may not do this to a class; empty is good."""
    allowed = getattr(settings.access, verb).get(class_)
    if allowed is None or who == ENGINE or is_allowed(allowed, person_of(who)):
        return []
    fault = f"{person_of(who)} may not {verb} {class_}"
    mend = f"ask one of {', '.join(allowed)}; who works as root is named by sudo"
    return [Problem(f"access.{verb}.{class_}", fault, mend)]


def approvers(
    settings: Settings, class_: str, approved: Iterable[str], but: Iterable[str]
) -> list[str]:
    """Return the people whose word counts for a class, sorted.

    Args:
        settings: the settings; who may not approve any more does not count any more.
        class_: the class.
        approved: who approved, by any of their logins.
        but: who started or asked for it, by any of their logins.
    """
    people = {person_of(one) for one in approved} - {person_of(one) for one in but}
    return sorted(one for one in people if not problems_of(settings, "approve", class_, one))


def check_access(settings: Settings, verb: str, class_: str, who: str) -> None:
    """Check that somebody may do this to a class.

    Raises:
        SafetyError: they may not.
    """
    problems = problems_of(settings, verb, class_, who)
    if problems:
        raise SafetyError(problems)


def check_reader(settings: Settings, who: str) -> None:
    """Check that somebody may look at all: a reader, or one who may do anything.

    Raises:
        SafetyError: readers are named, and they are none.
    """
    access = settings.access
    if not access.read or who == ENGINE:
        return
    doers = (names for verb in VERBS for names in getattr(access, verb).values())
    allowed = [*access.read, *(name for names in doers for name in names)]
    if not is_allowed(allowed, person_of(who)):
        fault = f"{person_of(who)} may not look"
        raise SafetyError(Problem("access.read", fault, "ask to be named there; sudo keeps names"))
