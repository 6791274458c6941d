"""Carrying out a plan against simulated hosts: every host ends with one true outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cpacman.errors import ConflictError, SafetyError
from cpacman.model import Outcome
from cpacman.rollout import staging
from cpacman.rollout.job import Level, Recheck
from cpacman.rollout.machine import RolloutState
from cpacman.transport.fake import FakeHost, FakeTransport
from cpacman.transport.port import Answer, PushProgress, ReadSegment, Segment
from tests.unit.rollout.world import SHA, World, level


def rolled(
    world: World, *levels: Level, empty: tuple[str, ...] = ()
) -> dict[str, tuple[str | None, str | None]]:
    """Roll out one upgrade; return host -> (outcome, code)."""
    world.go_on(world.begin(*levels, empty=empty))
    return world.outcomes


def test_good_rollout(tmp_path: Path) -> None:
    """Every host gets its bytes, starts once, and ends applied; the journal knows what changed."""
    world = World(tmp_path, {"web1": FakeHost(polls=2), "web2": FakeHost()})
    assert rolled(world) == {"web1": ("applied", None), "web2": ("applied", None)}
    assert all(h.started == 1 for h in world.transport.hosts.values())
    assert world.transport.hosts["web1"].received == [(SHA, 0, 1000)]
    entries = world.store.history(package="a")
    assert {(e["host"], e["ticket"]) for e in entries} == {("web1", "CHG1"), ("web2", "CHG1")}
    assert world.store.rollouts()[0]["state"] == "done"


def test_what_is_damaged_on_a_host_is_sent_again(tmp_path: Path) -> None:
    """A power cut in an earlier push left half a file: the whole of it comes once more."""
    world = World(tmp_path, {"web1": FakeHost(spoils=1), "web2": FakeHost()})
    assert rolled(world) == {"web1": ("applied", None), "web2": ("applied", None)}
    assert world.transport.hosts["web1"].received == [(SHA, 0, 1000)] * 2
    assert world.transport.hosts["web2"].received == [(SHA, 0, 1000)]
    assert [entry["host"] for entry in world.store.history() if entry["action"] == "resend"] == [
        "web1"
    ]


def test_a_disk_that_damages_everything_is_refused(tmp_path: Path) -> None:
    """Twice is enough; what was damaged is told by its name."""
    world = World(tmp_path, {"web1": FakeHost(spoils=9)})
    assert rolled(world) == {"web1": ("refused", "bytes")}
    assert len(world.transport.hosts["web1"].received) == 2
    assert any("damaged on its disk each time" in line for line in world.lines)


def test_why_reports_did_not_count_is_told(tmp_path: Path) -> None:
    """A host whose key is not the accepted one is no host that is down; it is said once."""
    world = World(tmp_path, {"web1": FakeHost(forged=True)})
    assert rolled(world) == {"web1": ("silent", "silent")}
    (told,) = [line for line in world.lines if line.startswith("ignored a report of web1")]
    (row,) = world.store.rollout("r-1")[1]
    assert row.detail is not None and told in row.detail


def test_a_halt_during_a_push_ends_it(tmp_path: Path) -> None:
    """Bytes for hours keep nobody from halting: nothing starts, and the rollout is halted."""
    world = World(tmp_path, {"web1": FakeHost()})

    class Slow(FakeTransport):
        def push(
            self,
            session: str,
            needs: Mapping[str, Sequence[Segment]],
            read: ReadSegment,
            progress: Callable[[PushProgress], None],
        ) -> list[Answer]:
            world.store.wish_rollout("r-1", "halt", at=world.clock(), who="boss")
            while True:
                progress(PushProgress(0, 1000))

    world.transport = Slow(world.transport.hosts, world.clock)
    assert world.run().state is RolloutState.HALTED
    assert world.outcomes == {"web1": ("skipped", "halted")}
    assert not world.transport.hosts["web1"].started


def test_a_slow_host_has_time_to_hash_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after a push it hashes all files of its transaction, however many they are."""
    world = World(tmp_path, {"web1": FakeHost()})
    asked: dict[str, float] = {}

    class Noting(FakeTransport):
        def call(
            self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
        ) -> Iterator[Answer]:
            asked.setdefault(function, timeout)
            return super().call(function, requests, timeout=timeout)

    world.transport = Noting(world.transport.hosts, world.clock)
    monkeypatch.setattr(staging, "HASHED", 10)
    assert rolled(world) == {"web1": ("applied", None)}
    assert asked["begin"] == asked["staged"] == asked["apply"] + 100


def test_nothing_to_do_is_unchanged_without_a_call(tmp_path: Path) -> None:
    """A host whose transaction is empty is not even asked."""
    world = World(tmp_path, {"web1": FakeHost()})
    assert rolled(world, empty=("web1",)) == {"web1": ("unchanged", None)}
    assert world.transport.calls == []


def test_idle_host_that_does_not_answer_is_not_unchanged(tmp_path: Path) -> None:
    """Nothing planned is not nothing to do: who can't be asked is skipped, not well."""
    world = World(tmp_path, {"web1": FakeHost()})
    world.changed["web1"] = Recheck(None, "unreachable", "no answer in 5 s")
    assert rolled(world, empty=("web1",)) == {"web1": ("skipped", "unreachable")}


@pytest.mark.parametrize("canary", [FakeHost(faults={"begin": "unreachable"}), None])
def test_level_without_a_result_stops_the_next(tmp_path: Path, canary: FakeHost | None) -> None:
    """No canary ran, so nothing is known, so nobody else starts."""
    world = World(tmp_path, {"web1": canary or FakeHost(), "web2": FakeHost()})
    if canary is None:
        world.changed["web1"] = Recheck(None, "changed", "its packages changed")
    found = rolled(world, level("canary", "web1"), level("rest", "web2"))
    assert found["web2"] == ("skipped", "halted")
    assert world.transport.hosts["web2"].started == 0


@pytest.mark.parametrize(
    ("host", "outcome"),
    [
        (FakeHost(faults={"begin": "unreachable"}), ("skipped", "unreachable")),
        (FakeHost(faults={"begin": "pin"}), ("refused", "pin")),
        (FakeHost(faults={"push": "unreachable"}), ("skipped", "unreachable")),
        (FakeHost(faults={"push": "space"}), ("refused", "space")),
        (FakeHost(faults={"staged": "space"}), ("refused", "space")),
        (FakeHost(faults={"apply": "expired"}), ("refused", "expired")),
        (FakeHost(faults={"result": "unreachable"}), ("silent", "silent")),
        (FakeHost(forged=True), ("silent", "silent")),
        (FakeHost(report={"nonce": "another"}), ("silent", "silent")),
        (FakeHost(report={"host": "web2"}), ("silent", "silent")),
        (FakeHost(report={"plan": "p-2"}), ("silent", "silent")),
        (FakeHost(report={"outcome": "refused", "code": "space"}), ("refused", "space")),
        (FakeHost(report={"outcome": "failed", "code": "scriptlet"}), ("failed", "scriptlet")),
        (FakeHost(report={"packages": "others"}), ("failed", "differs")),
        (FakeHost(report={"outcome": "splendid"}), ("failed", "garbled")),
        (FakeHost(faults={"apply": "unreachable"}, polls=-1), ("silent", "silent")),
    ],
)
def test_faults_end_truthfully(tmp_path: Path, host: FakeHost, outcome: tuple[str, str]) -> None:
    """Whatever a host does, it ends with the one outcome that is true; unknown is never ok."""
    world = World(tmp_path, {"web1": host})
    assert rolled(world) == {"web1": outcome}


@pytest.mark.parametrize(
    ("cuts", "outcome", "starts"),
    [(1, ("applied", None), 2), (3, ("applied", None), 4), (9, ("failed", "interrupted"), 4)],
)
def test_cut_off_hosts_are_started_again(
    tmp_path: Path, cuts: int, outcome: tuple[str, str | None], starts: int
) -> None:
    """A host whose transaction was cut off carries on by itself; not for ever, and never as ok."""
    world = World(tmp_path, {"web1": FakeHost(cuts=cuts)})
    assert rolled(world) == {"web1": outcome}
    assert world.transport.hosts["web1"].started == starts
    actions = [entry["action"] for entry in world.store.history(host="web1")]
    assert actions.count("recover") == starts - 1


def test_refusal_because_of_another_cut_off_session_is_final(tmp_path: Path) -> None:
    """What stands in a host's way is told, not tried again and again."""
    said = {"outcome": "refused", "code": "interrupted", "ended": 5.0}
    world = World(tmp_path, {"web1": FakeHost(report=said)})
    assert rolled(world) == {"web1": ("refused", "interrupted")}
    assert world.transport.hosts["web1"].started == 1


def test_changed_host_is_skipped(tmp_path: Path) -> None:
    """A host that is not what the plan was made for gets nothing."""
    world = World(tmp_path, {"web1": FakeHost(), "web2": FakeHost()})
    world.changed["web1"] = Recheck(None, "changed", "its packages changed")
    assert rolled(world)["web1"] == ("skipped", "changed")
    assert world.transport.hosts["web1"].started == 0
    assert world.transport.hosts["web2"].started == 1


def test_host_that_has_it_already_is_unchanged(tmp_path: Path) -> None:
    """The same plan a second time: what is true already is no failure and no change."""
    world = World(tmp_path, {"web1": FakeHost()})
    world.changed["web1"] = Recheck(None, "already", "has it already")
    assert rolled(world) == {"web1": ("unchanged", None)}
    assert world.transport.hosts["web1"].started == 0


def test_later_batches_are_still_in_time(tmp_path: Path) -> None:
    """Each batch starts by an order of its own; the manifests hold until the last is through."""
    hosts = {f"web{n}": FakeHost(polls=8) for n in range(6)}
    world = World(tmp_path, hosts)
    found = rolled(world, level("all", *hosts, concurrency=1))
    assert {outcome for outcome, _ in found.values()} == {"applied"}
    assert all(host.started_at < host.manifest["expires"] for host in hosts.values())
    assert all(host.started_at < host.order["expires"] for host in hosts.values())


def test_solved_again_with_the_same_actions_goes_on(tmp_path: Path) -> None:
    """The same actions from a changed inventory go on, and the journal says so."""
    world = World(tmp_path, {"web1": FakeHost()})
    world.changed["web1"] = Recheck(world.inventory, "", "solved again, same actions")
    assert rolled(world)["web1"] == ("applied", None)
    assert "replanned" in [entry["action"] for entry in world.store.history(host="web1")]


def test_failures_over_budget_stop_later_levels(tmp_path: Path) -> None:
    """A failing canary halts the rollout: no host of a later level starts."""
    bad = FakeHost(report={"outcome": "failed", "code": "scriptlet"})
    world = World(tmp_path, {"web1": bad, "web2": FakeHost()})
    assert rolled(world, level("canary", "web1"), level("rest", "web2")) == {
        "web1": ("failed", "scriptlet"),
        "web2": ("skipped", "halted"),
    }
    assert world.transport.hosts["web2"].started == 0
    assert world.store.rollouts()[0]["state"] == "halted"


def test_budget_stops_between_batches(tmp_path: Path) -> None:
    """With one host at a time, the first failure keeps the others from starting."""
    hosts = {f"web{n}": FakeHost(report={"outcome": "failed"}) for n in range(4)}
    world = World(tmp_path, hosts)
    found = rolled(world, level("all", *hosts, concurrency=1))
    assert [outcome for outcome, _ in found.values()] == ["failed"] + ["skipped"] * 3


def test_operator_stops(tmp_path: Path) -> None:
    """After a Ctrl-C no more hosts start, those in flight are collected."""
    hosts = {f"web{n}": FakeHost(polls=3) for n in range(3)}
    world = World(tmp_path, hosts)
    world.stopping = lambda: hosts["web0"].started > 0
    found = rolled(world, level("all", *hosts, concurrency=1))
    assert found == {
        "web0": ("applied", None),
        "web1": ("skipped", "halted"),
        "web2": ("skipped", "halted"),
    }


def test_altered_file_stops_before_anything(tmp_path: Path) -> None:
    """A file that is not what the plan says: no rollout, no call, a message that names it."""
    world = World(tmp_path, {"web1": FakeHost()})
    world.depot.broken = True
    with pytest.raises(SafetyError, match="altered"):
        rolled(world)
    assert world.transport.calls == [] and world.store.rollouts() == []


def test_locked_host_stops_before_anything(tmp_path: Path) -> None:
    """Two rollouts never have one host: the second is refused whole."""
    world = World(tmp_path, {"web1": FakeHost(), "web2": FakeHost()})
    other = {"id": "r-0", "plan": "p-0", "class": "all", "state": "running", "who": "x",
             "owner": "y"}  # fmt: skip
    world.store.start_rollout(other, [("web2", "all", "t")], at=1.0)
    with pytest.raises(ConflictError, match="web2"):
        rolled(world)
    assert world.transport.calls == []


def test_host_gets_only_what_its_plan_names(tmp_path: Path) -> None:
    """A host that asks for other files does not get them, nor its own ones twice."""
    world = World(tmp_path, {"web1": FakeHost(tampers=True)})
    assert rolled(world)["web1"] == (Outcome.APPLIED.value, None)
    assert world.transport.hosts["web1"].received == [(SHA, 0, 1000)]
