"""What a class offers to its hosts: a snapshot's repositories that are for it, under today's rules.

Invariants: a repository that does not name the class is not there at all, so that no way of
planning reaches it, whether it was limited when the snapshot was taken or later; the block list
holds for every host, and a class that points at a blocked snapshot offers nothing.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.everywhere import Known, known_advisories, spread
from cpacman.config import PolicyLine, Settings, parse_match
from cpacman.depot.promotion import leaving_out, seen_by
from cpacman.depot.snapshot import Snapshot, check_metadata
from cpacman.fleet.placing import Placement, lines_for
from cpacman.model import Host, Inventory
from cpacman.planner.blocked import PLACE, holds
from cpacman.planner.lines import Limits, Placed, expired, holding, not_for
from cpacman.planner.plan import ChannelInput
from cpacman.planner.ruling import Policy
from cpacman.planner.solver import Candidate, Source
from cpacman.planner.sources import source_of
from cpacman.store import Block


class Rules(NamedTuple):
    """What holds for every host today beside its own lines: the block list, and the day.

    `snapshots` are the blocked ones, by id; `known` tells what advisories deliver, wherever.
    """

    settings: Settings
    blocks: tuple[Placed, ...]
    snapshots: Mapping[str, Block]
    today: datetime.date
    known: Known

    def lines_for(self, placement: Placement) -> list[Placed]:
        """Return the lines that may hold for a host, those of the widest place first."""
        return [*self.blocks, *lines_for(self.settings, placement)]

    def policy_of(self, placement: Placement, limits: Sequence[Limits]) -> Policy:
        """Return the rules that hold for a host."""
        host = placement.host
        return Policy(
            lines=holding(self.lines_for(placement), host.meta, self.today),
            without=not_for(limits, host.class_, host.meta),
            installonly_limit=self.settings.installonly_limit,
            weak_deps=self.settings.weak_deps,
        )

    def protected_on(self, placement: Placement, inventory: Inventory) -> tuple[str, ...]:
        """Return the names on a host that lines keep installed, sorted.

        Names, not globs: the host compares, and knows no rule.
        """
        policy = self.policy_of(placement, ())
        if not policy.of("protect"):
            return ()
        return tuple(sorted({p.name for p in inventory.packages if policy.protects(p.name)}))


def today(context: Context) -> datetime.date:
    """Return the day as the master's clock has it."""
    return datetime.datetime.fromtimestamp(context.clock()).astimezone().date()


def rules_of(context: Context) -> Rules:
    """Read the rules that hold for every host."""
    day = today(context)
    blocks = [one for one in context.store.blocks() if holds(one.until, day)]
    return Rules(
        settings=context.settings,
        blocks=tuple(Placed(PLACE, _line(one)) for one in blocks if one.kind != "snapshot"),
        snapshots={one.spec: one for one in blocks if one.kind == "snapshot"},
        today=day,
        known=functools.cache(lambda: known_advisories(context)),
    )


def _line(block: Block) -> PolicyLine:
    until = datetime.date.fromisoformat(block.until) if block.until else None
    return PolicyLine(block=(block.spec,), reason=block.reason, owner=block.who, until=until)


def expired_lines(rules: Rules, placements: Iterable[Placement]) -> list[str]:
    """Return a warning for each line that would hold for some host and is of the past."""
    lines = [placed for one in placements for placed in rules.lines_for(one)]
    return list(dict.fromkeys(expired(lines, rules.today)))


def offered(settings: Settings, snapshot: Snapshot, class_: str) -> Snapshot:
    """Return a snapshot as a class sees it: by the classes that it was taken with and today's.

    A repository that was limited since is gone for the others at once, also from what they hold
    already or go back to; one that was opened since is for them from the next snapshot on.
    """
    seen = seen_by(snapshot, class_)
    channel = settings.channels.get(snapshot.channel)
    now = {name: one.classes for name, one in channel.repositories.items()} if channel else {}
    rows = tuple(
        msgspec.structs.replace(one, classes=now.get(one.name, one.classes))
        for one in seen.repositories
    )
    return seen_by(msgspec.structs.replace(seen, repositories=rows), class_)


def offered_to(
    settings: Settings, snapshot: Snapshot, class_: str, hosts: Collection[Host]
) -> Snapshot:
    """Return a snapshot as the hosts of a class see it, of whom any may be the one that does.

    A class without hosts sees all that is for the class.
    """
    seen = offered(settings, snapshot, class_)
    limits = [*_limits(seen), *_limits_today(settings, seen)]
    hidden = [set(not_for(limits, class_, host.meta)) for host in hosts]
    return leaving_out(seen, set.intersection(*hidden) if hidden else set())


def channel_input(
    class_: str,
    snapshot: Snapshot,
    inventories: Sequence[Inventory],
    placements: Mapping[str, Placement],
    rules: Rules,
) -> ChannelInput:
    """Return what hosts of one class and channel are planned from.

    Raises:
        SafetyError: the snapshot's metadata is missing or altered.
    """
    seen = offered(rules.settings, snapshot, class_)
    sha256s = {(p.repository, p.nevra): p.sha256 for p in seen.packages}
    limits = [*_limits(seen), *_limits_today(rules.settings, seen)]
    policies = {one.host: rules.policy_of(placements[one.host], limits) for one in inventories}
    offers = {p.nevra for p in seen.packages}
    return ChannelInput(
        channel=seen.channel,
        snapshot=seen.id,
        sources=sources_of(seen),
        inventories=tuple(inventories),
        advisories=seen.advisories,
        policies=spread(policies, advisories=seen.advisories, offered=offers, known=rules.known),
        sha256_of=lambda c: _find_sha256(sha256s, c),
    )


def _find_sha256(known: Mapping[tuple[str, str], str], candidate: Candidate) -> str:
    return known.get((candidate.repository, candidate.nevra), "")


def _limits(snapshot: Snapshot) -> list[Limits]:
    return [
        Limits(one.name, one.classes, parse_match(one.only) if one.only else None)
        for one in snapshot.repositories
        if one.classes or one.only
    ]


def _limits_today(settings: Settings, snapshot: Snapshot) -> list[Limits]:
    channel = settings.channels.get(snapshot.channel)
    known = {one.name for one in snapshot.repositories}
    return [
        Limits(name, (), one.only)
        for name, one in (channel.repositories.items() if channel else ())
        if one.only is not None and name in known
    ]


def sources_of(snapshot: Snapshot) -> tuple[Source, ...]:
    """Return a snapshot's repositories as the solver reads them: files of the depot.

    Raises:
        SafetyError: a file is missing or altered.
    """
    check_metadata(snapshot)
    return tuple(source_of(one) for one in snapshot.repositories)
