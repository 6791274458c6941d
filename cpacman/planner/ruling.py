"""Lines of policy that hold for a host, and which of them rule where they contradict each other.

Invariants: of lines about one package the one of the narrowest place rules (the fleet is wider
than a channel, then class, level, host), except what nothing overrides: what the host holds
itself, what the request brings, and blocks. Nothing here looks at repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from cpacman.model import Request

ALWAYS = -1
"""The rank of lines that nothing overrides: those of the host itself, and of a request."""

RANGE = re.compile(r"([^\s<>=]+)\s*(<=|>=|<|>|=)\s*([^\s<>=]+)\Z")
"""A range of versions in a word of policy: `name < 2`."""

_LIKE_RANGE = re.compile(r"[\s<>=]")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of policy that holds for a host.

    `kind` is what it does, as configured; `packages` are names or globs; `to` is the repository of
    a pin, `vendors` are those that may replace each other; `where` is the line's place
    (`policy[0]`) and `rank` how narrow that is; `until` is the last day it holds; `own` says that
    the host itself has set it.
    """

    kind: str
    packages: tuple[str, ...]
    where: str = ""
    reason: str = ""
    until: str = ""
    to: str = ""
    own: bool = False
    rank: int = 0
    vendors: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = [self.where, self.reason, f"to {self.until}" if self.until else ""]
        return ", ".join(filter(None, extra))


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of policy that hold for one host, and the repositories that are not for it.

    `without` are those that policy keeps from it, `left_out` those that the request leaves out.
    `installonly_limit` is how many versions of a kernel stay installed; 0 is any number.
    `weak_deps` is whether weak dependencies (Recommends, Supplements) are taken as dnf takes them.
    """

    lines: tuple[Line, ...] = ()
    without: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    installonly_limit: int = 3
    weak_deps: bool = True

    def of(self, kind: str) -> tuple[Line, ...]:
        """Return the lines of a kind."""
        return tuple(line for line in self.lines if line.kind == kind)

    def line(self, kind: str, name: str) -> Line | None:
        """Return the first line of a kind that names a package."""
        return next((line for line in self.of(kind) if matches(name, line.packages)), None)

    def allows(self, kind: str, name: str) -> bool:
        """Return whether a line of a kind names a package."""
        return self.line(kind, name) is not None

    def allows_vendor(self, name: str, old: str, new: str) -> bool:
        """Return whether a package may change from one vendor to another."""
        return self.allows("vendor_change", name) or any(
            matches(name, line.packages)
            and any(names_vendor(word, old) for word in line.vendors)
            and any(names_vendor(word, new) for word in line.vendors)
            for line in self.of("vendors")
        )

    def protects(self, name: str) -> Line | None:
        """Return the line that keeps a package installed; a narrower one may let it leave."""
        lines = [x for kind in ("protect", "allow_removal") for x in self.of(kind)]
        rules = _narrowest([line for line in lines if matches(name, line.packages)])
        return next((line for line in rules if line.kind == "protect"), None)

    def ruling(self, lines: Iterable[Line], name: str, evr: str, arch: str) -> tuple[Line, ...]:
        """Return which lines about one version of a package hold for it.

        The narrowest do; a narrower one that frees it takes their place.
        """
        lines = tuple(lines)
        free = self.of("free")
        if free:
            words = (name, *forms(name, evr, arch))
            free = tuple(line for line in free if any(matches(w, line.packages) for w in words))
        if not lines or not (free or len(lines) > 1):
            return lines
        always = tuple(line for line in lines if line.rank == ALWAYS)
        rest = _narrowest([line for line in (*lines, *free) if line.rank != ALWAYS])
        return (*always, *(line for line in rest if line in lines))


def _narrowest(lines: Iterable[Line]) -> list[Line]:
    """Return the lines of the highest rank."""
    found = list(lines)
    top = max((line.rank for line in found), default=0)
    return [line for line in found if line.rank == top]


def names_vendor(word: str, vendor: str) -> bool:
    """Return whether a word of a line means a vendor; brackets of a name need no escape."""
    return vendor == word or fnmatchcase(vendor, word)


def with_holds(rules: Policy, holds: Iterable[str]) -> Policy:
    """Return a host's rules with what it holds itself: versionlock and exclude lines.

    As dnf has it, any of the versions that are locked to may come.
    """
    lines = list(filter(None, map(_hold, holds)))
    locks = [line for line in lines if line.kind == "lock"]
    if len(locks) > 1:
        words = tuple(word for line in locks for word in line.packages)
        one = msgspec.structs.replace(locks[0], packages=words)
        lines = [one, *(line for line in lines if line.kind != "lock")]
    return msgspec.structs.replace(rules, lines=(*rules.lines, *lines)) if lines else rules


def _hold(text: str) -> Line | None:
    kind, _, word = text.partition(": ")
    kinds = {"versionlock": "lock", "exclude": "exclude"}
    if kind not in kinds or not word.strip("! "):
        return None
    # dnf's versionlock writes what must not come with a mark of exclamation.
    what = "exclude" if word.startswith("!") else kinds[kind]
    return Line(
        kind=what,
        packages=(word.lstrip("! "),),
        where=f"the host's own {kind}",
        own=True,
        rank=ALWAYS,
    )


def with_request(rules: Policy, request: Request) -> Policy:
    """Return a host's rules with those that a request brings along."""
    lines = [
        Line(kind=kind, packages=words, where=f"--{kind}", rank=ALWAYS)
        for kind, words in (("exclude", request.exclude), ("lock", request.lock))
        if words
    ]
    if not (lines or request.exclude_repos):
        return rules
    return msgspec.structs.replace(
        rules, lines=(*rules.lines, *lines), left_out=request.exclude_repos
    )


def matches(name: str, globs: Iterable[str]) -> bool:
    """Return whether a name is among names or globs."""
    return any(fnmatchcase(name, glob) for glob in globs)


def is_glob(word: str) -> bool:
    """Return whether a word is a pattern and not an exact name."""
    return any(char in word for char in "*?[")


def locked_name(word: str) -> str:
    """Return what a word of a line names: the word itself, without a range (`name < 2`)."""
    found = RANGE.match(word)
    return found[1] if found else word


def is_lockable(word: str) -> bool:
    """Return whether a word can lock anything: a name, version or glob, or a whole range."""
    return bool(word) and (not _LIKE_RANGE.search(word) or bool(RANGE.match(word)))


def forms(name: str, evr: str, arch: str) -> tuple[str, ...]:
    """Return the ways to write one version of a package.

    With and without epoch, release and arch; the epoch also before the name, as yum writes it.
    """
    epoch, _, bare = evr.rpartition(":")
    epoch = epoch or "0"
    version = bare.rpartition("-")[0]
    return (
        f"{name}-{bare}.{arch}", f"{name}-{bare}", f"{name}-{version}",
        f"{name}-{epoch}:{bare}.{arch}", f"{name}-{epoch}:{bare}", f"{name}-{epoch}:{version}",
        f"{epoch}:{name}-{bare}.{arch}", f"{epoch}:{name}-{bare}",
    )  # fmt: skip
