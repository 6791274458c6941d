"""The depot, killed at any step of a snapshot, promotion or prune: before or after, never between.

A step is a file that is opened, made, renamed, linked or removed, as Python's audit hooks tell
it; a forked child kills itself with SIGKILL at one of them, drawn by a seed. Everything is real:
mirrors of packages, the depot, the state database.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cpacman.commands.promoting import promote
from cpacman.commands.retention import prune
from cpacman.commands.snapshots import snapshot
from cpacman.depot.health import check_depot
from cpacman.depot.partial import Wanted
from cpacman.depot.snapshot import load_snapshot, snapshot_ids
from cpacman.report.progress import Silent
from cpacman.store import Store
from tests.unit.commands.world import World, packages

KILLS = 240 if os.environ.get("CPACMAN_CHAOS") == "1" else 24
SEED = int(os.environ.get("CPACMAN_CHAOS_SEED", "20261122"))
DAY = 86400
STEPS = frozenset(
    ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.utime", "os.chmod",
     "os.truncate", "fcntl.flock", "sqlite3.connect", "shutil.rmtree")
)  # fmt: skip
Job = Callable[[World], object]


def take(world: World) -> object:
    """Take a snapshot, as the command does."""
    return snapshot(world.context())


def move(world: World) -> object:
    """Promote everything."""
    return promote(world.context(), "testing", force=True, reason="nobody is there yet")


def move_part(world: World) -> object:
    """Promote one package: a snapshot of its own is made for it."""
    wanted = Wanted(packages=("old",))
    return promote(world.context(), "testing", wanted=wanted, force=True, reason="nobody yet")


def clean(world: World) -> object:
    """Prune, as the command does."""
    return prune(world.context())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of three snapshots, two of which may go, whose mirror has changed since."""
    if not shutil.which("rpmbuild"):
        pytest.skip("rpmbuild is not installed")
    base = tmp_path_factory.mktemp("prepared")
    top = tmp_path_factory.getbasetemp() / "command-packages"
    top.mkdir(exist_ok=True)
    world = World(base, packages(top))
    world.mirror("lib-1-1.noarch", "tool-1-1.noarch")
    take(world)
    move(world)
    for nevras in (
        ("lib-2-1.noarch",),
        ("lib-3-1.noarch", "agent-1-1.noarch"),
        ("old-1-1.noarch",),
    ):
        world.now += 50 * DAY
        world.mirror(*nevras)
        take(world)
    world.now += 50 * DAY
    world.mirror("lib-3-1.noarch", "tool-3-1.noarch", "agent-2-1.noarch", "helper-2-1.noarch")
    world.store.close()
    return base


JOBS = (take, move, move_part, clean)


class State(NamedTuple):
    """What the depot lists, and where every class points."""

    snapshots: frozenset[str]
    pointers: dict[tuple[str, str], str]


class Case:
    """A copy of the prepared world, and what happens to it."""

    def __init__(self, prepared: Path, path: Path) -> None:
        subprocess.run(["cp", "-a", str(prepared), str(path)], check=True)
        self.world = World(path, {})
        self.world.now = 1_800_000_000.0 + 200 * DAY
        self.depot = self.world.context().settings.depot

    def run(self, job: Job, kill_at: int) -> int:
        """Run a job in a child that dies at a step; return the steps it made, or -1 if it died."""
        self.world.store.close()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            _work(self.world, job, kill_at, write)
        os.close(write)
        with os.fdopen(read) as stream:
            said = stream.read()
        _, status = os.waitpid(child, 0)
        self.world.store = Store.open(f"sqlite:///{self.world.base}/state/cpacman.db")
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return -1
        assert said.isdigit(), said
        return int(said)

    def state(self) -> State:
        """Return what the depot lists and what the classes hold, after checking both."""
        health = check_depot(self.depot, Silent())
        assert (health.damaged, health.problems) == ((), ())
        pointers = {k: str(p["snapshot"]) for k, p in self.world.store.pointers().items()}
        for one in pointers.values():
            load_snapshot(self.depot, one)
        return State(frozenset(snapshot_ids(self.depot)), pointers)

    def files(self) -> set[str]:
        """Return every file of the depot, each with its digest."""
        return {
            f"{one.relative_to(self.depot)} {hashlib.sha256(one.read_bytes()).hexdigest()}"
            for one in self.depot.rglob("*")
            if one.is_file() and one.suffix != ".lock" and one.name != "lock"
            and one.name != "manifest.msgpack"  # it has the time of the second attempt
        }  # fmt: skip


def _work(world: World, job: Job, kill_at: int, answer: int) -> None:
    """Do the job in this process, which does not come back."""
    steps = 0

    def watch(event: str, _: Any) -> None:
        nonlocal steps
        if event in STEPS:
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
        sys.addaudithook(watch)
        job(world)
        said = str(steps)
    except BaseException as error:  # told to the parent, which fails
        said = f"{type(error).__name__}: {error}"
    os.write(answer, said.encode())
    os._exit(0)


@pytest.mark.parametrize("job", JOBS, ids=[one.__name__ for one in JOBS])
def test_killed_at_any_step(prepared: Path, tmp_path: Path, job: Job) -> None:
    """What is left is whole, the state before or after; doing it again ends as if unharmed."""
    whole = Case(prepared, tmp_path / "whole")
    before = whole.state()
    steps = whole.run(job, 0)
    after, files = whole.state(), whole.files()
    assert steps > 9 and after != before
    random.seed(SEED)
    ended = {"before": 0, "after": 0}
    for turn in range(KILLS // len(JOBS)):
        case = Case(prepared, tmp_path / str(turn))
        step = random.randint(1, steps)
        died = case.run(job, step) == -1
        found = case.state()
        _check_between(job, found, before, after, f"seed {SEED}, step {step} of {steps}")
        ended["after" if found == after else "before"] += 1
        assert died or found == after
        case.run(job, 0)
        assert case.state() == after, (SEED, step)
        assert case.files() == files, (SEED, step)
        assert list((case.depot / "tmp").iterdir()) == [], (SEED, step)
        shutil.rmtree(case.world.base)
    assert ended["before"], ended


def _check_between(job: Job, found: State, before: State, after: State, where: str) -> None:
    """A snapshot may be there before its class points at it; of a prune some may be gone."""
    assert found.pointers in (before.pointers, after.pointers), where
    assert set(found.pointers.values()) <= found.snapshots, where
    if job is clean:
        assert after.snapshots <= found.snapshots <= before.snapshots, where
    else:
        assert found.snapshots in (before.snapshots, after.snapshots), where
