"""Which hosts are meant, as far as their place says it.

Invariants: nothing named never means everything; a name that nobody knows is refused with the
nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from cpacman.config import Match, Settings, nearest, parse_match
from cpacman.errors import Problem, UsageError
from cpacman.model import Host


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
