"""Restarts as they hold for one class and one level, and what is wrong with how they are given.

Invariants: of each value the narrowest place that gives it counts: level, class, fleet; a list
that nothing uses, and one that is needed and missing, are errors.
"""

from __future__ import annotations

from collections.abc import Iterator

from cpacman.config.settings import Settings
from cpacman.config.stages import RestartChanges, RestartSettings
from cpacman.errors import Problem


def restarts_of(settings: Settings, class_: str, level: str) -> RestartSettings:
    """Return what follows a transaction on hosts of a class and a level.

    A class or a level that was taken out of the configuration says nothing.
    """
    classes = (one.restarts for one in settings.classes if one.name == class_)
    levels = (one.restarts for one in settings.levels if one.name == level)
    return _joined(settings.restarts, *classes, *levels)


def _joined(fleet: RestartSettings, *changes: RestartChanges) -> RestartSettings:
    given = {k: v for one in changes for k, v in one.model_dump(exclude_none=True).items()}
    return fleet.model_copy(update=given)


def restart_problems(settings: Settings) -> list[Problem]:
    """Return the lists of services that are missing, and those that have no effect."""
    used: set[str] = set()
    lacking: set[str] = set()
    for places in _combinations(settings):
        listing = [place for place, one in places.items() if one.services is not None][-1]
        if places[listing].services == "listed":
            lists = [place for place, one in places.items() if one.names]
            used.update(lists[-1:])
            lacking.update([] if lists else [listing])
    idle = {p for places in _combinations(settings) for p, one in places.items() if one.names}
    return [
        *(Problem(f"{place}.services", "lists nothing", "add list: [httpd.service]")
          for place in sorted(lacking)),
        *(Problem(f"{place}.list", "has no effect: no services: listed is with it",
                  "say services: listed, or take the list away")
          for place in sorted(idle - used)),
    ]  # fmt: skip


def _combinations(settings: Settings) -> Iterator[dict[str, RestartSettings | RestartChanges]]:
    """Yield the places that count for each class and level, the widest first."""
    for c, class_ in enumerate(settings.classes):
        for n, level in enumerate(settings.levels):
            yield {
                "restarts": settings.restarts,
                f"classes[{c}].restarts": class_.restarts,
                f"levels[{n}].restarts": level.restarts,
            }
