"""Bytes over ssh leave as evenly as the caps say, whatever is in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from cpacman.transport.fake import FakeTransport
from cpacman.transport.port import PushProgress
from cpacman.transport.roster import SshHost
from cpacman.transport.router import Router
from cpacman.transport.ssh import SshTransport
from cpacman.transport.sshpipe import Greeting
from cpacman.transport.throttle import Throttle

MIB = 2**20
SHA = "a" * 64


class Pipe:
    """A far end that takes at once whatever is written, on a clock that moves when one waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queued: list[tuple[int, int]] = []
        self.taken: list[int] = []
        self.left: list[tuple[float, int]] = []
        self.number = 0

    def send(self, verb: str, arguments: Mapping[str, Any], data: bytes = b"") -> int:
        """Queue a request."""
        self.number += 1
        self.queued.append((self.number, len(data)))
        return self.number

    def move(self, seconds: float) -> None:
        """Let what is queued go, and time pass."""
        for number, size in self.queued:
            self.left.append((self.now, size))
            self.taken.append(number)
        self.queued = []
        self.now += seconds

    def take(self, timeout: float) -> tuple[int, Mapping[str, Any]]:
        """Return the next acknowledgement."""
        self.move(0.0)
        return self.taken.pop(0), {"got": []}


@pytest.mark.parametrize("caps", [(MIB, None), (None, MIB)])
def test_what_a_cap_let_go_leaves_at_once(caps: tuple[int | None, int | None]) -> None:
    """No burst of a window: in no time goes more than the cap and one piece of half a second."""
    pipe = Pipe()
    throttle = Throttle(*caps, clock=lambda: pipe.now)
    host = SshHost("old1", "10.0.0.1")
    transport = SshTransport(
        lambda: {"old1": host}, Greeting("pin"), known_hosts=(), connections=1, chunk=MIB,
        window=8, stall=5, throttle=throttle,
    )  # fmt: skip

    class Pipes:
        @contextmanager
        def using(self, *_: object, **__: object) -> Iterator[Pipe]:
            yield pipe

    transport._pipes = Pipes()  # type: ignore[assignment]
    (answer,) = transport.push(
        "s", {"old1": [(SHA, 0, 10 * MIB)]}, lambda *segment: bytes(segment[2]), lambda _: None
    )
    assert not answer.code
    assert sum(size for _, size in pipe.left) == 10 * MIB
    for at, _ in pipe.left:
        before = sum(size for then, size in pipe.left if then <= at)
        assert before <= MIB * at + MIB / 2 + 1, f"{before / MIB:.1f} MiB after {at:.1f} s"
    assert 9 <= pipe.now <= 10


class Gate(Pipe):
    """A far end that acknowledges nothing before it is let, and then slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def take(self, timeout: float) -> tuple[int, Mapping[str, Any]]:
        """Return the next acknowledgement."""
        self.open.wait(60)
        time.sleep(0.01)
        return super().take(timeout)


def test_a_push_ends_when_who_waits_for_it_is_told_to_stop() -> None:
    """What the progress raises comes out of both transports, and the threads send no more."""
    pipe = Gate()
    transport = SshTransport(
        lambda: {"old1": SshHost("old1", "10.0.0.1")}, Greeting("pin"), known_hosts=(),
        connections=1, chunk=1000, window=1, stall=5, throttle=Throttle(),
    )  # fmt: skip

    class Pipes:
        @contextmanager
        def using(self, *_: object, **__: object) -> Iterator[Pipe]:
            yield pipe

    def stop(_: PushProgress) -> None:
        pipe.open.set()
        raise KeyboardInterrupt

    transport._pipes = Pipes()  # type: ignore[assignment]
    router = Router(FakeTransport({}), transport, None, lambda _: "ssh", lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        router.push("s", {"old1": [(SHA, 0, MIB)]}, lambda *segment: bytes(segment[2]), stop)
    for thread in threading.enumerate():
        if thread.name.startswith("cpacman-ssh"):
            thread.join(60)
    assert 0 < pipe.number < MIB / 1000
