"""What is known of one host while it is being planned.

Invariant: everything here is read from the universe, the inventory and the policy; only `refused`
grows, with each candidate that a solution must do without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from cpacman.model import FailedError, HeldReason, InstalledPackage
from cpacman.planner import policy
from cpacman.planner.policy import Hiding, Offer
from cpacman.planner.ruling import Line, Policy, locked_name, matches
from cpacman.planner.solver import Candidate, HostView, Task, Universe


class CannotPlan(Exception):
    """This host can't be planned: the kind of error and the causes for a person."""

    def __init__(self, error: FailedError, causes: Iterable[str]) -> None:
        super().__init__(error.value)
        self.error = error
        self.causes = tuple(causes)


class Swap(NamedTuple):
    """A change between 32 and 64 bit that policy allows: one of `candidates` for `installed`.

    The two could stand side by side, so rpm does not take it for an upgrade: the old one has to
    be removed.
    """

    candidates: tuple[Candidate, ...]
    installed: tuple[str, ...]


class Aim(NamedTuple):
    """What an installed package should become, or could."""

    package: InstalledPackage
    candidate: Candidate


class Wish(NamedTuple):
    """What a request means on one host.

    `named` are the candidates the user's words fit (repositories left out of autoupdate may serve
    them), `pinned` those among them that a version or file was given for, `targets` the NEVRAs
    of installed packages whose newest version is wanted, `removed` those that are to leave.
    With a `limit` only those candidates can be held. `older` allows the tasks' downgrades; then
    `aims` are what should be reached.
    """

    tasks: tuple[Task, ...]
    named: frozenset[Candidate] = frozenset()
    pinned: frozenset[Candidate] = frozenset()
    targets: frozenset[str] = frozenset()
    swaps: tuple[Swap, ...] = ()
    removed: frozenset[str] = frozenset()
    limit: frozenset[Candidate] | None = None
    older: bool = False
    aims: tuple[Aim, ...] = ()

    @property
    def leaving(self) -> frozenset[str]:
        """The NEVRAs that may leave without a replacement of their own."""
        return self.removed.union(nevra for swap in self.swaps for nevra in swap.installed)

    @property
    def meant(self) -> frozenset[Candidate]:
        """The candidates that tasks ask for."""
        return frozenset(c for task in self.tasks for c in task.candidates)


Answer = TypeVar("Answer")


class Judged(NamedTuple):
    """What is offered for a name, and what of it a host must not get.

    `is_newest` tells that nothing newer is offered, `newer` are answers to what is newer than a
    package and what came for it. It is known by the very objects `installed`, which it keeps.
    """

    installed: tuple[InstalledPackage, ...]
    offer: Offer
    hidden: dict[Candidate, Hiding]
    is_newest: bool
    newer: dict[tuple[str, Sequence[Candidate]], tuple[Aim, ...]]


class Host:
    """One host: its packages, what it is offered, what it must not get and why."""

    def __init__(
        self,
        universe: Universe,
        view: HostView,
        packages: Iterable[InstalledPackage],
        rules: Policy,
        *,
        kernel: str = "",
        wanted: Mapping[tuple[str, str], Sequence[str]] | None = None,
        delivers: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self.universe = universe
        self.view = view
        self.packages = tuple(sorted(packages, key=attrgetter("sort_key")))
        self.by_nevra = {p.nevra: p for p in self.packages}
        self.rules = rules
        self.closed = tuple(s.name for s in universe.sources.values() if not s.autoupdate)
        self.refused: dict[Candidate, Hiding] = {}
        self.freed: set[Candidate] = set()
        self._shared: dict[Hashable, Any] = universe.shared((rules, view.masked))
        self.kernel = kernel
        self.wanted = wanted or {}
        self.delivers = delivers or (lambda _: ())

    def compare(self, left: str, right: str) -> int:
        """Return the order of two versions."""
        return self.universe.versions.compare(left, right)

    def is_newer(self, candidate: Candidate, evr: str) -> bool:
        """Return whether a candidate is newer than a version."""
        return self.compare(candidate.evr, evr) > 0

    def preferred(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return those in the repositories of best priority."""
        rows = list(candidates)
        first = min((self.priority(c) for c in rows), default=0)
        return [c for c in rows if self.priority(c) == first]

    def may_become(self, package: InstalledPackage, candidate: Candidate) -> bool:
        """Return whether a candidate of a package's name may take its place.

        One of its own architecture may, and of another where policy allows that; 32 and 64 bit
        stand side by side, so neither takes the other's place: that is a `Swap`.
        """
        if candidate.arch == package.arch:
            return True
        clash = policy.color(candidate.arch) & policy.color(package.arch)
        return bool(clash) and self.rules.allows("arch_change", package.name)

    def updates(self, package: InstalledPackage) -> list[Candidate]:
        """Return what is newer than a package and may take its place, as far as priorities let it.

        As dnf has it: what a better repository offers in the installed version or a newer one
        outranks the others; what a rule hides outranks nothing.
        """
        rows = [c for c in self.candidates(package.name) if self.may_become(package, c)]
        rows = [c for c in rows if self.compare(c.evr, package.evr) >= 0]
        open_ = [c for c in rows if self.why_hidden(c) is None]
        rows = self.preferred(open_) if open_ else rows
        return [c for c in rows if self.is_newer(c, package.evr)]

    def has_successor(self, candidate: Candidate) -> bool:
        """Return whether something of another name is installed that obsoletes a candidate."""
        rows = ((p.name, dep) for p in self.packages for dep in p.obsoletes)
        return any(
            name != candidate.name
            and dep[0] == candidate.name
            and (not dep[1] or policy.is_within(candidate.evr, dep[1], dep[2], self.compare))
            for name, dep in rows
        )

    def successors(self, goal: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Return what obsoletes a package that would come, the newest of each name.

        Of two that obsolete each other neither is a successor.
        """
        found = [c for one in goal for c in self.view.obsoleters(one)]
        found = [c for c in found if self.why_hidden(c) is None]
        found = [c for c in found if not set(goal) & set(self.view.obsoleters(c))]
        rows: list[Candidate] = []
        for name in dict.fromkeys(c.name for c in found):
            rows += self.newest(native([c for c in found if c.name == name]))
        return tuple(rows)

    def newest(self, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        """Return the newest version of one name, in the repositories of best priority."""
        rows = self.preferred(candidates)
        best = max(rows, key=lambda c: self.universe.versions.key(c.evr))
        return tuple(c for c in rows if self.compare(c.evr, best.evr) == 0)

    def candidates(self, name: str) -> tuple[Candidate, ...]:
        """Return what this host is offered under a name, newest first."""
        found = self.universe.candidates(name)
        return tuple(c for c in found if not self.view.is_masked(c))

    def priority(self, candidate: Candidate) -> int:
        """Return the priority of a candidate's repository: the smaller number wins."""
        return self.universe.sources[candidate.repository].priority

    @functools.cached_property
    def by_name(self) -> dict[str, tuple[InstalledPackage, ...]]:
        """Name -> what is installed under it, oldest first."""
        order = self.universe.versions.key
        found: dict[str, tuple[InstalledPackage, ...]] = {}
        for name, group in groupby(self.packages, attrgetter("name")):
            mine = tuple(group)
            if len(mine) > 1:
                mine = tuple(sorted(mine, key=lambda p: order(p.evr)))
            found[name] = mine
        return found

    @functools.cached_property
    def offers(self) -> dict[str, Offer]:
        """Name -> what is installed and what is offered, for every installed name."""
        return {name: judged.offer for name, judged in self.judged.items()}

    @functools.cached_property
    def judged(self) -> dict[str, Judged]:
        """Name -> what is known of it, for every installed name."""
        return {name: self._judged(name, found) for name, found in self.by_name.items()}

    def _judged(self, name: str, installed: tuple[InstalledPackage, ...]) -> Judged:
        """Return what is offered for a name and what of it is hidden.

        It is the same on all hosts that have the same packages of the name and the same rules, so
        it is worked out once for all of them.
        """
        key = tuple([id(package) for package in installed])
        known: Judged | None = self._shared.get(key)
        if known is None:
            offer = self._offer(name, installed)
            hidden = policy.hide(offer, self.rules, self.compare)
            known = self._shared[key] = Judged(installed, offer, hidden, self._is_newest(offer), {})
        return known

    def _is_newest(self, offer: Offer) -> bool:
        newest = offer.candidates[:1]
        return not any(self.is_newer(c, p.evr) for c in newest for p in offer.installed)

    def remembered(self, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """Return what is the same on all hosts of the lot that have the same rules, made once."""
        known: Answer | None = self._shared.get(key)
        if known is None:
            known = self._shared[key] = make()
        return known

    def is_usual(self, offer: Offer) -> bool:
        """Return whether what is hidden of an offer is so wherever the same is installed."""
        mine = self.refused.keys() | self.freed if self.refused or self.freed else ()
        return not mine or mine.isdisjoint(offer.candidates)

    def free(self, candidate: Candidate) -> None:
        """Let this host have a candidate that was hidden from it."""
        self.freed.add(candidate)
        del self.hidden[candidate]

    def _offer(self, name: str, installed: tuple[InstalledPackage, ...]) -> Offer:
        """Of packages that stand side by side only the newest of each arch can have an update."""
        candidates = self.candidates(name)
        if len(installed) > 1 and self.view.stands_beside(installed[-1]):
            installed = tuple({p.arch: p for p in installed}.values())
        origin = policy.origin_of(installed[-1], candidates, self.closed) if self.closed else ""
        return Offer(installed, candidates, origin, self._homes(installed[-1], candidates))

    def _homes(self, package: InstalledPackage, candidates: Iterable[Candidate]) -> frozenset[str]:
        """Return the repositories of the origin that a package is known to be from.

        What the journal says goes first; a repository that is gone is its own origin then.
        """
        sources = self.universe.sources
        if told := policy.told_origin(package):
            found = {told}
        elif len(sources) < 2 or not (found := policy.came_from(package, candidates)):
            return frozenset()
        labels = {sources[name].label if name in sources else name for name in found}
        same = frozenset(name for name, source in sources.items() if source.label in labels)
        return same or frozenset(found)

    @functools.cached_property
    def hidden(self) -> dict[Candidate, Hiding]:
        """What this host must not get whatever is asked for, and why."""
        found: dict[Candidate, Hiding] = {}
        for judged in self.judged.values():
            if judged.hidden:
                found.update(judged.hidden)
        for name in self._locked_elsewhere():
            offer = Offer((), self.candidates(name))
            found.update(policy.hide(offer, self.rules, self.compare))
        found.update(self.remembered("forbidden", self._forbidden))
        return found

    def _forbidden(self) -> dict[Candidate, Hiding]:
        """Return what lines hide whatever is installed; of several the strongest kind is told."""
        found: dict[Candidate, Hiding] = {}
        for line, candidate in self._ruled("exclude"):
            found[candidate] = policy.exclude_hiding(line, "excluded")
        for line, candidate in self._ruled("pin"):
            if candidate.repository != line.to:
                words = f"pinned to {line.to} by {line}"
                found[candidate] = Hiding(HeldReason.ORIGIN, words, firm=True)
        for line in self.rules.of("block"):
            hiding = Hiding(HeldReason.BLOCKED, f"blocked by {line}")
            for word in line.packages:
                found.update(dict.fromkeys(self._blocked(word), hiding))
        return found

    def _ruled(self, kind: str) -> Iterator[tuple[Line, Candidate]]:
        """Yield each candidate that lines of a kind name, with those that rule."""
        named: dict[Candidate, dict[Line, None]] = {}
        for line in self.rules.of(kind):
            for candidate in (c for word in line.packages for c in self._matching(word)):
                named.setdefault(candidate, {})[line] = None
        for one, lines in named.items():
            yield from (
                (line, one) for line in self.rules.ruling(lines, one.name, one.evr, one.arch)
            )

    def _matching(self, word: str) -> list[Candidate]:
        return [c for c in self.universe.matching(word) if not self.view.is_masked(c)]

    def _blocked(self, word: str) -> Iterator[Candidate]:
        """Yield what an advisory delivers, or what a NEVRA or another word names."""
        delivered = self.delivers(word)
        for spec in delivered or (word,):
            yield from self._matching(spec)

    @functools.cached_property
    def removable(self) -> frozenset[str]:
        """The NEVRAs that policy lets leave when nothing else helps."""
        lines = self.rules.of("allow_removal")
        allowed = (p for p in self.packages for x in lines if matches(p.name, x.packages))
        return frozenset(p.nevra for p in allowed if not self.why_protected(p))

    def _locked_elsewhere(self) -> set[str]:
        """Return the names that are locked to a version and of which nothing is installed."""
        words = {locked_name(w) for line in self.rules.of("lock") for w in line.packages}
        return {c.name for w in words for c in self._matching(w)} - self.by_name.keys()

    def why_hidden(self, candidate: Candidate) -> Hiding | None:
        """Return why a candidate is not for this host, or None when it is."""
        if self.view.is_masked(candidate):
            return self._masking(candidate)
        found = self.hidden.get(candidate) or self.refused.get(candidate)
        if found is None and candidate.repository in self.closed:
            return policy.closed_hiding(candidate)
        return found

    def why_protected(self, package: InstalledPackage) -> str:
        """Return why a package must not be removed, or nothing."""
        if package.name in policy.PROTECTED:
            return "is protected: without it a host can't be reached or mended"
        if policy.is_running(package, self.kernel):
            return "is the running kernel"
        if line := self.rules.protects(package.name):
            return f"is protected by {line}"
        return ""

    def _masking(self, candidate: Candidate) -> Hiding:
        if candidate.repository in self.rules.left_out:
            words = f"this request leaves repository {candidate.repository} out"
            return Hiding(HeldReason.ORIGIN, words)
        if candidate.repository in self.rules.without:
            words = f"repository {candidate.repository} is not for this host"
            return Hiding(HeldReason.ORIGIN, words)
        stream = self.universe.stream_of(candidate)
        own = f"it is of module stream {stream}, which is not active on this host"
        return Hiding(HeldReason.MODULE, own if stream else "an active module stream shadows it")

    @property
    def swaps(self) -> list[Swap]:
        """The changes between 32 and 64 bit that policy allows."""
        if not self.rules.of("arch_change"):
            return []
        return list(filter(None, map(self.swap, self.offers.values())))

    def swap(self, offer: Offer) -> Swap | None:
        """Return the change between 32 and 64 bit that policy allows for a name, if any."""
        first = offer.installed[0]
        allowed = bool(self.rules.lines) and self.rules.allows("arch_change", first.name)
        if not allowed or self.view.stands_beside(first):
            return None
        arches = {p.arch for p in offer.installed}
        newest = offer.installed[-1].evr
        newer = [c for c in offer.candidates if self.is_newer(c, newest)]
        newer = [c for c in newer if self.why_hidden(c) is None]
        if not newer or any(c.arch in arches for c in newer):
            return None
        others = [
            c for c in newer if not any(policy.color(c.arch) & policy.color(a) for a in arches)
        ]
        if not others:
            return None
        return Swap(self.newest(others), tuple(p.nevra for p in offer.installed))


def native(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those of the widest architecture: 64 bit or noarch before 32 bit."""
    wide = [c for c in candidates if policy.color(c.arch) & 2]
    return wide or list(candidates)
