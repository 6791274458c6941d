"""A line of policy that protects a package reaches the host, which refuses to remove it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cpacman.commands.deploying import deploy
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.prestaging import stage
from cpacman.commands.snapshots import snapshot
from cpacman.model import Request
from tests.unit.agent import agenthost
from tests.unit.commands.conftest import world  # noqa: F401
from tests.unit.commands.test_controlling import Living
from tests.unit.commands.world import World

LINE = {"protect": "ol*", "reason": "the plant needs it"}


@pytest.fixture
def fleet(world: World) -> World:  # noqa: F811
    """Two hosts that have `old`, of which one is of a role."""
    world.mirror("lib-2-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch", "old-1-1.noarch", role="plant")
    world.host("dev2", "development", "lib-1-1.noarch", "old-1-1.noarch")
    snapshot(world.context())
    return world


def _removal(fleet: World) -> str:
    """Plan that `old` leaves, while nothing protects it."""
    body = plan(fleet.context(), Selection(class_="development"), request=Request(remove=("old",)))
    assert not body["plan"]["failed"]
    return str(body["plan"]["plan_id"])


def _protected(transport: Living) -> dict[str, set[str]]:
    return {name: set(host.manifest["protected"]) for name, host in transport.hosts.items()}


@pytest.mark.parametrize("how", ["deploy", "stage"])
def test_lines_reach_the_manifest(fleet: World, how: str) -> None:
    """The host that a line is about is told the names; what no transaction removes, every host."""
    number = _removal(fleet)
    fleet.section["policy"] = [{**LINE, "scope": "role:plant"}]
    transport = Living(fleet)
    context = fleet.context(transport=transport)
    carry_out: dict[str, Any] = {"plan": number}
    if how == "deploy":
        deploy(context, Selection(), **carry_out)
    else:
        stage(context, **carry_out)
    told = _protected(transport)
    assert "old" in told["dev1"] and "old" not in told["dev2"]
    assert {"rpm", "sudo", "salt-minion"} <= told["dev1"] & told["dev2"]


def test_a_narrower_line_lets_it_leave(fleet: World) -> None:
    """As the planner rules, so does the manifest."""
    number = _removal(fleet)
    fleet.section["policy"] = [LINE, {"allow_removal": "old", "scope": "role:plant"}]
    transport = Living(fleet)
    deploy(fleet.context(transport=transport), Selection(), plan=number)
    told = _protected(transport)
    assert "old" in told["dev2"] and "old" not in told["dev1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="rpm --root needs root")
def test_the_agent_refuses_what_a_line_protects(
    fleet: World, rpms: dict[str, Path], tmp_path: Path
) -> None:
    """A plan from before the line: the agent, given this manifest's list, changes nothing."""
    number = _removal(fleet)
    fleet.section["policy"] = [LINE]
    transport = Living(fleet)
    deploy(fleet.context(transport=transport), Selection(), plan=number)
    protected = transport.hosts["dev1"].manifest["protected"]
    host = agenthost.TreeHost(tmp_path / "host", rpms)
    host.install("base-1", "old-1")
    before = host.state()
    removal = host.action("remove", "old-1")
    report = host.apply(host.stage(removal, after=["base-1"], protected=protected))
    assert (report["outcome"], report["code"]) == ("refused", "protected")
    assert "old-1-1.noarch is protected" in json.dumps(report) and host.state() == before
    allowed = [name for name in protected if name != "old"]
    assert host.apply(host.stage(removal, after=["base-1"], protected=allowed))["outcome"] == (
        "applied"
    )
