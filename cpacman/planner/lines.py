"""Lines of policy: which of the configured ones hold for a host, and which of them mean nothing.

Invariants: a line that is expired, or that names what exists nowhere, is said with its path and
never silently dropped; nothing here looks at a host's own words except through its inventory.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cpacman.model import InstalledPackage
from cpacman.planner.ruling import Line, forms, is_glob, locked_name, matches, names_vendor

if TYPE_CHECKING:
    from cpacman.config import Match, PolicyLine

_EPOCH = re.compile(r"[0-9]+:")


class Placed(NamedTuple):
    """A configured line, its path, and how narrow the place is that says it."""

    place: str
    line: PolicyLine
    rank: int = 0


PLACES = ("fleet", "channel", "class", "level", "hosts", "host")
"""Where lines stand, the narrower the later; `hosts` are those that a glob of a host file fits."""


def place_lines(lines: Iterable[PolicyLine], path: str, place: str) -> Iterator[Placed]:
    """Yield the lines at a path; of one place those with a scope are narrower than the others."""
    first = 2 * PLACES.index(place)
    for index, line in enumerate(lines):
        yield Placed(f"{path}[{index}]", line, first + (line.scope is not None))


def holding(
    placed: Iterable[Placed], meta: Mapping[str, Any], today: datetime.date
) -> tuple[Line, ...]:
    """Return the lines that hold for a host with this metadata today, in their order."""
    return tuple(
        Line(
            kind=line.kind,
            packages=packages,
            where=where,
            reason=line.reason,
            until=line.until.isoformat() if line.until else "",
            to=to,
            rank=rank,
            vendors=line.vendors,
        )
        for where, line, rank in placed
        if line.applies(meta, today)
        for packages, to in _parts(line)
    )


def _parts(line: PolicyLine) -> list[tuple[tuple[str, ...], str]]:
    """Return the packages of a line; of a pin each with its repository."""
    if line.pin:
        return [((name,), repository) for name, repository in line.pin.items()]
    return [(line.words, "")]


class Limits(NamedTuple):
    """For whom a repository is: any of the classes, and any of the matches over metadata."""

    name: str
    classes: Sequence[str]
    only: Match | None


def not_for(limits: Iterable[Limits], class_: str, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the repositories that are not for a host of this class with this metadata."""
    return tuple(
        one.name
        for one in limits
        if (one.classes and class_ not in one.classes)
        or (one.only is not None and not one.only.fits(meta))
    )


def expired(placed: Iterable[Placed], today: datetime.date) -> Iterator[str]:
    """Yield a warning for each line whose last day is over."""
    for where, line, _ in placed:
        if line.until is not None and line.until < today:
            yield f"{where}: expired on {line.until.isoformat()} and holds no more"


class Versioned(Protocol):
    """A version of a package, installed or offered."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def evr(self) -> str:
        """Its epoch, version and release."""

    @property
    def arch(self) -> str:
        """Its architecture."""


class Offered(Protocol):
    """What the repositories offer."""

    def packages(self, words: set[str]) -> Mapping[str, Sequence[Versioned]]:
        """Return what each word names, be it by what that provides."""

    def advisories(self) -> Collection[str]:
        """Return the ids of advisories."""

    def vendors(self) -> Collection[str]:
        """Return the vendors of packages."""

    def repositories(self) -> Collection[str]:
        """Return the names of repositories."""


def naming_nothing(
    lines: Iterable[Line], packages: Iterable[Iterable[InstalledPackage]], offered: Offered
) -> Iterator[str]:
    """Yield a warning for each word of a line that names what exists nowhere, or to no effect.

    Args:
        lines: the lines that hold for any host.
        packages: what each host has installed.
        offered: asked first.
    """
    lines = list(lines)
    # Hosts share most packages: each is looked at once.
    distinct = {id(package): package for found in packages for package in found}.values()
    yield from _naming_no_package(lines, distinct, offered)
    yield from _naming_no_vendor(lines, distinct, offered)
    for line in lines:
        if line.to and line.to not in offered.repositories():
            yield f"{line.where}: pin {line.packages[0]} to {line.to}, which is no repository"


def _naming_no_vendor(
    lines: Iterable[Line], packages: Iterable[InstalledPackage], offered: Offered
) -> Iterator[str]:
    words = dict.fromkeys((line.where, vendor) for line in lines for vendor in line.vendors)
    known: set[str] = {package.vendor for package in packages} if words else set()
    if not all(_is_any(word, known) for _, word in words):
        known |= set(offered.vendors())
    for where, word in words:
        if not _is_any(word, known):
            yield f"{where}: {word} is the vendor of nothing that is installed or offered"


def _is_any(word: str, vendors: Iterable[str]) -> bool:
    return any(names_vendor(word, vendor) for vendor in vendors)


def _naming_no_package(
    lines: Iterable[Line], packages: Iterable[InstalledPackage], offered: Offered
) -> Iterator[str]:
    words = dict.fromkeys((line.where, line.kind, word) for line in lines for word in line.packages)
    asked = {locked_name(word) for _, _, word in words} - {"*"}
    known = offered.packages(asked) if asked else {}
    rows = list({(p.name, p.evr, p.arch): p for p in packages}.values()) if asked else []
    for where, kind, word in words:
        name = locked_name(word)
        if name == "*" or (kind == "block" and name in offered.advisories()):
            continue
        found: list[Versioned] = list(known.get(name, ()))
        if not any(_means(kind, word, one) for one in found):
            found += [one for one in _near(name, rows) if _names(name, one)]
            if not found:
                yield f"{where}: {kind} {word} names nothing that is installed or offered"
            elif not any(_means(kind, word, one) for one in found):
                yield f"{where}: {kind} {word} has no effect: it wants {_WANTS.get(kind, _NAMES)}"


_ANYTHING = frozenset({"exclude", "block", "pin"})
"""Kinds of lines whose words may be whatever names a package, be it by what that provides."""

_NAMES = "names of packages, without version and architecture"
_WANTS = {
    "lock": "the name of a package, a version of one, or a range as in: name < 2",
    "free": "names or versions of packages",
}


def _means(kind: str, word: str, package: Versioned) -> bool:
    """Return whether a line of a kind has an effect on a package that its word names somehow."""
    if kind in _ANYTHING or matches(package.name, (word,)):
        return True
    if kind not in _WANTS:
        return False
    if kind == "lock" and locked_name(word) != word:
        return matches(package.name, (locked_name(word),))
    return _is_version(word, package) or (kind == "lock" and _is_arch(word, package))


def _near(word: str, packages: Iterable[InstalledPackage]) -> Iterator[InstalledPackage]:
    """Yield the packages whose name could be what a word begins with."""
    if is_glob(word):
        yield from packages
        return
    bare = _EPOCH.sub("", word, count=1) if word[:1].isdigit() else word
    yield from (p for p in packages if bare.startswith(p.name))


def _names(word: str, package: Versioned) -> bool:
    by_name = matches(package.name, (word,)) or _is_arch(word, package)
    return by_name or _is_version(word, package)


def _is_arch(word: str, package: Versioned) -> bool:
    return matches(f"{package.name}.{package.arch}", (word,))


def _is_version(word: str, package: Versioned) -> bool:
    return any(matches(f, (word,)) for f in forms(package.name, package.evr, package.arch))
