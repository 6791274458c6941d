"""What all rooms share: hosts in trees, and what a failed test leaves in its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent import agenthost


@pytest.fixture(scope="session")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Test packages by `name-version`, built once."""
    return agenthost.build_packages(tmp_path_factory.mktemp("rpmbuild"))


@pytest.fixture
def host(rpms: dict[str, Path], tmp_path: Path) -> agenthost.TreeHost:
    """A host in a tree, with an empty database."""
    if not agenthost.is_root():
        pytest.skip("rpm --root needs root")
    return agenthost.TreeHost(tmp_path, rpms)


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
