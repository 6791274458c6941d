"""From the steps of a solution to the transaction of a plan.

Invariants: every package that comes or leaves is an action of its own, in the order of the
format; what can't be verified is not planned; a host with a package in two versions is not well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from cpacman.model import (
    Action,
    ActionKind,
    Advisory,
    FailedError,
    InstalledPackage,
    Reason,
    Request,
    Transaction,
)
from cpacman.planner.host import CannotPlan, Host
from cpacman.planner.policy import REBOOT_NAMES, is_vendor_change
from cpacman.planner.resolve import Outcome
from cpacman.planner.solver import Candidate, HostView, Step

Digest = Callable[[Candidate], str]
"""Finds the sha256 of a package whose metadata has a checksum of another kind."""


def left_double(host: Host, view: HostView, actions: Sequence[Action]) -> Iterator[str]:
    """Yield what would still be installed twice: no plan may call such a host well."""
    leaving = {a.nevra if a.action is ActionKind.REMOVE else a.from_ for a in actions}
    stays: dict[tuple[str, str], list[InstalledPackage]] = {}
    for package in (p for found in host.by_name.values() if len(found) > 1 for p in found):
        if package.nevra not in leaving:
            stays.setdefault((package.name, package.arch), []).append(package)
    for (name, arch), found in sorted(stays.items()):
        if len(found) > 1 and not view.stands_beside(found[0]):
            versions = ", ".join(sorted(p.evr for p in found))
            words = "left by a transaction that was cut off? remove the older one on the host"
            yield f"{name}.{arch} is installed in several versions ({versions}); {words}"


def make_transaction(
    host: Host, actions: tuple[Action, ...], outcome: Outcome, delivered: Delivered
) -> Transaction:
    """Return the transaction of some actions, with what they mean for the host."""
    old = {a.nevra_ if a.action is ActionKind.REMOVE else a.from_ for a in actions}
    lost = sorted(nevra for nevra in old if nevra and not _is_offered(host, nevra))
    return Transaction(
        actions=actions,
        held=outcome.held,
        size=sum(a.size for a in actions),
        reboot=any(a.name in REBOOT_NAMES or delivered.wants_reboot(a) for a in actions),
        reversible=not lost,
        irreversible=tuple(lost),
        vendor_changes=tuple(sorted(set(_vendor_changes(host, outcome.steps)))),
    )


def _vendor_changes(host: Host, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        for old in (host.by_nevra[nevra] for nevra in step.old):
            if step.new is not None and is_vendor_change(old.vendor, step.new.vendor):
                yield f"{step.new.nevra}: {old.vendor} -> {step.new.vendor or '(none)'}"


def _is_offered(host: Host, nevra: str) -> bool:
    """Return whether an installed package could be had again from the snapshot."""
    offered = host.universe.candidates(host.by_nevra[nevra].name)
    return host.remembered(("offered", nevra), lambda: any(c.nevra == nevra for c in offered))


def make_actions(
    host: Host,
    outcome: Outcome,
    request: Request,
    delivered: Delivered,
    sha256_of: Digest | None,
) -> tuple[Action, ...]:
    """Return the actions of a solution, in the order of the format."""
    made: list[Action] = []
    for step, kind, new, old, first in _kinds(host, outcome.steps):
        reason = _reason(kind, step, new, outcome, request)
        key = ("action", kind, new, old and (old.name, old.nevra), first, reason)
        make = functools.partial(_action, kind, new, old, first, reason, sha256_of, delivered)
        made.append(host.remembered(key, make))
    gone = [host.by_nevra[o] for s in outcome.steps if s.new is None for o in s.old]
    made += [_removal(old, _why_removed(old, outcome)) for old in gone]
    return tuple(sorted(made, key=lambda action: action.sort_key))


_Kind = tuple[Step, ActionKind, Candidate, InstalledPackage | None, bool]
"""A step, what it is, what comes, what it replaces, and whether it carries the bytes."""


def _kinds(host: Host, steps: Sequence[Step]) -> Iterator[_Kind]:
    """Yield what each step is: one row for each package that comes or is replaced.

    A package that its own newer version replaces is upgraded; that another one obsoletes its old
    version besides is not worth a word.
    """
    renewed = {o for s in steps if s.new for o in s.old if host.by_nevra[o].name == s.new.name}
    for step in steps:
        if step.new is None:
            continue
        olds = [host.by_nevra[nevra] for nevra in step.old]
        if len(olds) == 1 and olds[0].name == step.new.name:
            yield step, _direction(host, step.new, olds[0]), step.new, olds[0], True
            continue
        own = [p for p in olds if p.name == step.new.name]
        others = [p for p in olds if p.name != step.new.name and p.nevra not in renewed]
        own.sort(key=lambda p: host.universe.versions.key(p.evr), reverse=True)
        yield from _rows(host, step, step.new, own, others)


def _rows(
    host: Host,
    step: Step,
    new: Candidate,
    own: Sequence[InstalledPackage],
    others: Sequence[InstalledPackage],
) -> Iterator[_Kind]:
    if own:
        yield step, _direction(host, new, own[0]), new, own[0], True
        rest = [*own[1:], *others]
    elif others:
        yield step, ActionKind.OBSOLETE, new, others[0], True
        rest = list(others[1:])
    else:
        yield step, ActionKind.INSTALL, new, None, True
        rest = []
    yield from ((step, ActionKind.OBSOLETE, new, old, False) for old in rest)


def _direction(host: Host, new: Candidate, old: InstalledPackage) -> ActionKind:
    order = host.compare(new.evr, old.evr)
    if order == 0:
        return ActionKind.REINSTALL
    return ActionKind.UPGRADE if order > 0 else ActionKind.DOWNGRADE


def _reason(
    kind: ActionKind, step: Step, new: Candidate, outcome: Outcome, request: Request
) -> Reason:
    if new in outcome.asked and not request.sync:
        return Reason.REQUESTED
    if kind is ActionKind.OBSOLETE:
        return Reason.OBSOLETES
    if request.sync and new in outcome.meant:
        return Reason.SYNC
    own = new in outcome.meant or not request.by_advisory
    whole = request.upgrade_all or request.by_advisory
    if whole and own and (kind is ActionKind.UPGRADE or step.side_by_side):
        return Reason.UPDATE
    if new in outcome.swapped:
        return Reason.UPDATE
    return Reason.WEAK if step.weak else Reason.DEPENDENCY


def _action(
    kind: ActionKind,
    new: Candidate,
    old: InstalledPackage | None,
    first: bool,
    reason: Reason,
    sha256_of: Digest | None,
    delivered: Delivered,
) -> Action:
    """Return an action, which is the same wherever the same comes for the same."""
    epoch, _, rest = new.evr.rpartition(":")
    version, _, release = rest.rpartition("-")
    action = Action(
        action=kind,
        name=new.name,
        epoch=int(epoch or 0),
        version=version or release,
        release=release if version else "",
        arch=new.arch,
        nevra_=new.nevra,
        from_=old.nevra if old else None,
        repository=new.repository,
        sha256=_sha256(new, sha256_of),
        size=new.size if first else 0,
        reason=reason,
    )
    return delivered.tell(action, old)


def _why_removed(old: InstalledPackage, outcome: Outcome) -> Reason:
    if old.nevra in outcome.limited:
        return Reason.LIMIT
    if old.nevra in outcome.removed:
        return Reason.REQUESTED
    return Reason.UPDATE if old.name in {c.name for c in outcome.swapped} else Reason.DEPENDENCY


def _removal(old: InstalledPackage, reason: Reason) -> Action:
    """Return the action for a package that leaves without a replacement of its own."""
    return Action(
        action=ActionKind.REMOVE,
        name=old.name,
        epoch=old.epoch,
        version=old.version,
        release=old.release,
        arch=old.arch,
        nevra_=old.nevra,
        reason=reason,
    )


def _sha256(new: Candidate, sha256_of: Digest | None) -> str:
    """Return the package file's sha256.

    Raises:
        CannotPlan: the metadata has none and nobody else knows it: what can't be verified is
            not planned.
    """
    kind, _, digest = new.checksum.partition(":")
    if kind == "sha256":
        return digest
    if sha256_of is not None and (found := sha256_of(new)):
        return found
    words = f"{new.nevra}: the metadata of {new.repository} has no sha256 of it"
    raise CannotPlan(FailedError.REQUIRES, (words,))


class Delivered:
    """Which advisories an action delivers."""

    def __init__(self, advisories: Iterable[Advisory], compare: Callable[[str, str], int]) -> None:
        self._compare = compare
        self._rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._advisories = tuple(advisories)
        self._reboot = {a.id for a in self._advisories if a.reboot}
        self._wanted: dict[Request, dict[tuple[str, str], list[str]]] = {}
        for advisory in self._advisories:
            for nevra in advisory.packages:
                name, evr, arch = split_nevra(nevra)
                self._rows.setdefault((name, arch), []).append((evr, advisory.id))

    def packages_of(self, advisory: str) -> tuple[str, ...]:
        """Return the NEVRAs that an advisory delivers; none when there is no such advisory."""
        # Several repositories may tell of one advisory, each of the packages that it has itself.
        found = (nevra for a in self._advisories if a.id == advisory for nevra in a.packages)
        return tuple(dict.fromkeys(found))

    def wanted(self, request: Request) -> Mapping[tuple[str, str], Sequence[str]]:
        """Return (name, arch) -> the versions that the advisories asked for deliver."""
        if request not in self._wanted:
            rows = self._wanted[request] = {}
            asked = (a for a in self._advisories if request.by_advisory and request.wants(a))
            for name, evr, arch in (split_nevra(n) for a in asked for n in a.packages):
                rows.setdefault((name, arch), []).append(evr)
        return self._wanted[request]

    def tell(self, action: Action, old: InstalledPackage | None) -> Action:
        """Return the action with its advisories: newer than what it replaces, up to itself."""
        rows = self._rows.get((action.name, action.arch), ())
        same = old if old is not None and old.name == action.name else None
        found = {i for evr, i in rows if self._delivers(evr, action.evr, same)}
        return msgspec.structs.replace(action, advisories=tuple(sorted(found)))

    def _delivers(self, evr: str, new: str, old: InstalledPackage | None) -> bool:
        order = self._compare(evr, new)
        return order == 0 or (order < 0 and old is not None and self._compare(evr, old.evr) > 0)

    def wants_reboot(self, action: Action) -> bool:
        """Return whether an advisory of the action suggests a reboot."""
        return not self._reboot.isdisjoint(action.advisories)


def split_nevra(nevra: str) -> tuple[str, str, str]:
    """Return name, `[epoch:]version-release` and arch of a NEVRA."""
    rest, _, arch = nevra.rpartition(".")
    rest, _, release = rest.rpartition("-")
    name, _, version = rest.rpartition("-")
    return name, f"{version}-{release}", arch
