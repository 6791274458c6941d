"""What the files of `hosts.d` say of hosts: their class, level, transport, metadata and policy.

Invariants: every value carries where it stands; what contradicts itself within one rank is an error
that names both places, never a choice; every problem of all files is told at once. Only
`load_hosts_files` reads.
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
    Name,
    PolicyLine,
    Section,
    Settings,
    is_glob,
    nearest,
    problems_of,
    read_yaml,
)
from cpacman.errors import ConfigError, Problem

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


# ---- reading ----------------------------------------------------------------------------------


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
        return None, [below(where, one) for one in problems_of(error, HostEntry)]
    return entry, [below(where, one) for one in unknown_names(entry, settings)]


def below(where: str, problem: Problem) -> Problem:
    """Return a problem of an entry with where that stands before its path."""
    return problem._replace(path=f"{where}.{problem.path}" if problem.path else where)


def unknown_names(entry: Membership, settings: Settings) -> Iterator[Problem]:
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
            yield from merge_rank(host_id, entries)[1]


# ---- merging ----------------------------------------------------------------------------------


class Value(NamedTuple):
    """A value of a host and where it came from."""

    value: Any
    place: str


def values_of(entry: Membership, place: str) -> dict[str, Value]:
    """Return what an entry says, flat: class, level, transport, meta.FIELD."""
    named = {
        "class": entry.class_,
        "level": entry.level,
        "transport": entry.transport if isinstance(entry, HostEntry) else None,
        **{f"meta.{key}": value for key, value in entry.meta.items()},
    }
    return {name: Value(value, place) for name, value in named.items() if value is not None}


def merge_rank(
    host_id: str, entries: Iterable[PlacedEntry], skip: Mapping[str, Value] | None = None
) -> tuple[dict[str, Value], list[Problem]]:
    """Merge entries of one rank; `skip` are values that a higher rank has said already."""
    values: dict[str, Value] = {}
    problems = []
    for one in entries:
        for name, value in values_of(one.entry, one.place).items():
            if name in (skip or {}):
                continue
            first = values.setdefault(name, value)
            if first.value != value.value:
                problems.append(disagree(host_id, name, first, value))
    return values, problems


def disagree(host_id: str, name: str, first: Value, second: Value) -> Problem:
    """Return what to say of two values of one rank that contradict each other."""
    return Problem(
        host_id,
        f"{name} is {first.value!r} by {first.place} and {second.value!r} by {second.place}",
        "name it once, or give the host an entry of its own",
    )
