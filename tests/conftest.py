"""What a failed test leaves for whoever sees nothing but its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Add what the lab says to the report of a test that failed in one."""
    report = yield
    if report.failed:
        for lab in labs_of(getattr(item, "funcargs", {})):
            report.sections.append((f"lab {lab.name}", said_by(lab)))
    return report


def labs_of(arguments: dict[str, Any]) -> list[Any]:
    """The labs that a test was given, by themselves or in a fleet."""
    given = [getattr(value, "lab", value) for value in arguments.values()]
    labs = [value for value in given if hasattr(value, "wait_for_minions")]
    return list({id(lab): lab for lab in labs}.values())


def said_by(lab: Any) -> str:
    """What a lab's machines have in their logs."""
    from tests.integration.telling import told

    return told(lab)
