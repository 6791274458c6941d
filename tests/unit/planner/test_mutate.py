"""No rule of ours is without a case that misses it."""

from __future__ import annotations

import pytest

from tests.unit.planner.mutate import RULES, missing


@pytest.mark.parametrize("rule", RULES)
def test_a_case_fails_without_the_rule(rule: str) -> None:
    """With a rule disabled at least one case is not planned as it says."""
    assert next(missing(rule), None) is not None
