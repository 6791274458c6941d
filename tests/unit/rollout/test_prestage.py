"""Bringing bytes ahead of a rollout, on simulated hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpacman.errors import SafetyError, UsageError
from cpacman.rollout.job import CHANGED, Recheck
from cpacman.rollout.machine import HostState
from cpacman.rollout.prestage import KEEP, prestage
from cpacman.rollout.staging import check_files
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.world import SHA, World, job, level


def test_bytes_come_and_nothing_starts(tmp_path: Path) -> None:
    """Every host has its bytes and a manifest that holds for a week; none is told to start."""
    world = World(tmp_path, {"a": FakeHost(), "b": FakeHost()})
    made = job((level("all", "a", "b"),))._replace(rollout="g-1")
    record, lacked = prestage(made, world.tools(), ["a", "b"])
    assert record.states == dict.fromkeys("ab", HostState.STAGED) and not record.ended
    assert lacked == 2000
    for host in world.transport.hosts.values():
        assert host.received == [(SHA, 0, 1000)] and not host.started
        assert host.manifest["session"] == "g-1"
        assert host.manifest["expires"] - host.manifest["created"] == KEEP
    assert not world.store.rollouts(), "a staging is no rollout"
    assert [row["action"] for row in world.store.history()] == ["staged", "staged"]


@pytest.mark.parametrize(
    ("faults", "code"),
    [({"begin": "space"}, "space"), ({"push": "unreachable"}, "unreachable"),
     ({"staged": "unreachable"}, "unreachable")],
)  # fmt: skip
def test_a_host_that_fails_is_no_other_s_business(
    faults: dict[str, str], code: str, tmp_path: Path
) -> None:
    """It is named with its code; the others are staged."""
    world = World(tmp_path, {"a": FakeHost(faults=faults), "b": FakeHost()})
    record, _ = prestage(job((level("all", "a", "b"),)), world.tools(), ["a", "b"])
    assert record.ended["a"][1] == code
    assert record.states["b"] is HostState.STAGED


def test_what_changed_gets_nothing(tmp_path: Path) -> None:
    """A host for which the plan does not hold any more is left alone."""
    world = World(tmp_path, {"a": FakeHost()})
    world.changed = {"a": Recheck(None, CHANGED, "other packages")}
    record, lacked = prestage(job((level("all", "a"),)), world.tools(), ["a"])
    assert (record.ended["a"][1], lacked) == (CHANGED, 0)
    assert not world.transport.hosts["a"].received


def test_the_operator_stops_it_while_bytes_are_sent(tmp_path: Path) -> None:
    """The first Ctrl-C is enough, however long the push would take."""
    world = World(tmp_path, {"a": FakeHost()})
    world.stopping = lambda: True
    with pytest.raises(UsageError, match="what came so far stays"):
        prestage(job((level("all", "a"),)), world.tools(), ["a"])


def test_an_altered_file_stops_before_anything_is_sent(tmp_path: Path) -> None:
    """Files are hashed first."""
    world = World(tmp_path, {"a": FakeHost()})
    world.depot.broken = True
    with pytest.raises(SafetyError):
        check_files(job((level("all", "a"),)).plan, ["a"], world.tools())
    assert json.dumps(world.transport.calls) == "[]"
