"""Pushes to real minions that misbehave while bytes are on their way."""

from __future__ import annotations

import pytest

from lab import Lab
from tests.integration.fleet import TIMES, Fleet
from tests.integration.test_thread import received, wait


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A configured fleet whose pushes are slow enough to meddle with."""
    fleet = Fleet(clean_lab)
    fleet.configure(transport={**TIMES, "chunk": "1M", "bandwidth": "5M"})
    return fleet.ready()


def test_a_host_that_stops_in_mid_push_slows_nobody(fleet: Fleet) -> None:
    """The other one gets all; later only what is still missing goes to the one that stopped."""
    number = fleet.plan(install="hugedata")["plan_id"]
    host = fleet.lab.host("web2")
    before = received(fleet, "web2")
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.stage", plan=number)) as running:
        wait(lambda: received(fleet, "web2") - before > 6_000_000)
        host.pause()
        result = running.wait()
    assert result.returncode == 4, result.stdout
    assert "1 of 2 hosts have all they need" in result.stdout
    assert "web2" in result.stdout and "stopped taking bytes" in result.stdout
    host.resume()
    fleet.lab.wait_for_answers()
    again = fleet.run("stage", plan=number)
    assert again.code == 0, again.text
    assert 0 < again["stage"]["bytes"] < 16_000_000
