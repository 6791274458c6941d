"""How fast bytes may leave: a cap for each host and one in all.

Invariant: over any time that is long against one chunk, no more bytes leave than the cap says,
however many hosts and transports send at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

LEAST_PIECE = 16 * 1024


class Bucket:
    """One cap: bytes that were taken are paid for by those that come after.

    Args:
        rate: bytes in a second; None is no cap.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    def free_in(self, now: float) -> float:
        """Return the seconds until something may be sent."""
        return max(0.0, self._free_at - now)

    def pay(self, size: int, now: float) -> None:
        """Note that bytes are sent now."""
        if self._rate:
            self._free_at = max(self._free_at, now) + size / self._rate


class Throttle:
    """The caps of one command, shared by all that sends.

    Args:
        total: bytes in a second, in all; None is no cap.
        per_host: the same for each host.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        total: float | None = None,
        per_host: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = Bucket(total)
        self._per_host = per_host
        self._hosts: dict[str, Bucket] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = total

    def wait_for(self, hosts: Sequence[str], size: int) -> float:
        """Take the right to send `size` bytes to each host, or return the seconds to wait."""
        with self._lock:
            now = self._clock()
            buckets = [self._total, *(self._bucket(host) for host in hosts)]
            wait = max(bucket.free_in(now) for bucket in buckets)
            if not wait:
                self._total.pay(size * len(hosts), now)
                for bucket in buckets[1:]:
                    bucket.pay(size, now)
            return wait

    def piece(self, limit: int, hosts: int = 1) -> int:
        """Return how large a chunk may be, so that none takes longer than half a second."""
        total = [self._rate / 2 / max(1, hosts)] if self._rate else []
        own = [self._per_host / 2] if self._per_host else []
        return int(max(LEAST_PIECE, min([limit, *total, *own])))

    def _bucket(self, host: str) -> Bucket:
        return self._hosts.setdefault(host, Bucket(self._per_host))
