"""Listing, verifying and pruning as commands, on a real depot and state database."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cpacman.commands.deploying import deploy
from cpacman.commands.fleet import Selection
from cpacman.commands.looking import show
from cpacman.commands.planning import plan
from cpacman.commands.promoting import promote
from cpacman.commands.retention import prune, snapshots
from cpacman.commands.rollback import rollback
from cpacman.commands.snapshots import snapshot
from cpacman.commands.verifying import verify
from cpacman.depot import locks
from cpacman.depot.snapshot import check_snapshot, load_snapshot, snapshot_ids
from cpacman.errors import ConflictError, SafetyError
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.world import Present, World

DAY = 86400


def take(world: World, *nevras: str, days: float = 40) -> str:
    """Take a snapshot of a mirror with these packages, after some days."""
    world.now += days * DAY
    world.mirror(*nevras)
    snapshot(world.context())
    return world.held("development")


def depot_of(world: World) -> Path:
    """Return the depot's path."""
    return world.context().settings.depot


def kept_files(world: World) -> set[str]:
    """Return the sha256 of the package files in the depot."""
    return {one.name for one in (depot_of(world) / "files").glob("*/*")}


@pytest.fixture
def four(world: World) -> list[str]:
    """Four snapshots of development, each long after the one before; production holds the first."""
    made = [take(world, "lib-1-1.noarch", "tool-1-1.noarch")]
    promote(world.context(), "testing")
    promote(world.context(), "production")
    made.append(take(world, "lib-2-1.noarch"))
    made.append(take(world, "lib-3-1.noarch"))
    made.append(take(world, "lib-3-1.noarch", "tool-3-1.noarch"))
    return made


def test_prune_takes_what_nothing_needs(world: World, four: list[str]) -> None:
    """The second goes, with the one file that only it has; a test says so and does nothing."""
    said = prune(world.context(), test=True)
    assert [one["id"] for one in said["prune"]["removed"]] == [four[1]]
    assert said["prune"]["files"] == 1 and len(kept_files(world)) == 5
    assert set(snapshot_ids(depot_of(world))) == set(four)
    done = prune(world.context(), reason="room")
    assert done["prune"]["removed"] == said["prune"]["removed"]
    assert set(snapshot_ids(depot_of(world))) == {four[0], four[2], four[3]}
    assert len(kept_files(world)) == 4
    for one in (four[0], four[2], four[3]):
        assert check_snapshot(depot_of(world), load_snapshot(depot_of(world), one)) == []
    assert world.journal()[-1] == ("prune", "depot")
    assert world.store.history()[-1]["detail"]["snapshots"] == [four[1]]
    again = prune(world.context())
    assert (again["prune"]["removed"], again["prune"]["files"]) == ([], 0)
    assert len(world.journal()) == len(world.journal())


@pytest.mark.parametrize("signed", [False, True])
def test_a_plan_outlives_its_snapshot(world: World, signed: bool) -> None:
    """What was planned long ago can be shown, and its deploy says that it is of the past."""
    world.section["retention"] = {"keep": 2, "days": 0}
    world.now += DAY
    world.mirror("lib-2-1.noarch", advisories={"A-2026:1": ["lib-2-1.noarch"]})
    snapshot(world.context())
    world.host("web1", "development", "lib-1-1.noarch")
    selection = Selection(class_="development")
    old = plan(world.context(), selection, request=Request())["plan"]["plan_id"]
    for nevra in ("lib-3-1.noarch", "tool-2-1.noarch", "tool-3-1.noarch"):
        take(world, nevra)
    if signed:
        channel = world.section["channels"]["el9"]
        channel["keys"] = [str(world.base)]
        channel["repositories"]["base"]["signatures"] = "warn"
    assert len(prune(world.context())["prune"]["removed"]) == 2
    shown = show(world.context(), old)
    assert "lib.noarch  1-1 -> 2-1" in render(shown)
    transport = type("Silent", (), {"check": lambda *_: [], "name": "fake"})()
    with pytest.raises(SafetyError, match="the plan was made from"):
        deploy(world.context(transport=transport), Selection(), plan=old)


@pytest.fixture
def late(world: World) -> tuple[str, str]:
    """A host that got three snapshots at once, long after its class left the first; its rollout."""
    world.section["retention"] = {"keep": 2, "days": 10}
    first = take(world, "tool-1-1.noarch")
    take(world, "tool-2-1.noarch")
    take(world, "lib-1-1.noarch", "tool-2-1.noarch")
    world.host("web1", "development", "tool-1-1.noarch")
    world.now += 40 * DAY
    world.later(0)
    return first, world.roll("development")


def test_what_a_rollback_needs_stays(world: World, late: tuple[str, str]) -> None:
    """As long as a rollout can be taken back its hosts' old packages stay, and no longer."""
    first, rollout = late
    world.now += 9 * DAY
    assert prune(world.context())["prune"]["removed"] == []
    rows = {one["id"]: one for one in snapshots(world.context())["snapshots"]["snapshots"]}
    assert rows[first]["needed"] == [f"way back of {rollout}"]
    world.now += 2 * DAY
    assert [one["id"] for one in prune(world.context())["prune"]["removed"]] == [first]


def test_what_a_rollback_brings_stays_until_it_is_over(world: World, late: tuple[str, str]) -> None:
    """A rollback that waits for its window is no plan from any snapshot, and needs files."""
    first, rollout = late
    context = world.context(transport=Present(world))
    made = rollback(context, rollout=rollout)["plan"]["plan_id"]
    plan = world.store.plan(made).plan
    header = {"id": "r-back", "plan": made, "class": "development", "state": "running",
              "who": "me", "owner": "here"}  # fmt: skip
    hosts = [(host, "all", number) for host, number in plan.hosts.items()]
    world.store.start_rollout(header, hosts, at=world.now)
    world.now += 20 * DAY
    assert prune(world.context())["prune"]["removed"] == []
    world.store.end_host("r-back", "web1", expected="waiting", outcome="skipped", at=world.now,
                         who="me")  # fmt: skip
    world.store.end_rollout("r-back", state="done", at=world.now, who="me")
    assert [one["id"] for one in prune(world.context())["prune"]["removed"]] == [first]


def test_the_list_says_why_each_stays(world: World, four: list[str]) -> None:
    """Newest first, with who took it, its classes, and what may go."""
    world.now += DAY
    rows = {one["id"]: one for one in snapshots(world.context())["snapshots"]["snapshots"]}
    assert rows[four[0]]["needed"] == ["testing", "production"]
    assert rows[four[1]]["needed"] == []
    assert rows[four[3]]["needed"] == ["development"] and rows[four[3]]["packages"] == 2
    assert "may go" in render(snapshots(world.context(), ["el9"]))


def test_pins_and_longer_memory(world: World, four: list[str]) -> None:
    """Configured retention keeps more."""
    world.configure(retention={"pins": [four[1][:10]]})
    assert prune(world.context())["prune"]["removed"] == []
    world.configure(retention={"keep": 3})
    assert prune(world.context())["prune"]["removed"] == []
    world.configure(retention={"days": 100})
    assert prune(world.context())["prune"]["removed"] == []


def test_an_unreadable_snapshot_stops_it(world: World, four: list[str]) -> None:
    """Nobody knows what a damaged manifest needs, so nothing goes while it must stay."""
    manifest = depot_of(world) / "snapshots" / four[3] / "manifest.msgpack"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b"tool", b"fool"))
    with pytest.raises(SafetyError, match="another id"):
        prune(world.context())
    assert set(snapshot_ids(depot_of(world))) == set(four) and len(kept_files(world)) == 5
    manifest.write_bytes(whole)
    prune(world.context())


def test_files_without_an_owner_go(world: World, four: list[str]) -> None:
    """What runs that died left behind is collected: files, metadata, what was never finished."""
    prune(world.context())
    depot, before = depot_of(world), len(kept_files(world))
    stray = depot / "files" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x" * 5000)
    (depot / "metadata" / "stray").mkdir()
    (depot / "metadata" / "stray" / "primary.xml").write_text("x")
    (depot / "tmp" / "file-1").write_text("x")
    (depot / "files" / "somebody's").mkdir()
    said = prune(world.context())["prune"]
    assert said["files"] == 1 and said["freed"] >= 8192 and not stray.exists()
    assert not (depot / "metadata" / "stray").exists() and list((depot / "tmp").iterdir()) == []
    assert len(kept_files(world)) == before


def test_whoever_relies_on_a_snapshot_is_waited_for(
    world: World, four: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody is about to point at a snapshot nothing goes; then it stays."""
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    with locks.using(depot_of(world)), pytest.raises(ConflictError, match="using snapshots"):
        prune(world.context())
    with locks.writing(depot_of(world)), pytest.raises(ConflictError, match="taking a snapshot"):
        prune(world.context())
    monkeypatch.setattr(locks, "PATIENCE", 20)
    pointing = threading.Event()

    def point() -> None:
        with locks.using(depot_of(world)):
            pointing.set()
            load_snapshot(depot_of(world), four[1])
            time.sleep(0.5)
            world.store.point("production", "el9", four[1], expected=four[0], action="revert",
                              at=world.now, who="other")  # fmt: skip

    thread = threading.Thread(target=point)
    thread.start()
    assert pointing.wait(60)
    assert prune(world.context())["prune"]["removed"] == []
    thread.join()
    assert world.held("production") == four[1] in snapshot_ids(depot_of(world))


# ---- verify ---------------------------------------------------------------------------------


def damage(world: World, snapshot_id: str, name: str) -> Path:
    """Rewrite a package's file in the mirror, in its inode, as a careless rsync does."""
    package = next(
        one for one in load_snapshot(depot_of(world), snapshot_id).packages if one.name == name
    )
    mirror = world.base / "base" / package.location
    mirror.write_bytes(bytes(reversed(mirror.read_bytes())))
    return depot_of(world) / "files" / package.sha256[:2] / package.sha256


def test_damage_is_found_and_named(world: World) -> None:
    """An in-place rewrite of the mirror goes through the hard link; who needs the file is told."""
    taken = take(world, "lib-2-1.noarch", "tool-2-1.noarch")
    assert verify(world.context())["retcode"] == 0
    path = damage(world, taken, "lib")
    answer = verify(world.context())
    (row,) = answer["verify"]["damaged"]
    assert answer["retcode"] == 1
    assert (row["path"], row["fault"], row["what"]) == (str(path), "altered", "lib-2-1.noarch")
    assert (row["snapshots"], row["classes"]) == ([taken], ["development"])
    assert "1 of 1 DAMAGED files left" in render(answer)


def test_repair_reads_from_any_repository_with_the_same_bytes(world: World) -> None:
    """The mirror itself has the bad bytes, too; another repository has the right ones."""
    taken = take(world, "lib-2-1.noarch", "tool-2-1.noarch")
    path = damage(world, taken, "lib")
    damaged = verify(world.context(), repair=True)
    assert damaged["retcode"] == 1 and damaged["verify"]["damaged"][0]["source"] == ""
    world.mirror("lib-2-1.noarch", name="copy")
    world.repositories(base={}, copy={})
    answer = verify(world.context(), repair=True)
    assert answer["retcode"] == 0
    assert answer["verify"]["damaged"][0]["source"].startswith(str(world.base / "copy"))
    assert path.stat().st_nlink == 1
    assert verify(world.context())["verify"]["damaged"] == []


def test_missing_files_and_metadata_are_mended(world: World) -> None:
    """A package file and a metadata file that are gone come back from the mirror."""
    taken = take(world, "lib-2-1.noarch", "tool-2-1.noarch")
    loaded = load_snapshot(depot_of(world), taken)
    kept = depot_of(world) / "files" / loaded.packages[0].sha256[:2] / loaded.packages[0].sha256
    kept.unlink()
    primary = loaded.repositories[0].metadata.primary
    primary.write_bytes(b"nonsense")
    faults = {one["fault"] for one in verify(world.context())["verify"]["damaged"]}
    assert faults == {"missing", "altered"}
    assert verify(world.context(), repair=True)["retcode"] == 0
    assert verify(world.context())["verify"]["damaged"] == []


def test_progress_and_an_unreadable_snapshot(world: World) -> None:
    """Whoever waits sees how far it is; a manifest that was altered is a problem of its own."""
    taken = take(world, "lib-2-1.noarch")
    told: list[Any] = []

    class Told:
        def line(self, text: str) -> None:
            told.append(text)

        def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
            told.append((what, done, total))

    verify(world.context()._replace(reporter=Told()))
    files = verify(world.context())["verify"]["files"]
    assert told[-1] == ("hashing the depot", files, files)
    manifest = depot_of(world) / "snapshots" / taken / "manifest.msgpack"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    answer = verify(world.context())
    assert answer["retcode"] == 1 and str(manifest) in render(answer)
