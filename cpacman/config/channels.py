"""Channels: which hosts they serve, and from which repositories."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from cpacman.config.fields import ConfigPath, Globs, HostMatch, Name, Names, Section, listed
from cpacman.config.policy import PolicyLine
from cpacman.config.values import wrong


class OsMatch(Section):
    """Which hosts are of a channel: every key that is given must fit; a list means any of it."""

    id: Globs = ()
    id_like: Globs = ()
    major: Globs = ()
    version_id: Globs = ()
    arch: Globs = ()


Signatures = Literal["require", "warn", "off"]
"""A package that none of the channel's keys signed: refused, told, or not looked at."""


def _off(value: Any) -> Any:
    """Take what YAML makes of `off`."""
    return "off" if value is False else value


class RepositorySettings(Section):
    """One repository of a channel. `priority` is as in dnf: the lower number wins.

    `signatures` left out is `require` where the channel has keys, and `off` where it has none.
    """

    path: ConfigPath
    autoupdate: StrictBool = True
    classes: Names = ()
    only: HostMatch | None = None
    priority: Annotated[StrictInt, Field(ge=1, le=999)] = 99
    module_hotfixes: StrictBool = False
    origin: StrictStr = ""
    signatures: Annotated[Signatures | None, BeforeValidator(_off)] = None


class Channel(Section):
    """The repositories that serve one platform, and which hosts are of it."""

    match: OsMatch = OsMatch()
    keys: Annotated[tuple[ConfigPath, ...], BeforeValidator(listed)] = ()
    repositories: Annotated[dict[Name, RepositorySettings], Field(min_length=1)]
    policy: tuple[PolicyLine, ...] = ()

    @property
    def signature_modes(self) -> dict[str, str]:
        """What each repository's packages must carry, with what is left out filled in."""
        usual = "require" if self.keys else "off"
        return {name: one.signatures or usual for name, one in self.repositories.items()}

    @model_validator(mode="after")
    def _keys_for_signatures(self) -> Channel:
        """Refuse a repository that wants signatures looked at where nothing could verify them."""
        asking = [
            n for n, one in self.repositories.items() if one.signatures in ("require", "warn")
        ]
        if asking and not self.keys:
            said = f"repositories.{asking[0]}.signatures needs keys"
            raise wrong(said, "name the files of the public keys: keys: [/etc/pki/rpm-gpg/...]")
        return self
