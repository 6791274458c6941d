"""Fixtures: packages built once, and hosts in trees."""

from __future__ import annotations

import pytest

from tests.unit.agent import agenthost


@pytest.fixture(scope="session")
def rpms(tmp_path_factory):
    """Test packages by `name-version`."""
    return agenthost.build_packages(tmp_path_factory.mktemp("rpmbuild"))


@pytest.fixture
def host(rpms, tmp_path):
    """A host with an empty database."""
    if not agenthost.is_root():
        pytest.skip("rpm --root needs root")
    return agenthost.TreeHost(tmp_path, rpms)


@pytest.fixture
def agent():
    """The agent as a library."""
    return agenthost.load(agenthost.AGENT, "cpacman_agent")
