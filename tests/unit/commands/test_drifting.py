"""What hosts have that CPacMan did not leave there."""

from __future__ import annotations

import pytest

from cpacman.commands.drifting import drift
from cpacman.commands.fleet import Selection
from cpacman.commands.hosts import hosts
from cpacman.commands.snapshots import snapshot
from cpacman.errors import UsageError
from cpacman.report.screens import render
from tests.unit.commands.world import Present, World

WHO = Selection(class_="development")


@pytest.fixture
def fleet(world: World) -> World:
    """Four hosts: as it was left, changed since, failed, and one that came later."""
    world.mirror("lib-2-1.noarch", "tool-1-1.noarch")
    snapshot(world.context())
    for name in ("asleft", "changed", "failing"):
        world.host(name, "development", "lib-1-1.noarch")
    world.roll("development", {"failing": "failed"})
    world.host("later", "development", "lib-1-1.noarch")
    return world


def asked(world: World) -> dict[str, tuple[str, list[str], list[str]]]:
    """Host -> how it stands, and what differs."""
    answer = drift(world.context(transport=Present(world)), WHO)
    assert answer["retcode"] == 1
    rows = answer["drift"]["hosts"]
    return {h: (row["state"], row["added"], row["removed"]) for h, row in rows.items()}


def test_what_came_and_went_by_other_hands(fleet: World) -> None:
    """Named both ways; what is not known to be as it was left is not called equal."""
    assert {h: row[0] for h, row in asked(fleet).items()} == {
        "asleft": "equal", "changed": "equal", "failing": "unknown", "later": "unknown",
    }  # fmt: skip
    fleet.host("changed", "development", "lib-3-1.noarch", "agent-1-1.noarch")
    found = asked(fleet)
    added = ["agent-1-1.noarch", "lib-3-1.noarch"]
    assert found["changed"] == ("drifted", added, ["lib-2-1.noarch"])
    assert found["asleft"][0] == "equal"
    text = render(drift(fleet.context(transport=Present(fleet)), WHO))
    assert "1 of 4 hosts have what CPacMan left there" in text
    assert "added  agent-1-1.noarch lib-3-1.noarch" in text and "nothing was carried out" in text


def test_the_list_of_hosts_knows(fleet: World) -> None:
    """Drifted is no state of its own: a host is behind, or current, and has drifted besides."""
    assert hosts(fleet.context(), WHO, states=["drifted"])["hosts"]["hosts"] == {}
    fleet.host("changed", "development", "lib-1-1.noarch")
    (row,) = hosts(fleet.context(), WHO, states=["drifted"])["hosts"]["hosts"].values()
    assert (row["state"], row["note"]) == ("behind", "drifted: +1 -1")


def test_who_is_asked_is_named(fleet: World) -> None:
    """Nothing means nobody; who gives no answer is no host that is as it was left."""
    with pytest.raises(UsageError, match="name the hosts"):
        drift(fleet.context(), Selection())
    rows = drift(fleet.context(), Selection(tgt="asleft"))["drift"]["hosts"]
    assert (rows["asleft"]["state"], rows["asleft"]["note"]) == ("failed", "no answer")
