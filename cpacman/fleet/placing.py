"""Hosts -> channel, class, level and metadata.

Invariants: every value of a host carries where it came from; sources are asked in the configured
order and the first that says wins, value by value; a host that can't be placed is listed with its
problems and never planned; what a host says of itself (grains) is data and validated as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic import ValidationError

from cpacman.config import OsMatch, Settings, problems_of
from cpacman.errors import Problem
from cpacman.fleet.hostfiles import (
    HostsFiles,
    Membership,
    PlacedEntry,
    Value,
    below,
    disagree,
    merge_rank,
    unknown_names,
    values_of,
)
from cpacman.model import Host, Inventory
from cpacman.planner.lines import Placed, place_lines


class Facts(NamedTuple):
    """The facts of the operating system that a channel's matcher looks at."""

    id: str = ""
    id_like: str = ""
    version_id: str = ""
    arch: str = ""


def facts_of(inventory: Inventory) -> Facts:
    """Return what a channel's matcher looks at, from a host's inventory."""
    os = inventory.os
    return Facts(os.id, os.id_like, os.version_id, inventory.arch)


@dataclass(frozen=True)
class Placement:
    """Where a host belongs. With `problems` it is listed and never planned.

    What is not known is an empty text in `host`. `policy` is what host files say for it alone.
    """

    host: Host
    problems: tuple[Problem, ...] = ()
    policy: tuple[Placed, ...] = ()


def place_host(
    host_id: str,
    *,
    settings: Settings,
    hosts_files: HostsFiles,
    pillar: Mapping[str, Any],
    grains: Mapping[str, Any],
    facts: Facts | None,
    transport: str = "publish",
) -> Placement:
    """Return where a host belongs, with the source of each value.

    Args:
        pillar: the host's pillar as the master compiled it; its `cpacman` key is read.
        grains: the host's grains; their `cpacman` key is read.
        facts: of the operating system, for the channel; None when the host has no inventory yet.
        transport: the one that was found out, for a host whose files name none.
    """
    exact, globs = hosts_files.entries_for(host_id)
    said: dict[str, Value] = {}
    problems: list[Problem] = []
    for source in settings.membership.sources:
        if source == "files":
            values, wrong = _from_files(host_id, exact, globs)
        else:
            mapping = pillar if source == "pillar" else grains
            values, wrong = _from_mapping(host_id, source, mapping.get("cpacman"), settings)
        problems += wrong
        for name, value in values.items():
            said.setdefault(name, value)
    meta = {name[5:]: one.value for name, one in said.items() if name.startswith("meta.")}
    chosen = {
        "class": said.get("class") or _default_class(settings),
        "level": said.get("level") or _level_of(host_id, meta, settings.levels, problems),
        "channel": _channel_of(host_id, facts, settings, problems),
        "transport": said.get("transport") or Value(transport, "found out"),
    }
    if chosen["class"] is None:
        problems.append(_unassigned(host_id, settings))
    sources = {name: one.place for name, one in (said | chosen).items() if one is not None}
    text = {name: one.value if one else "" for name, one in chosen.items()}
    host = Host(
        id=host_id,
        channel=text["channel"],
        class_=text["class"],
        level=text["level"],
        transport=text["transport"],
        meta=meta,
        sources=sources,
    )
    policy = tuple(
        placed
        for found, place in ((globs, "hosts"), (exact, "host"))
        for one in found
        for placed in place_lines(one.entry.policy, f"{one.place}.policy", place)
    )
    return Placement(host, tuple(problems), policy)


def lines_for(settings: Settings, placement: Placement) -> list[Placed]:
    """Return the lines of policy that may hold for a host, those of the widest place first."""
    host = placement.host
    found = [*place_lines(settings.policy, "policy", "fleet")]
    if channel := settings.channels.get(host.channel):
        found += place_lines(channel.policy, f"channels.{host.channel}.policy", "channel")
    for index, class_ in enumerate(settings.classes):
        if class_.name == host.class_:
            found += place_lines(class_.policy, f"classes[{index}].policy", "class")
    for index, level in enumerate(settings.levels):
        if level.name == host.level:
            found += place_lines(level.policy, f"levels[{index}].policy", "level")
    return [*found, *placement.policy]


def configured_transport(host_id: str, hosts_files: HostsFiles) -> str | None:
    """Return the transport that host files name for a host, or None."""
    exact, globs = hosts_files.entries_for(host_id)
    value = _from_files(host_id, exact, globs)[0].get("transport")
    return value.value if value else None


def _unassigned(host_id: str, settings: Settings) -> Problem:
    return Problem(
        host_id,
        "belongs to no class, so it is never planned",
        f"name its class ({', '.join(settings.class_names)}) in hosts.d, pillar or grains",
    )


def _from_files(
    host_id: str, exact: Iterable[PlacedEntry], globs: Iterable[PlacedEntry]
) -> tuple[dict[str, Value], list[Problem]]:
    """Return what the files say: an exact id beats a glob, globs that disagree are problems."""
    values, problems = merge_rank(host_id, exact)
    more, wrong = merge_rank(host_id, globs, skip=values)
    return {**more, **values}, [*problems, *wrong]


def _from_mapping(
    host_id: str, source: str, section: Any, settings: Settings
) -> tuple[dict[str, Value], list[Problem]]:
    """Return what the `cpacman` key of pillar or grains says; nonsense is the host's problem."""
    if section is None:
        return {}, []
    try:
        entry = Membership.model_validate(section)
    except ValidationError as error:
        found = problems_of(error, Membership)
        return {}, [below(f"{host_id}: {source}.cpacman", one) for one in found]
    unknown = [below(f"{host_id}: {source}.cpacman", one) for one in unknown_names(entry, settings)]
    return values_of(entry, source), unknown


def _default_class(settings: Settings) -> Value | None:
    """With one class, everything is of it; with several, nobody is put anywhere by default."""
    if len(settings.classes) == 1:
        return Value(settings.classes[0].name, "the only class")
    return None


def _level_of(
    host_id: str, meta: Mapping[str, Any], levels: Iterable[Any], problems: list[Problem]
) -> Value:
    """Return the level whose match fits; exact values beat globs; none fits: the last level."""
    ranked: dict[int, list[Value]] = {}
    last = ""
    for index, level in enumerate(levels):
        last = level.name
        rank = level.match.rank(meta) if level.match else None
        if rank is not None:
            ranked.setdefault(rank, []).append(Value(level.name, f"levels[{index}].match"))
    if not ranked:
        return Value(last, "the last level")
    best = ranked[min(ranked)]
    if len(best) > 1:
        problems.append(disagree(host_id, "level", best[0], best[1]))
    return best[0]


def _channel_of(
    host_id: str, facts: Facts | None, settings: Settings, problems: list[Problem]
) -> Value | None:
    """Return the one channel whose matcher fits the host's operating system."""
    if facts is None:
        mend = f"run: salt-run cpacman.refresh {host_id}; is its minion up?"
        problems.append(Problem(host_id, "has no inventory yet", mend))
        return None
    fitting = [name for name, one in settings.channels.items() if fits_os(one.match, facts)]
    if len(fitting) == 1:
        return Value(fitting[0], f"channels.{fitting[0]}.match")
    if not fitting:
        problems.append(_no_channel(host_id, facts, settings))
    else:
        first, second = (Value(name, f"channels.{name}.match") for name in fitting[:2])
        problems.append(disagree(host_id, "channel", first, second))
    return None


def _no_channel(host_id: str, facts: Facts, settings: Settings) -> Problem:
    said = ", ".join(f"{name} {value or '?'}" for name, value in facts._asdict().items())
    known = ", ".join(settings.channels) or "none"
    return Problem(
        host_id, f"no channel is for {said}", f"widen a match or add a channel (there are: {known})"
    )


def fits_os(match: OsMatch, facts: Facts) -> bool:
    """Whether a channel is for a host: every key given fits. A system is like itself, too."""
    values = {
        "id": (facts.id,),
        "id_like": (facts.id, *facts.id_like.split()),
        "major": (facts.version_id.split(".")[0],),
        "version_id": (facts.version_id,),
        "arch": (facts.arch,),
    }
    return all(
        any(fnmatchcase(value, glob) for value in found for glob in getattr(match, name))
        for name, found in values.items()
        if getattr(match, name)
    )
