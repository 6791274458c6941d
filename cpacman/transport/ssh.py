"""Calls and bytes over ssh, to the hosts of Salt's roster.

Invariants: one connection a host, kept open while the command runs; the host's key is checked
before anything is said; a host that is slow or dead holds up one thread, and nobody else; what
was acknowledged is never sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from cpacman.errors import Problem
from cpacman.transport.chunks import Chunk, plan_chunks
from cpacman.transport.port import (
    CANT_BE_SERVED,
    UNREACHABLE,
    Answer,
    PushProgress,
    ReadSegment,
    Segment,
    read_answer,
)
from cpacman.transport.roster import SshHost
from cpacman.transport.sshpipe import Broken, Greeting, SshPipe
from cpacman.transport.throttle import Throttle

_FRAME = 4 * 2**20
_ROUNDS = 3
_TICK = 0.25

Connect = Callable[[SshHost, float], SshPipe]


class SshTransport:
    """The `ssh` transport of one master.

    Args:
        hosts: names all hosts that can be reached, by id.
        greeting: what each host's side must know.
        known_hosts: files of accepted host keys.
        connections: open at once, at most.
        chunk: bytes in one frame, at most.
        window: frames in flight to a host.
        stall: seconds without an acknowledgement after which a host is connected to anew.
        throttle: the caps.
    """

    name = "ssh"

    def __init__(
        self,
        hosts: Callable[[], Mapping[str, SshHost]],
        greeting: Greeting,
        *,
        known_hosts: Sequence[str],
        connections: int,
        chunk: int,
        window: int,
        stall: float,
        throttle: Throttle,
    ) -> None:
        self.hosts = hosts
        self.known_hosts = tuple(known_hosts)
        self._chunk = min(chunk, _FRAME)
        self._window = window
        self._stall = stall
        self._throttle = throttle
        self._connections = connections
        self._pipes = _Pipes(
            connections, lambda host, timeout: SshPipe(host, known_hosts, greeting, timeout)
        )

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Never object: bytes go to their host and nowhere else."""
        return []

    def reaches(self, host: str) -> bool:
        """Whether a host is in the roster, and can be reached the way that says."""
        known = self.hosts().get(host)
        return known is not None and not known.problem

    def close(self) -> None:
        """Hang up everywhere."""
        self._pipes.close()

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`."""

        def ask(host: str) -> Answer:
            return self._ask(host, function, requests[host], timeout)

        yield from self._each(sorted(requests), ask)

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """See `Transport.push`."""
        tally = _Tally(sum(n for segments in needs.values() for _, _, n in segments))

        def send(host: str) -> Answer:
            return self._push_one(host, session, needs[host], read, tally)

        def tell() -> None:
            try:
                progress(PushProgress(tally.done, tally.total))
            except BaseException:
                tally.stopped = True
                raise

        answers = sorted(self._each(sorted(needs), send, tell))
        tell()
        return answers

    def _each(
        self,
        hosts: Sequence[str],
        work: Callable[[str], Answer],
        tell: Callable[[], None] = lambda: None,
    ) -> Iterator[Answer]:
        """Yield what `work` answers for each host, from threads; `tell` is called from this one."""
        if not hosts:
            return
        pool = ThreadPoolExecutor(min(len(hosts), self._connections), "cpacman-ssh")
        try:
            waiting = {pool.submit(work, host) for host in hosts}
            while waiting:
                done, waiting = wait(waiting, _TICK, FIRST_COMPLETED)
                tell()
                for one in done:
                    yield one.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    # -- one host, in a thread of its own

    def _ask(
        self, host: str, function: str, arguments: Mapping[str, Any], timeout: float
    ) -> Answer:
        known = self.hosts().get(host)
        if known is None or known.problem:
            return no_way(host, known)
        end = time.monotonic() + timeout
        # A connection that was idle may be dead by now; all verbs may be repeated.
        kept = self._pipes.is_kept(host)
        try:
            return self._ask_once(known, function, arguments, end)
        except Broken as broken:
            if not kept or broken.code != UNREACHABLE:
                return Answer(host, {}, broken.code, broken.message)
        try:
            return self._ask_once(known, function, arguments, end, fresh=True)
        except Broken as broken:
            return Answer(host, {}, broken.code, broken.message)

    def _ask_once(
        self,
        host: SshHost,
        function: str,
        arguments: Mapping[str, Any],
        end: float,
        *,
        fresh: bool = False,
    ) -> Answer:
        with self._pipes.using(host, end - time.monotonic(), fresh=fresh) as pipe:
            answer = pipe.request(function, arguments, end - time.monotonic())
        return read_answer(host.id, function, answer)

    def _push_one(
        self, host: str, session: str, segments: Sequence[Segment], read: ReadSegment, tally: _Tally
    ) -> Answer:
        known = self.hosts().get(host)
        if known is None or known.problem:
            return no_way(host, known)
        owed = set(segments)
        error = Answer(host, {}, UNREACHABLE, "stopped taking bytes")
        for _ in range(_ROUNDS):
            limit = self._throttle.piece(self._chunk)
            chunks = plan_chunks({host: sorted(owed)}, limit)
            owed = {segment for chunk in chunks for segment in chunk.segments}
            try:
                return self._send_all(known, session, chunks, owed, read, tally)
            except Broken as broken:
                error = Answer(host, {}, broken.code, broken.message)
                if broken.code != UNREACHABLE or tally.stopped:
                    break
        return error

    def _send_all(
        self,
        host: SshHost,
        session: str,
        chunks: Sequence[Chunk],
        owed: set[Segment],
        read: ReadSegment,
        tally: _Tally,
    ) -> Answer:
        """Send chunks with a few in flight; `owed` loses what is acknowledged."""
        flight: dict[int, Chunk] = {}
        waiting = list(reversed(chunks))
        with self._pipes.using(host, self._stall) as pipe:
            while waiting or flight:
                if tally.stopped:
                    raise Broken(UNREACHABLE, "stopped")
                while waiting and len(flight) < self._window:
                    chunk = waiting.pop()
                    self._wait_turn(host.id, chunk.size, pipe)
                    arguments = {"session": session, "segments": chunk.segments}
                    data = b"".join(read(*segment) for segment in chunk.segments)
                    flight[pipe.send("receive", arguments, data)] = chunk
                number, value = pipe.take(self._stall)
                answer = read_answer(host.id, "receive", value)
                if answer.code or number not in flight:
                    raise Broken(answer.code or "garbled", answer.error or "unexpected answer")
                taken = flight.pop(number)
                owed.difference_update(taken.segments)
                tally.add(taken.size)
        return Answer(host.id, {})

    def _wait_turn(self, host: str, size: int, pipe: SshPipe) -> None:
        """Wait until a cap lets so many bytes go; what it let go before leaves meanwhile.

        Held back until the window is full, it would all leave at once.
        """
        while seconds := self._throttle.wait_for([host], size):
            pipe.move(seconds)


def no_way(host: str, known: SshHost | None) -> Answer:
    """Return the answer of a host that no transport leads to."""
    missing = "is to be reached by ssh, and is not in Salt's roster"
    return Answer(host, {}, CANT_BE_SERVED, known.problem if known else missing)


class _Tally:
    """Counts acknowledged bytes of many threads; `stopped` tells them to end."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.stopped = False
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.done += size


class _Pipes:
    """The open connections: at most so many, the one that was idle longest goes first."""

    def __init__(self, limit: int, connect: Connect) -> None:
        self._limit = limit
        self._connect = connect
        self._idle: dict[str, SshPipe] = {}
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def using(self, host: SshHost, timeout: float, *, fresh: bool = False) -> Iterator[SshPipe]:
        """Yield a connection that nobody else uses, and keep it unless it broke."""
        with self._lock:
            pipe = self._idle.pop(host.id, None)
            self._busy += 1
            surplus = [] if pipe else self._surplus()
        try:
            for one in surplus:
                one.close()
            if pipe is not None and (fresh or not pipe.is_open):
                pipe.close()
                pipe = None
            pipe = pipe or self._connect(host, timeout)
            try:
                yield pipe
            except BaseException:
                pipe.close()
                raise
            with self._lock:
                self._idle[host.id] = pipe
        finally:
            with self._lock:
                self._busy -= 1

    def is_kept(self, host: str) -> bool:
        """Whether there is a connection to a host from an earlier request."""
        return host in self._idle

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            idle, self._idle = list(self._idle.values()), {}
        for pipe in idle:
            pipe.close()

    def _surplus(self) -> list[SshPipe]:
        over = self._busy + len(self._idle) - self._limit
        return [self._idle.pop(name) for name in list(self._idle)[: max(0, over)]]
