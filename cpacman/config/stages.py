"""Classes, levels and what they demand: evidence, budgets, profiles, who may do what."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr, field_validator

from cpacman.config.fields import (
    DEFAULT_HOSTS_D,
    ConfigPath,
    Count,
    Date,
    Duration,
    Globs,
    HostAmount,
    HostMatch,
    Name,
    Names,
    Section,
    Source,
    Texts,
)
from cpacman.config.policy import PolicyLine
from cpacman.config.values import Amount, wrong

Services = Literal["never", "listed", "needed"]
"""Which of the services that use replaced files are restarted."""
Reboot = Literal["never", "needed", "always"]
"""When a host is rebooted after its transaction."""


class Membership(Section):
    """Where class, level and metadata of a host come from, in order; the first that says wins."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("files", "pillar", "grains")
    hosts_d: ConfigPath = DEFAULT_HOSTS_D
    max_moves: Count = 20
    on_new: Literal["hold", "accept"] = "hold"
    on_rebuilt: Literal["hold", "accept"] = "hold"
    on_move: Literal["hold", "accept"] = "hold"

    @field_validator("sources")
    @classmethod
    def _once(cls, value: tuple[Source, ...]) -> tuple[Source, ...]:
        if len(set(value)) != len(value):
            raise wrong("a source is named twice", "name each of files, pillar, grains once")
        return value


class Evidence(Section):
    """What rollouts in the class before must have shown before a promotion."""

    min_hosts: Count = 1
    soak: Duration = 0
    max_failures: HostAmount = Amount(0)
    health: Literal["passed"] | None = None


class RestartSettings(Section):
    """What follows a transaction on its host: services restarted, or the host rebooted."""

    services: Services = "never"
    names: Annotated[Globs, Field(alias="list")] = ()
    reboot: Reboot = "never"
    within: Annotated[Duration, Field(ge=1)] = 900
    timeout: Annotated[Duration, Field(ge=1)] = 90


class RestartChanges(Section):
    """What a class or a level has otherwise than the fleet."""

    services: Services | None = None
    names: Annotated[Globs | None, Field(alias="list")] = None
    reboot: Reboot | None = None
    within: Annotated[Duration, Field(ge=1)] | None = None
    timeout: Annotated[Duration, Field(ge=1)] | None = None


class WindowNames(Section):
    """Which of `windows` hold: for changing hosts, and for sending them what they need.

    Without one for `stage`, what a change needs is sent with it.
    """

    apply: StrictStr | None = None
    stage: StrictStr | None = None


class HostWindows(WindowNames):
    """The same of a class, and a field of metadata that names a window for its host instead."""

    by: StrictStr | None = None


def as_windows(value: Any) -> Any:
    """Take one name for the window in which hosts are changed, and nothing for none."""
    if value is None:
        return {}
    return {"apply": value} if isinstance(value, str) else value


class ClassSettings(Section):
    """A stage of promotion."""

    name: Name
    evidence: Evidence | None = None
    approvers: Count = 0
    ticket: StrictStr | None = None
    windows: Annotated[HostWindows, BeforeValidator(as_windows)] = HostWindows()
    restarts: RestartChanges = RestartChanges()
    policy: tuple[PolicyLine, ...] = ()

    @field_validator("ticket")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise wrong(f"{value!r} is no pattern: {error}") from None
        return value


class LevelSettings(Section):
    """A group of hosts of a class that is deployed together."""

    name: Name
    match: HostMatch | None = None
    concurrency: HostAmount = Amount(50)
    max_failures: HostAmount | None = None
    soak: Duration = 0
    gate: StrictStr | None = None
    around: Names = ()
    approvers: Count = 0
    spread: StrictStr | None = None
    restarts: RestartChanges = RestartChanges()
    policy: tuple[PolicyLine, ...] = ()


class Budget(Section):
    """How many hosts of a rollout may fail, or be out of reach, before it is halted.

    `late` is what becomes of those out of reach that come back while it goes on.
    """

    max_failures: HostAmount = Amount(1, percent=True)
    max_unreachable: HostAmount = Amount(5, percent=True)
    policy: Literal["halt", "per_host"] = "halt"
    late: Literal["join", "skip"] = "skip"


class Profile(Section):
    """Named exceptions to what classes and levels demand."""

    soak: Duration | None = None
    evidence: Evidence | None = None
    windows: Annotated[WindowNames, BeforeValidator(as_windows)] = WindowNames()
    approvers: Count | None = None
    concurrency: HostAmount | None = None
    max_failures: HostAmount | None = None
    until: Date | None = None


class Access(Section):
    """Which groups of people may deploy to and approve for a class, and read."""

    plan: dict[Name, Texts] = {}
    deploy: dict[Name, Texts] = {}
    promote: dict[Name, Texts] = {}
    approve: dict[Name, Texts] = {}
    read: Texts = ()
