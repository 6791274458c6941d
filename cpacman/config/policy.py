"""Lines of policy: each does exactly one thing, to named packages, somewhere, until some day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import StrictStr, model_validator

from cpacman.config.fields import Date, Globs, HostMatch, Section
from cpacman.config.values import wrong
from cpacman.planner.ruling import is_lockable

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
    "vendors",
    "protect",
    "free",
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
    vendors: Globs = ()
    protect: Globs = ()
    free: Globs = ()
    packages: Globs = ()
    scope: HostMatch | None = None
    reason: StrictStr = ""
    owner: StrictStr = ""
    until: Date | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> PolicyLine:
        given = [kind for kind in POLICY_KINDS if getattr(self, kind)]
        if len(given) != 1:
            said = "does nothing" if not given else f"is {' and '.join(given)} in one"
            raise wrong(f"the line {said}", f"name exactly one of {', '.join(POLICY_KINDS)}")
        if len(self.together) == 1:
            raise wrong("together needs two packages or more", "name those that move as one")
        if len(self.vendors) == 1:
            raise wrong("vendors needs two or more", "name those that may replace each other")
        if broken := [word for word in self.lock if not is_lockable(word)]:
            raise wrong(f"{broken[0]!r} locks nothing", "write a name, or a range: httpd < 2.5")
        if self.packages and not self.vendors:
            raise wrong("packages belongs to vendors", "name the packages in the kind itself")
        return self

    @property
    def kind(self) -> PolicyKind:
        """What the line does."""
        return next(kind for kind in POLICY_KINDS if getattr(self, kind))

    @property
    def words(self) -> tuple[str, ...]:
        """The packages it does it to, as names or globs; every one where a line names none."""
        return (self.packages or ("*",)) if self.vendors else tuple(getattr(self, self.kind))

    def applies(self, meta: Mapping[str, Any], today: datetime.date) -> bool:
        """Whether the line holds for a host with this metadata on this day (`until` included)."""
        in_time = self.until is None or today <= self.until
        return in_time and (self.scope is None or self.scope.fits(meta))
