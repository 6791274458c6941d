"""The evidence before a promotion: what rollouts in the class before showed of what is to come.

Invariants: a whole snapshot proves itself by rollouts of all of that very snapshot, a part of one
by rollouts that brought each of its versions, byte for byte; what enters at this class, and what no
host of the class before could have, needs no proof from there. A failure is over when the host ran
what failed, or had nothing left to do of what was asked for then, and not by another request; and
not by its leaving the class, or the fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.proving import Members
from cpacman.config import Evidence
from cpacman.depot.partial import new_in
from cpacman.depot.promotion import is_for
from cpacman.depot.snapshot import Snapshot
from cpacman.errors import Problem
from cpacman.fleet.placing import facts_of, fits_os
from cpacman.model import Action, Outcome, Package
from cpacman.rollout.evidence import (
    SIGNS,
    Event,
    Rule,
    Sign,
    Untested,
    Verdict,
    judge,
    span,
    states,
    staying,
    untested,
)
from cpacman.rollout.proof import Proof
from cpacman.store import Ended

SHOWN = 50
"""Rows that an answer holds of what never ran, and of versions that lack evidence."""

Version = tuple[str, str]
"""NEVRA and sha256 of a package."""


class Shown(NamedTuple):
    """What was shown: a verdict for each subject (the snapshot, or versions), and what never ran.

    `rule` is None where the class demands nothing.
    """

    rule: Rule | None
    verdicts: Mapping[str, Verdict]
    untested: Sequence[Untested]


class Question(NamedTuple):
    """What is asked of whom: `whole` is the snapshot of `source` whose rollouts prove it.

    Without, each version that comes has to prove itself. What is `left_out` of the whole, rollouts
    may have left out, too.
    """

    to: str
    source: str
    candidate: Snapshot
    held: Snapshot | None
    whole: str | None
    instead: Evidence | None = None
    left_out: tuple[str, ...] = ()


def evidence_of(context: Context, asked: Question, proof: Proof, members: Members) -> Shown:
    """Return what rollouts in the class before showed of what is to come."""
    hosts = {
        name
        for name, host in members.fleet.hosts.items()
        if (host.class_, host.channel) == (asked.source, asked.candidate.channel)
    }
    ended = context.store.ended(asked.source)
    gone = _gone(context, {row.host for row in ended} - hosts, asked.candidate.channel)
    rows = [row for row in ended if row.host in hosts or _tells(row, gone)]
    coming = {(one.nevra, one.sha256) for one in _coming(asked)}
    planned = {
        (a.nevra, a.sha256 or "") for t in proof.plan.transactions.values() for a in t.actions
    } & coming
    plans = _Plans(context, rows, asked.candidate.channel)
    history = _History(context, rows, coming, plans)
    if asked.whole is not None:
        events = {asked.whole: _of_snapshot(asked.whole, asked.left_out, rows, plans)}
    else:
        events = _by_version(coming, history)
    rule = rule_of(context, asked.to, asked.instead) if coming else None
    verdicts = {
        one: judge(rule or Rule(0), staying(found, gone), context.clock())
        for one, found in events.items()
    }
    return Shown(rule, verdicts, _untested(context, proof, history, sorted(hosts), planned))


def _gone(context: Context, hosts: Set[str], channel: str) -> Set[str]:
    """Return those hosts that were of a channel, as far as anything says otherwise."""
    heads = context.store.inventory_heads() if hosts else {}
    match = context.settings.channels[channel].match
    return {h for h in hosts if h not in heads or fits_os(match, facts_of(heads[h][0]))}


def _tells(row: Ended, gone: Set[str]) -> bool:
    """Whether a row says something of a host that is gone; that it refused says nothing now."""
    return row.host in gone and row.outcome != Outcome.REFUSED.value


def rule_of(context: Context, class_: str, instead: Evidence | None) -> Rule | None:
    """Return what a class demands of the one before it, or a profile in its place."""
    said = next(one.evidence for one in context.settings.classes if one.name == class_)
    said = instead if said is not None and instead is not None else said
    if said is None:
        return None
    return Rule(said.min_hosts, said.soak, said.max_failures, said.health == "passed")


def _coming(asked: Question) -> Iterator[Package]:
    """Yield the packages that the class does not hold yet and that the one before could have."""
    able = {
        one.name
        for one in asked.candidate.repositories
        if is_for(one.classes, asked.source) and is_for(one.classes, asked.to)
    }
    for package in new_in(asked.held, asked.candidate.packages):
        if package.repository in able:
            yield package


class _Plans:
    """What the plans of some rollouts were made from, and how much of it was asked for."""

    def __init__(self, context: Context, rows: Sequence[Ended], channel: str) -> None:
        self._asked = context.store.plans_asked(row.plan for row in rows)
        self._channel = channel

    def snapshot(self, row: Ended) -> str | None:
        """Return the snapshot that a host was planned from; a way back is from none."""
        return self._asked[row.plan].snapshots.get(self._channel)

    def is_all(self, row: Ended, left_out: Sequence[str] = ()) -> bool:
        """Return whether all that was offered was asked for, but what is left out anyway."""
        request = self._asked[row.plan].request
        exclude = tuple(word for word in request.exclude if word not in left_out)
        return not msgspec.structs.replace(request, exclude=exclude).is_narrow

    def settles(self, row: Ended, failed: Ended) -> bool:
        """Return whether a host that has nothing to change has what once failed."""
        if self.snapshot(row) != self.snapshot(failed):
            return False
        same = self._asked[row.plan].request == self._asked[failed.plan].request
        return same or self.is_all(row)


def _of_snapshot(
    number: str, left_out: Sequence[str], rows: Sequence[Ended], plans: _Plans
) -> list[Event]:
    """Return what hosts showed of a snapshot; another one that came ends its time.

    Who was given a part of it on purpose shows nothing but that it failed.
    """
    events = []
    for row in rows:
        sign = SIGNS.get(row.outcome)
        if plans.snapshot(row) == number:
            counts = sign is Sign.FAILED or plans.is_all(row, left_out)
            events += [Event(row.host, row.at, sign, row.healthy)] if sign and counts else []
        elif sign is Sign.RAN:
            events.append(Event(row.host, row.at, Sign.LEFT))
    return events


def _by_version(coming: set[Version], history: _History) -> dict[str, list[Event]]:
    """Return the events of each version, by its NEVRA; of two of one NEVRA by their sums, too."""
    several = Counter(nevra for nevra, _ in coming)
    return {
        nevra if several[nevra] == 1 else f"{nevra} {sha256[:12]}": history.events[nevra, sha256]
        for nevra, sha256 in sorted(coming)
    }


class _History:
    """What rollouts did with some versions: events of each, and what hosts had together."""

    def __init__(
        self, context: Context, rows: Sequence[Ended], versions: set[Version], plans: _Plans
    ) -> None:
        self.events: dict[Version, list[Event]] = {one: [] for one in versions}
        self._plans = plans
        self._failed: dict[tuple[Version, str], Ended] = {}
        self.changes: list[tuple[str, str, str | None, str | None]] = []
        self._by_nevra: dict[str, list[Version]] = {}
        for one in versions:
            self._by_nevra.setdefault(one[0], []).append(one)
        transactions = context.store.transactions(row.transaction for row in rows)
        for row in rows:
            found = transactions.get(row.transaction)
            self._read(row, found.actions if found else ())

    def _read(self, row: Ended, actions: Iterable[Action]) -> None:
        sign = SIGNS.get(row.outcome)
        if sign is Sign.SETTLED:
            self._settle(row)
            return
        for action in actions if sign else ():
            came = (action.nevra, action.sha256 or "")
            if sign and came in self.events:
                self.events[came].append(Event(row.host, row.at, sign, row.healthy))
            if sign is Sign.FAILED:
                self._failed[came, row.host] = row
            if sign is Sign.RAN:
                self._note(row, action, came)

    def _settle(self, row: Ended) -> None:
        """Note that a host has all that it was to get, though some of that failed before."""
        for (version, host), failed in self._failed.items():
            if host == row.host and version in self.events and self._plans.settles(row, failed):
                self.events[version].append(Event(host, row.at, Sign.SETTLED))

    def _note(self, row: Ended, action: Action, came: Version) -> None:
        left = action.from_ if action.sha256 else action.nevra
        for version in self._by_nevra.get(left or "", ()):
            self.events[version].append(Event(row.host, row.at, Sign.LEFT))
        arrived = action.nevra if came in self.events else None
        if arrived or left in self._by_nevra:
            self.changes.append((row.host, row.rollout, arrived, left))


def _untested(
    context: Context,
    proof: Proof,
    history: _History,
    hosts: Sequence[str],
    planned: set[Version],
) -> list[Untested]:
    """Return what would come to hosts and ran nowhere, or nowhere together."""
    wanted = {nevra for nevra, _ in planned}
    coming = [
        (frozenset(a.nevra for a in group.transaction.actions if a.nevra in wanted),
         len(group.hosts))
        for group in proof.groups
    ]  # fmt: skip
    now = (
        frozenset(p.nevra for p in one.packages if p.nevra in wanted)
        for one in context.store.inventories(hosts).values()
    )
    theirs = [change for change in history.changes if change[0] in set(hosts)]
    return untested((row for row in coming if row[0]), [*states(theirs), *now])


def lacking(shown: Shown) -> list[Problem]:
    """Return what is missing, and when it will be there."""
    if shown.rule is None:
        return []
    return [
        Problem(f"evidence {name[:14] if name.startswith('s-') else name}", lack.what)
        for name, verdict in shown.verdicts.items()
        for lack in verdict.lacks
    ]


def evidence_body(shown: Shown) -> dict[str, Any]:
    """Return the evidence as a runner answers it; of versions those first that lack most."""
    rows = sorted(shown.verdicts.items(), key=lambda row: (row[1].hosts, row[0]))
    whens = [v.when for v in shown.verdicts.values() if not v.met]
    known = [when for when in whens if when is not None]
    return {
        "demanded": _rule_body(shown.rule) if shown.rule else None,
        "met": shown.rule is None or all(one.met for one in shown.verdicts.values()),
        "when": max(known) if known and len(known) == len(whens) else None,
        "subjects": len(rows),
        "verdicts": {name: _verdict_body(one) for name, one in rows[:SHOWN]},
        "untested": [
            {"packages": list(one.packages), "hosts": one.hosts} for one in shown.untested[:SHOWN]
        ],
        "untested_omitted": max(len(shown.untested) - SHOWN, 0),
    }


def _rule_body(rule: Rule) -> dict[str, Any]:
    return {
        "min_hosts": rule.min_hosts,
        "soak": int(rule.soak),
        "max_failures": str(rule.max_failures),
        "health": "passed" if rule.health else None,
    }


def _verdict_body(verdict: Verdict) -> dict[str, Any]:
    return {
        "hosts": verdict.hosts,
        "failures": len(verdict.failed),
        "failed": list(verdict.failed),
        "limit": verdict.limit,
        "soaked": int(verdict.soaked),
        "soak": span(verdict.rule.soak),
        "lacks": [{"what": lack.what, "when": lack.when} for lack in verdict.lacks],
    }
