"""Pointers and the block list: killed in the middle, and moved by two operators at once.

The database is a real one, and so are the processes. A job is killed after a delay drawn by a
seed, anywhere between its beginning and its end, inside of the database's own writing, too;
what is found afterwards is the state before or the one after, pointers, moves, list and journal
together. `CPACMAN_CHAOS=1` (`make chaos`) kills 200 times a job.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpacman.commands import promoting
from cpacman.commands.blocking import block, unblock
from cpacman.commands.pointing import From, revert, seed
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.depot.partial import Wanted
from cpacman.errors import ConflictError
from cpacman.store import Store
from tests.unit.commands.world import World, packages

KILLS = 200 if os.environ.get("CPACMAN_CHAOS") == "1" else 20
SEED = int(os.environ.get("CPACMAN_CHAOS_SEED", "20261122"))
Job = Callable[[World], object]

JOBS: dict[str, Job] = {
    "promote": lambda world: promote(world.context(), "production", force=True, reason="r"),
    "revert": lambda world: revert(world.context(), "testing", reason="r"),
    "seed": lambda world: seed(
        world.context(), "spare", source=From(class_="testing"), force=True, reason="r"
    ),
    "block": lambda world: block(world.context(), ["lib-2", "A-2026:1"], reason="crashes"),
    "unblock": lambda world: unblock(world.context(), ["tool", "agent"], reason="mended"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels; testing came by two snapshots of each, `spare` and production hold none."""
    if not shutil.which("rpmbuild"):
        pytest.skip("rpmbuild is not installed")
    top = tmp_path_factory.getbasetemp() / "command-packages"
    top.mkdir(exist_ok=True)
    world = World(tmp_path_factory.mktemp("pointers"), packages(top))
    _configure(world)
    for generation in (1, 2):
        world.mirror(f"lib-{generation}-1.noarch")
        world.mirror(f"tool-{generation}-1.noarch", name="old")
        snapshot(world.context())
        promote(world.context(), "testing", force=True, reason="nobody is there yet")
        world.now += 100
    block(world.context(), ["tool", "agent"], reason="later")
    world.store.close()
    return world.base


def _configure(world: World) -> None:
    world.section["classes"] = ["development", "testing", "production", "spare"]
    old = {"base": {"path": str(world.base / "old")}}
    world.section["channels"]["el8"] = {"match": {"major": 8}, "repositories": old}


def copy_of(prepared: Path, path: Path) -> World:
    """A world that may be harmed."""
    subprocess.run(["cp", "-a", str(prepared), str(path)], check=True)
    world = World(path, {})
    _configure(world)
    world.now = 1_800_000_500.0
    return world


def state(world: World) -> dict[str, Any]:
    """All that a job could change, without the numbers of rows."""
    with Store.open(f"sqlite:///{world.base}/state/cpacman.db") as store:
        moves = [{k: v for k, v in row.items() if k != "seq"} for row in store.moves()]
        told = [(e["action"], e["subject"], e["detail"], e["reason"]) for e in store.history()]
        return {"pointers": store.pointers(), "moves": moves, "blocks": store.blocks(),
                "journal": told}  # fmt: skip


def run(world: World, job: Job, delay: float | None) -> float:
    """Run a job in a child, killed after a delay; return how long it took, or lived."""
    world.store.close()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        _work(world, job, write)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    started = time.perf_counter()
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert delay is not None or status == 0
    return time.perf_counter() - started


def _work(world: World, job: Job, ready: int) -> None:
    """Do the job in this process, which does not come back."""
    try:
        world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
        os.write(ready, b"r")
        job(world)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("name", JOBS)
def test_killed_at_any_moment(prepared: Path, tmp_path: Path, name: str) -> None:
    """The state before or after, never between; and what was asked for can be done then."""
    took = []
    for turn in range(3):
        whole = copy_of(prepared, tmp_path / f"whole{turn}")
        before = state(whole)
        took.append(run(whole, JOBS[name], None))
    after = state(whole)
    assert before != after
    dice = random.Random(SEED)
    ended = {"before": 0, "after": 0}
    for turn in range(KILLS):
        world = copy_of(prepared, tmp_path / str(turn))
        run(world, JOBS[name], dice.uniform(0, statistics.median(took) * 1.1))
        found = state(world)
        assert found in (before, after), (SEED, turn)
        if found == before:
            run(world, JOBS[name], None)
            assert state(world) == after, (SEED, turn)
        ended["after" if found == after else "before"] += 1
        shutil.rmtree(world.base)
    assert ended["before"], "kills that come too late show nothing"


def _operator(world: World, wanted: Wanted, barrier: Any, answers: Any) -> None:
    """Promote as one of two, and meet the other one right before anything moves."""
    world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
    real = promoting._move

    def move(*arguments: Any) -> None:
        barrier.wait(300)
        real(*arguments)

    promoting._move = move  # type: ignore[assignment]
    try:
        answer = promote(world.context(), "testing", wanted=wanted, force=True, reason="r")
        answers.put(("won", answer["promote"]["channels"]["el9"]["id"]))
    except ConflictError as error:
        answers.put(("told", str(error)))


@pytest.mark.parametrize(
    "choices",
    [(Wanted(), Wanted()), (Wanted(packages=("lib",)), Wanted(packages=("agent",)))],
    ids=["whole", "part"],
)
def test_two_operators_at_once(
    prepared: Path, tmp_path: Path, choices: tuple[Wanted, Wanted],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Both have proved before either moves: one wins, and the other is told what happened."""
    world = copy_of(prepared, tmp_path / "world")
    world.files = packages(tmp_path_factory.getbasetemp() / "command-packages")
    world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
    world.mirror("lib-3-1.noarch", "agent-1-1.noarch")
    snapshot(world.context(), ["el9"])
    before = world.held("testing")
    world.store.close()
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_operator, args=(world, one, barrier, answers)) for one in choices
    ]
    for worker in workers:
        worker.start()
    said = sorted(answers.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join(300)
    assert [word for word, _ in said] == ["told", "won"]
    moved = f"not at {before[:14]}; somebody moved it meanwhile: look again"
    assert moved in said[0][1] or "somebody else is " in said[0][1]
    world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
    assert world.held("testing") == said[1][1]
