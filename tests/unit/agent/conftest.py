"""Fixtures: packages built once, and hosts in trees."""

from __future__ import annotations

import pytest

from tests.unit.agent import agenthost


@pytest.fixture
def agent():
    """The agent as a library."""
    return agenthost.load(agenthost.AGENT, "cpacman_agent")
