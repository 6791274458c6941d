"""The block list: what it names, and which packages that is.

Invariants: an entry names packages in the ways that a line of policy does; one whose last day is
over holds no more; what can't be told is not guessed: an advisory that nobody knows blocks nothing.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from cpacman.model import Action, Advisory, InstalledPackage, Package
from cpacman.planner.ruling import forms, matches

PLACE = "block list"
"""Where a plan says that such a line stands."""

_SNAPSHOT = re.compile(r"s-[0-9a-f]+")
_ADVISORY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*-[0-9]{4}:[A-Za-z0-9_-]+")
_PACKAGE = re.compile(r"[A-Za-z0-9*?\[][A-Za-z0-9._+~^:*?\[\]!-]*")


Versioned = Package | InstalledPackage | Action
"""What has a name, a version and an architecture."""


def kind_of(spec: str, advisories: Iterable[str]) -> str | None:
    """Return what a word names: nevra, advisory or snapshot; None when it can be none of them.

    Args:
        spec: the word.
        advisories: ids of those that are known.
    """
    if _SNAPSHOT.fullmatch(spec):
        return "snapshot"
    if spec in set(advisories) or _ADVISORY.fullmatch(spec):
        return "advisory"
    return "nevra" if _PACKAGE.fullmatch(spec) else None


def holds(until: str | None, today: datetime.date) -> bool:
    """Return whether an entry with this last day holds today."""
    return until is None or today <= datetime.date.fromisoformat(until)


def names(specs: Sequence[str], package: Versioned) -> bool:
    """Return whether one of some words of the list names a package."""
    ways = (package.name, f"{package.name}.{package.arch}",
            *forms(package.name, package.evr, package.arch))  # fmt: skip
    return any(matches(way, specs) for way in ways)


def delivered(advisory: str, advisories: Iterable[Advisory]) -> set[str]:
    """Return the NEVRAs that an advisory delivers, wherever it is known."""
    return {nevra for one in advisories if one.id == advisory for nevra in one.packages}


def finder(
    specs: Mapping[str, str], advisories: Sequence[Advisory]
) -> Callable[[Versioned], str | None]:
    """Return a function that tells which word of the list names a package, if any.

    Args:
        specs: word -> kind; words for snapshots are left out of account.
        advisories: those that are known, for what they deliver.
    """
    words = [spec for spec, kind in specs.items() if kind == "nevra"]
    bad = {
        nevra: spec
        for spec, kind in specs.items()
        if kind == "advisory"
        for nevra in delivered(spec, advisories)
    }

    def find(package: Versioned) -> str | None:
        if package.nevra in bad:
            return bad[package.nevra]
        return next((word for word in words if names([word], package)), None)

    return find
