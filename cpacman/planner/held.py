"""What a plan does not take though it is newer, and why.

Invariants: every installed package with a newer version or a successor that the plan leaves is
told, once for each reason; the reason is the rule of ours that hid the candidate, or what the
solver says when it is asked for just that candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cpacman.model import Held, HeldReason, InstalledPackage
from cpacman.planner import explain, modes, policy
from cpacman.planner.host import Aim, Host, Judged, Wish
from cpacman.planner.policy import Hiding, Offer
from cpacman.planner.solver import Candidate, Finding, Step, Task, Verb

_UNEXPLAINED = Hiding(
    HeldReason.UNEXPLAINED, "the solver leaves it; cpacman why, or a plan with reasons, tells why"
)


def find_held(
    host: Host, wish: Wish, steps: Sequence[Step], *, reasons: bool = True
) -> tuple[Held, ...]:
    """Return what could be newer and is not, sorted.

    Without `reasons` the solver, who needs longer for them than for the plan, is not asked.
    """
    rows = list(_left_older(wish, steps) if wish.older else _left(host, steps))
    rows = [row for row in rows if row.package.nevra in wish.targets]
    if wish.limit is not None:
        rows = [row for row in rows if row.candidate in wish.limit]
    rules = [_rule(host, row) for row in rows]
    open_ = [row.candidate for row, rule in zip(rows, rules, strict=True) if rule is None]
    asked = _ask(host, open_) if reasons else dict.fromkeys(open_, _UNEXPLAINED)
    first: dict[tuple[str, str], Held] = {}
    for row, rule in zip(rows, rules, strict=True):
        reason = rule or asked[row.candidate]
        held = Held(
            nevra=row.package.nevra,
            candidate=row.candidate.nevra,
            reason=reason.reason,
            detail=reason.detail,
        )
        first.setdefault((held.nevra, held.reason.value), held)
    if wish.older:
        first.update({(h.nevra, h.reason.value): h for h in modes.find_absent(host, wish, steps)})
    return tuple(sorted(first.values(), key=lambda h: (h.nevra, h.candidate, h.reason.value)))


def _left(host: Host, steps: Sequence[Step]) -> Iterator[Aim]:
    """Yield the newer candidates not taken of every installed package, newest first.

    Of those that nothing hides only the newest: older ones do not matter to anybody.
    """
    renewed: dict[str, list[Candidate | None]] = {}
    for step in steps:
        for nevra in step.old:
            renewed.setdefault(nevra, []).append(step.new)
    taken = {s.new.name for s in steps if s.new}
    beside = {s.new.name for s in steps if s.new and s.side_by_side}
    for name, judged in host.judged.items():
        if judged.is_newest and name not in host.universe.obsoleted:
            continue
        for package in judged.offer.installed:
            new = renewed.get(package.nevra)
            if new is None:
                kin = _kin(package, steps) if name in beside else ()
                yield from _left_newer(host, package, judged, kin)
                if name in host.universe.obsoleted:
                    yield from _left_obsoleters(host, package, taken)
            elif own := tuple([c for c in new if c and c.name == name]):
                yield from _left_newer(host, package, judged, own)


def _kin(package: InstalledPackage, steps: Sequence[Step]) -> tuple[Candidate, ...]:
    """Return what comes beside a package as another version of it."""
    new = (step.new for step in steps if step.new and step.side_by_side)
    return tuple([c for c in new if (c.name, c.arch) == (package.name, package.arch)])


def _left_older(wish: Wish, steps: Sequence[Step]) -> Iterator[Aim]:
    """Yield what does not become as the snapshot has it."""
    taken = {step.new for step in steps}
    yield from (aim for aim in wish.aims if aim.candidate not in taken)


def _left_newer(
    host: Host, package: InstalledPackage, judged: Judged, new: Sequence[Candidate]
) -> Iterable[Aim]:
    """Return what is newer than a package and what came for it, worked out once a lot."""
    key = (package.nevra, new)
    known = judged.newer.get(key)
    if known is None or not host.is_usual(judged.offer):
        known = tuple(_find_newer(host, package, judged.offer, new))
        if host.is_usual(judged.offer):
            judged.newer[key] = known
    return known


def _find_newer(
    host: Host, package: InstalledPackage, offer: Offer, new: Iterable[Candidate]
) -> Iterator[Aim]:
    best = max([package.evr, *(c.evr for c in new)], key=host.universe.versions.key)
    for candidate in offer.candidates:
        if not host.is_newer(candidate, best):
            break
        own = candidate.arch == package.arch
        if own or _is_only_elsewhere(host, candidate, package, offer):
            yield Aim(package, candidate)
            if own and _rule(host, Aim(package, candidate)) is None:
                break


def _is_only_elsewhere(
    host: Host, candidate: Candidate, package: InstalledPackage, offer: Offer
) -> bool:
    """Return whether a newer version is only there for an architecture that is not installed."""
    if candidate.arch in {p.arch for p in offer.installed}:
        return False
    own = [c for c in offer.candidates if c.arch == package.arch]
    return not any(host.compare(c.evr, candidate.evr) >= 0 for c in own)


def _left_obsoleters(host: Host, package: InstalledPackage, taken: Iterable[str]) -> Iterator[Aim]:
    """Yield the newest of each name that would replace a package."""
    found = host.view.obsoleters(package)
    for name in dict.fromkeys(c.name for c in found):
        newest = next(c for c in found if c.name == name)
        have = host.by_name.get(name, ())
        older = any(not host.is_newer(newest, p.evr) for p in have)
        apart = not policy.color(newest.arch) & policy.color(package.arch)
        if not (older or apart) and name not in taken:
            yield Aim(package, newest)


def _rule(host: Host, row: Aim) -> Hiding | None:
    """Return the rule of ours that kept a candidate back, if it was one."""
    if hiding := host.why_hidden(row.candidate):
        return hiding
    package, candidate = row
    if candidate.name != package.name:
        return None
    if candidate.arch != package.arch and not host.rules.allows("arch_change", package.name):
        return Hiding(HeldReason.ARCH, policy.arch_detail([package.arch], candidate))
    return _tied(host, package, candidate) or _outranked(host, candidate)


def _tied(host: Host, package: InstalledPackage, candidate: Candidate) -> Hiding | None:
    """Return the hiding of a candidate that a rule keeps from another architecture of its name."""
    pair = [p for p in host.offers[package.name].installed if p.arch != package.arch]
    if not pair or candidate.arch != package.arch or any(p.evr != package.evr for p in pair):
        return None
    offered = [c for c in host.candidates(package.name) if c.evr == candidate.evr]
    open_ = {c.arch for c in offered if host.why_hidden(c) is None}
    shut = [p.arch for p in pair if p.arch not in open_]
    return policy.together_hiding(candidate, shut) if shut else None


def _outranked(host: Host, candidate: Candidate) -> Hiding | None:
    """Return the hiding of a candidate whose name a repository of better priority has."""
    offered = host.offers[candidate.name].candidates
    better = [c for c in offered if host.priority(c) < host.priority(candidate)]
    if not better:
        return None
    first = min(better, key=lambda c: (host.priority(c), c.repository))
    words = f"{first.repository} has priority {host.priority(first)}"
    return Hiding(HeldReason.ORIGIN, f"{words}, {candidate.repository} {host.priority(candidate)}")


def _ask(host: Host, candidates: Sequence[Candidate]) -> dict[Candidate, Hiding]:
    """Ask the solver what keeps candidates from being taken.

    All are asked for at once, since a problem mostly names the one it is about; one that no
    problem is about then (what it collides with was given up for another) is asked for alone.
    """
    wanted = {c.nevra: c for c in sorted(candidates)}
    found: dict[Candidate, Hiding] = {}
    all_ = _problems(host, candidates, afresh=True)
    problems = [(f, {x.package for x in f} & wanted.keys()) for f in all_]
    for findings, about in sorted(problems, key=lambda row: len(row[1])):
        rest = [wanted[nevra] for nevra in about if wanted[nevra] not in found]
        if len(rest) == 1:
            found[rest[0]] = _reason(host, rest[0], findings)
    for candidate in (c for c in candidates if c not in found):
        alone = _problems(host, [candidate])
        found[candidate] = _reason(host, candidate, alone[0] if alone else ())
    return found


def _problems(
    host: Host, candidates: Sequence[Candidate], *, afresh: bool = False
) -> tuple[tuple[Finding, ...], ...]:
    if not candidates:
        return ()
    hidden = host.hidden.keys() | host.refused.keys()
    tasks = [Task(Verb.INSTALL, (c,)) for c in sorted(candidates)]
    return host.view.solve(tasks, hidden=hidden, closed=host.closed, afresh=afresh).problems


def _reason(host: Host, candidate: Candidate, findings: Sequence[Finding]) -> Hiding:
    if not findings:
        return Hiding(HeldReason.CONFLICTS, "it would hold back or displace other updates")
    words = "; ".join(explain.causes(findings, host.why_hidden, start=candidate.nevra))
    conflict = explain.is_conflict(findings)
    return Hiding(HeldReason.CONFLICTS if conflict else HeldReason.REQUIRES, words)
