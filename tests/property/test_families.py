"""Random families of packages are planned as dnf does it, but for what our invariants forbid.

`CPACMAN_PROPERTY_CASES` is how many are tried (200), `CPACMAN_PROPERTY_FIRST` the number of the
first one (0). A case that differs is made small and shown as the case file it could be.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.property import oracle
from tests.property.compare import NAMED, Compared, compare_case
from tests.property.families import make_case
from tests.property.kinds import count, too_few
from tests.property.reduce import reduced
from tests.property.text import text_of
from tests.unit.planner.casefile import Case, read_sections

CASES = int(os.environ.get("CPACMAN_PROPERTY_CASES", "200"))
FIRST = int(os.environ.get("CPACMAN_PROPERTY_FIRST", "0"))
BATCH = 25

pytestmark = pytest.mark.property


def _compared(case: Case, dnf: oracle.Dnf, directory: Path) -> Compared:
    try:
        return compare_case(case, dnf, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _differs(case: Case, dnf: oracle.Dnf, directory: Path) -> bool:
    try:
        return bool(_compared(case, dnf, directory).differences)
    except Exception:
        return False  # a case that lost too much: it is not the smaller one that is looked for


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, BATCH))
def test_families(first: int, dnf: oracle.Dnf, tmp_path: Path) -> None:
    """Each of some random families is planned as dnf plans it; few differ on purpose."""
    meant = 0
    for number in range(first, min(first + BATCH, FIRST + CASES)):
        found = _compared(make_case(number), dnf, tmp_path / "case")
        meant += bool(found.named)
        if found.differences:
            small = reduced(make_case(number), lambda c: _differs(c, dnf, tmp_path / "small"), 150)
            pytest.fail("\n".join([*found.differences, text_of(small)]))
    assert meant <= BATCH / 2


def test_reach() -> None:
    """The families reach every kind of thing that makes planning hard, each often enough."""
    found, cases = count(range(400))
    assert not too_few(found, cases)


def test_text_of_a_case() -> None:
    """A case that is written down reads as the same case."""
    case = make_case(7)
    assert read_sections(text_of(case)) == case.sections


def test_meant_differences_have_a_case() -> None:
    """Every difference that is meant names the case file that shows it."""
    cases = Path(__file__).parents[1] / "unit" / "planner" / "cases"
    names = {words.rpartition("(")[2].rstrip(")") for words in NAMED.values()}
    assert not [name for name in names if not (cases / f"{name}.txt").exists()]
