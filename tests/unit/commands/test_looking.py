"""What `show` tells of a plan, group by group."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cpacman.commands.fleet import Selection
from cpacman.commands.looking import history, show
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.errors import InputError
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.world import World


def shown(world: World, **more: Any) -> dict[str, Any]:
    """Plan the class, and show that."""
    body = plan(world.context(), Selection(class_="development"), request=Request())["plan"]
    return show(world.context(), body["plan_id"], **more)


def test_a_group_tells_which_of_its_hosts_are_equal(world: World) -> None:
    """Equal actions are not equal packages: the odd host is told, with how it differs."""
    world.mirror("lib-2-1.noarch")
    for name, more in (("dev1", ()), ("dev2", ()), ("dev3", ("tool-1-1.noarch",))):
        world.host(name, "development", "lib-1-1.noarch", *more)
    snapshot(world.context())
    answer = shown(world, group="A")
    alike = answer["plan"]["alike"]["A"]
    assert [one["hosts"] for one in alike["sets"]] == [["dev1", "dev2"], ["dev3"]]
    assert alike["sets"][0]["fingerprint"] != alike["sets"][1]["fingerprint"]
    text = render(answer)
    assert "installed now\nA  3 hosts, 2 different sets of packages, fingerprint" in text
    assert "+  tool.noarch  1-1" in text
    assert "alike" not in shown(world)["plan"]
    with pytest.raises(InputError, match="has no group 'B'"):
        shown(world, group="B")


def test_history_of_one_day_has_that_day(world: World) -> None:
    """A day as `until` counts up to its end, as it does where something is promoted."""
    noon = datetime.datetime(2026, 11, 22, 12).astimezone().timestamp()
    for days, subject in ((-1, "before"), (0, "noon"), (1, "after")):
        world.store.record("plan", subject, at=noon + days * 86400, who="me")
    context = world.context()
    told = history(context, since="2026-11-22", until="2026-11-22")["history"]["entries"]
    assert [one["subject"] for one in told] == ["noon"]
    told = history(context, until="2026-11-22T11:59")["history"]["entries"]
    assert [one["subject"] for one in told] == ["before"]
