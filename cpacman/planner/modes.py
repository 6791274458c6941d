"""Requests about everything installed: only what advisories fix, or all as the snapshot has it.

Invariants: each package is asked for by a task of its own that may fail alone, so that one that
can't move does not stop the others; its own architecture is left where policy allows that only.
What a snapshot does not have stays as it is and is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cpacman.errors import Problem, UsageError
from cpacman.model import SEVERITIES, Advisory, Held, HeldReason, InstalledPackage, Request
from cpacman.planner.host import Aim, Host, Swap, Wish
from cpacman.planner.policy import color
from cpacman.planner.ruling import is_lockable
from cpacman.planner.solver import Candidate, Step, Task, Verb


def check_request(request: Request, advisories: Iterable[Advisory]) -> None:
    """Refuse a request that no host could be planned for.

    Raises:
        UsageError: modes that exclude each other, or advisories that no repository has.
    """
    known = list(advisories) if request.by_advisory else []
    named = [key for key in ("install", "remove") if getattr(request, key)]
    problems = [*_senseless(request), *_unknown_severities(request, known)]
    if request.sync and named:
        mend = "make two plans"
        problems.append(Problem("sync", f"is about what is installed, not {named[0]}", mend))
    if request.by_advisory and (named or request.sync):
        other = named[0] if named else "sync"
        problems.append(Problem("advisory", f"can't be asked for beside {other}", "make two plans"))
    if request.minimal and not request.by_advisory:
        mend = "name advisory, security or severity"
        problems.append(Problem("minimal", "is about advisories, and none are asked for", mend))
    if request.advisory:
        words = {word for one in known for word in (one.id, *one.cves)}
        problems += [_unknown(word, words) for word in request.advisory if word not in words]
    if problems:
        raise UsageError(problems)


def check_repositories(request: Request, known: Sequence[str]) -> None:
    """Refuse to leave out repositories that there are none of; nothing is known of no hosts.

    Raises:
        UsageError: with the nearest name.
    """
    wrong = [name for name in request.exclude_repos if known and name not in known]
    problems = []
    for name in wrong:
        near = difflib.get_close_matches(name, known, 1) or sorted(set(known))
        mend = f"did you mean {near[0]}?" if len(near) == 1 else f"there are: {', '.join(near)}"
        problems.append(Problem("exclude_repos", f"there is no repository {name!r} here", mend))
    if problems:
        raise UsageError(problems)


def _senseless(request: Request) -> Iterator[Problem]:
    """Yield words that can name nothing, and locks that can lock nothing."""
    for key in ("upgrade", "install", "remove", "exclude", "lock", "advisory", "severity"):
        if any(not word.strip() for word in getattr(request, key)):
            yield Problem(key, "an empty word names nothing", "leave it out")
    for word in request.lock:
        if word.strip() and not is_lockable(word):
            yield Problem(
                "lock", f"{word!r} locks nothing", "write a name, or a range: httpd < 2.5"
            )


def _unknown_severities(request: Request, advisories: Iterable[Advisory]) -> Iterator[Problem]:
    """Yield severities that no advisory has; those that are usual may be without any today."""
    usual = {*SEVERITIES, *(one.severity.lower() for one in advisories)} - {""}
    for word in request.severity:
        if word.strip() and word.lower() not in usual:
            near = difflib.get_close_matches(word.lower(), usual, 1)
            mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(usual))}"
            yield Problem("severity", f"{word!r} is none", mend)


def _unknown(word: str, known: Iterable[str]) -> Problem:
    near = difflib.get_close_matches(word, known, 1)
    mend = f"did you mean {near[0]}?" if near else "take a snapshot of a mirror that has it"
    return Problem("advisory", f"{word} is in no repository", mend)


class Chosen(NamedTuple):
    """The only packages that a mode is about: NEVRAs installed, and candidates they may become."""

    nevras: frozenset[str]
    candidates: frozenset[Candidate]


def read_advised(host: Host, chosen: Chosen | None, *, minimal: bool) -> Wish:
    """Return the wish for every fix that some advisories deliver to a host.

    As dnf has it: the newest version from the oldest fix that is missing on; with `minimal` the
    newest of those that the advisories name, or of the next ones that are offered. A successor
    that an advisory names is a fix, too.
    """
    tasks, targets, limit = [], [], set[Candidate]()
    for package in _newest_installed(host, chosen):
        fixes = _among(_fixes(host, package, minimal=minimal), package, chosen)
        if fixes:
            targets.append(package.nevra)
            limit.update(fixes)
            tasks += _task(host, _ranked(host, package, fixes), chosen)
    swaps = tuple(_fixing_swaps(host, chosen))
    for swap in swaps:
        targets += swap.installed
        limit.update(swap.candidates)
    return Wish(
        tuple(tasks),
        _opened(host, chosen),
        targets=frozenset(targets),
        swaps=swaps,
        limit=frozenset(limit),
    )


def _fixing_swaps(host: Host, chosen: Chosen | None) -> Iterator[Swap]:
    """Yield the changes between 32 and 64 bit that policy allows and that bring a missing fix."""
    for swap in host.swaps:
        olds = [host.by_nevra[nevra] for nevra in swap.installed]
        fixing = _reaching(host, swap.candidates, olds[-1].evr, minimal=False)
        if fixing and all(_among(fixing, old, chosen) == fixing for old in olds):
            yield Swap(tuple(fixing), swap.installed)


def _newest_installed(host: Host, chosen: Chosen | None) -> Iterator[InstalledPackage]:
    """Yield what is installed; of what stands side by side only the newest of each arch."""
    for offer in host.offers.values():
        for package in {p.arch: p for p in offer.installed}.values():
            if chosen is None or package.nevra in chosen.nevras:
                yield package


def _among(
    candidates: Iterable[Candidate], package: InstalledPackage, chosen: Chosen | None
) -> list[Candidate]:
    """Return those of a package's candidates that words which give a version allow."""
    if chosen is None:
        return list(candidates)
    return [c for c in candidates if c.name != package.name or c in chosen.candidates]


def _opened(host: Host, chosen: Chosen | None) -> frozenset[Candidate]:
    """Return what was named of repositories that serve only what is named."""
    named = chosen.candidates if chosen else frozenset()
    return frozenset(c for c in named if c.repository in host.closed)


def _is_usable(host: Host, candidate: Candidate, chosen: Chosen | None) -> bool:
    hiding = host.why_hidden(candidate)
    opened = chosen is not None and candidate in chosen.candidates
    return hiding is None or (opened and hiding.reason is HeldReason.NOAUTOUPDATE)


def _fixes(host: Host, package: InstalledPackage, *, minimal: bool) -> list[Candidate]:
    """Return the candidates that bring a package to a fix which it lacks, and all newer ones."""
    own = [c for c in host.candidates(package.name) if host.may_become(package, c)]
    own = [c for c in own if host.is_newer(c, package.evr)]
    heirs = [c for c in host.view.obsoleters(package) if color(c.arch) & color(package.arch)]
    rows: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in (*(host.updates(package) or own), *heirs):
        rows.setdefault((candidate.name, candidate.arch), []).append(candidate)
    found: list[Candidate] = []
    for (name, arch), kin in rows.items():
        have = package.evr if name == package.name else _version_of(host, name, arch)
        found += _reaching(host, kin, have, minimal=minimal)
    return found


def _version_of(host: Host, name: str, arch: str) -> str:
    """Return the newest installed version of a successor, or nothing; its fixes are there then."""
    return next((p.evr for p in host.by_name.get(name, ())[::-1] if p.arch == arch), "")


def _ranked(host: Host, package: InstalledPackage, fixes: Sequence[Candidate]) -> list[Candidate]:
    """Return those that no better repository outranks."""
    own = host.updates(package)
    return [c for c in fixes if c in own or c.name != package.name]


def _reaching(
    host: Host, candidates: Sequence[Candidate], evr: str, *, minimal: bool
) -> list[Candidate]:
    """Return those of one name and arch with a fix newer than a version, or the first such ones."""
    if not candidates:
        return []
    named = host.wanted.get((candidates[0].name, candidates[0].arch), ())
    fixes = [fix for fix in named if not evr or host.compare(fix, evr) > 0]
    open_ = [c for c in candidates if host.why_hidden(c) is None] or list(candidates)
    after = [[c for c in open_ if host.compare(c.evr, fix) >= 0] for fix in fixes]
    if minimal:
        return [c for rows in after for c in _oldest(host, rows)]
    return list(dict.fromkeys(c for rows in after for c in rows))


def _oldest(host: Host, candidates: Sequence[Candidate]) -> list[Candidate]:
    key = host.universe.versions.key
    first = min((c.evr for c in candidates), key=key, default="")
    return [c for c in candidates if host.compare(c.evr, first) == 0]


def _task(host: Host, candidates: Sequence[Candidate], chosen: Chosen | None) -> list[Task]:
    usable = tuple(c for c in candidates if _is_usable(host, c, chosen))
    return [Task(Verb.INSTALL, usable, weak=True)] if usable else []


def read_sync(host: Host, chosen: Chosen | None) -> Wish:
    """Return the wish that every package be as the snapshot has it, older ones included."""
    tasks, aims = [], []
    for package, goal in _goals(host, chosen):
        tasks += _task(host, goal, chosen)
        aims.append(Aim(package, goal[0]))
    return Wish(
        tuple(tasks),
        _opened(host, chosen),
        targets=chosen.nevras if chosen else frozenset(host.by_nevra),
        swaps=tuple(_chosen_swaps(host, chosen)),
        aims=tuple(aims),
        older=True,
    )


def _chosen_swaps(host: Host, chosen: Chosen | None) -> Iterator[Swap]:
    """Yield the changes between 32 and 64 bit that policy allows of what a sync is about."""
    for swap in host.swaps:
        olds = [host.by_nevra[nevra] for nevra in swap.installed]
        wanted = list(swap.candidates)
        if all(_among(wanted, old, chosen) == wanted for old in olds):
            yield swap


def _goal(host: Host, package: InstalledPackage, chosen: Chosen | None) -> tuple[Candidate, ...]:
    """Return what a package should be: nothing when it is that already, or is not offered.

    What obsoletes the snapshot's own version comes first, as it would in any update.
    """
    own = [c for c in host.candidates(package.name) if host.may_become(package, c)]
    own = _among(own, package, chosen)
    open_ = [c for c in own if _is_usable(host, c, chosen)]
    if not open_ and (instead := _heirs(host, package)):
        return instead
    if not own:
        return ()
    best = host.newest(open_ or own)
    heirs = [c for c in host.successors(best) if color(c.arch) & color(package.arch)]
    order = host.compare(best[0].evr, package.evr)
    if order == 0 or (order < 0 and host.view.stands_beside(package)):
        return tuple(heirs)
    return (*heirs, *best)


def _heirs(host: Host, package: InstalledPackage) -> tuple[Candidate, ...]:
    """Return what obsoletes a package that nothing of its own name is there for."""
    found = [c for c in host.view.obsoleters(package) if host.why_hidden(c) is None]
    found = [c for c in found if color(c.arch) & color(package.arch)]
    return host.newest([c for c in found if c.name == found[0].name]) if found else ()


def _goals(
    host: Host, chosen: Chosen | None
) -> Iterator[tuple[InstalledPackage, tuple[Candidate, ...]]]:
    """Yield each installed package that differs from the snapshot, and what it should be."""
    for package in _newest_installed(host, chosen):
        if goal := _goal(host, package, chosen):
            yield package, goal


def find_absent(host: Host, wish: Wish, steps: Sequence[Step]) -> Iterator[Held]:
    """Yield the packages that stay though the snapshot has no such version of them."""
    gone = {nevra for step in steps for nevra in step.old}
    for package in (p for p in host.packages if p.nevra in wish.targets):
        offered = host.candidates(package.name)
        if package.nevra in gone or any(c.nevra == package.nevra for c in offered):
            continue
        if not any(c.arch == package.arch for c in offered) or host.view.stands_beside(package):
            words = "the snapshot does not have it; it stays as it is"
            yield Held(nevra=package.nevra, candidate="", reason=HeldReason.ABSENT, detail=words)
