"""What is configured but not enforced yet is never silently accepted: it is named here.

Whoever acts on settings refuses while anything is. An entry leaves together with its enforcement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cpacman.config.fields import Section
from cpacman.config.stages import Access, ClassSettings, LevelSettings
from cpacman.errors import Problem

if TYPE_CHECKING:
    from cpacman.config.settings import Settings


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


def _access_standing(access: Access, class_name: str) -> Iterator[Problem]:
    for verb, groups in (("deploy", access.deploy), ("approve", access.approve)):
        if class_name in groups:
            yield _not_yet(f"access.{verb}.{class_name}")
    if access.read:
        yield _not_yet("access.read")


def standing(settings: Settings, class_name: str, levels: Iterable[str] = ()) -> list[Problem]:
    """Return the configured safeguards of a deploy that this version can't enforce yet.

    Args:
        settings: the settings.
        class_name: the class that is deployed or promoted to.
        levels: the levels that are deployed; none means all of them.
    """
    wanted = set(levels) or set(settings.level_names)
    return [
        *_named_standing(
            settings.classes,
            "classes",
            {class_name},
            ("approvers", "windows"),
        ),
        *_named_standing(settings.levels, "levels", wanted, ("soak", "gate", "spread")),
        *_access_standing(settings.access, class_name),
    ]
