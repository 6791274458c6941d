"""Why a package is, or is not, in the plan of one host.

Invariant: nothing is judged here. The host is planned by the plan's own code, and what is told is
what that code did: which rules hid a candidate, which solution was taken, what the solver said.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

from cpacman.errors import InputError, Problem
from cpacman.model import Action, Failure, Held, InstalledPackage, Request, Transaction
from cpacman.planner import policy
from cpacman.planner.host import Host
from cpacman.planner.plan import ChannelInput, solve_one
from cpacman.planner.policy import Hiding
from cpacman.planner.reported import check_inventory
from cpacman.planner.solver import Candidate

MOST_NAMES = 20
"""Names that one word is told of."""


class Fate(str, Enum):
    """What became of a candidate."""

    TAKEN = "taken"
    INSTALLED = "installed"
    HELD = "held"
    OLDER = "older"
    BEATEN = "beaten"
    UNASKED = "unasked"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that removed a candidate: a reason of `held.reason`, and the words for it."""

    reason: str
    detail: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate, what became of it, and each rule that removed it, in order."""

    nevra: str
    repository: str
    vendor: str
    fate: Fate
    rules: tuple[Rule, ...] = ()


class Had(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package, and which repositories of the snapshot have the very same.

    `origin` is the repository that CPacMan installed it from, as its journal has it.
    """

    nevra: str
    vendor: str
    reason: str
    repositories: tuple[str, ...]
    origin: str = ""


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell of a word on one host."""

    host: str
    package: str
    snapshot: str
    installed: tuple[Had, ...] = ()
    candidates: tuple[Seen, ...] = ()
    actions: tuple[Action, ...] = ()
    held: tuple[Held, ...] = ()
    failed: Failure | None = None


def explain(
    channel: ChannelInput, word: str, *, request: Request | None = None, cache: Path | None = None
) -> Why:
    """Return why a package is, or is not, in the plan of the one host of a channel.

    Args:
        channel: the snapshot, and one inventory.
        word: a package as one would name it to be upgraded.
        request: what the plan would be asked for; everything is upgraded when not given.
        cache: a directory for the solver's files, or None.

    Raises:
        InputError: nothing is called that, on the host or in the snapshot.
        RepositoryError: metadata that can't be read.
    """
    (inventory,) = channel.inventories
    head = Why(host=inventory.host, package=word, snapshot=channel.snapshot)
    if failure := check_inventory(inventory, channel.platform):
        return msgspec.structs.replace(head, failed=failure)
    with solve_one(channel, request or Request(), cache) as (host, result):
        names = _names(host, word)
        return _told(head, host, names, result)


def _names(host: Host, word: str) -> list[str]:
    """Return the names that a word means, and those that would replace what it means.

    Raises:
        InputError: it means nothing.
    """
    found = host.view.match(word)
    names = {c.name for c in found.candidates} | {host.by_nevra[n].name for n in found.installed}
    if not names:
        near = difflib.get_close_matches(word, sorted(host.by_name), 1)
        mend = f"did you mean {near[0]}?" if near else "name it as in salt-run cpacman.plan"
        what = "is neither installed nor in the snapshot"
        raise InputError(Problem(word, what, mend))
    own = [p for name in names for p in host.by_name.get(name, ())]
    heirs = {c.name for package in own for c in host.view.obsoleters(package)}
    return [*sorted(names)[:MOST_NAMES], *sorted(heirs - names)]


def _told(head: Why, host: Host, names: list[str], result: Transaction | Failure) -> Why:
    """Fill in what is known of some names."""
    plan = result if isinstance(result, Transaction) else Transaction()
    mine = [p for name in names for p in host.by_name.get(name, ())]
    nevras = {p.nevra for p in mine}
    seen = [_seen(host, c, plan) for name in names for c in host.universe.candidates(name)]
    return msgspec.structs.replace(
        head,
        installed=tuple(_had(host, package) for package in mine),
        candidates=tuple(seen),
        actions=tuple(a for a in plan.actions if a.name in names or a.from_ in nevras),
        held=tuple(h for h in plan.held if h.nevra in nevras),
        failed=result if isinstance(result, Failure) else None,
    )


def _had(host: Host, package: InstalledPackage) -> Had:
    same = [c for c in host.universe.candidates(package.name) if c.nevra == package.nevra]
    sure = policy.came_from(package, same) or {c.repository for c in same}
    return Had(
        nevra=package.nevra,
        vendor=package.vendor,
        reason=package.reason,
        repositories=tuple(sorted(sure)),
        origin=package.origin,
    )


def _seen(host: Host, candidate: Candidate, plan: Transaction) -> Seen:
    fate, rules = _fate(host, candidate, plan)
    return Seen(
        nevra=candidate.nevra,
        repository=candidate.repository,
        vendor=candidate.vendor,
        fate=fate,
        rules=rules,
    )


def _fate(host: Host, candidate: Candidate, plan: Transaction) -> tuple[Fate, tuple[Rule, ...]]:
    taken = {(a.nevra_, a.repository) for a in plan.actions}
    if (candidate.nevra, candidate.repository) in taken:
        return Fate.TAKEN, ()
    if candidate.nevra in host.by_nevra:
        return Fate.INSTALLED, ()
    have = [p for p in host.by_name.get(candidate.name, ()) if p.arch == candidate.arch]
    if have and not any(host.is_newer(candidate, p.evr) for p in have):
        return Fate.OLDER, ()
    hidings = dict.fromkeys((*_hidings(host, candidate), *_said(candidate, plan)))
    rules = tuple(Rule(reason=h.reason.value, detail=h.detail) for h in hidings)
    if rules:
        return Fate.HELD, rules
    return (Fate.BEATEN if have else Fate.UNASKED), ()


def _hidings(host: Host, candidate: Candidate) -> Iterator[Hiding]:
    """Yield what removed a candidate before the solver was asked, in the order of the rules."""
    if host.view.is_masked(candidate) and (hiding := host.why_hidden(candidate)):
        yield hiding
        return
    if offer := host.offers.get(candidate.name):
        yield from policy.judge(offer, candidate, host.rules, host.compare)
    if hiding := host.hidden.get(candidate):
        yield hiding
    if candidate.repository in host.closed:
        yield policy.closed_hiding(candidate)
    if hiding := host.refused.get(candidate):
        yield hiding


def _said(candidate: Candidate, plan: Transaction) -> Iterator[Hiding]:
    """Yield what the plan holds a candidate for: what the solver said when it was asked."""
    for held in plan.held:
        if held.candidate == candidate.nevra:
            yield Hiding(held.reason, held.detail)
