"""The types of the configuration's fields: values that pydantic checks as they are read.

Invariants: every path is absolute once read, every unit a number, a name one that YAML can't
read as anything else.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    StrictStr,
    ValidationInfo,
)

from cpacman.config.values import (
    Amount,
    Match,
    parse_amount,
    parse_date,
    parse_duration,
    parse_match,
    parse_rate,
    parse_share,
    parse_size,
    wrong,
)

DEFAULT_STATE_DIR = Path("/var/lib/cpacman")
DEFAULT_HOSTS_D = Path("/etc/salt/cpacman/hosts.d")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_YAML_WORDS = frozenset({"yes", "no", "on", "off", "true", "false", "null"})


def check_name(value: Any) -> str:
    """Return a name, if nothing in YAML or on a command line reads it as something else."""
    if not isinstance(value, str):
        raise wrong(f"the name {value!r} is not text", "quote it")
    if not _NAME.fullmatch(value) or value.lower() in _YAML_WORDS:
        raise wrong(
            f"{value!r} can't be a name",
            "begin with a letter, use letters, digits, . _ - and no word YAML reads otherwise",
        )
    return value


def check_path(value: Any, info: ValidationInfo) -> Path:
    """Make a path absolute: what is relative is relative to the configuration file's directory."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise wrong(f"{value!r} is no path", "write the path of a file or directory as text")
    base = (info.context or {}).get("base", Path("/"))
    return Path(base) / value


def listed(value: Any) -> Any:
    """Take a text for a list of one."""
    return [value] if isinstance(value, str) else value


def check_globs(value: Any) -> tuple[str, ...]:
    """Return one text or a list of them; whole numbers are taken as written, floats are not."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise wrong("names nothing", "name at least one, or leave the line out")
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
            raise wrong(f"{one!r} is not text", "quote it")
    return tuple(str(one) for one in values)


def named(value: Any) -> dict[str, Any]:
    """Turn `{canary: {...}}`, `{canary: null}` or `canary` into `{name: canary, ...}`."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not value:
        raise wrong(f"{value!r} has no name", "write - NAME: {...}")
    if len(value) > 1:
        names = " and ".join(map(str, value))
        raise wrong(f"holds {names} in one", "one name an entry; check the indentation")
    ((name, body),) = value.items()
    if body is not None and (not isinstance(body, Mapping) or "name" in body):
        raise wrong(f"{body!r} are no settings", f"write - {name}: {{key: value}}")
    return {"name": name, **(body or {})}


def ordered(value: Any) -> Any:
    """Refuse a mapping where the order counts, and a list that names nothing."""
    if isinstance(value, Mapping):
        raise wrong("is a mapping, but order matters", "write a list, a name each entry")
    if value == []:
        raise wrong("is empty", "name at least one, or leave it out")
    return value


Duration = Annotated[int, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Rate = Annotated[int, BeforeValidator(parse_rate)]
Date = Annotated[datetime.date, PlainValidator(parse_date), PlainSerializer(str)]
HostAmount = Annotated[Amount, PlainValidator(parse_amount), PlainSerializer(str)]
HostMatch = Annotated[
    Match, PlainValidator(parse_match), PlainSerializer(lambda match: list(match.texts))
]
Share = Annotated[Amount, PlainValidator(parse_share), PlainSerializer(str)]
Name = Annotated[str, BeforeValidator(check_name)]
ConfigPath = Annotated[Path, BeforeValidator(check_path)]
Globs = Annotated[tuple[str, ...], BeforeValidator(check_globs)]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed)]
Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(listed)]
Count = Annotated[StrictInt, Field(ge=0)]
Source = Literal["files", "pillar", "grains"]


class Section(BaseModel):
    """A part of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )
