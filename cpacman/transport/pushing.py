"""One push over publish: who lacks what, what is in flight, who has fallen behind.

Invariants:

* A chunk is published once for all hosts that lack it and can take it; which chunks a host has is
  known from its acknowledgements alone.
* A host never has more than one window of chunks that it did not acknowledge: while it has, it is
  not among the targets. So a host that is slow or stopped costs the master one window, and the
  others, once, the patience that they had with it.
* What is under way to all hosts together is bounded, whatever their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cpacman.transport.channel import Event
from cpacman.transport.chunks import Chunk, plan_chunks
from cpacman.transport.port import (
    UNREACHABLE,
    Answer,
    PushProgress,
    ReadSegment,
    Segment,
    read_answer,
)
from cpacman.transport.throttle import Throttle

UNDER_WAY = 96 * 2**20
"""Bytes that the master may hold for all hosts together."""
LEAST_CHUNK = 4 * 2**20
LARGE_LOAD = 16 * 2**20
HEADROOM = 64 * 2**10
"""Bytes of a large load that are left to what it says besides its data.

Salt packs a load into a buffer of up to twice its size. Above 32 MiB the C library maps each buffer
anew: loads of just over 16 MiB cost the master a second more for each GB than those just below.
"""
PATIENCE = 2.0
"""Seconds in all that others wait for a host that is a window behind them."""
PATIENCE_SHARE = 0.1
"""Or this part of the time that the push takes, where that is longer."""
LOSSES = 9
"""Chunks that a host may fail to acknowledge while it acknowledges others."""
_TICK = 0.25


class Limits(NamedTuple):
    """How much is under way, and how long to wait.

    Attributes:
        chunk: bytes of one load, at most.
        window: loads in flight to one host.
        stall: seconds without an acknowledgement after which a host is given up.
        throttle: the caps on bandwidth.
    """

    chunk: int
    window: int
    stall: float = 30.0
    throttle: Throttle = Throttle()


class Publishes(Protocol):
    """The channel, as far as a push needs it."""

    def publish(
        self,
        function: str,
        hosts: Sequence[str],
        arguments: Mapping[str, object],
        extra: Mapping[str, object] | None = None,
        data: Sequence[bytes] = (),
    ) -> str:
        """Send a load and return its job id."""
        ...

    def wait(self, seconds: float) -> Event | None:
        """Return the next return of any job, or None."""
        ...


@dataclass
class Lane:
    """How one host stands.

    Attributes:
        owed: the numbers of the chunks that it has not acknowledged.
        flight: those of them that were sent, and when.
        heard: when it last acknowledged, or was first sent, something.
        held_up: seconds that others waited for it, with nothing to do.
        slow: whether the others wait for it no more.
        probed: whether it was silent so long that one chunk was sent again, to hear if it is there.
        losses: chunks that it was sent and never acknowledged, while it did others.
        error: why it gets nothing more.
    """

    owed: set[int]
    flight: dict[int, float] = field(default_factory=dict)
    heard: float = 0.0
    held_up: float = 0.0
    slow: bool = False
    probed: bool = False
    losses: int = 0
    error: Answer | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still is to get something."""
        return bool(self.owed) and self.error is None


class Pace(NamedTuple):
    """How a push goes: bytes in a chunk, chunks in flight to a host, hosts served at once."""

    chunk: int
    window: int
    at_once: int


def pace_of(limits: Limits, hosts: int) -> Pace:
    """Return how a push to so many hosts goes.

    Each chunk is a job on each of its hosts, and a job costs there what some MB do: chunks are as
    large as what may be under way lets them be.
    """
    at_once = min(hosts, max(1, UNDER_WAY // (LEAST_CHUNK * limits.window)))
    load = min(limits.chunk, max(LEAST_CHUNK, UNDER_WAY // (limits.window * at_once)))
    data = load - HEADROOM if load >= LARGE_LOAD else load
    return Pace(limits.throttle.piece(data, at_once), limits.window, at_once)


class Push:
    """One push of one session.

    Args:
        channel: where loads go and acknowledgements come from.
        session: as the hosts' doors accepted it.
        needs: host -> segments.
        read: reads a segment.
        progress: is told how far it is.
        limits: see there.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        channel: Publishes,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._session = session
        self._read = read
        self._progress = progress
        self._limits = limits
        self._clock = clock
        self._pace = pace_of(limits, len(needs))
        self._chunks = plan_chunks(needs, self._pace.chunk)
        self._lanes = {host: Lane(set()) for host in sorted(needs)}
        for number, chunk in enumerate(self._chunks):
            for host in chunk.hosts:
                self._lanes[host].owed.add(number)
        self._coming = list(reversed(self._lanes))
        self._active: dict[str, Lane] = {}
        self._jobs: dict[str, int] = {}
        self._next = 0
        self._started = self._looked = clock()
        self._total = sum(n for segments in needs.values() for _, _, n in segments)
        self._done = 0

    def run(self) -> list[Answer]:
        """Send until every host has all, or is given up; return how it ended for each."""
        while True:
            self._judge()
            self._admit()
            if not any(lane.is_open for lane in self._active.values()):
                break
            wait = self._send_next()
            if wait:
                self._progress(PushProgress(self._done, self._total))
                event = self._channel.wait(min(wait, _TICK))
                while event is not None:
                    self._acknowledge(event)
                    event = self._channel.wait(0)
        return [lane.error or self._result(host, lane) for host, lane in self._lanes.items()]

    def _result(self, host: str, lane: Lane) -> Answer:
        words = "stopped taking bytes"
        return Answer(host, {}, UNREACHABLE, words) if lane.owed else Answer(host, {})

    def _admit(self) -> None:
        """Let the next hosts in once nobody of those before is left but the slow ones."""
        waiting_for = [lane for lane in self._active.values() if lane.is_open and not lane.slow]
        while self._coming and len(waiting_for) < self._pace.at_once:
            host = self._coming.pop()
            self._active[host] = self._lanes[host]
            waiting_for.append(self._lanes[host])

    # -- sending

    def _send_next(self) -> float:
        """Send the next chunk that can be; return the seconds to wait when none can be now."""
        found = self._pick()
        if found is None:
            return _TICK
        number, hosts = found
        chunk = self._chunks[number]
        wait = self._limits.throttle.wait_for(hosts, chunk.size)
        if wait:
            return wait
        self._next = number + 1
        self._publish(number, chunk, hosts)
        return 0.0

    def _pick(self) -> tuple[int, list[str]] | None:
        """Return a chunk and the hosts that can take it, beginning with the one after the last."""
        lacking: dict[int, list[str]] = {}
        for host, lane in self._active.items():
            if lane.is_open:
                for number in lane.owed.difference(lane.flight):
                    lacking.setdefault(number, []).append(host)
        for number in sorted(lacking, key=lambda n: (n < self._next, n)):
            lanes = {host: self._active[host] for host in lacking[number]}
            ready = [host for host, lane in lanes.items() if self._has_room(lane)]
            if ready and all(lane.slow or self._has_room(lane) for lane in lanes.values()):
                return number, ready
            if any(not lane.slow for lane in lanes.values()):
                return None
        return None

    def _has_room(self, lane: Lane) -> bool:
        return len(lane.flight) < (1 if lane.probed else self._pace.window)

    def _publish(self, number: int, chunk: Chunk, hosts: list[str]) -> None:
        data = [self._read(*segment) for segment in chunk.segments]
        extra = {"session": self._session, "segments": chunk.segments}
        jid = self._channel.publish("receive", hosts, {"session": self._session}, extra, data)
        self._jobs[jid] = number
        now = self._clock()
        for host in hosts:
            lane = self._active[host]
            if not lane.flight and not lane.probed:
                lane.heard = now
            lane.flight[number] = now

    # -- hearing

    def _acknowledge(self, event: Event) -> None:
        number, lane = self._jobs.get(event.jid), self._active.get(event.host)
        if number is None or lane is None or number not in lane.owed:
            return
        answer = read_answer(event.host, "receive", event.value)
        if answer.code:
            lane.error = answer
            return
        now = self._clock()
        lane.flight.pop(number, None)
        lane.owed.discard(number)
        lane.heard, lane.probed = now, False
        if lane.error is not None and lane.error.code == UNREACHABLE:
            lane.error = None  # given up too early: it is back
        self._done += self._chunks[number].size
        self._progress(PushProgress(self._done, self._total))

    def _judge(self) -> None:
        """Stop waiting for those that are a window behind, give up those that fell silent."""
        now = self._clock()
        self._note_waiting(now)
        for host, lane in self._waiting():
            silent = now - lane.heard
            if silent > self._limits.stall:
                lane.error = Answer(host, {}, UNREACHABLE, "stopped taking bytes")
            elif silent > self._limits.stall / 2 and not lane.probed:
                # What it was sent last may have been lost, and then there is nothing to answer.
                lane.probed = True
                lane.flight.clear()
            else:
                self._note_losses(host, lane, now)

    def _note_waiting(self, now: float) -> None:
        """Note who holds whom up: one with a full window, while another has had all it was sent."""
        passed, self._looked = now - self._looked, now
        lanes = [lane for lane in self._active.values() if lane.is_open and not lane.slow]
        if all(lane.flight for lane in lanes):
            return
        patience = max(PATIENCE, PATIENCE_SHARE * (now - self._started))
        for lane in lanes:
            if not self._has_room(lane):
                lane.held_up += passed
                lane.slow = lane.held_up > patience

    def _waiting(self) -> Iterator[tuple[str, Lane]]:
        for host, lane in self._active.items():
            if lane.flight and lane.is_open:
                yield host, lane

    def _note_losses(self, host: str, lane: Lane, now: float) -> None:
        """Send again what a host that acknowledges others has not acknowledged for too long."""
        for number in [n for n, at in lane.flight.items() if now - at > self._limits.stall]:
            del lane.flight[number]
            lane.losses += 1
        if lane.losses > LOSSES:
            lane.error = Answer(host, {}, UNREACHABLE, "loses what it is sent")
