"""Each value of the settings, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cpacman.config.fields import Section


class Explained(NamedTuple):
    """One value of the settings, as plain JSON types, and where it comes from."""

    path: str
    value: Any
    source: str


def explain_section(section: Section, path: str, source: str) -> Iterator[Explained]:
    """Yield each value of a section, those of its parts at their paths below `path`."""
    plain = section.model_dump(mode="json")
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        where = source if name in section.model_fields_set else "default"
        yield from _explain_value(
            value, plain[name], f"{path}.{info.alias or name}".lstrip("."), where
        )


def _explain_value(value: Any, plain: Any, path: str, source: str) -> Iterator[Explained]:
    if isinstance(value, Section):
        yield from explain_section(value, path, source)
    elif isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _explain_value(one, plain[key], f"{path}.{key}", source)
    elif isinstance(value, tuple) and value and isinstance(value[0], Section):
        for index, one in enumerate(value):
            yield from _explain_value(one, plain[index], f"{path}[{index}]", source)
    else:
        yield Explained(path, plain, source)
