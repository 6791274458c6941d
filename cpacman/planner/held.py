"""What a plan does not take though it is newer, and why.

Invariants: every installed package with a newer version or a successor that the plan leaves is
told, once for each reason; the reason is the rule of ours that hid the candidate, or what the
solver says when it is asked for just that candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cpacman.model import Held, HeldReason, InstalledPackage
from cpacman.planner import explain, policy
from cpacman.planner.host import Host, Wish
from cpacman.planner.policy import Hiding, Offer
from cpacman.planner.solver import Candidate, Solution, Step, Task, Verb


class Left(NamedTuple):
    """A newer candidate that the plan does not take, and whose it would be."""

    package: InstalledPackage
    candidate: Candidate


def find_held(host: Host, wish: Wish, steps: Sequence[Step]) -> tuple[Held, ...]:
    """Return what could be newer and is not, sorted."""
    rows = [row for row in _left(host, steps) if row.package.nevra in wish.targets]
    first: dict[tuple[str, str], Held] = {}
    for row, hiding in [(row, _rule(host, row)) for row in rows]:
        reason = hiding or _ask(host, row.candidate)
        held = Held(
            nevra=row.package.nevra,
            candidate=row.candidate.nevra,
            reason=reason.reason,
            detail=reason.detail,
        )
        first.setdefault((held.nevra, held.reason.value), held)
    return tuple(sorted(first.values(), key=lambda h: (h.nevra, h.candidate, h.reason.value)))


def _left(host: Host, steps: Sequence[Step]) -> Iterator[Left]:
    """Yield the newer candidates not taken of every installed package, newest first.

    Of those that nothing hides only the newest: older ones do not matter to anybody.
    """
    gone = {nevra for step in steps for nevra in step.old}
    taken = {s.new.name for s in steps if s.new}
    for offer in host.offers.values():
        for package in offer.installed:
            if package.nevra not in gone:
                yield from _left_newer(host, package, offer, _beside(package, steps))
                yield from _left_obsoleters(host, package, taken)
                continue
            renewed = [s.new for s in steps if s.new and package.nevra in s.old]
            if renewed and all(c.name == package.name for c in renewed):
                yield from _left_newer(host, package, offer, renewed)


def _beside(package: InstalledPackage, steps: Iterable[Step]) -> list[Candidate]:
    """Return what is installed beside a package that stays."""
    new = (s.new for s in steps if s.new and s.side_by_side)
    return [c for c in new if (c.name, c.arch) == (package.name, package.arch)]


def _left_newer(
    host: Host, package: InstalledPackage, offer: Offer, new: Iterable[Candidate]
) -> Iterator[Left]:
    best = max([package.evr, *(c.evr for c in new)], key=host.universe.versions.key)
    for candidate in offer.candidates:
        if not host.is_newer(candidate, best):
            break
        own = candidate.arch == package.arch
        if own or _is_only_elsewhere(host, candidate, package, offer):
            yield Left(package, candidate)
            if own and _rule(host, Left(package, candidate)) is None:
                break


def _is_only_elsewhere(
    host: Host, candidate: Candidate, package: InstalledPackage, offer: Offer
) -> bool:
    """Return whether a newer version is only there for an architecture that is not installed."""
    if candidate.arch in {p.arch for p in offer.installed}:
        return False
    own = [c for c in offer.candidates if c.arch == package.arch]
    return not any(host.compare(c.evr, candidate.evr) >= 0 for c in own)


def _left_obsoleters(host: Host, package: InstalledPackage, taken: Iterable[str]) -> Iterator[Left]:
    """Yield the newest of each name that would replace a package."""
    found = host.view.obsoleters(package)
    for name in dict.fromkeys(c.name for c in found):
        newest = next(c for c in found if c.name == name)
        have = host.by_name.get(name, ())
        older = any(not host.is_newer(newest, p.evr) for p in have)
        apart = not policy.color(newest.arch) & policy.color(package.arch)
        if not (older or apart) and name not in taken:
            yield Left(package, newest)


def _rule(host: Host, row: Left) -> Hiding | None:
    """Return the rule of ours that kept a candidate back, if it was one."""
    if hiding := host.why_hidden(row.candidate):
        return hiding
    package, candidate = row
    if candidate.name != package.name:
        return None
    if candidate.arch != package.arch and not host.rules.allows("arch_change", package.name):
        return Hiding(HeldReason.ARCH, policy.arch_detail([package.arch], candidate))
    return _outranked(host, candidate)


def _outranked(host: Host, candidate: Candidate) -> Hiding | None:
    """Return the hiding of a candidate whose name a repository of better priority has."""
    offered = host.offers[candidate.name].candidates
    better = [c for c in offered if host.priority(c) < host.priority(candidate)]
    if not better:
        return None
    first = min(better, key=lambda c: (host.priority(c), c.repository))
    words = f"{first.repository} has priority {host.priority(first)}"
    return Hiding(HeldReason.ORIGIN, f"{words}, {candidate.repository} {host.priority(candidate)}")


def _ask(host: Host, candidate: Candidate) -> Hiding:
    """Ask the solver what keeps a single candidate from being taken."""
    hidden = host.hidden.keys() | host.refused.keys()
    task = Task(Verb.INSTALL, (candidate,))
    return _reason(host, candidate, host.view.solve([task], hidden=hidden, closed=host.closed))


def _reason(host: Host, candidate: Candidate, solution: Solution) -> Hiding:
    if not solution.problems:
        return Hiding(HeldReason.CONFLICTS, "it would hold back or displace other updates")
    findings = solution.problems[0]
    words = "; ".join(explain.causes(findings, host.why_hidden, start=candidate.nevra))
    conflict = explain.is_conflict(findings)
    return Hiding(HeldReason.CONFLICTS if conflict else HeldReason.REQUIRES, words)
