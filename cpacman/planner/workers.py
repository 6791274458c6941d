"""Work split over processes of our own: forked, fed through pipes, ended with whoever started them.

Invariants: what is yielded is what one process alone would have computed, whichever worker did it
and whenever it finished; a worker that dies is an error that says so, never a hang and never a
missing answer; when the caller stops (an exception, Ctrl-C, a generator that is closed) no worker
is left behind; when the caller dies the workers end with the lot they are at.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, NoReturn

from cpacman.errors import CpacmanError, Problem

Work = Callable[[int], bytes]
"""Computes the answer of one lot, which is known by its number."""

MOST = 8
"""Workers at most: each needs some 150 MB of its own, and the reading of answers is serial."""

_HEAD = struct.Struct("<II?")
_LOT = struct.Struct("<I")
_BLOCK = 1 << 20


def cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_lots(count: int, work: Work, *, workers: int) -> Iterator[tuple[int, bytes]]:
    """Yield `(lot, answer)` of the lots 0 to count - 1, in the order in which they are done.

    Args:
        count: how many lots there are.
        work: computes one; it runs in a copy of this process, so what it changes stays there.
        workers: processes at most.

    Raises:
        CpacmanError: a worker was killed.
    """
    if min(count, workers) < 2:
        yield from ((lot, work(lot)) for lot in range(count))
        return
    crew = _Crew(count, work, min(count, workers, MOST))
    try:
        yield from crew.answers()
    finally:
        crew.end()


class _Worker(NamedTuple):
    """A process and the end of the pipe that its answers come out of."""

    pid: int
    answers: int


class _Crew:
    """The workers of one piece of work, and the pipe from which all of them take lots."""

    def __init__(self, count: int, work: Work, workers: int) -> None:
        self._work = work
        self._left = count
        self._waiting = b"".join(map(_LOT.pack, range(count)))
        self._lots, self._feed = os.pipe()
        os.set_blocking(self._feed, False)
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except OSError:
            self.end()
            raise

    def _start(self) -> _Worker:
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            _labour(self._lots, theirs, self._work, [self._feed, ours, *self._inherited()])
        os.close(theirs)
        return _Worker(pid, ours)

    def _inherited(self) -> list[int]:
        return [worker.answers for worker in self._workers]

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """Yield the answers as they come; one that failed over there is computed here.

        So an error is the very one that a single process would have raised.
        """
        buffers = {worker.answers: bytearray() for worker in self._workers}
        with selectors.DefaultSelector() as selector:
            selector.register(self._feed, selectors.EVENT_WRITE)
            for worker in self._workers:
                selector.register(worker.answers, selectors.EVENT_READ)
            while self._left:
                for key, _ in selector.select():
                    if key.fd == self._feed:
                        self._give(selector)
                        continue
                    data = os.read(key.fd, _BLOCK)
                    if not data:
                        selector.unregister(key.fd)
                        self._bury(key.fd)
                    for lot, good, answer in _split(buffers[key.fd], data):
                        self._left -= 1
                        yield lot, answer if good else self._work(lot)

    def _give(self, selector: selectors.BaseSelector) -> None:
        """Put as many lots into the pipe as fit; writes that small are never torn."""
        with suppress(BlockingIOError):
            while self._waiting:
                os.write(self._feed, self._waiting[: _LOT.size])
                self._waiting = self._waiting[_LOT.size :]
        if not self._waiting:
            selector.unregister(self._feed)
            os.close(self._feed)
            self._feed = -1

    def _bury(self, answers: int) -> None:
        """See off a worker that ended.

        Raises:
            CpacmanError: it ended before there was nothing left to take.
        """
        worker = next(w for w in self._workers if w.answers == answers)
        self._workers.remove(worker)
        os.close(answers)
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            mend = "is the machine out of memory? what was done is kept: run it again"
            raise CpacmanError(Problem("planning", f"a process of its own {how}", mend))

    def end(self) -> None:
        """End the workers, wherever they are, and close the pipes."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
            os.close(worker.answers)
        self._workers = []
        for fd in (self._lots, self._feed):
            if fd >= 0:
                os.close(fd)
        self._lots = self._feed = -1


def _split(buffer: bytearray, data: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Add what came to a buffer, and take out the whole answers: lot, whether it went well, it."""
    buffer += data
    while len(buffer) >= _HEAD.size:
        lot, size, good = _HEAD.unpack_from(buffer)
        end = _HEAD.size + size
        if len(buffer) < end:
            return
        answer = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        yield lot, good, answer


def _labour(lots: int, answers: int, work: Work, others: list[int]) -> NoReturn:
    """Be a worker: take lots until there are none. Nothing of the caller's is run at the end."""
    code = 1
    try:
        # Ctrl-C reaches the whole group; it is the caller who ends the workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for fd in others:
            os.close(fd)
        # What was there before stays; garbage is looked for between lots, not all the time.
        gc.freeze()
        gc.disable()
        while taken := os.read(lots, _LOT.size):
            (lot,) = _LOT.unpack(taken)
            _answer(answers, lot, work)
            gc.collect()
        code = 0
    finally:
        os._exit(code)


def _answer(answers: int, lot: int, work: Work) -> None:
    try:
        answer, good = work(lot), True
    except Exception:
        # The caller does it again, to fail as it should.
        answer, good = b"", False
    data = memoryview(_HEAD.pack(lot, len(answer), good) + answer)
    while data:
        data = data[os.write(answers, data) :]
