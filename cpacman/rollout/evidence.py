"""What rollouts in the class before have shown, and whether that is enough to promote: pure.

Invariants: only what a host was seen to apply counts for a promotion, never that it had nothing to
change; the last word of a host counts, so one that failed and was mended is no failure; what is
not known (health, where no gate looked) is not met; what is missing says when it will be there.

A subject is what has to prove itself: a snapshot, or one version of a package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from itertools import combinations
from typing import NamedTuple

from cpacman.config.values import Amount
from cpacman.model import Outcome


class Rule(NamedTuple):
    """What a class demands; `soak` is in seconds."""

    min_hosts: int = 1
    soak: float = 0
    max_failures: Amount = Amount(0)
    health: bool = False


class Sign(str, Enum):
    """What one end of a host says of a subject."""

    RAN = "ran"
    FAILED = "failed"
    SETTLED = "settled"
    LEFT = "left"


SIGNS: Mapping[str, Sign] = {
    Outcome.APPLIED.value: Sign.RAN,
    Outcome.UNCHANGED.value: Sign.SETTLED,
    Outcome.REFUSED.value: Sign.FAILED,
    Outcome.FAILED.value: Sign.FAILED,
    Outcome.SILENT.value: Sign.FAILED,
}
"""Outcome -> what it says of what was to be applied; who was skipped says nothing."""


class Event(NamedTuple):
    """Something that a host showed of a subject, at a moment (seconds since the epoch).

    `healthy` tells that a gate looked at it afterwards, and passed.
    """

    host: str
    at: float
    sign: Sign
    healthy: bool = False


class Lack(NamedTuple):
    """What is missing; `when` it will be there if nothing happens, None when that is unknown."""

    what: str
    when: float | None = None


class Verdict(NamedTuple):
    """What was shown of a subject, beside what was demanded.

    `hosts` proved it, `failed` stand failed, `soaked` is how long it ran on as many hosts as are
    demanded, at most as long as is demanded.
    """

    rule: Rule
    hosts: int
    failed: tuple[str, ...]
    limit: int
    soaked: float
    lacks: tuple[Lack, ...]

    @property
    def met(self) -> bool:
        """Whether nothing is missing."""
        return not self.lacks

    @property
    def when(self) -> float | None:
        """When all of it is there, if time alone can bring it."""
        times = [lack.when for lack in self.lacks]
        known = [when for when in times if when is not None]
        return max(known) if known and len(known) == len(times) else None


def judge(rule: Rule, events: Iterable[Event], now: float) -> Verdict:
    """Judge what hosts showed of one subject."""
    found: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda one: (one.at, one.host)):
        found.setdefault(event.host, []).append(event)
    stays = [_stay(mine, rule.soak) for mine in found.values()]
    since = sorted(stay.since for stay in stays if stay.since is not None)
    failed = tuple(sorted(host for host, stay in zip(found, stays, strict=True) if stay.failing))
    limit = rule.max_failures.of(len(found))
    # A soak that no number of hosts was asked for is that of the first one.
    needed = max(rule.min_hosts, 1 if rule.soak else 0)
    begun = since[needed - 1] if needed and len(since) >= needed else None
    soaked = 0.0 if begun is None else min(now - begun, rule.soak)
    lacks = [*_too_few(rule, len(since)), *_too_young(rule, begun, soaked)]
    if len(failed) > limit:
        lacks.append(Lack(f"failures {len(failed)} of {limit}: {' '.join(failed[:6])}"))
    lacks += _unhealthy(rule, sum(stay.since is not None and stay.healthy for stay in stays))
    return Verdict(rule, len(since), failed, limit, soaked, tuple(lacks))


def staying(events: Iterable[Event], gone: Set[str]) -> list[Event]:
    """Return what counts when some hosts are gone: of these the failures that nothing mended.

    A failure says something of what was applied, wherever the host is now; what it proved may
    have gone with it.
    """
    rows = sorted(events, key=lambda one: (one.at, one.host))
    last = {one.host: one for one in rows if one.host in gone}
    failed = (one for one in last.values() if one.sign is Sign.FAILED)
    return [*(one for one in rows if one.host not in gone), *failed]


class _Stay(NamedTuple):
    """Since when a host runs a subject (or long enough ran it), and whether it stands failed.

    `healthy` tells that a gate passed it in that time.
    """

    since: float | None
    failing: bool
    healthy: bool = False


def _stay(events: Sequence[Event], soak: float) -> _Stay:
    since: float | None = None
    enough: float | None = None
    failing = healthy = False
    for event in events:
        if event.sign is Sign.RAN:
            healthy = event.healthy or (healthy and since is not None)
            since, failing = event.at if since is None else since, False
        elif event.sign is Sign.SETTLED:
            failing = False
        else:
            failing = event.sign is Sign.FAILED
            if since is not None and event.sign is Sign.LEFT and event.at - since >= soak:
                enough = since if enough is None else enough
            since = None
    return _Stay(since if enough is None else enough, failing, healthy)


def _too_few(rule: Rule, hosts: int) -> list[Lack]:
    return [Lack(f"hosts {hosts} of {rule.min_hosts}")] if hosts < rule.min_hosts else []


def _unhealthy(rule: Rule, hosts: int) -> list[Lack]:
    needed = max(rule.min_hosts, 1)
    if not rule.health or hosts >= needed:
        return []
    return [Lack(f"health passed on {hosts} of {needed} hosts, by a gate of their level")]


def _too_young(rule: Rule, begun: float | None, soaked: float) -> list[Lack]:
    if soaked >= rule.soak:
        return []
    when = None if begun is None else begun + rule.soak
    return [Lack(f"soak {span(soaked)} of {span(rule.soak)}", when)]


def span(seconds: float) -> str:
    """Return a time span in the largest unit that it has two of, rounded down."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length and (unit != "d" or seconds % 86400 == 0):
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


# ---- what never ran together -----------------------------------------------------------------


class Untested(NamedTuple):
    """Versions that no host below had, or had together, and how many hosts would get them."""

    packages: tuple[str, ...]
    hosts: int


def untested(
    coming: Iterable[tuple[frozenset[str], int]], ran: Iterable[frozenset[str]]
) -> list[Untested]:
    """Return single versions that ran nowhere, then pairs that ran nowhere together.

    Args:
        coming: what comes to a group of equal hosts (NEVRAs), and how many those are.
        ran: what hosts below have, or had, together.

    Returns:
        those of most hosts first. Of pairs with a version that ran nowhere nothing is said again.
    """
    groups = list(coming)
    wanted = sorted(set().union(*(nevras for nevras, _ in groups)))
    masks = dict.fromkeys(wanted, 0)
    for place, state in enumerate(ran):
        for nevra in state:
            if nevra in masks:
                masks[nevra] |= 1 << place
    found: dict[tuple[str, ...], int] = {}
    for nevras, hosts in groups:
        mine = sorted(nevras)
        never = [(nevra,) for nevra in mine if not masks[nevra]]
        known = [nevra for nevra in mine if masks[nevra]]
        apart = [(a, b) for a, b in combinations(known, 2) if not masks[a] & masks[b]]
        for row in (*never, *apart):
            found[row] = found.get(row, 0) + hosts
    rows = [Untested(packages, hosts) for packages, hosts in found.items()]
    return sorted(rows, key=lambda one: (len(one.packages), -one.hosts, one.packages))


def states(changes: Iterable[tuple[str, str, str | None, str | None]]) -> list[frozenset[str]]:
    """Return what hosts had together after each rollout, as far as rollouts brought it.

    Args:
        changes: `(host, rollout, arrived, left)`, oldest first.
    """
    have: dict[str, set[str]] = {}
    after: dict[tuple[str, str], frozenset[str]] = {}
    for host, rollout, arrived, left in changes:
        mine = have.setdefault(host, set())
        mine.discard(left or "")
        if arrived:
            mine.add(arrived)
        after[host, rollout] = frozenset(mine)
    return list(after.values())
