"""Gates, maintenance windows and freezes as they are written down.

Invariants: a gate names at least one check that a host can't answer for another; a check is of
exactly one kind; a window has openings; times without a zone are of the calendar's zone.
"""

from __future__ import annotations

import datetime
import re
import string
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictStr,
    model_validator,
)
from typing_extensions import Self

from cpacman.config.fields import (
    ConfigPath,
    Count,
    Duration,
    HostMatch,
    Name,
    Names,
    Section,
    listed,
    named,
    ordered,
)
from cpacman.config.values import wrong
from cpacman.rollout.windows import Weekly, parse_weekly

KINDS = ("salt", "state", "master", "http", "event")
_DAY = datetime.timedelta(days=1)


def _zone(value: Any) -> ZoneInfo:
    if isinstance(value, ZoneInfo):
        return value
    try:
        return ZoneInfo(value)
    except (TypeError, ValueError, OSError):
        raise wrong(f"{value!r} is no time zone", "write Europe/Berlin or UTC") from None
    except KeyError:
        raise wrong(f"there is no time zone {value!r}", "write Europe/Berlin or UTC") from None


def _weekly(value: Any) -> Weekly:
    if isinstance(value, Weekly):
        return value
    try:
        return parse_weekly(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        text, _, mend = str(error).partition("; ")
        raise wrong(text, mend) from None


def _moment(value: Any) -> datetime.date:
    """Take a day, or a time of a day, for what it is; YAML reads both by itself."""
    if isinstance(value, datetime.date):
        return value
    try:
        day = len(value) == len("2026-12-18")
        return (datetime.date if day else datetime.datetime).fromisoformat(value)
    except (TypeError, ValueError):
        raise wrong(f"{value!r} is no time", "write 2026-12-18 or 2026-12-18T20:00") from None


def _aware(moment: datetime.date, zone: ZoneInfo) -> datetime.datetime:
    """Return a time, or the first moment of a day, with its zone."""
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    return moment.replace(tzinfo=moment.tzinfo or zone)


Zone = Annotated[ZoneInfo, PlainValidator(_zone), PlainSerializer(str)]
WeeklyOpening = Annotated[Weekly, PlainValidator(_weekly), PlainSerializer(str)]
Moment = Annotated[datetime.date, PlainValidator(_moment), PlainSerializer(str)]
"""A day, or, where it is a `datetime`, a time of one."""


class WindowSettings(Section):
    """When hosts may be changed: weekly openings, an iCalendar file, or both."""

    weekly: Annotated[tuple[WeeklyOpening, ...], BeforeValidator(listed)] = ()
    calendar: ConfigPath | None = None
    timezone: Zone = ZoneInfo("UTC")

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if not self.weekly and self.calendar is None:
            raise wrong("never opens", 'add weekly: ["Sat 22:00-04:00"] or calendar: FILE.ics')
        return self


class FreezeSettings(Section):
    """A time in which nothing starts and nothing is promoted; a day as `until` belongs to it."""

    from_: Annotated[Moment, Field(alias="from")]
    until: Moment
    classes: Names = ()
    reason: StrictStr = "freeze"
    timezone: Zone = ZoneInfo("UTC")

    @property
    def start(self) -> datetime.datetime:
        """When it begins."""
        return _aware(self.from_, self.timezone)

    @property
    def end(self) -> datetime.datetime:
        """When it is over: at the time that is given, or with the end of the day."""
        if isinstance(self.until, datetime.datetime):
            return _aware(self.until, self.timezone)
        # "For ever" is written as the last day there is, and that has no next one.
        last = min(self.until, datetime.date.max - _DAY)
        return _aware(last + _DAY, self.timezone)

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end <= self.start:
            raise wrong("ends before it begins", "look at from and until")
        return self


class CheckSettings(Section):
    """One check of a gate: what is run, what it must answer, when, and how patient we are."""

    name: Name
    salt: StrictStr | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[StrictStr, Any] = {}
    state: StrictStr | None = None
    master: StrictStr | None = None
    http: StrictStr | None = None
    event: StrictStr | None = None
    expect: Any = True
    matches: StrictStr = ""
    when: Annotated[tuple[Literal["before", "after", "soak"], ...], BeforeValidator(listed)] = (
        "after",
        "soak",
    )
    timeout: Annotated[Duration, Field(ge=1)] = 30
    retries: Count = 0
    pause: Duration = 5
    every: Annotated[Duration, Field(ge=1)] = 60
    required: StrictBool = True
    scope: HostMatch | None = None

    @property
    def kind(self) -> str:
        """Which of the kinds of checks it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def per_host(self) -> bool:
        """Whether it runs for each host, or once for all of a level."""
        if self.kind in ("salt", "state"):
            return True
        return "host" in _fields(self.master or self.http or "")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "nothing"
            raise wrong(f"runs {found}", f"name exactly one of {', '.join(KINDS)}")
        for text in (self.master, self.http):
            unknown = _fields(text or "") - {"host"}
            if unknown:
                raise wrong(f"{{{min(unknown)}}} is not known here", "only {host} is filled in")
        if self.http and not re.match(r"https?://[^/]", self.http):
            raise wrong(f"{self.http!r} is no address", "write http://... or https://...")
        try:
            re.compile(self.matches)
        except re.error as error:
            raise wrong(f"matches {self.matches!r} is no pattern: {error}") from None
        return self


def _fields(text: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise wrong(f"{text!r}: {error}", "double a brace that is meant as one") from None


class ActionSettings(Section):
    """A Salt function on the host, or a command on the master, that must succeed."""

    salt: StrictStr | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[StrictStr, Any] = {}
    master: StrictStr | None = None
    expect: Any = True
    timeout: Annotated[Duration, Field(ge=1)] = 60

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.salt is None) == (self.master is None):
            raise wrong("must run one thing", "name either salt or master")
        unknown = _fields(self.master or "") - {"host"}
        if unknown:
            raise wrong(f"{{{min(unknown)}}} is not known here", "only {host} is filled in")
        return self


class AroundSettings(Section):
    """What is done to a host before it is changed, and undone afterwards however that ended."""

    before: ActionSettings
    after: ActionSettings | None = None


class GateSettings(Section):
    """The checks of one gate, in order. Any host can fire an event: one alone proves nothing."""

    checks: Annotated[
        tuple[Annotated[CheckSettings, BeforeValidator(named)], ...], BeforeValidator(ordered)
    ]

    @model_validator(mode="after")
    def _proves(self) -> Self:
        proving = [one for one in self.checks if one.required and one.kind != "event"]
        if not proving:
            raise wrong(
                "proves nothing: any host can fire an event, and what is not required is not asked",
                "add a required check of another kind",
            )
        names = [one.name for one in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise wrong(f"has two checks named {twice[0]!r}", "give each a name of its own")
        return self


def as_gate(value: Any) -> Any:
    """Take the list of checks that a gate is written as."""
    return {"checks": value} if isinstance(value, list | tuple) else value


Gate = Annotated[GateSettings, BeforeValidator(as_gate)]
