"""What comes in at hosts' network cards: `Sniffers` count it, `Rates` tell how fast it comes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import Host
from lab.host import MASTER_ADDRESS, PUBLISH_PORT

_SNIFFER = Path(__file__).with_name("sniffer.py")
_STOP = "/run/bench.stop"
_RECEIVED = "/sys/class/net/eth0/statistics/rx_bytes"
_TICK = 0.05
_LEAST = 10_000
"""Bytes of what counts as an arrival: less is what keeps a connection alive."""
_EDGE = 0.1
"""This part of the bytes at either end is left out of a rate: connections begin and end there."""


class Sniffers:
    """What reached some hosts; both figures stand after the block.

    Attributes:
        payload: bytes inside of segments from the master's publisher.
        card: all bytes, with what keeps connections alive.
    """

    def __init__(self) -> None:
        self.payload = 0
        self.card = 0

    @classmethod
    @contextlib.contextmanager
    def on(cls, hosts: Sequence[Host]) -> Iterator[Sniffers]:
        """Count during the block."""
        found = cls()
        text = _SNIFFER.read_text(encoding="utf-8")
        argv = ["/usr/bin/python3", "-c", text, MASTER_ADDRESS, str(PUBLISH_PORT), _STOP]
        with contextlib.ExitStack() as stack:
            for host in hosts:
                host.remove(_STOP)
            running = [stack.enter_context(host.start(argv)) for host in hosts]
            while not all("ready" in one.output() for one in running):
                time.sleep(_TICK)
            before = sum(received(host) for host in hosts)
            yield found
            found.card = sum(received(host) for host in hosts) - before
            for host in hosts:
                host.write(_STOP, "")
            found.payload = sum(int(one.wait(10).check().stdout.split()[-1]) for one in running)


class Rates:
    """Looks at hosts' cards all the time during a block.

    Attributes:
        found: after the block, each host's bytes in a second.
        total: and those of all of them together.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._seen: list[tuple[float, ...]] = []
        self.found: dict[str, float] = {}
        self.total = 0.0

    def __enter__(self) -> Rates:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for number, host in enumerate(self._hosts, 1):
            self.found[host.name] = steady_rate([(one[0], one[number]) for one in self._seen])
        self.total = steady_rate([(one[0], sum(one[1:])) for one in self._seen])

    def _look(self) -> None:
        while not self._over.wait(_TICK):
            self._seen.append((time.monotonic(), *(received(host) for host in self._hosts)))


def received(host: Host) -> int:
    """Bytes that came in through a host's card."""
    return int(Path(f"/proc/{host.pid}/root{_RECEIVED}").read_text(encoding="ascii"))


def steady_rate(seen: Sequence[tuple[float, float]]) -> float:
    """Return bytes in a second over the middle of what came, from one arrival to another."""
    first, last = seen[0][1], seen[-1][1]
    low, high = (first + (last - first) * part for part in (_EDGE, 1 - _EDGE))
    came = [new for old, new in itertools.pairwise(seen) if new[1] - old[1] > _LEAST]
    middle = [one for one in came if low <= one[1] <= high]
    return (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
