"""The `cpacman:` section of the configuration: raw -> validated `Settings`.

Invariants: settings are frozen and complete (every default is filled in, every path is absolute,
every unit is a number); a section that is wrong in several places reports all of them at once,
each with its path (`levels[2].match`) and the mend; nothing unknown is ignored; loading looks at
no repository. What is configured but not enforced yet is never silently accepted: `unenforced`
and `unenforced_policy` name it, and whoever acts on settings refuses while they do.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from cpacman.errors import ConfigError, Problem
from cpacman.model import canonical_json

DEFAULT_STATE_DIR = Path("/var/lib/cpacman")
DEFAULT_HOSTS_D = Path("/etc/salt/cpacman/hosts.d")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_YAML_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null"})
_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*):([^\s()]+)")
_DURATION = re.compile(r"([0-9]+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"([0-9]+)([KMGT]?)(?:i?B)?")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


def nearest(word: str, known: Iterable[str], verb: str = "did you mean") -> str:
    """Return the mend for a misspelt word: the nearest known one, or all that are known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"{verb} {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else ""


def _wrong(message: str, mend: str = "") -> PydanticCustomError:
    """Return the error of one value; braces are pydantic's own templates, hence the context."""
    return PydanticCustomError("cpacman", "{text}", {"text": message, "mend": mend})


# ---------------------------------------------------------------- values with a unit or a grammar


class Amount(NamedTuple):
    """A number of hosts, or a share of them in per cent."""

    value: float
    percent: bool = False

    def of(self, total: int, *, least: int = 0) -> int:
        """Return how many of `total` hosts this is, rounded down, but never under `least`."""
        count = int(total * self.value / 100) if self.percent else int(self.value)
        return max(count, least)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else str(int(self.value))


@dataclass(frozen=True)
class Match:
    """A match over metadata fields: any of the alternatives, each of terms that all must fit.

    Written `field:glob`, several joined by ` and `, or a list of such texts.
    """

    texts: tuple[str, ...]
    alternatives: tuple[tuple[tuple[str, str], ...], ...] = field(compare=False)

    def fits(self, meta: Mapping[str, Any]) -> bool:
        """Whether a host with this metadata is meant."""
        return self.rank(meta) is not None

    def rank(self, meta: Mapping[str, Any]) -> int | None:
        """Return 0 when it fits by exact values, 1 when only by a glob, None when not at all."""
        ranks = [
            int(any(is_glob(glob) for _, glob in terms))
            for terms in self.alternatives
            if all(_term_fits(meta.get(name), glob) for name, glob in terms)
        ]
        return min(ranks, default=None)

    def __str__(self) -> str:
        return " or ".join(self.texts)


def is_glob(text: str) -> bool:
    """Whether a text is a pattern and not an exact value."""
    return any(char in text for char in "*?[")


def plain_text(value: Any) -> str:
    """Return a metadata value as it is written in a match: booleans as YAML has them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _term_fits(value: Any, glob: str) -> bool:
    if value is None:
        return False
    values = value if isinstance(value, list | tuple) else (value,)
    return any(fnmatchcase(plain_text(one), glob) for one in values)


def parse_match(value: Any) -> Match:
    """Return the match that a text or a list of texts says.

    Raises:
        PydanticCustomError: it is no match; the text says what one looks like.
    """
    if isinstance(value, Match):
        return value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts:
        raise _wrong(f"{value!r} is no match", 'write "field:glob", for example "ring:0"')
    return Match(tuple(map(str, texts)), tuple(_parse_terms(text) for text in texts))


def _parse_terms(text: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(text, str):
        raise _wrong(f"{text!r} is no match", 'write "field:glob" in quotes')
    terms = []
    for part in text.split(" and "):
        found = _TERM.fullmatch(part.strip())
        if not found:
            raise _wrong(
                f"{part.strip()!r} in {text!r} is not field:glob",
                'write "role:web", join terms by " and ", or give a list, any of which may fit',
            )
        terms.append((found[1], found[2]))
    return tuple(terms)


def parse_duration(value: Any) -> int:
    """Return a time such as `48h` or `30m` in seconds."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found:
        return int(found[1]) * _SECONDS[found[2]]
    if value == 0 and value is not False:
        return 0
    raise _wrong(f"{value!r} is no duration", "write 30m, 48h or 7d, with its unit (s m h d w)")


def parse_size(value: Any) -> int:
    """Return a size such as `50M` in bytes; units are powers of 1024, a bare number is bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise _wrong(f"{value!r} is no size", "write 50M or 2G (K M G T, powers of 1024)")
    return int(found[1]) * _BYTES[found[2]]


def parse_amount(value: Any) -> Amount:
    """Return `10%` or `3` as an amount of hosts."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Amount(value)
    text = value.strip() if isinstance(value, str) else ""
    if text.isdecimal():
        return Amount(int(text))
    found = _PERCENT.fullmatch(text)
    if found and float(found[1]) <= 100:
        return Amount(float(found[1]), percent=True)
    raise _wrong(f"{value!r} is no number of hosts", "write a number or a share such as 10%")


def parse_date(value: Any) -> datetime.date:
    """Return `2027-03-31` as a date; whatever else YAML makes of it is refused."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise _wrong(f"{value!r} is no date", "write it as 2027-03-31") from None


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(f"the name {value!r} is not text", "quote it")
    if not _NAME.fullmatch(value) or value.lower() in _YAML_WORDS:
        raise _wrong(
            f"{value!r} can't be a name",
            "begin with a letter, use letters, digits, . _ - and no word YAML reads otherwise",
        )
    return value


def _path(value: Any, info: ValidationInfo) -> Path:
    """Make a path absolute: what is relative is relative to the configuration file's directory."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise _wrong(f"{value!r} is no path", "write the path of a file or directory as text")
    base = (info.context or {}).get("base", Path("/"))
    return Path(base) / value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _globs(value: Any) -> tuple[str, ...]:
    """Return one text or a list of them; whole numbers are taken as written, floats are not."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise _wrong("names nothing", "name at least one, or leave the line out")
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
            raise _wrong(f"{one!r} is not text", "quote it")
    return tuple(str(one) for one in values)


def _named(value: Any) -> dict[str, Any]:
    """Turn `{canary: {...}}`, `{canary: null}` or `canary` into `{name: canary, ...}`."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not value:
        raise _wrong(f"{value!r} has no name", "write - NAME: {...}")
    if len(value) > 1:
        names = " and ".join(map(str, value))
        raise _wrong(f"holds {names} in one", "one name an entry; check the indentation")
    ((name, body),) = value.items()
    if body is not None and (not isinstance(body, Mapping) or "name" in body):
        raise _wrong(f"{body!r} are no settings", f"write - {name}: {{key: value}}")
    return {"name": name, **(body or {})}


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise _wrong("is a mapping, but order matters", "write a list, a name each entry")
    if value == []:
        raise _wrong("is empty", "name at least one, or leave it out")
    return value


Duration = Annotated[int, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Date = Annotated[datetime.date, PlainValidator(parse_date), PlainSerializer(str)]
HostAmount = Annotated[Amount, PlainValidator(parse_amount), PlainSerializer(str)]
HostMatch = Annotated[
    Match, PlainValidator(parse_match), PlainSerializer(lambda match: list(match.texts))
]
Name = Annotated[str, BeforeValidator(_name)]
ConfigPath = Annotated[Path, BeforeValidator(_path)]
Globs = Annotated[tuple[str, ...], BeforeValidator(_globs)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(_listed)]
Count = Annotated[StrictInt, Field(ge=0)]
Source = Literal["files", "pillar", "grains"]


# ------------------------------------------------------------------------------------- the models


class Section(BaseModel):
    """A part of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )


class Membership(Section):
    """Where class, level and metadata of a host come from, in order; the first that says wins."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("files", "pillar", "grains")
    hosts_d: ConfigPath = DEFAULT_HOSTS_D
    max_moves: Count = 20
    on_move: Literal["hold", "accept"] = "hold"

    @field_validator("sources")
    @classmethod
    def _once(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if len(set(value)) != len(value):
            raise _wrong("a source is named twice", "name each of files, pillar, grains once")
        return value


class OsMatch(Section):
    """Which hosts are of a channel: every key that is given must fit; a list means any of it."""

    id: Globs = ()
    id_like: Globs = ()
    major: Globs = ()
    version_id: Globs = ()
    arch: Globs = ()


class RepositorySettings(Section):
    """One repository of a channel. `priority` is as in dnf: the lower number wins."""

    path: ConfigPath
    autoupdate: StrictBool = True
    classes: Names = ()
    only: HostMatch | None = None
    priority: Annotated[StrictInt, Field(ge=1, le=999)] = 99
    module_hotfixes: StrictBool = False
    origin: StrictStr = ""


class Channel(Section):
    """The repositories that serve one platform, and which hosts are of it."""

    match: OsMatch = OsMatch()
    keys: Annotated[tuple[ConfigPath, ...], BeforeValidator(_listed)] = ()
    repositories: Annotated[dict[Name, RepositorySettings], Field(min_length=1)]


class Evidence(Section):
    """What rollouts in the class before must have shown before a promotion."""

    min_hosts: Count = 1
    soak: Duration = 0
    max_failures: HostAmount = Amount(0)
    health: Literal["passed"] | None = None


class ClassSettings(Section):
    """A stage of promotion."""

    name: Name
    evidence: Evidence | None = None
    approvers: Count = 0
    ticket: StrictStr | None = None
    windows: StrictStr | None = None

    @field_validator("ticket")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise _wrong(f"{value!r} is no pattern: {error}") from None
        return value


class LevelSettings(Section):
    """A group of hosts of a class that is deployed together."""

    name: Name
    match: HostMatch | None = None
    concurrency: HostAmount = Amount(50)
    max_failures: HostAmount | None = None
    soak: Duration = 0
    gate: StrictStr | None = None
    spread: StrictStr | None = None


PolicyKind = Literal[
    "lock",
    "exclude",
    "block",
    "pin",
    "together",
    "arch_change",
    "vendor_change",
    "origin_change",
    "allow_removal",
    "allow_downgrade",
]
POLICY_KINDS: tuple[PolicyKind, ...] = get_args(PolicyKind)


class PolicyLine(Section):
    """One line of policy: what it does (exactly one kind), to which packages, where, until when."""

    lock: Globs = ()
    exclude: Globs = ()
    block: Globs = ()
    pin: dict[StrictStr, StrictStr] = {}
    together: Globs = ()
    arch_change: Globs = ()
    vendor_change: Globs = ()
    origin_change: Globs = ()
    allow_removal: Globs = ()
    allow_downgrade: Globs = ()
    scope: HostMatch | None = None
    reason: StrictStr = ""
    owner: StrictStr = ""
    until: Date | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> PolicyLine:
        given = [kind for kind in POLICY_KINDS if getattr(self, kind)]
        if len(given) != 1:
            said = "does nothing" if not given else f"is {' and '.join(given)} in one"
            raise _wrong(f"the line {said}", f"name exactly one of {', '.join(POLICY_KINDS)}")
        if len(self.together) == 1:
            raise _wrong("together needs two packages or more", "name those that move as one")
        return self

    @property
    def kind(self) -> PolicyKind:
        """What the line does."""
        return next(kind for kind in POLICY_KINDS if getattr(self, kind))

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages it does it to, as names or globs."""
        return tuple(getattr(self, self.kind))

    def applies(self, meta: Mapping[str, Any], today: datetime.date) -> bool:
        """Whether the line holds for a host with this metadata on this day (`until` included)."""
        in_time = self.until is None or today <= self.until
        return in_time and (self.scope is None or self.scope.fits(meta))


class Budget(Section):
    """How many hosts of a rollout may fail, or be out of reach, before it is halted."""

    max_failures: HostAmount = Amount(1, percent=True)
    max_unreachable: HostAmount = Amount(5, percent=True)


class Profile(Section):
    """Named exceptions to what classes and levels demand."""

    soak: Duration | None = None
    evidence: Evidence | None = None
    windows: StrictStr | None = None
    approvers: Count | None = None
    concurrency: HostAmount | None = None
    max_failures: HostAmount | None = None


class Access(Section):
    """Which groups of people may deploy to and approve for a class, and read."""

    deploy: dict[Name, Texts] = {}
    approve: dict[Name, Texts] = {}
    read: Texts = ()


class TransportSettings(Section):
    """How bytes travel: the size of one chunk, and how many are under way at once.

    `answer`, `stall` and `apply` are how long to wait for a host's answer, for its
    acknowledgement of a chunk, and for its transaction.
    """

    chunk: Annotated[Size, Field(ge=65536, le=2**28)] = 16 * 2**20
    window: Annotated[StrictInt, Field(ge=1, le=64)] = 3
    answer: Annotated[Duration, Field(ge=1)] = 30
    stall: Annotated[Duration, Field(ge=1)] = 30
    apply: Annotated[Duration, Field(ge=1)] = 1800


def _below_state(folder: str) -> Any:
    """A default that follows `state_dir` (which is absent here when it is itself wrong)."""
    return Field(default_factory=lambda values: values.get("state_dir", DEFAULT_STATE_DIR) / folder)


class Settings(Section):
    """The whole `cpacman:` section, validated. Order of fields is that of the screens."""

    membership: Membership = Membership()
    channels: dict[Name, Channel] = {}
    classes: Annotated[
        tuple[Annotated[ClassSettings, BeforeValidator(_named)], ...], BeforeValidator(_ordered)
    ] = (ClassSettings(name="all"),)
    levels: Annotated[
        tuple[Annotated[LevelSettings, BeforeValidator(_named)], ...], BeforeValidator(_ordered)
    ] = (LevelSettings(name="all"),)
    policy: tuple[PolicyLine, ...] = ()
    installonly_limit: Count = 3
    budget: Budget = Budget()
    profiles: dict[Name, Profile] = {}
    access: Access = Access()
    state_dir: ConfigPath = DEFAULT_STATE_DIR
    depot: ConfigPath = _below_state("depot")
    cache_dir: ConfigPath = _below_state("cache")
    database: StrictStr = ""
    transport: TransportSettings = TransportSettings()

    _source: str = PrivateAttr("")

    @property
    def source(self) -> str:
        """The file or section the settings were read from."""
        return self._source

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of promotion."""
        return tuple(one.name for one in self.classes)

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels, in the order of deployment."""
        return tuple(one.name for one in self.levels)

    def policy_hash(self) -> str:
        """Return the digest of everything here that decides what a plan contains."""
        return policy_hash(self.policy)

    def unenforced(self, class_name: str, levels: Iterable[str] = ()) -> list[Problem]:
        """Return the configured safeguards of a deploy that this version can't enforce yet.

        Args:
            class_name: the class that is deployed or promoted to.
            levels: the levels that are deployed; none means all of them.
        """
        wanted = set(levels) or set(self.level_names)
        return [
            *_moves_standing(self.membership),
            *_keys_standing(self.channels),
            *_named_standing(
                self.classes,
                "classes",
                {class_name},
                ("evidence", "approvers", "ticket", "windows"),
            ),
            *_named_standing(self.levels, "levels", wanted, ("soak", "gate", "spread")),
            *_access_standing(self.access, class_name),
        ]

    def unenforced_policy(self) -> list[Problem]:
        """Return the configured rules about packages that no planner of this version enforces."""
        return policy_standing(self.policy, "policy")

    def explain(self) -> tuple[Explained, ...]:
        """Return each value of the settings and where it comes from."""
        return tuple(_explain(self, "", self._source))


# --------------------------------------------------------------- what stands but is not enforced

_ENFORCED_POLICY = frozenset(POLICY_KINDS)


def _not_yet(path: str) -> Problem:
    return Problem(
        path, "is configured, but this version does not enforce it", "take it out to go on"
    )


def _standing(section: Section, path: str, fields: Iterable[str]) -> Iterator[Problem]:
    for name in fields:
        if name in section.model_fields_set and getattr(section, name) not in (None, 0, ()):
            yield _not_yet(f"{path}.{name}")


def _named_standing(
    sections: Iterable[ClassSettings | LevelSettings],
    path: str,
    names: set[str],
    fields: tuple[str, ...],
) -> Iterator[Problem]:
    for index, section in enumerate(sections):
        if section.name in names:
            yield from _standing(section, f"{path}[{index}]", fields)


def _moves_standing(membership: Membership) -> Iterator[Problem]:
    """Yield what was said about moves, 0 included: that is the strictest of all."""
    said = sorted({"max_moves", "on_move"} & membership.model_fields_set)
    yield from (_not_yet(f"membership.{name}") for name in said)


def _keys_standing(channels: Mapping[str, Channel]) -> Iterator[Problem]:
    for name, channel in channels.items():
        yield from _standing(channel, f"channels.{name}", ("keys",))


def _access_standing(access: Access, class_name: str) -> Iterator[Problem]:
    for verb, groups in (("deploy", access.deploy), ("approve", access.approve)):
        if class_name in groups:
            yield _not_yet(f"access.{verb}.{class_name}")
    if access.read:
        yield _not_yet("access.read")


def policy_standing(lines: Iterable[PolicyLine], path: str) -> list[Problem]:
    """Return those of the policy lines at `path` that no planner of this version enforces."""
    return [
        _not_yet(f"{path}[{index}].{line.kind}")
        for index, line in enumerate(lines)
        if line.kind not in _ENFORCED_POLICY
    ]


def policy_hash(lines: Iterable[PolicyLine]) -> str:
    """Return the sha256, as 64 hex digits, over policy lines in their order.

    Reason and owner are wording and stay outside.
    """
    body = [
        line.model_dump(mode="json", exclude_defaults=True, exclude={"reason", "owner"})
        for line in lines
    ]
    return hashlib.sha256(canonical_json(body)).hexdigest()


class Explained(NamedTuple):
    """One value of the settings, as plain JSON types, and where it comes from."""

    path: str
    value: Any
    source: str


def _explain(section: Section, path: str, source: str) -> Iterator[Explained]:
    plain = section.model_dump(mode="json")
    for name in type(section).model_fields:
        value = getattr(section, name)
        where = source if name in section.model_fields_set else "default"
        yield from _explain_value(value, plain[name], f"{path}.{name}".lstrip("."), where)


def _explain_value(value: Any, plain: Any, path: str, source: str) -> Iterator[Explained]:
    if isinstance(value, Section):
        yield from _explain(value, path, source)
    elif isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _explain_value(one, plain[key], f"{path}.{key}", source)
    elif isinstance(value, tuple) and value and isinstance(value[0], Section):
        for index, one in enumerate(value):
            yield from _explain_value(one, plain[index], f"{path}[{index}]", source)
    else:
        yield Explained(path, plain, source)


# ------------------------------------------------------------------------------- raw to validated


def _name_of(value: Any) -> Any:
    try:
        return _named(value)["name"]
    except PydanticCustomError:
        return None


def _duplicates(raw: Mapping[str, Any], what: str) -> Iterator[Problem]:
    """Yield the names that are given twice, with both places."""
    seen: dict[Any, int] = {}
    values = raw.get(what)
    for index, value in enumerate(values if isinstance(values, list | tuple) else ()):
        name = _name_of(value)
        if not isinstance(name, str):
            continue
        if name in seen:
            message = f"the name {name!r} is taken by {what}[{seen[name]}]"
            yield Problem(f"{what}[{index}]", message, "give it another name")
        seen.setdefault(name, index)


def _references(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield names of classes that are used but not configured.

    It reads the raw section, so that these are reported together with everything else that is
    wrong; what has the wrong shape is left to the models.
    """
    values = raw.get("classes")
    names = [_name_of(one) for one in values] if isinstance(values, list | tuple) else ["all"]
    known = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    for path, name in _class_uses(raw):
        if isinstance(name, str) and name not in known:
            yield Problem(path, f"there is no class {name!r}", nearest(name, known))


def _class_uses(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for channel, body in _mapping(raw.get("channels")).items():
        for name, repository in _mapping(_mapping(body).get("repositories")).items():
            path = f"channels.{channel}.repositories.{name}.classes"
            used = _listed(_mapping(repository).get("classes"))
            for index, one in enumerate(used if isinstance(used, list | tuple) else ()):
                yield f"{path}[{index}]", one
    for verb in ("deploy", "approve"):
        for name in _mapping(_mapping(raw.get("access")).get(verb)):
            yield f"access.{verb}.{name}", name


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """Copy into plain dicts and lists: Salt hands out mappings of its own."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def load_settings(raw: Mapping[str, Any], *, source: str, base: Path) -> Settings:
    """Validate the contents of the `cpacman:` section.

    Args:
        raw: the section, as YAML gives it.
        source: the file or section it was read from, for messages and `explain`.
        base: the directory that relative paths are relative to.

    Raises:
        ConfigError: with every problem at once.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(Problem(source, "the cpacman section is not a mapping of settings"))
    try:
        section = _plain(raw)
    except RecursionError:
        raise ConfigError(Problem(source, "holds a value that contains itself")) from None
    problems = [
        *_duplicates(section, "classes"),
        *_duplicates(section, "levels"),
        *_references(section),
    ]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(section, context={"base": base})
    except ValidationError as error:
        problems = [*problems_of(error, Settings), *problems]
    if problems or settings is None:
        raise ConfigError([_placed(problem, source) for problem in problems])
    settings._source = source
    return settings


def _placed(problem: Problem, source: str) -> Problem:
    """Say once more where: the path stays that of the section, the source joins the message."""
    return problem._replace(message=f"{problem.message} ({source})")


def problems_of(error: ValidationError, model: type[Section]) -> list[Problem]:
    """Return pydantic's errors as problems with paths, in our words."""
    details = error.errors(include_url=False)
    return [_problem_of(one, model) for one in details if one["type"] not in _CONSEQUENCES]


_CONSEQUENCES = ("default_factory_not_called",)  # of another error, reported itself

_PHRASES = {
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "bool_type": "is not true or false",
    "model_type": "is not a mapping of settings",
    "dict_type": "is not a mapping of settings",
    "tuple_type": "is not a list",
}


def _problem_of(detail: ErrorDetails, model: type[Section]) -> Problem:
    path, kind, value = path_text(detail["loc"]), detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "cpacman":
        return Problem(path, context["text"], context["mend"])
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        return Problem(path, f"unknown key {key!r}", nearest(key, _keys_at(model, detail["loc"])))
    if kind == "missing":
        return Problem(path, "is missing", f"add {detail['loc'][-1]}")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context.get("expected", ""))
        return Problem(path, f"{value!r} is unknown", nearest(str(value), known))
    if kind in _PHRASES:
        scalar = kind == "string_type" and not isinstance(value, dict | list)
        return Problem(path, f"{value!r} {_PHRASES[kind]}", "quote it" if scalar else "")
    return Problem(path, f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, but it is {value!r}")


def path_text(loc: Iterable[int | str]) -> str:
    """Return `levels[2].match` for `("levels", 2, "match")`; pydantic's `[key]` is left out."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def _keys_at(model: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where the last part of `loc` is not."""
    at: Any = model
    for part in loc[:-1]:
        at = _step(at, part)
    return [key for key in _fields_of(at) if key != "name"]


def _fields_of(annotation: Any) -> dict[str, Any]:
    at = _unwrapped(annotation)
    if not (isinstance(at, type) and issubclass(at, Section)):
        return {}
    return {info.alias or name: info.annotation for name, info in at.model_fields.items()}


def _step(annotation: Any, part: int | str) -> Any:
    """Return the type found at `part` of a section, a tuple or a dict."""
    at = _unwrapped(annotation)
    if get_origin(at) in (tuple, dict):
        return get_args(at)[0 if isinstance(part, int) else 1]
    return _fields_of(at).get(str(part))


def _unwrapped(annotation: Any) -> Any:
    """Take off `Annotated` and `| None`."""
    while True:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation = args[0]
        elif origin in (Union, types.UnionType):
            annotation = next(one for one in args if one is not type(None))
        else:
            return annotation


# ------------------------------------------------------------------------------------ from a file


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is a problem, dates and `22:00` stay text."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.twice: list[tuple[str, yaml.Mark]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                self.twice.append((str(key), key_node.start_mark))
            elif isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """YAML 1.1 reads 22:00 as 1320 and 0012 as 10; nobody who writes these means that."""
    if ":" in node.value or re.fullmatch(r"[+-]?0[0-9_]+", node.value):
        return loader.construct_scalar(node)
    return yaml.SafeLoader.construct_yaml_int(loader, node)


def _as_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def read_yaml(path: Path) -> Any:
    """Return the contents of a YAML file; None when it is empty.

    Raises:
        ConfigError: it can't be read, is broken (`file:line:column`), or gives a key twice.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError(Problem(str(path), _reason(error), "check the path")) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(_yaml_problem(path, error)) from None
    if loader.twice:
        raise ConfigError([_twice(path, key, mark) for key, mark in loader.twice])
    return value


def _reason(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"


def _yaml_problem(path: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return Problem(where, f"is no valid YAML: {what}", "mend the file there, or just before")


def _twice(path: Path, key: str, mark: yaml.Mark) -> Problem:
    where = f"{path}:{mark.line + 1}:{mark.column + 1}"
    return Problem(where, f"the key {key!r} is given twice", "keep one of them")


def read_settings(path: Path) -> Settings:
    """Read settings from a file: below a `cpacman:` key, or as its whole contents.

    Raises:
        ConfigError: with every problem at once.
    """
    value = read_yaml(path)
    if isinstance(value, Mapping) and set(value) == {"cpacman"}:
        value = value["cpacman"]
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise ConfigError(Problem(str(path), "holds no mapping of settings"))
    return load_settings(value, source=str(path), base=path.absolute().parent)


def settings_from_opts(opts: Mapping[str, Any]) -> Settings:
    """Read settings from the master's configuration: the section itself, or the file it names.

    Raises:
        ConfigError: with every problem at once.
    """
    master = Path(opts.get("conf_file") or "/etc/salt/master")
    section = opts.get("cpacman")
    if section is None:
        raise ConfigError(
            Problem(
                str(master),
                "has no cpacman section",
                "add one, or cpacman: {config: /etc/salt/cpacman.yaml}",
            )
        )
    if not isinstance(section, Mapping) or "config" not in section:
        return load_settings(section, source=f"{master}: cpacman", base=master.parent)
    if len(section) > 1 or not isinstance(section["config"], str):
        raise ConfigError(
            Problem(
                f"{master}: cpacman.config",
                "a configuration in a file of its own leaves nothing beside it",
                "write cpacman: {config: PATH} and move the rest into that file",
            )
        )
    return read_settings(master.parent / section["config"])
