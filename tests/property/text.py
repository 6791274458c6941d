"""A case written down, as a case file has it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.planner.casefile import Case, Section


def text_of(case: Case) -> str:
    """Return the text of a case; reading it gives the case again."""
    lines = (line for section in case.sections for line in _lines(section))
    return "\n".join([f"# {case.title}", *lines, ""])


def _lines(section: Section) -> Iterator[str]:
    yield " ".join(section.words)
    for head, said in section.lines:
        yield f"  {head}"
        yield from (f"    {kind}: {rows}" for kind, rows in said.items())
