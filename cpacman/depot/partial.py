"""Promotion in part: which packages of a newer snapshot go on, which stay behind, pure.

Invariants: what is chosen is one of the newer snapshot's packages and for the class that takes it;
what is named is found, or it is a problem; a package of a repository whose rules changed between
the two snapshots goes on with the whole snapshot only, under the new rules.

Naming packages or advisories adds to what the class holds; naming a repository replaces it;
leaving packages out takes all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from cpacman.depot.promotion import is_for, seen_by
from cpacman.depot.snapshot import Snapshot
from cpacman.errors import Problem
from cpacman.model import Advisory, Package
from cpacman.planner.blocked import names

Compare = Callable[[str, str], int]
"""The order of two `[epoch:]version-release` texts: -1, 0, 1."""

Key = tuple[str, str, str]
"""Repository, NEVRA and sha256 of a package."""


class Wanted(NamedTuple):
    """What was named; nothing at all means the whole snapshot. `cves` count as advisories."""

    packages: tuple[str, ...] = ()
    advisories: tuple[str, ...] = ()
    cves: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was named."""
        return self == Wanted()

    @property
    def leaves_out(self) -> bool:
        """Whether all goes on but what is excluded."""
        return self == Wanted(exclude=self.exclude) and not self.is_whole

    @property
    def how(self) -> str:
        """One line for the lineage of what is made of it."""
        fields = (f"{name}: {', '.join(words)}" for name, words in self._asdict().items() if words)
        return "; ".join(fields)

    def excludes(self, package: Package) -> bool:
        """Return whether a package was excluded."""
        return bool(self.exclude) and names(self.exclude, package)


class Part(NamedTuple):
    """A choice: the packages of the new snapshot by side, and the advisories by their ids.

    `stays` are those of what the class holds, `comes` those of the newer snapshot.
    """

    stays: tuple[Package, ...]
    comes: tuple[Package, ...]

    @property
    def packages(self) -> tuple[Package, ...]:
        """All of them; of two of one place the one that comes."""
        places = {(one.repository, one.nevra) for one in self.comes}
        stays = (one for one in self.stays if (one.repository, one.nevra) not in places)
        return (*stays, *self.comes)

    def with_more(self, packages: Iterable[Package]) -> Part:
        """Return the choice with further packages of the newer snapshot."""
        known = {key(one) for one in self.comes}
        more = {key(one): one for one in packages if key(one) not in known}
        return self._replace(comes=(*self.comes, *more.values()))


def key(package: Package) -> Key:
    """Return what tells packages of two snapshots apart."""
    return package.repository, package.nevra, package.sha256


def new_in(base: Snapshot | None, packages: Iterable[Package]) -> list[Package]:
    """Return those packages that a snapshot does not have."""
    known = {key(one) for one in base.packages} if base else set()
    return [one for one in packages if key(one) not in known]


class Unfit(NamedTuple):
    """Why there is no choice; `nothing` tells that no word means anything in this channel."""

    problems: tuple[Problem, ...]
    nothing: bool


def choose_part(
    base: Snapshot, newer: Snapshot, wanted: Wanted, *, class_: str, compare: Compare
) -> Part | Unfit:
    """Return what a class that holds `base` takes of a newer snapshot, or every problem with it.

    Args:
        base: what the class holds.
        newer: what it could take whole.
        wanted: what was named.
        class_: the class.
        compare: the order of versions.
    """
    if wanted.leaves_out:
        return _all_but(base, newer, wanted)
    seen = seen_by(newer, class_)
    found = [*_by_packages(seen, wanted), *_by_advisories(seen, wanted, compare)]
    problems = [one for one in found if isinstance(one, Problem)]
    problems += _wrong_repositories(newer, wanted, class_)
    named = [one for one in found if not isinstance(one, Problem)]
    named += [one for one in seen.packages if one.repository in wanted.repositories]
    if named:  # where nothing is chosen nothing has to be left out
        problems += _excluding_nothing(base, newer, wanted)
    comes = {key(one): one for one in named if not wanted.excludes(one)}
    problems += _changed_rules(base, newer, {one.repository for one in comes.values()})
    if problems:
        return Unfit(tuple(problems), nothing=not named)
    stays = (one for one in base.packages if one.repository not in wanted.repositories)
    kept = (one for one in base.packages
            if one.repository in wanted.repositories and wanted.excludes(one))  # fmt: skip
    return Part((*stays, *kept), tuple(comes.values()))


def _all_but(base: Snapshot, newer: Snapshot, wanted: Wanted) -> Part | Unfit:
    problems = list(_excluding_nothing(base, newer, wanted))
    if problems:
        return Unfit(tuple(problems), nothing=len(problems) == len(wanted.exclude))
    return Part(
        tuple(one for one in base.packages if wanted.excludes(one)),
        tuple(one for one in newer.packages if not wanted.excludes(one)),
    )


def _excluding_nothing(base: Snapshot, newer: Snapshot, wanted: Wanted) -> Iterator[Problem]:
    both = (*newer.packages, *base.packages)
    for word in wanted.exclude:
        if not any(names([word], one) for one in both):
            yield Problem(f"exclude {word}", "names nothing in either snapshot")


def _by_packages(seen: Snapshot, wanted: Wanted) -> Iterator[Package | Problem]:
    for word in wanted.packages:
        found = [one for one in seen.packages if names([word], one)]
        yield from found
        if not found:
            yield Problem(f"packages {word}", f"names nothing in {seen.id[:14]} for this class")
        elif all(wanted.excludes(one) for one in found):
            yield Problem(f"packages {word}", "is named and excluded", "leave one of them out")


def _by_advisories(seen: Snapshot, wanted: Wanted, compare: Compare) -> Iterator[Package | Problem]:
    for what, words in (("advisory", wanted.advisories), ("cve", wanted.cves)):
        for word in words:
            chosen = [one for one in seen.advisories if word == one.id or word in one.cves]
            found = [package for one in chosen for package in _delivered(seen, one, compare)]
            yield from found
            if not found:
                what_is = "delivers nothing that is there" if chosen else "is unknown"
                yield Problem(f"{what} {word}", f"{what_is} in {seen.id[:14]}")
            elif all(wanted.excludes(one) for one in found):
                yield Problem(f"{what} {word}", "delivers only what is excluded", "name less")


def _delivered(seen: Snapshot, advisory: Advisory, compare: Compare) -> Iterator[Package]:
    """Yield an advisory's packages; of one that the mirror has dropped the next newer version."""
    by_name: dict[tuple[str, str], list[Package]] = {}
    for one in seen.packages:
        by_name.setdefault((one.name, one.arch), []).append(one)
    for nevra in advisory.packages:
        rest, _, arch = nevra.rpartition(".")
        head, _, release = rest.rpartition("-")
        name, _, version = head.rpartition("-")
        rows = by_name.get((name, arch), [])
        enough = [one for one in rows if compare(one.evr, f"{version}-{release}") >= 0]
        exact = [one for one in enough if one.nevra == nevra]
        yield from exact or _oldest(enough, compare)


def _oldest(packages: Sequence[Package], compare: Compare) -> list[Package]:
    return [a for a in packages if not any(compare(b.evr, a.evr) < 0 for b in packages)]


def _wrong_repositories(newer: Snapshot, wanted: Wanted, class_: str) -> Iterator[Problem]:
    known = {one.name: one for one in newer.repositories}
    for name in wanted.repositories:
        if name not in known:
            mend = f"there are: {', '.join(sorted(known))}"
            yield Problem(f"repository {name}", f"is not in {newer.id[:14]}", mend)
        elif not is_for(known[name].classes, class_):
            of = ", ".join(known[name].classes)
            yield Problem(f"repository {name}", f"is for {of} only, never for {class_}")


def _changed_rules(base: Snapshot, newer: Snapshot, used: set[str]) -> Iterator[Problem]:
    before = {one.name: (one.classes, one.only) for one in base.repositories}
    for one in newer.repositories:
        rules = (one.classes, one.only)
        if one.name in used and before.get(one.name, rules) != rules:
            words = "is for other classes or hosts than in what the class holds"
            yield Problem(f"repository {one.name}", words, "promote the whole snapshot")


def advisories_of(base: Snapshot, newer: Snapshot, part: Part, wanted: Wanted) -> set[str]:
    """Return the ids of the advisories that a choice takes along.

    They tell what an update fixes, so those of the past stay; one that only delivers what stays
    behind does not come.
    """
    there = {one.nevra for one in part.packages}
    if wanted.leaves_out:
        offered = {one.nevra for one in newer.packages}
        return {one.id for one in newer.advisories if not _stays_behind(one, offered, there)}
    new = {one.nevra for one in new_in(base, part.comes)}
    comes = (one for one in newer.advisories if not new.isdisjoint(one.packages))
    return {one.id for one in (*base.advisories, *comes)}


def _stays_behind(advisory: Advisory, offered: set[str], there: set[str]) -> bool:
    """Whether the newer snapshot could deliver it, and the choice can't."""
    return not offered.isdisjoint(advisory.packages) and there.isdisjoint(advisory.packages)
