"""Work split over processes: the same answers, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cpacman.errors import CpacmanError, InputError
from cpacman.planner.workers import cpus, run_lots

CHECKOUT = Path(__file__).resolve().parents[3]


def children() -> set[str]:
    """Return the ids of this process's children."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    """Whatever happens in a test, all processes that it started are gone and seen off."""
    before = children()
    yield
    assert children() <= before


def square(lot: int) -> bytes:
    """Return a small answer."""
    return str(lot * lot).encode()


@pytest.mark.parametrize(("count", "workers"), [(0, 4), (1, 4), (7, 1), (7, 3), (3, 99)])
def test_every_lot_is_answered_once(count: int, workers: int) -> None:
    """However many lots and workers there are, each lot has its one answer."""
    found = list(run_lots(count, square, workers=workers))
    assert sorted(found) == [(lot, square(lot)) for lot in range(count)]


def test_more_lots_than_a_pipe_holds() -> None:
    """Lots that do not fit into the pipe at once are handed on as the workers take them."""
    assert len({lot for lot, _ in run_lots(40_000, square, workers=2)}) == 40_000


def test_answers_larger_than_a_pipe() -> None:
    """Answers come whole, whatever their size."""
    size = 3_000_000
    found = dict(run_lots(4, lambda lot: bytes([lot]) * size, workers=2))
    assert found == {lot: bytes([lot]) * size for lot in range(4)}


def test_work_is_done_elsewhere() -> None:
    """What the work changes stays with the worker."""
    mine: list[int] = []

    def work(lot: int) -> bytes:
        mine.append(lot)
        return str(os.getpid()).encode()

    pids = {answer for _, answer in run_lots(6, work, workers=2)}
    assert str(os.getpid()).encode() not in pids
    assert mine == []


def test_an_error_is_the_one_of_a_single_process() -> None:
    """What goes wrong in a worker is raised here as itself, with all it has to say."""

    def work(lot: int) -> bytes:
        if lot == 3:
            raise InputError("lot three is wrong")
        return b""

    with pytest.raises(InputError, match="lot three is wrong"):
        list(run_lots(6, work, workers=2))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by signal 9"),
        (lambda: os._exit(7), "ended with 7"),
    ],
)
def test_a_worker_that_dies_is_an_error(end: Callable[[], None], words: str) -> None:
    """A killed worker is told, with what may be the cause, and nothing hangs."""

    def work(lot: int) -> bytes:
        if lot == 5:
            end()
        return b""

    with pytest.raises(CpacmanError, match=words) as caught:
        list(run_lots(9, work, workers=3))
    assert "out of memory" in str(caught.value)


def test_whoever_stops_early_ends_the_workers() -> None:
    """A caller that needs no more, or is interrupted, leaves no process behind."""

    def work(lot: int) -> bytes:
        if lot > 1:
            time.sleep(60)
        return b""

    start = time.monotonic()
    with closing(run_lots(6, work, workers=2)) as answers:
        next(iter(answers))
    assert time.monotonic() - start < 10


def test_interrupted_while_waiting() -> None:
    """Ctrl-C comes through at once, and the workers do not outlive it."""
    caller = os.getpid()

    def work(lot: int) -> bytes:
        if lot == 0:
            os.kill(caller, signal.SIGALRM)
        time.sleep(60)
        return b""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_lots(4, work, workers=2))
    finally:
        signal.signal(signal.SIGALRM, before)


ORPHANS = """
import os, sys, time
from cpacman.planner.workers import run_lots
def work(lot):
    print(os.getpid(), flush=True)
    time.sleep(0.5)
    return b"x"
for _ in run_lots(1000, work, workers=2):
    os.kill(os.getpid(), 9)
"""


def test_workers_do_not_outlive_a_killed_caller() -> None:
    """When the caller is killed its workers end with the lot that they are at."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], capture_output=True, text=True, cwd=CHECKOUT,
        timeout=600, check=False,
    )  # fmt: skip
    # The workers hold the other end of the output, so the run is over when all of them are.
    assert done.returncode == -signal.SIGKILL
    assert 2 <= len(done.stdout.split()) < 20


def test_cpus() -> None:
    """There is at least one processor, and none counts that is not for this process."""
    assert 1 <= cpus() <= (os.cpu_count() or 1)
