"""The plain values that the solver takes and gives: nothing here knows libsolv."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of one repository, as files.

    `checksum` is the sha256 of the primary file as hex digits; empty means: computed here.
    `priority` is as dnf has it: the smaller number wins. `modules` is the file of module metadata,
    `module_hotfixes` says that modules hide nothing of this repository.
    """

    name: str
    primary: str
    checksum: str = ""
    filelists: str = ""
    updateinfo: str = ""
    autoupdate: bool = True
    priority: int = 99
    modules: str = ""
    modules_checksum: str = ""
    module_hotfixes: bool = False
    origin: str = ""

    @property
    def label(self) -> str:
        """The origin of its packages: repositories of one origin may serve each other's."""
        return self.origin or self.name


class Candidate(NamedTuple):
    """One package that a repository offers. `checksum` is `type:hex`, `size` bytes."""

    name: str
    evr: str
    arch: str
    repository: str
    checksum: str
    vendor: str = ""
    buildtime: int = 0
    size: int = 0

    @property
    def nevra(self) -> str:
        """`name-[epoch:]version-release.arch`."""
        return f"{self.name}-{self.evr}.{self.arch}"


class Verb(str, Enum):
    """What a task asks of the solver."""

    UPDATE_ALL = "update-all"
    UPDATE = "update"
    INSTALL = "install"
    ERASE = "erase"


class Task(NamedTuple):
    """One demand: INSTALL takes one of `candidates`, UPDATE and ERASE the `installed` NEVRAs.

    A `weak` INSTALL that can't be met is no problem.
    """

    verb: Verb
    candidates: tuple[Candidate, ...] = ()
    installed: tuple[str, ...] = ()
    weak: bool = False


class Step(NamedTuple):
    """What happens in a solution: `new` comes (None: nothing does), the NEVRAs `old` leave.

    `weak` tells that only a weak dependency brings it, which is not asked of what replaces its own
    older version when everything is updated.
    """

    new: Candidate | None
    old: tuple[str, ...] = ()
    weak: bool = False
    side_by_side: bool = False


class Clash(str, Enum):
    """The kinds of rules that make a wish impossible."""

    NOTHING_PROVIDES = "nothing-provides"
    REQUIRES = "requires"
    CONFLICTS = "conflicts"
    OBSOLETES = "obsoletes"
    SAME_NAME = "same-name"
    NOT_INSTALLABLE = "not-installable"
    OTHER = "other"


class Finding(NamedTuple):
    """One rule of a problem: `package` (a NEVRA) and what it wants, or whom it collides with.

    `providers` are the candidates that provide `dep`, hidden ones included, when a requirement
    can't be met; `text` is the solver's own wording.
    """

    clash: Clash
    package: str
    installed: bool
    other: str
    dep: str
    providers: tuple[Candidate, ...]
    text: str


class Solution(NamedTuple):
    """What the solver found: steps, or else the findings of every problem."""

    steps: tuple[Step, ...]
    problems: tuple[tuple[Finding, ...], ...] = ()


class Matches(NamedTuple):
    """What a spec names: candidates, and NEVRAs of installed packages.

    `just_name` tells whether it named packages by name (with or without arch) and no version.
    """

    candidates: tuple[Candidate, ...]
    installed: tuple[str, ...]
    just_name: bool
