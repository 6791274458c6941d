"""What packages need of two snapshots: as little as possible, never what was excluded."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpacman.planner.closure import ALL, NONE, Closure, Need, Row, Side
from tests.unit.planner.casefile import read_sections, source_of

HELD = """
repo base
  app-1-1.noarch
    requires: lib
  lib-1-1.noarch
  tool-1-1.noarch
"""
NEWER = """
repo base
  app-2-1.noarch
    requires: lib >= 2, tool
  lib-2-1.noarch
    requires: core
  core-1-1.noarch
  tool-2-1.noarch
  broken-1-1.noarch
    requires: nowhere
  plugin-2-1.noarch
    requires: app >= 2
"""


@pytest.fixture
def closure(tmp_path: Path) -> Closure:
    """Two snapshots of one repository."""
    held, newer = (source_of(read_sections(text)[0], tmp_path / side)
                   for side, text in (("held", HELD), ("newer", NEWER)))  # fmt: skip
    return Closure([held], [newer], arch="x86_64", cache=None)


def row(nevra: str) -> Row:
    """A package of the one repository."""
    return ("base", f"{nevra}.noarch")


def only(*nevras: str) -> Side:
    """Nothing but these."""
    return Side(whole=False, rows=tuple(row(one) for one in nevras))


def test_what_is_needed_comes_and_no_more(closure: Closure) -> None:
    """The dependency's own dependency, too; what the class holds already is enough for the rest."""
    (need,) = closure.look([row("app-2-1")], old=ALL, new=only("app-2-1"), more=ALL)
    assert set(need.needs) == {row("lib-2-1"), row("core-1-1")} and need.package == row("app-2-1")
    whole = only("app-2-1", "lib-2-1", "core-1-1")
    assert closure.look([row("app-2-1"), row("lib-2-1")], old=ALL, new=whole, more=ALL) == []


def test_excluded_never_comes(closure: Closure) -> None:
    """What can't do without something excluded is told, with the cause in plain names."""
    more = Side(whole=True, rows=(row("core-1-1"),))
    (need,) = closure.look([row("app-2-1")], old=ALL, new=only("app-2-1"), more=more)
    assert need.needs == () and "lib-2-1.noarch needs core" in " ".join(need.causes)
    assert "newer" not in " ".join(need.causes)


def test_nothing_else_may_come(closure: Closure) -> None:
    """All of the newer one but some: what needs those can't be had."""
    new = Side(whole=True, rows=(row("lib-2-1"),))
    found = closure.look([row("plugin-2-1"), row("tool-2-1")], old=only("lib-1-1"), new=new)
    assert [one.package for one in found] == [row("plugin-2-1")]
    assert found[0].causes


def test_what_was_broken_before_is_no_fault_of_the_choice(closure: Closure) -> None:
    """A package that nobody can install from the newer snapshot holds nothing up."""
    assert closure.look([row("broken-1-1")], old=ALL, new=only("broken-1-1"), more=ALL) == []
    assert closure.look([row("gone-1-1")], old=ALL, new=NONE) == []
    assert Need(row("a-1-1")).causes == ()
