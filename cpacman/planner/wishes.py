"""What a request means on one host: words as dnf's users write them, turned into tasks.

Invariants: words that fit nothing fail the host and are all told at once; what a rule of ours
hides is never asked of the solver. An install or upgrade of a name means its newest version; a
version that is given is taken at its word, except that nothing is ever downgraded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from cpacman.model import FailedError, HeldReason, InstalledPackage, Request
from cpacman.planner.host import CannotPlan, Host, Swap, Wish, native
from cpacman.planner.modes import Chosen, read_advised, read_sync
from cpacman.planner.policy import locks_on
from cpacman.planner.solver import Candidate, Matches, Task, Verb

T = TypeVar("T")
_Read = Callable[[Host, str, Matches], T]
"""Reads one word of a request, knowing what it matches."""


def read_request(host: Host, request: Request) -> Wish:
    """Return what a request means on a host.

    Raises:
        CannotPlan: words that fit nothing, or nothing this host may have; all of them.
    """
    if request.sync or request.by_advisory:
        chosen = _choose(host, request.upgrade) if request.upgrade else None
        if request.sync:
            return read_sync(host, chosen)
        return read_advised(host, chosen, minimal=request.minimal)
    if request.upgrade_all:
        targets = frozenset(host.by_nevra)
        return Wish((Task(Verb.UPDATE_ALL),), targets=targets, swaps=tuple(host.swaps))
    words = [(_upgrade, spec) for spec in request.upgrade]
    words += [(_install, spec) for spec in request.install]
    words += [(_remove, spec) for spec in request.remove]
    return _merge(_read_words(host, words))


def _read_words(host: Host, words: Iterable[tuple[_Read[T], str]]) -> list[T]:
    """Read each word in its way.

    Raises:
        CannotPlan: words that can't be read; all of them.
    """
    found, errors = [], []
    for read, spec in words:
        try:
            found.append(read(host, spec, _match(host, spec)))
        except CannotPlan as error:
            errors.append(error)
    if errors:
        raise CannotPlan(errors[0].error, (c for error in errors for c in error.causes))
    return found


def _choose(host: Host, specs: Sequence[str]) -> Chosen:
    """Return the installed packages that a mode is about when words narrow it."""
    found = _read_words(host, [(_chosen, spec) for spec in specs])
    return Chosen(
        frozenset().union(*(one.nevras for one in found)),
        frozenset().union(*(one.candidates for one in found)),
    )


def _chosen(host: Host, spec: str, found: Matches) -> Chosen:
    targets = _targets(host, found)
    if not targets:
        words = f"{spec} is available, but not installed"
        raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (words,))
    return Chosen(frozenset(p.nevra for p in targets), frozenset(found.candidates))


def _match(host: Host, spec: str) -> Matches:
    found = host.view.match(spec)
    if not found.candidates and not found.installed:
        hidden = host.view.match(spec, masked=True).candidates
        if words := [f"{c.nevra}: {h.detail}" for c in hidden if (h := host.why_hidden(c))]:
            raise CannotPlan(FailedError.POLICY, dict.fromkeys(words))
        raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (f"no package matches {spec}",))
    return found


def _merge(wishes: Sequence[Wish]) -> Wish:
    return Wish(
        tuple(dict.fromkeys(task for wish in wishes for task in wish.tasks)),
        frozenset().union(*(wish.named for wish in wishes)),
        frozenset().union(*(wish.pinned for wish in wishes)),
        frozenset().union(*(wish.targets for wish in wishes)),
        tuple(dict.fromkeys(swap for wish in wishes for swap in wish.swaps)),
        frozenset().union(*(wish.removed for wish in wishes)),
    )


def _upgrade(host: Host, spec: str, found: Matches) -> Wish:
    targets = _targets(host, found)
    if not targets:
        return _replacement(host, spec, found.candidates)
    fitting = frozenset(found.candidates)
    tasks = [t for p in targets if (t := _upgrade_task(host, p, fitting, found.just_name))]
    if found.just_name:
        return Wish(
            tuple(tasks),
            fitting,
            targets=frozenset(p.nevra for p in targets),
            swaps=tuple(_swaps(host, targets)),
        )
    if not tasks:
        _fail_if_forbidden(host, [c for c in found.candidates if _would_move(host, c, targets)])
    return Wish(tuple(tasks), fitting, pinned=fitting)


def _swaps(host: Host, targets: Iterable[InstalledPackage]) -> Iterator[Swap]:
    for name in dict.fromkeys(p.name for p in targets):
        if swap := host.swap(host.offers[name]):
            yield swap


def _would_move(host: Host, candidate: Candidate, targets: Iterable[InstalledPackage]) -> bool:
    return all(host.is_newer(candidate, p.evr) for p in targets if p.name == candidate.name)


def _targets(host: Host, found: Matches) -> list[InstalledPackage]:
    """Return the installed packages that a spec is about, the newest of each name and arch."""
    wanted = {(c.name, c.arch) for c in found.candidates}
    wanted |= {(host.by_nevra[n].name, host.by_nevra[n].arch) for n in found.installed}
    rows: dict[tuple[str, str], InstalledPackage] = {}
    for name in sorted({name for name, _ in wanted} & host.by_name.keys()):
        rows.update({(name, p.arch): p for p in host.by_name[name] if (name, p.arch) in wanted})
    return list(rows.values())


def _replacement(host: Host, spec: str, candidates: Sequence[Candidate]) -> Wish:
    """Read an upgrade of a name that is not installed: it may obsolete something that is."""
    fitting = frozenset(candidates)
    found = [c for p in host.packages for c in host.view.obsoleters(p) if c in fitting]
    visible = [c for c in found if c not in host.hidden]
    if visible:
        return Wish((Task(Verb.INSTALL, host.newest(visible)),), fitting)
    others = sorted({p.arch for c in candidates for p in host.by_name.get(c.name, ())})
    where = f"installed as {' and '.join(others)}" if others else "not installed"
    raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (f"{spec} is available, but {where}",))


def _upgrade_task(
    host: Host,
    package: InstalledPackage,
    fitting: frozenset[Candidate],
    just_name: bool,
    heirs: bool = True,
) -> Task | None:
    """Return the task that upgrades one installed package, or None when nothing newer fits.

    With `heirs` a successor is an upgrade, too.
    """
    if just_name and heirs and any(_is_open(host, c) for c in host.view.obsoleters(package)):
        return Task(Verb.UPDATE, installed=(package.nevra,))
    rows = [c for c in host.candidates(package.name) if host.compare(c.evr, package.evr) >= 0]
    rows = [c for c in rows if _is_same_kind(host, package, c) and _is_free(host, c, just_name)]
    if just_name:
        # What a better repository has in the installed version outranks newer ones, as in dnf.
        rows = host.preferred(rows)
    newer = [c for c in rows if c in fitting and host.is_newer(c, package.evr)]
    return Task(Verb.INSTALL, host.newest(newer)) if newer else None


def _is_same_kind(host: Host, package: InstalledPackage, candidate: Candidate) -> bool:
    return candidate.arch == package.arch or host.rules.allows("arch_change", candidate.name)


def _is_free(host: Host, candidate: Candidate, just_name: bool) -> bool:
    """Return whether no rule hides a candidate; who gives the version has named its origin."""
    hiding = host.hidden.get(candidate)
    if hiding is None:
        return True
    return not just_name and hiding.reason is HeldReason.ORIGIN and not hiding.firm


def _is_open(host: Host, candidate: Candidate) -> bool:
    return candidate not in host.hidden and candidate.repository not in host.closed


def _install(host: Host, spec: str, found: Matches) -> Wish:
    names = sorted({c.name for c in found.candidates})
    if len(names) > 1 and not found.just_name and "*" not in spec:
        return _any_provider(host, found)
    tasks: list[Task] = []
    for name in names:
        rows = [c for c in found.candidates if c.name == name]
        bare = found.just_name and spec not in {f"{c.name}.{c.arch}" for c in rows}
        tasks += _install_tasks(host, rows, found, bare)
    fitting = frozenset(found.candidates)
    if not found.just_name:
        return Wish(tuple(tasks), fitting, pinned=fitting)
    targets = (p.nevra for p in _targets(host, found) if p.nevra in found.installed)
    # A successor that is taken instead was meant, too.
    named = fitting.union(c for task in tasks for c in task.candidates)
    return Wish(tuple(tasks), named, targets=frozenset(targets))


def _remove(host: Host, spec: str, found: Matches) -> Wish:
    """Read a removal: what is named leaves, and nothing else does.

    Raises:
        CannotPlan: something that must stay is named.
    """
    named = [host.by_nevra[nevra] for nevra in found.installed]
    if stay := [f"{p.nevra} {why}" for p in named if (why := host.why_protected(p))]:
        raise CannotPlan(FailedError.PROTECTED, stay)
    locks = [(p, line) for p in named for line in locks_on(host.rules, p) if not line.own]
    if kept := [f"{p.nevra} is locked by {line}" for p, line in locks]:
        raise CannotPlan(FailedError.POLICY, kept)
    if not named:
        return Wish(())
    return Wish((Task(Verb.ERASE, installed=found.installed),), removed=frozenset(found.installed))


def _any_provider(host: Host, found: Matches) -> Wish:
    """Read an install of something that several packages provide: any of them will do."""
    fitting = frozenset(found.candidates)
    if found.installed:
        return Wish((), fitting)
    usable = tuple(c for c in sorted(fitting) if c not in host.hidden)
    if not usable:
        _fail_if_forbidden(host, sorted(fitting))
    return Wish((Task(Verb.INSTALL, usable),), fitting)


def _install_tasks(
    host: Host, rows: Sequence[Candidate], found: Matches, bare: bool
) -> Iterator[Task]:
    """Yield the tasks that bring one name to its newest fitting version.

    As dnf has it: architectures that are installed are upgraded; with none of those that fit
    installed, the widest one comes.
    """
    have = host.by_name.get(rows[0].name, ())
    fitting, just_name = frozenset(rows), found.just_name
    beside = bool(have) and host.view.stands_beside(have[-1])
    arches = {c.arch for c in rows}
    targets = {p.arch: p for p in have if p.arch in arches}
    if not targets or (beside and not just_name):
        here = [p.evr for p in have if any(c.nevra == p.nevra for c in rows)]
        new = [c for c in rows if all(host.is_newer(c, evr) for evr in here)]
        yield from _install_new(host, new, bare)
        return
    for package in targets.values():
        if task := _upgrade_task(host, package, fitting, just_name, heirs=bare):
            yield task
        elif older := _allowed_older(host, package, rows, found):
            yield Task(Verb.INSTALL, host.newest(older))
        elif not just_name:
            _fail_if_older(host, package, rows, found)


def _allowed_older(
    host: Host, package: InstalledPackage, rows: Sequence[Candidate], found: Matches
) -> list[Candidate]:
    """Return the named versions that policy allows to be downgraded to."""
    there = found.just_name or package.nevra in found.installed
    if there or not host.rules.allows("allow_downgrade", package.name):
        return []
    older = [c for c in rows if c.arch == package.arch and host.compare(c.evr, package.evr) < 0]
    same = any(c.nevra == package.nevra for c in rows)
    return [] if same else [c for c in older if _is_free(host, c, just_name=False)]


def _install_new(host: Host, rows: Sequence[Candidate], bare: bool) -> Iterator[Task]:
    """Yield the task that brings the newest; as in dnf priority comes before the architecture.

    Only a bare name may be had from a successor, and is there when one is installed: who says
    more means the very package.
    """
    usable = [c for c in rows if c not in host.hidden]
    if not usable:
        _fail_if_forbidden(host, rows)
        return
    goal = host.newest(native(host.preferred(usable)))
    if bare and any(map(host.has_successor, goal)):
        return
    yield Task(Verb.INSTALL, (bare and host.successors(goal)) or goal)


def _fail_if_older(
    host: Host, package: InstalledPackage, rows: Sequence[Candidate], found: Matches
) -> None:
    """Refuse to install a version older than the installed one, unless that is what is meant.

    Raises:
        CannotPlan: all that was named is older, or forbidden.
    """
    same = [c for c in rows if c.arch == package.arch]
    if any(host.compare(c.evr, package.evr) == 0 for c in same):
        return
    _fail_if_forbidden(host, [c for c in same if host.is_newer(c, package.evr)])
    if package.nevra in found.installed:
        return
    words = f"{same[0].nevra} would be a downgrade from installed {package.nevra}"
    raise CannotPlan(FailedError.POLICY, (words,))


def _fail_if_forbidden(host: Host, candidates: Sequence[Candidate]) -> None:
    """Fail the host when something is hidden by a rule.

    Raises:
        CannotPlan: with each rule.
    """
    hidden = [(c, host.hidden[c]) for c in candidates if c in host.hidden]
    if hidden:
        words = (f"{c.nevra}: {hiding.detail}" for c, hiding in hidden)
        raise CannotPlan(FailedError.POLICY, dict.fromkeys(words))
