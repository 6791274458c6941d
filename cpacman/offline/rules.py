"""The policy of hosts without a master: from the configuration, host files and the command line.

Invariant: a line of policy that can't hold for a host is said, never dropped.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cpacman.model import Inventory
from cpacman.planner.lines import Limits, Placed, expired, holding, not_for
from cpacman.planner.ruling import Line, Policy

if TYPE_CHECKING:
    from cpacman.config import Settings
    from cpacman.fleet.placing import Placement


class Rules(NamedTuple):
    """The policy of each host, by its id, and what has to be said about lines."""

    policies: dict[str, Policy]
    warnings: list[str]


def arch_changes(names: Iterable[str]) -> tuple[Line, ...]:
    """Return the lines of policy that let packages change their architecture."""
    return tuple(
        Line(kind="arch_change", packages=(name,), where=f"--arch-change {name}")
        for name in sorted(set(names))
    )


def rules_of(
    settings: Settings | None,
    repositories: Collection[str],
    hosts: Sequence[Inventory],
    typed: tuple[Line, ...],
    today: datetime.date,
) -> Rules:
    """Return which lines hold for whom.

    Without a master, scopes see the metadata that host files give, and nothing else.

    Args:
        settings: the configuration, where one was typed.
        repositories: the names of those that were typed.
        hosts: the inventories.
        typed: lines that were typed, which hold for every host.
        today: which lines still hold.

    Raises:
        ConfigError: host files that are wrong, or that hold rules which nothing enforces.
    """
    if settings is None:
        return Rules({one.host: Policy(lines=typed) for one in hosts}, [])
    from cpacman.fleet.placing import lines_for

    places = _placements(settings, hosts)
    limits = _limits(settings, repositories)
    lines = {name: lines_for(settings, one) for name, one in places.items()}
    policies = {
        name: Policy(
            lines=(*typed, *holding(lines[name], one.host.meta, today)),
            without=not_for(limits, one.host.class_, one.host.meta),
            installonly_limit=settings.installonly_limit,
            weak_deps=settings.weak_deps,
        )
        for name, one in places.items()
    }
    placed = {one.place: one for found in lines.values() for one in found}.values()
    metas = [one.host.meta for one in places.values()]
    warnings = [*expired(placed, today), *_fitting_nobody(placed, metas)]
    return Rules(policies, [*warnings, *_unplaced(settings, places.values())])


def _unplaced(settings: Settings, places: Iterable[Placement]) -> Iterator[str]:
    """Yield a warning for each host that lines of a place may be meant for which nobody tells."""
    for name, what, several in (
        ("class_", "class", settings.classes),
        ("channel", "channel", settings.channels.values()),
    ):
        if not any(one.policy for one in several):
            continue
        for host in (one.host for one in places):
            if not getattr(host, name):
                yield f"{host.id}: is of no {what} that is known here; no {what}'s policy holds"


def _limits(settings: Settings, names: Collection[str]) -> list[Limits]:
    """Return for whom the named repositories are, as any channel configures their names."""
    return [
        Limits(name, one.classes, one.only)
        for channel in settings.channels.values()
        for name, one in channel.repositories.items()
        if name in names
    ]


def _placements(settings: Settings, hosts: Sequence[Inventory]) -> dict[str, Placement]:
    from cpacman.fleet.hostfiles import load_hosts_files
    from cpacman.fleet.placing import facts_of, place_host

    files = load_hosts_files(settings.membership.hosts_d, settings)
    return {
        one.host: place_host(
            one.host,
            settings=settings,
            hosts_files=files,
            pillar={},
            grains={},
            facts=facts_of(one),
        )
        for one in hosts
    }


def _fitting_nobody(placed: Iterable[Placed], metas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for where, line, _ in placed:
        if line.scope is not None and not any(line.scope.fits(meta) for meta in metas):
            yield f"{where}: its scope {line.scope} fits none of these hosts"
