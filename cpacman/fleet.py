"""Hosts -> channel, class, level and metadata, and who is selected.

Invariants: every value of a host carries where it came from; sources are asked in the configured
order and the first that says wins, value by value; what contradicts itself within one rank is an
error that names both places, never a choice; a host that can't be placed is listed with its
problems and never planned; what a host says of itself (grains) is data and validated as such.
Rules take values; only `load_hosts_files` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from cpacman.config import (
    Match,
    Name,
    OsMatch,
    PolicyLine,
    Section,
    Settings,
    is_glob,
    nearest,
    parse_match,
    problems_of,
    read_yaml,
)
from cpacman.errors import ConfigError, Problem, UsageError
from cpacman.model import Host, Inventory
from cpacman.planner.lines import Placed, place_lines

MAX_TEXT = 256

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HOST_KEY = re.compile(r"[A-Za-z0-9_.:@*?\[\]!-]{1,253}")

Scalar = str | int | bool


def _check_meta(value: Any) -> Any:
    """Refuse metadata that a match could not name, or that could not be shown on one line."""
    if not isinstance(value, Mapping):
        raise PydanticCustomError(
            "cpacman", "{text}", {"text": f"{value!r} is not a mapping", "mend": "{role: web}"}
        )
    for key, one in value.items():
        fault = _meta_fault(key, one)
        if fault:
            raise PydanticCustomError("cpacman", "{text}", {"text": fault, "mend": "quote it"})
    return {key: list(one) if isinstance(one, list | tuple) else one for key, one in value.items()}


def _meta_fault(key: Any, value: Any) -> str:
    if not isinstance(key, str) or not _FIELD.fullmatch(key):
        return f"{key!r} can't be the name of a field"
    for one in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(one, Scalar):
            return f"{key} is {one!r}, not text, a whole number, true, false or a list of these"
        if isinstance(one, str) and (len(one) > MAX_TEXT or not one.isprintable()):
            return f"{key} is no line of at most {MAX_TEXT} printable characters"
    return ""


Meta = Annotated[dict[str, Any], BeforeValidator(_check_meta)]


class Membership(Section):
    """What pillar and grains may say of a host, under their `cpacman` key."""

    class_: Annotated[Name | None, Field(alias="class")] = None
    level: Name | None = None
    meta: Meta = {}


class HostEntry(Membership):
    """What a file of `hosts.d` may say of a host, or of all that a glob fits."""

    transport: Literal["publish", "ssh"] | None = None
    policy: tuple[PolicyLine, ...] = ()


@dataclass(frozen=True)
class PlacedEntry:
    """An entry of a host file and where it stands."""

    key: str
    place: str
    entry: HostEntry


@dataclass(frozen=True)
class HostsFiles:
    """All of `hosts.d`: entries for exact ids, and entries for globs in the order of files."""

    exact: Mapping[str, tuple[PlacedEntry, ...]] = field(default_factory=dict)
    globs: tuple[PlacedEntry, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The hosts that are named by their exact id."""
        return tuple(sorted(self.exact))

    def entries_for(self, host_id: str) -> tuple[tuple[PlacedEntry, ...], tuple[PlacedEntry, ...]]:
        """Return the entries that hold for a host: exact ones, and those of globs."""
        fitting = tuple(one for one in self.globs if fnmatchcase(host_id, one.key))
        return self.exact.get(host_id, ()), fitting


# --------------------------------------------------------------------------- reading the host files


def load_hosts_files(hosts_d: Path, settings: Settings) -> HostsFiles:
    """Read `hosts.d/*.yaml`; without `files` among the sources, or without the directory, nothing.

    Raises:
        ConfigError: with the problems of all files at once, each with its file and key.
    """
    if "files" not in settings.membership.sources:
        return HostsFiles()
    if not hosts_d.is_dir():
        if "hosts_d" in settings.membership.model_fields_set:
            raise ConfigError(
                Problem(str(hosts_d), "membership.hosts_d is no directory", "create it")
            )
        return HostsFiles()
    problems: list[Problem] = []
    placed: list[PlacedEntry] = []
    for path in sorted(hosts_d.iterdir()):
        entries, wrong = _read_hosts_file(path, settings)
        placed += entries
        problems += wrong
    files = _indexed(placed)
    problems += _exact_conflicts(files)
    if problems:
        raise ConfigError(problems)
    return files


def _read_hosts_file(path: Path, settings: Settings) -> tuple[list[PlacedEntry], list[Problem]]:
    if path.suffix == ".yml":
        return [], [Problem(str(path), "is not read: its name ends in .yml", "rename it to .yaml")]
    if path.suffix != ".yaml" or path.name.startswith("."):
        return [], []
    try:
        value = read_yaml(path)
    except ConfigError as error:
        return [], list(error.problems)
    if value is None:
        return [], []
    if not isinstance(value, Mapping):
        return [], [Problem(str(path), "holds no mapping of hosts", "write HOST: {class: NAME}")]
    placed, problems = [], []
    for key, body in value.items():
        entry, wrong = _read_entry(path, key, body, settings)
        problems += wrong
        if entry:
            placed.append(PlacedEntry(key, _place(path, key), entry))
    return placed, problems


def _place(path: Path, key: str) -> str:
    return f"{path.parent.name}/{path.name}: {key}"


def _read_entry(
    path: Path, key: Any, body: Any, settings: Settings
) -> tuple[HostEntry | None, list[Problem]]:
    where = f"{path}: {key}"
    if not isinstance(key, str) or not _HOST_KEY.fullmatch(key):
        return None, [Problem(where, "can't be a host id or a glob of them", "quote it")]
    try:
        entry = HostEntry.model_validate({} if body is None else body)
    except ValidationError as error:
        return None, [_below(where, one) for one in problems_of(error, HostEntry)]
    return entry, [_below(where, one) for one in _unknown_names(entry, settings)]


def _below(where: str, problem: Problem) -> Problem:
    return problem._replace(path=f"{where}.{problem.path}" if problem.path else where)


def _unknown_names(entry: Membership, settings: Settings) -> Iterator[Problem]:
    """Yield the class or level of an entry that the configuration does not know."""
    for what, name, known in (
        ("class", entry.class_, settings.class_names),
        ("level", entry.level, settings.level_names),
    ):
        if name is not None and name not in known:
            yield Problem(what, f"there is no {what} {name!r}", nearest(name, known))


def _indexed(placed: Iterable[PlacedEntry]) -> HostsFiles:
    exact: dict[str, tuple[PlacedEntry, ...]] = {}
    globs = []
    for one in placed:
        if is_glob(one.key):
            globs.append(one)
        else:
            exact[one.key] = (*exact.get(one.key, ()), one)
    return HostsFiles(exact, tuple(globs))


def _exact_conflicts(files: HostsFiles) -> Iterator[Problem]:
    for host_id, entries in files.exact.items():
        if len(entries) > 1:
            yield from _merge_rank(host_id, entries)[1]


# ------------------------------------------------------------------------------- placing one host


class Value(NamedTuple):
    """A value of a host and where it came from."""

    value: Any
    place: str


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


def _values_of(entry: Membership, place: str) -> dict[str, Value]:
    """Return what an entry says, flat: class, level, transport, meta.FIELD."""
    named = {
        "class": entry.class_,
        "level": entry.level,
        "transport": entry.transport if isinstance(entry, HostEntry) else None,
        **{f"meta.{key}": value for key, value in entry.meta.items()},
    }
    return {name: Value(value, place) for name, value in named.items() if value is not None}


def _from_files(
    host_id: str, exact: Iterable[PlacedEntry], globs: Iterable[PlacedEntry]
) -> tuple[dict[str, Value], list[Problem]]:
    """Return what the files say: an exact id beats a glob, globs that disagree are problems."""
    values, problems = _merge_rank(host_id, exact)
    more, wrong = _merge_rank(host_id, globs, skip=values)
    return {**more, **values}, [*problems, *wrong]


def _merge_rank(
    host_id: str, entries: Iterable[PlacedEntry], skip: Mapping[str, Value] | None = None
) -> tuple[dict[str, Value], list[Problem]]:
    """Merge entries of one rank; `skip` are values that a higher rank has said already."""
    values: dict[str, Value] = {}
    problems = []
    for one in entries:
        for name, value in _values_of(one.entry, one.place).items():
            if name in (skip or {}):
                continue
            first = values.setdefault(name, value)
            if first.value != value.value:
                problems.append(_disagree(host_id, name, first, value))
    return values, problems


def _disagree(host_id: str, name: str, first: Value, second: Value) -> Problem:
    return Problem(
        host_id,
        f"{name} is {first.value!r} by {first.place} and {second.value!r} by {second.place}",
        "name it once, or give the host an entry of its own",
    )


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
        return {}, [_below(f"{host_id}: {source}.cpacman", one) for one in found]
    unknown = [
        _below(f"{host_id}: {source}.cpacman", one) for one in _unknown_names(entry, settings)
    ]
    return _values_of(entry, source), unknown


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
        problems.append(_disagree(host_id, "level", best[0], best[1]))
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
        problems.append(_disagree(host_id, "channel", first, second))
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


# -------------------------------------------------------------------------------------- selecting


@dataclass(frozen=True)
class Selector:
    """Which hosts are meant, as far as their place says it; `tgt` is Salt's business."""

    classes: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    meta: Match | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was named. That never means everything: whoever acts must refuse."""
        return not (self.classes or self.levels or self.channels or self.meta)

    def selects(self, host: Host) -> bool:
        """Whether a host is meant."""
        return (
            (not self.classes or host.class_ in self.classes)
            and (not self.levels or host.level in self.levels)
            and (not self.channels or host.channel in self.channels)
            and (self.meta is None or self.meta.fits(host.meta))
        )


def parse_selector(
    settings: Settings,
    *,
    class_: Any = None,
    level: Any = None,
    channel: Any = None,
    meta: Any = None,
) -> Selector:
    """Return the selector that command line values say; each may be a text with commas or a list.

    Raises:
        UsageError: with all unknown names at once, each with the nearest known one.
    """
    problems: list[Problem] = []
    wanted: Match | None = None
    classes = _names("class", class_, settings.class_names, problems)
    levels = _names("level", level, settings.level_names, problems)
    channels = _names("channel", channel, tuple(settings.channels), problems)
    if meta is not None:
        try:
            wanted = parse_match(meta)
        except PydanticCustomError as error:
            context = error.context or {}
            problems.append(Problem("meta", context["text"], context["mend"]))
    if problems:
        raise UsageError(problems)
    return Selector(classes, levels, channels, wanted)


def _names(
    what: str, value: Any, known: tuple[str, ...], problems: list[Problem]
) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value.split(",") if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(one, str) for one in values):
        problems.append(Problem(what, f"{value!r} is not text", "quote it"))
        return ()
    names = tuple(one.strip() for one in values if one.strip())
    if not names:
        problems.append(Problem(what, "names nothing", f"known are {', '.join(known)}"))
    problems += [
        Problem(what, f"there is no {what} {name!r}", nearest(name, known))
        for name in names
        if name not in known
    ]
    return names
