"""Channels: which hosts they serve, and from which repositories."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from cpacman.config.fields import ConfigPath, Globs, HostMatch, Name, Names, Section, listed
from cpacman.config.policy import PolicyLine


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
    keys: Annotated[tuple[ConfigPath, ...], BeforeValidator(listed)] = ()
    repositories: Annotated[dict[Name, RepositorySettings], Field(min_length=1)]
    policy: tuple[PolicyLine, ...] = ()
