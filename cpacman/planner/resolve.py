"""One host: from its inventory, the offer, the policy and the request to its transaction.

Invariants: a host is planned whole or it fails with causes; what a solution must not do (remove,
downgrade, change architecture or vendor, part the architectures of one package) is checked on
every solution, whatever the solver thinks of it. A forbidden step is refused and solved again
without it; what was refused or hidden is reported as held, with its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cpacman.model import FailedError, Held, HeldReason, InstalledPackage, Request
from cpacman.planner import explain, policy
from cpacman.planner.policy import Hiding, Offer, Policy
from cpacman.planner.solver import (
    Candidate,
    Finding,
    HostView,
    Solution,
    Step,
    Task,
    Universe,
    Verb,
)

_ROUNDS = 50
"""Solutions tried before a host fails: each round refuses at least one candidate."""


class CannotPlan(Exception):
    """This host can't be planned: the kind of error and the causes for a person."""

    def __init__(self, error: FailedError, causes: Iterable[str]) -> None:
        super().__init__(error.value)
        self.error = error
        self.causes = tuple(causes)


class Wish(NamedTuple):
    """What a request means on one host.

    `named` are the candidates the user's words fit (repositories left out of autoupdate may serve
    them), `pinned` those among them that a version or file was given for, `targets` the NEVRAs
    of installed packages it is about.
    """

    tasks: tuple[Task, ...]
    named: frozenset[Candidate] = frozenset()
    pinned: frozenset[Candidate] = frozenset()
    targets: frozenset[str] = frozenset()


class Outcome(NamedTuple):
    """The steps for one host, what was asked for by name, and what is held."""

    steps: tuple[Step, ...]
    asked: frozenset[Candidate]
    held: tuple[Held, ...]


class Host:
    """What is known of one host while it is being planned."""

    def __init__(
        self,
        universe: Universe,
        view: HostView,
        packages: Iterable[InstalledPackage],
        rules: Policy,
    ) -> None:
        self.universe = universe
        self.view = view
        self.packages = tuple(sorted(packages, key=lambda p: (p.name, p.arch, p.nevra)))
        self.by_nevra = {p.nevra: p for p in self.packages}
        self.rules = rules
        self.closed = tuple(s.name for s in universe.sources.values() if not s.autoupdate)
        self.refused: dict[Candidate, Hiding] = {}

    def compare(self, left: str, right: str) -> int:
        """Return the order of two versions."""
        return self.universe.versions.compare(left, right)

    def is_newer(self, candidate: Candidate, evr: str) -> bool:
        """Return whether a candidate is newer than a version."""
        return self.compare(candidate.evr, evr) > 0

    @functools.cached_property
    def by_name(self) -> dict[str, tuple[InstalledPackage, ...]]:
        """Name -> what is installed under it, oldest first."""
        found: dict[str, list[InstalledPackage]] = {}
        for package in self.packages:
            found.setdefault(package.name, []).append(package)
        order = self.universe.versions.key
        return {n: tuple(sorted(ps, key=lambda p: order(p.evr))) for n, ps in found.items()}

    @functools.cached_property
    def offers(self) -> dict[str, Offer]:
        """Name -> what is installed and what is offered, for every installed name."""
        return {name: self._offer(name, found) for name, found in self.by_name.items()}

    def _offer(self, name: str, installed: tuple[InstalledPackage, ...]) -> Offer:
        candidates = self.universe.candidates(name)
        if self.view.stands_beside(installed[-1]):
            installed = installed[-1:]
        return Offer(installed, candidates, self.origin(installed[-1], candidates))

    def origin(self, package: InstalledPackage, candidates: Iterable[Candidate]) -> str:
        """Return the repository left out of autoupdate that a package came from, if any."""
        return policy.origin_of(package, candidates, self.closed) if self.closed else ""

    @functools.cached_property
    def hidden(self) -> dict[Candidate, Hiding]:
        """What this host must not get whatever is asked for, and why."""
        found: dict[Candidate, Hiding] = {}
        for offer in self.offers.values():
            found.update(policy.hide(offer, self.rules, self.compare))
        for line in (line for line in self.rules.lines if line.kind == "exclude"):
            hiding = Hiding(HeldReason.EXCLUDE, f"excluded by {line}")
            for glob in line.packages:
                found.update(dict.fromkeys(self.view.match(glob).candidates, hiding))
        return found

    def why_hidden(self, candidate: Candidate) -> Hiding | None:
        """Return why a candidate is not for this host, or None when it is."""
        found = self.hidden.get(candidate) or self.refused.get(candidate)
        if found is None and candidate.repository in self.closed:
            return policy.closed_hiding(candidate)
        return found


def resolve(host: Host, request: Request) -> Outcome:
    """Plan one host.

    Raises:
        CannotPlan: something was named that can't be had, or no solution keeps the rules.
    """
    if request.upgrade_all:
        wish = Wish((Task(Verb.UPDATE_ALL),), targets=frozenset(host.by_nevra))
        steps = _settle(host, wish, closed=host.closed)
    else:
        wish = _wish(host, request)
        _allow_pinned(host, wish)
        steps = _settle_named(host, wish)
    return Outcome(steps, wish.named, tuple(_held(host, wish, steps)))


def _allow_pinned(host: Host, wish: Wish) -> None:
    """Who gives the version says in plain words which repository's package is meant."""
    for candidate in wish.pinned:
        hiding = host.hidden.get(candidate)
        if hiding is not None and hiding.reason is HeldReason.ORIGIN:
            del host.hidden[candidate]


def _settle_named(host: Host, wish: Wish) -> tuple[Step, ...]:
    """Solve with only the named packages of closed repositories, else with all of those."""
    if not host.closed:
        return _settle(host, wish)
    try:
        return _settle(host, wish, closed=host.closed)
    except CannotPlan:
        host.refused.clear()
        return _settle(host, wish)


def _settle(host: Host, wish: Wish, *, closed: Sequence[str] = ()) -> tuple[Step, ...]:
    """Solve until no step of the solution is forbidden.

    Update-all goes on without a forbidden step; in a named request the other architectures of a
    package are asked to follow, and anything else forbidden fails the host.
    """
    tasks = list(wish.tasks)
    named = not any(task.verb is Verb.UPDATE_ALL for task in tasks)
    for _ in range(_ROUNDS):
        hidden = host.hidden.keys() | host.refused.keys()
        solution = host.view.solve(tasks, hidden=hidden, closed=closed, opened=wish.named)
        if solution.problems:
            raise _unsolvable(host, solution)
        if named and (followers := list(_followers(host, solution.steps, tasks))):
            tasks += followers
            continue
        refusals = dict(_refusals(host, solution.steps, wish))
        if not refusals:
            return solution.steps
        if named and (broken := [h for c, h in refusals.items() if c in wish.named]):
            raise CannotPlan(FailedError.POLICY, (h.detail for h in broken))
        host.refused.update(refusals)
    raise CannotPlan(FailedError.CONFLICTS, ("no solution keeps to the rules of the plan",))


def _unsolvable(host: Host, solution: Solution) -> CannotPlan:
    findings = [f for problem in solution.problems for f in problem]
    conflict = explain.is_conflict(findings)
    error = FailedError.CONFLICTS if conflict else FailedError.REQUIRES
    words = (c for p in solution.problems for c in explain.causes(p, host.why_hidden))
    return CannotPlan(error, dict.fromkeys(words))


# What a solution must not do


def _refusals(host: Host, steps: Sequence[Step], wish: Wish) -> Iterator[tuple[Candidate, Hiding]]:
    """Yield the candidates of steps that break a rule, with the rule.

    Raises:
        CannotPlan: something would be removed without a replacement.
    """
    gone = sorted(nevra for step in steps if step.new is None for nevra in step.old)
    if gone:
        raise CannotPlan(FailedError.PROTECTED, (f"{n} would be removed" for n in gone))
    renewed = {o for s in steps if s.new for o in s.old if host.by_nevra[o].name == s.new.name}
    for step in steps:
        if step.new is not None and (hiding := _refuse(host, step, renewed, wish)):
            yield step.new, hiding
    yield from _parted(host, steps)
    yield from _left_alone(host, steps)


def _refuse(host: Host, step: Step, renewed: set[str], wish: Wish) -> Hiding | None:
    new = step.new
    if new is None:
        return None
    for nevra in step.old:
        old = host.by_nevra[nevra]
        if old.name == new.name:
            hiding = _refuse_same_name(host, old, new)
        else:
            hiding = None if nevra in renewed else _refuse_obsolete(host, old, new, wish)
        if hiding:
            return hiding
    return None


def _refuse_same_name(host: Host, old: InstalledPackage, new: Candidate) -> Hiding | None:
    if host.compare(new.evr, old.evr) < 0:
        return Hiding(HeldReason.PROTECTED, f"{new.nevra} would be a downgrade from {old.evr}")
    changed = policy.is_arch_change([old.arch], new.arch)
    if changed and not host.rules.allows("arch_change", new.name):
        return Hiding(HeldReason.ARCH, policy.arch_detail([old.arch], new))
    return None


def _refuse_obsolete(
    host: Host, old: InstalledPackage, new: Candidate, wish: Wish
) -> Hiding | None:
    changed = policy.is_vendor_change(old.vendor, new.vendor)
    if changed and not host.rules.allows("vendor_change", old.name):
        return Hiding(HeldReason.VENDOR, policy.vendor_detail(old, new))
    if line := host.rules.line("lock", old.name):
        return Hiding(HeldReason.LOCK, f"{old.name} is locked by {line}")
    origin = host.offers[old.name].origin
    if origin and new.repository != origin and new not in wish.named:
        return Hiding(HeldReason.ORIGIN, policy.origin_detail(origin, new))
    return None


def _after(host: Host, name: str, steps: Sequence[Step]) -> dict[str, str]:
    """Return arch -> version of a name once the steps are done."""
    gone = {nevra for step in steps for nevra in step.old}
    left = {p.arch: p.evr for p in host.by_name.get(name, ()) if p.nevra not in gone}
    return left | {s.new.arch: s.new.evr for s in steps if s.new and s.new.name == name}


def _split_pairs(host: Host, steps: Sequence[Step]) -> Iterator[tuple[Candidate, str]]:
    """Yield the moved packages whose other architecture would stay at another version."""
    for step in steps:
        if step.new is None or step.side_by_side or step.new.name not in host.by_name:
            continue
        before = {p.arch: p.evr for p in host.by_name[step.new.name]}
        after = _after(host, step.new.name, steps)
        for moved, left in policy.unequal_arches(before, after):
            if moved == step.new.arch:
                yield step.new, left


def _parted(host: Host, steps: Sequence[Step]) -> Iterator[tuple[Candidate, Hiding]]:
    for new, left in _split_pairs(host, steps):
        yield new, policy.together_hiding(new, [left])


def _followers(host: Host, steps: Sequence[Step], tasks: Sequence[Task]) -> Iterator[Task]:
    """Yield the tasks that let the other architectures of moved packages follow."""
    for new, left in _split_pairs(host, steps):
        offered = host.universe.candidates(new.name)
        same = tuple(c for c in offered if c.arch == left and c.evr == new.evr)
        task = Task(Verb.INSTALL, same)
        if same and task not in tasks:
            yield task


def _left_alone(host: Host, steps: Sequence[Step]) -> Iterator[tuple[Candidate, Hiding]]:
    """Refuse the packages of a `together` line when not all of them move."""
    moved = {s.new.name: s.new for s in steps if s.new}
    for line in host.rules.lines:
        if line.kind != "together":
            continue
        names = [n for n in host.by_name if policy.matches(n, line.packages)]
        stay = sorted(n for n in names if n not in moved)
        if stay and len(stay) < len(names):
            detail = f"moves with {' and '.join(stay)} only, {line}"
            for name in set(names) - set(stay):
                yield moved[name], Hiding(HeldReason.TOGETHER, detail)


# What a request means


def _wish(host: Host, request: Request) -> Wish:
    """Turn the words of a request into tasks.

    Raises:
        CannotPlan: words that fit nothing, or nothing this host may have; all of them.
    """
    wishes, errors = [], []
    words = [(_upgrade_wish, s) for s in request.upgrade]
    words += [(_install_wish, s) for s in request.install]
    for read, spec in words:
        try:
            wishes.append(read(host, spec))
        except CannotPlan as error:
            errors.append(error)
    if errors:
        raise CannotPlan(errors[0].error, (c for error in errors for c in error.causes))
    return Wish(
        tuple(dict.fromkeys(task for wish in wishes for task in wish.tasks)),
        frozenset().union(*(wish.named for wish in wishes)),
        frozenset().union(*(wish.pinned for wish in wishes)),
        frozenset().union(*(wish.targets for wish in wishes)),
    )


def _upgrade_wish(host: Host, spec: str) -> Wish:
    found = host.view.match(spec)
    if not found.candidates and not found.installed:
        raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (f"no package matches {spec}",))
    fitting = frozenset(found.candidates)
    targets = _targets(host, found.candidates, found.installed)
    if not targets:
        return _replacements(host, spec, found.candidates)
    pinned = frozenset() if found.just_name else fitting
    tasks = [t for p in targets if (t := _upgrade_task(host, p, fitting, found.just_name))]
    nevras = frozenset(p.nevra for p in targets)
    if not tasks and pinned:
        _fail_if_forbidden(host, [c for c in pinned if _would_move(host, c, targets)])
    return Wish(tuple(tasks), fitting, pinned, nevras)


def _would_move(host: Host, candidate: Candidate, targets: Iterable[InstalledPackage]) -> bool:
    return all(host.is_newer(candidate, p.evr) for p in targets if p.name == candidate.name)


def _targets(
    host: Host, candidates: Iterable[Candidate], installed: Iterable[str]
) -> list[InstalledPackage]:
    """Return the installed packages a spec is about: newest of those that stand side by side."""
    wanted = {(c.name, c.arch) for c in candidates}
    wanted |= {(host.by_nevra[n].name, host.by_nevra[n].arch) for n in installed}
    rows: dict[tuple[str, str], InstalledPackage] = {}
    for name in sorted({name for name, _ in wanted} & host.by_name.keys()):
        for package in host.by_name[name]:
            if (name, package.arch) in wanted:
                rows[name, package.arch] = package
    return list(rows.values())


def _replacements(host: Host, spec: str, candidates: Sequence[Candidate]) -> Wish:
    """Read an upgrade of a name that is not installed: it may obsolete something that is."""
    fitting = set(candidates)
    found = [c for p in host.packages for c in host.view.obsoleters(p) if c in fitting]
    visible = [c for c in found if c not in host.hidden]
    if visible:
        task = Task(Verb.INSTALL, _newest(host, visible))
        return Wish((task,), frozenset(fitting))
    name = candidates[0].name
    others = sorted({p.arch for p in host.by_name.get(name, ())})
    where = f"installed as {' and '.join(others)}" if others else "not installed"
    raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (f"{spec} is available, but {where}",))


def _upgrade_task(
    host: Host, package: InstalledPackage, fitting: frozenset[Candidate], just_name: bool
) -> Task | None:
    """Return the task that upgrades one installed package, or None when nothing newer fits."""
    usable = [c for c in host.view.obsoleters(package) if _is_open(host, c, fitting)]
    if just_name and usable:
        return Task(Verb.UPDATE, installed=(package.nevra,))
    newer = [
        c
        for c in host.universe.candidates(package.name)
        if c in fitting and host.is_newer(c, package.evr)
        and (c.arch == package.arch or host.rules.allows("arch_change", c.name))
        and (c not in host.hidden or host.hidden[c].reason is HeldReason.ORIGIN and not just_name)
    ]  # fmt: skip
    return Task(Verb.INSTALL, _newest(host, newer)) if newer else None


def _is_open(host: Host, candidate: Candidate, named: Iterable[Candidate]) -> bool:
    """Return whether a candidate is visible to a named request."""
    if candidate in host.hidden:
        return False
    return candidate.repository not in host.closed or candidate in named


def _newest(host: Host, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates of the newest version among those of one name."""
    best = max(candidates, key=lambda c: host.universe.versions.key(c.evr))
    return tuple(c for c in candidates if host.compare(c.evr, best.evr) == 0)


def _install_wish(host: Host, spec: str) -> Wish:
    found = host.view.match(spec)
    if not found.candidates and not found.installed:
        raise CannotPlan(FailedError.UNKNOWN_PACKAGE, (f"no package matches {spec}",))
    fitting = frozenset(found.candidates)
    names = sorted({c.name for c in fitting})
    by_name = len(names) == 1 or found.just_name or "*" in spec
    if not by_name:
        return _any_provider(host, spec, fitting, found.installed)
    tasks: list[Task] = []
    for name in names:
        rows = [c for c in found.candidates if c.name == name]
        tasks += _install_tasks(host, rows, pinned=not found.just_name, arch="." in spec)
    pinned = frozenset() if found.just_name else fitting
    targets = frozenset(p.nevra for p in _targets(host, (), found.installed))
    return Wish(tuple(tasks), fitting, pinned, targets)


def _any_provider(
    host: Host, spec: str, fitting: frozenset[Candidate], installed: Sequence[str]
) -> Wish:
    """Read an install of something that several packages provide."""
    if installed:
        return Wish((), fitting)
    usable = tuple(c for c in sorted(fitting) if c not in host.hidden)
    if not usable:
        _fail_if_forbidden(host, sorted(fitting))
    return Wish((Task(Verb.INSTALL, usable),), fitting)


def _install_tasks(
    host: Host, rows: Sequence[Candidate], *, pinned: bool, arch: bool
) -> Iterator[Task]:
    """Yield the tasks that bring one name to its newest fitting version.

    As dnf does: a name alone means the best architecture, or those that are installed.
    """
    have = host.by_name.get(rows[0].name, ())
    beside = bool(have) and host.view.stands_beside(have[-1])
    fitting = frozenset(rows)
    targets = [p for p in have if any(p.arch == c.arch for c in rows)]
    if targets and not (beside and pinned):
        for package in {p.arch: p for p in targets}.values():
            if task := _upgrade_task(host, package, fitting, not pinned):
                yield task
            elif pinned:
                _fail_if_older(host, package, rows)
        if len({c.arch for c in rows}) == 1 or not pinned:
            return
    missing = [c for c in rows if c.arch not in {p.arch for p in have} or beside]
    usable = [c for c in missing if c not in host.hidden]
    if have and not beside and not arch and not pinned:
        return
    if missing and not usable:
        _fail_if_forbidden(host, missing)
    if usable:
        yield Task(Verb.INSTALL, _newest(host, _native(usable)))


def _native(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those of the widest architecture: 64 bit or noarch before 32 bit."""
    wide = [c for c in candidates if policy.color(c.arch) & 2]
    return wide or list(candidates)


def _fail_if_older(host: Host, package: InstalledPackage, rows: Sequence[Candidate]) -> None:
    """Refuse to install a version older than the installed one.

    Raises:
        CannotPlan: all that was named is older, or forbidden.
    """
    same = [c for c in rows if c.arch == package.arch]
    if any(host.compare(c.evr, package.evr) == 0 for c in same):
        return
    newer = [c for c in same if host.is_newer(c, package.evr)]
    _fail_if_forbidden(host, newer)
    words = f"{same[0].nevra} would be a downgrade from installed {package.nevra}"
    raise CannotPlan(FailedError.POLICY, (words,))


def _fail_if_forbidden(host: Host, candidates: Sequence[Candidate]) -> None:
    """Fail the host when all that could be meant is hidden by a rule.

    Raises:
        CannotPlan: with each rule.
    """
    hidden = [(c, host.hidden[c]) for c in candidates if c in host.hidden]
    if hidden:
        words = (f"{c.nevra}: {hiding.detail}" for c, hiding in hidden)
        raise CannotPlan(FailedError.POLICY, dict.fromkeys(words))


# What is held, and why


class _Left(NamedTuple):
    """A newer candidate that the plan does not take, and whose it would be."""

    package: InstalledPackage
    candidate: Candidate


def _held(host: Host, wish: Wish, steps: Sequence[Step]) -> Iterator[Held]:
    """Yield what could be newer and is not, sorted, with one line a reason."""
    left = [row for row in _left(host, steps) if row.package.nevra in wish.targets]
    known = [(row, host.why_hidden(row.candidate)) for row in left]
    told = {(row.package.nevra, hiding.reason) for row, hiding in known if hiding}
    rows = [_line(row, hiding) for row, hiding in known if hiding]
    open_ = [row for row, hiding in known if hiding is None]
    rows += _probe(host, open_, steps) if told or open_ else []
    first: dict[tuple[str, str], Held] = {}
    for held in rows:
        first.setdefault((held.nevra, held.reason.value), held)
    yield from sorted(first.values(), key=lambda h: (h.nevra, h.candidate, h.reason.value))


def _line(row: _Left, hiding: Hiding) -> Held:
    return Held(
        nevra=row.package.nevra,
        candidate=row.candidate.nevra,
        reason=hiding.reason,
        detail=hiding.detail,
    )


def _left(host: Host, steps: Sequence[Step]) -> Iterator[_Left]:
    """Yield the newer candidates not taken of every installed package, newest first.

    Of those that nothing hides only the newest: older ones do not matter to anybody.
    """
    gone = {nevra for step in steps for nevra in step.old}
    taken = {s.new for s in steps if s.new}
    for offer in host.offers.values():
        for package in offer.installed:
            yield from _left_newer(host, package, offer, steps)
            if package.nevra not in gone:
                yield from _left_obsoleters(host, package, taken)


def _left_newer(
    host: Host, package: InstalledPackage, offer: Offer, steps: Sequence[Step]
) -> Iterator[_Left]:
    new = [s.new for s in steps if s.new and package.nevra in s.old]
    new += [s.new for s in steps if s.new and s.side_by_side and _is_kin(s.new, package)]
    if any(c.name != package.name for c in new):
        return
    best = max([package.evr, *(c.evr for c in new)], key=host.universe.versions.key)
    for candidate in offer.candidates:
        if not host.is_newer(candidate, best):
            break
        own = candidate.arch == package.arch
        if own or _is_only_elsewhere(host, candidate, package, offer):
            yield _Left(package, candidate)
            if own and host.why_hidden(candidate) is None:
                break


def _is_kin(candidate: Candidate, package: InstalledPackage) -> bool:
    return (candidate.name, candidate.arch) == (package.name, package.arch)


def _is_only_elsewhere(
    host: Host, candidate: Candidate, package: InstalledPackage, offer: Offer
) -> bool:
    """Return whether a newer version exists for an architecture that is not installed only."""
    if candidate.arch in {p.arch for p in offer.installed}:
        return False
    own = [c for c in offer.candidates if c.arch == package.arch]
    return not any(host.compare(c.evr, candidate.evr) >= 0 for c in own)


def _left_obsoleters(
    host: Host, package: InstalledPackage, taken: set[Candidate]
) -> Iterator[_Left]:
    found = host.view.obsoleters(package)
    for name in dict.fromkeys(c.name for c in found):
        newest = next(c for c in found if c.name == name)
        have = host.by_name.get(name, ())
        older = any(not host.is_newer(newest, p.evr) for p in have)
        apart = not policy.color(newest.arch) & policy.color(package.arch)
        if not (older or apart) and not any(c.name == name for c in taken):
            yield _Left(package, newest)


def _probe(host: Host, rows: Sequence[_Left], steps: Sequence[Step]) -> Iterator[Held]:
    """Ask the solver, one candidate after the other, what keeps it from being taken."""
    for row in rows:
        hidden = host.hidden.keys() | host.refused.keys()
        task = Task(Verb.INSTALL, (row.candidate,))
        solution = host.view.solve([task], hidden=hidden, closed=host.closed)
        yield _line(row, _reason(host, row.candidate, solution))


def _reason(host: Host, candidate: Candidate, solution: Solution) -> Hiding:
    if not solution.problems:
        words = "its update would hold back or displace other packages"
        return Hiding(HeldReason.CONFLICTS, words)
    findings: tuple[Finding, ...] = solution.problems[0]
    words = "; ".join(explain.causes(findings, host.why_hidden, start=candidate.nevra))
    conflict = explain.is_conflict(findings)
    return Hiding(HeldReason.CONFLICTS if conflict else HeldReason.REQUIRES, words)
