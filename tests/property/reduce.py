"""A case made as small as it can be while something about it stays true.

Invariant: what comes out is a case of its own: what is left was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.unit.planner.casefile import Case, Section

Fails = Callable[[Case], bool]
_NEEDED = ("repo", "installed")


def reduced(case: Case, fails: Fails, most: int = 400) -> Case:
    """Return a smaller case that fails, too, after trying some smaller ones."""
    found = True
    while found:
        found = False
        for smaller in _smaller(case):
            most -= 1
            if most < 0:
                return case
            if fails(smaller):
                case, found = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Yield each case with one section, one line or one dependency less."""
    for number, section in enumerate(case.sections):
        before, after = case.sections[:number], case.sections[number + 1 :]
        if section.words[0] not in _NEEDED:
            yield case._replace(sections=[*before, *after])
        for less in _less(section):
            yield case._replace(sections=[*before, less, *after])


def _less(section: Section) -> Iterator[Section]:
    for number, (head, said) in enumerate(section.lines):
        before, after = section.lines[:number], section.lines[number + 1 :]
        yield section._replace(lines=(*before, *after))
        for kind, rows in said.items():
            for rest in _shorter(rows):
                kept = {k: v for k, v in {**said, kind: rest}.items() if v}
                yield section._replace(lines=(*before, (head, kept), *after))
    for word in section.words[2:]:
        yield section._replace(words=tuple(w for w in section.words if w != word))


def _shorter(rows: str) -> Iterator[str]:
    parts = rows.split(", ")
    yield from (", ".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts)))
