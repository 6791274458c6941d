"""One host: from its inventory, the offer, the policy and the request to its steps.

Invariants: a host is planned whole or it fails with causes; what a solution must not do (remove,
downgrade, change architecture or vendor) is checked on every solution, whatever the solver thinks
of it. Update-all goes on without what was refused, a
named request fails with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cpacman.model import FailedError, Held, HeldReason, InstalledPackage, Request
from cpacman.planner import explain, policy
from cpacman.planner.held import find_held
from cpacman.planner.host import CannotPlan, Host, Swap, Wish
from cpacman.planner.policy import Hiding
from cpacman.planner.ruling import matches
from cpacman.planner.solver import Candidate, Solution, Step, Task, Verb
from cpacman.planner.wishes import read_request

_ROUNDS = 50
"""Solutions tried before a host fails: each round refuses at least one candidate."""


class Outcome(NamedTuple):
    """The steps for one host, what was asked for by name or in exchange, and what is held."""

    steps: tuple[Step, ...]
    asked: frozenset[Candidate]
    swapped: frozenset[Candidate]
    meant: frozenset[Candidate]
    removed: frozenset[str]
    limited: frozenset[str]
    held: tuple[Held, ...]


def resolve(host: Host, request: Request) -> Outcome:
    """Plan one host.

    Raises:
        CannotPlan: something was named that can't be had, or no solution keeps the rules.
    """
    wish = read_request(host, request)
    if request.by_name:
        _free_pinned(host, wish)
        steps = _settle_named(host, wish)
    elif request.sync:
        wish, steps = _settle_sync(host, wish, request)
    else:
        steps = _settle_all(host, wish)
    swapped = frozenset(c for swap in wish.swaps for c in swap.candidates)
    limited = frozenset[str]()
    if over := _over_limit(host, steps):
        steps, limited = _trim(host, wish, steps, over)
    found = find_held(host, wish, steps, reasons=request.reasons)
    return Outcome(steps, wish.named, swapped, wish.meant, wish.removed, limited, found)


def _over_limit(host: Host, steps: Sequence[Step]) -> frozenset[str]:
    """Return the oldest of those that stand side by side where new ones make them too many.

    As dnf has it, never the running one; where that is not known, none.
    """
    running = {p.nevra for p in host.packages if policy.is_running(p, host.kernel)}
    if not (running and host.rules.installonly_limit):
        return frozenset()
    gone = {nevra for step in steps for nevra in step.old}
    coming = Counter(s.new.name for s in steps if s.new and s.side_by_side)
    found: list[str] = []
    for name, count in coming.items():
        stay = [p.nevra for p in host.by_name.get(name, ()) if p.nevra not in gone]
        extra = max(len(stay) + count - host.rules.installonly_limit, 0)
        found += [nevra for nevra in stay if nevra not in running][:extra]
    return frozenset(found)


def _trim(
    host: Host, wish: Wish, steps: tuple[Step, ...], over: frozenset[str]
) -> tuple[tuple[Step, ...], frozenset[str]]:
    """Solve again with the oldest kernels leaving; when something needs them they stay."""
    erase = Task(Verb.ERASE, installed=tuple(sorted(over)))
    # Updating all replaces; what comes beside has to be asked for once something goes.
    beside = [Task(Verb.INSTALL, (s.new,)) for s in steps if s.new and s.side_by_side]
    tasks = (*wish.tasks, *sorted(beside), erase)
    less = wish._replace(tasks=tasks, removed=wish.removed | over)
    try:
        return _settle(host, less, closed=host.closed), over
    except CannotPlan:
        return steps, frozenset()


def _free_pinned(host: Host, wish: Wish) -> None:
    """Who gives the version says in plain words which repository's package is meant."""
    for candidate in wish.pinned:
        hiding = host.hidden.get(candidate)
        if hiding is not None and hiding.reason is HeldReason.ORIGIN and not hiding.firm:
            host.free(candidate)


def _settle_all(host: Host, wish: Wish) -> tuple[Step, ...]:
    """Solve update-all with those allowed changes between 32 and 64 bit that can be done."""
    possible = tuple(swap for swap in wish.swaps if _can_swap(host, swap))
    if possible:
        try:
            return _settle(host, wish._replace(swaps=possible), closed=host.closed)
        except CannotPlan:
            host.refused.clear()
    return _settle(host, wish._replace(swaps=()), closed=host.closed)


def _settle_sync(host: Host, wish: Wish, request: Request) -> tuple[Wish, tuple[Step, ...]]:
    """Solve, and go for the next best of what was refused, as long as there is one.

    What should be reached stays what it was, so that what was refused is told.
    """
    for _ in range(_ROUNDS):
        steps = _settle(host, wish, closed=host.closed)
        next_ = read_request(host, request)._replace(aims=wish.aims)
        if next_.tasks == wish.tasks:
            return wish, steps
        wish = next_
    raise CannotPlan(FailedError.CONFLICTS, ("no solution keeps to the rules of the plan",))


def _takes_weak(host: Host) -> bool:
    """Whether new weak dependencies come along."""
    return host.rules.weak_deps


def _can_swap(host: Host, swap: Swap) -> bool:
    hidden = host.hidden.keys()
    return not host.view.solve(_swap_tasks(swap), hidden=hidden, closed=host.closed).problems


def _swap_tasks(swap: Swap) -> list[Task]:
    install = Task(Verb.INSTALL, swap.candidates)
    return [install, Task(Verb.ERASE, installed=swap.installed)]


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

    In a named request the other architectures of a package are asked to follow it.

    Raises:
        CannotPlan: there is no solution, or what was named is what is forbidden.
    """
    tasks = [*wish.tasks, *(task for swap in wish.swaps for task in _swap_tasks(swap))]
    followers: list[Task] = []
    for _ in range(_ROUNDS):
        hidden = host.hidden.keys() | host.refused.keys()
        solution = host.view.solve(
            [*tasks, *followers],
            hidden=hidden,
            closed=closed,
            opened=wish.named,
            removable=host.removable,
            weak=_takes_weak(host),
        )
        if solution.problems:
            raise _unsolvable(host, solution, wish)
        if fresh := [t for t in _followers(host, solution.steps, wish) if t not in followers]:
            followers += fresh
            continue
        refusals = dict(_refusals(host, solution.steps, wish))
        if not refusals:
            return solution.steps
        if broken := [f"{c.nevra}: {h.detail}" for c, h in refusals.items() if c in wish.named]:
            raise CannotPlan(FailedError.POLICY, broken)
        host.refused.update(refusals)
        followers = [t for t in followers if not host.refused.keys() & set(t.candidates)]
    raise CannotPlan(FailedError.CONFLICTS, ("no solution keeps to the rules of the plan",))


def _unsolvable(host: Host, solution: Solution, wish: Wish) -> CannotPlan:
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
    leaving = {nevra for step in steps if step.new is None for nevra in step.old}
    if gone := sorted(leaving - wish.leaving - host.removable):
        raise CannotPlan(FailedError.PROTECTED, (f"{n} would be removed" for n in gone))
    renewed = {o for s in steps if s.new for o in s.old if host.by_nevra[o].name == s.new.name}
    for step in steps:
        if step.new is not None and (hiding := _refuse(host, step.new, step.old, renewed, wish)):
            yield step.new, hiding
    yield from _parted(host, steps)
    yield from _left_alone(host, steps)


def _refuse(
    host: Host, new: Candidate, olds: Sequence[str], renewed: set[str], wish: Wish
) -> Hiding | None:
    for nevra in olds:
        old = host.by_nevra[nevra]
        if old.name == new.name:
            hiding = _refuse_same_name(host, old, new, wish)
        else:
            hiding = None if nevra in renewed else _refuse_obsolete(host, old, new, wish)
        if hiding:
            return hiding
    return None


def _refuse_same_name(
    host: Host, old: InstalledPackage, new: Candidate, wish: Wish
) -> Hiding | None:
    if host.compare(new.evr, old.evr) < 0 and not (
        host.rules.allows("allow_downgrade", new.name) or (wish.older and new in wish.meant)
    ):
        return Hiding(HeldReason.PROTECTED, f"it would be a downgrade from {old.evr}")
    changed = policy.is_arch_change([old.arch], new.arch)
    if changed and not host.rules.allows("arch_change", new.name):
        return Hiding(HeldReason.ARCH, policy.arch_detail([old.arch], new))
    return None


def _refuse_obsolete(
    host: Host, old: InstalledPackage, new: Candidate, wish: Wish
) -> Hiding | None:
    if why := host.why_protected(old):
        return Hiding(HeldReason.PROTECTED, f"{old.nevra} {why}")
    if not policy.keeps_vendor(host.rules, old, new):
        return Hiding(HeldReason.VENDOR, policy.vendor_detail(old, new))
    if hiding := _keeps(host, old, new, wish):
        return hiding
    offer = host.offers[old.name]
    origin = offer.origin
    foreign = policy.is_foreign(offer, new) and not host.rules.allows("origin_change", old.name)
    if foreign and not origin and new not in wish.named:
        return Hiding(HeldReason.ORIGIN, policy.foreign_detail(offer, new))
    if origin and new.repository != origin and new not in wish.named:
        return Hiding(HeldReason.ORIGIN, policy.origin_detail(origin, new))
    return None


def _keeps(host: Host, old: InstalledPackage, new: Candidate, wish: Wish) -> Hiding | None:
    """Return the line that keeps an installed package from being replaced by another name."""
    if lines := policy.locks_on(host.rules, old):
        return policy.lock_hiding(lines[0], f"{old.name} is locked")
    if new not in wish.named and (lines := policy.excludes_on(host.rules, old)):
        return policy.exclude_hiding(lines[0], f"{old.name} is excluded")
    return None


class _Parting(NamedTuple):
    """What comes for one architecture of an installed pair, and the one that it leaves.

    `old` is the name of the pair when another name replaces it, else nothing.
    """

    new: Candidate
    left: str
    old: str = ""


def _partings(host: Host, steps: Sequence[Step]) -> Iterator[_Parting]:
    """Yield what comes in a version, or under a name, that another architecture would not have."""
    yield from _partings_by_version(host, steps)
    yield from _partings_by_name(host, steps)


def _partings_by_name(host: Host, steps: Sequence[Step]) -> Iterator[_Parting]:
    own = {o for s in steps if s.new for o in s.old if host.by_nevra[o].name == s.new.name}
    gone = {nevra for step in steps for nevra in step.old} - own
    for new, nevra in [(s.new, nevra) for s in steps if s.new for nevra in s.old]:
        old = host.by_nevra[nevra]
        if nevra in own or old.name == new.name:
            continue
        pair = [p for p in host.by_name[old.name] if p.arch != old.arch and p.evr == old.evr]
        yield from (_Parting(new, p.arch, old.name) for p in pair if p.nevra not in gone)


def _partings_by_version(host: Host, steps: Sequence[Step]) -> Iterator[_Parting]:
    gone = {nevra for step in steps for nevra in step.old}
    coming: dict[str, list[Candidate]] = {}
    for step in steps:
        if step.new is not None and not step.side_by_side and step.new.name in host.by_name:
            coming.setdefault(step.new.name, []).append(step.new)
    for name, rows in coming.items():
        have = host.by_name[name]
        after = {p.arch: p.evr for p in have if p.nevra not in gone}
        after |= {c.arch: c.evr for c in rows}
        if len(after) > 1 and len({p.evr for p in have}) == 1:
            yield from (_Parting(c, a) for c in rows for a in sorted(after) if after[a] != c.evr)


def _followers(host: Host, steps: Sequence[Step], wish: Wish) -> list[Task]:
    """Return the tasks that let other architectures follow a named one, as far as they can.

    Everything installed is asked for anyway when all is updated or synchronised.
    """
    if wish.older or any(task.verb is Verb.UPDATE_ALL for task in wish.tasks):
        return []
    weak = any(task.weak for task in wish.tasks)
    found = []
    for new, left, _ in _partings(host, steps):
        same = [c for c in host.candidates(new.name) if c.arch == left and c.evr == new.evr]
        usable = tuple(c for c in same if c in wish.named or host.why_hidden(c) is None)
        if usable:
            found.append(Task(Verb.INSTALL, usable, weak=weak))
    return found


def _parted(host: Host, steps: Sequence[Step]) -> Iterator[tuple[Candidate, Hiding]]:
    """Refuse a version, or a successor, that not all architectures of a package would have.

    libsolv lets a second architecture come in another version than the first one stays in.
    """
    for new, left, old in _partings(host, steps):
        yield new, policy.together_hiding(new, [left], old)


def _left_alone(host: Host, steps: Sequence[Step]) -> Iterator[tuple[Candidate, Hiding]]:
    """Refuse the packages of a `together` line when not all of them move."""
    moved = {s.new.name: s.new for s in steps if s.new}
    for line in host.rules.of("together"):
        names = [n for n in host.by_name if matches(n, line.packages)]
        stay = sorted(n for n in names if n not in moved)
        if stay and len(stay) < len(names):
            hiding = Hiding(HeldReason.TOGETHER, f"moves with {' and '.join(stay)} only, {line}")
            yield from ((moved[name], hiding) for name in names if name in moved)
