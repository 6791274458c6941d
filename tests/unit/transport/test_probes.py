"""What is asked for a gate: pages and commands that hang, lie, or answer for somebody else."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cpacman.transport.probes import SaltProbes

PROBES = SaltProbes({})


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve every connection in this way; yield the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                threading.Thread(target=speak, args=(one,), daemon=True).start()

    def speak(one: socket.socket) -> None:
        with suppress(OSError), one:
            one.recv(65536)
            answer(one)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def page(text: str, status: str = "200 OK", *headers: str) -> bytes:
    """A page as it is sent."""
    return "\r\n".join([f"HTTP/1.0 {status}", *headers, "", text]).encode()


def test_page() -> None:
    """Status and text come back, also of a page that says that something is wrong."""
    with serving(lambda one: one.sendall(page("ok"))) as address:
        reply = PROBES.http(f"{address}/health?full=1", 20)
        assert (reply.answered, reply.value, reply.code) == (True, "ok", 200)
    with serving(lambda one: one.sendall(page("no", "503 Down"))) as address:
        assert PROBES.http(address, 20).code == 503


def test_refused_connection_is_an_answer() -> None:
    """Nobody serves there."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    reply = PROBES.http(f"http://127.0.0.1:{port}", 20)
    assert reply.answered and reply.code == 0


def test_nobody_answers_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that sends us elsewhere did not serve the page, and no proxy is asked for it."""
    with serving(lambda one: one.sendall(page("ok"))) as healthy:
        where = f"Location: {healthy}/health"
        with serving(lambda one: one.sendall(page("", "302 Found", where))) as broken:
            assert PROBES.http(broken, 20).code == 302
        monkeypatch.setenv("http_proxy", healthy)
        assert PROBES.http("http://127.0.0.1:1/health", 20).code == 0


@pytest.mark.parametrize("head", [b"", b"HTTP/1.0 200 OK\r\n", page("")])
def test_answer_that_never_ends(head: bytes) -> None:
    """What comes byte by byte takes no longer than the whole timeout, wherever it is."""
    over = threading.Event()

    def drip(one: socket.socket) -> None:
        one.sendall(head)
        while not over.wait(0.05):
            one.sendall(b"x")

    with serving(drip) as address:
        reply = PROBES.http(address, 1)
        over.set()
    assert not reply.answered and "no whole answer in 1 s" in reply.detail


@pytest.mark.parametrize("text", ["http://", "http://x:99999/", "http://[::1", "http://a b/"])
def test_no_address(text: str) -> None:
    """It is told, never raised."""
    assert not PROBES.http(text, 5).answered


def test_garbage_is_no_page() -> None:
    """A server of something else says nothing."""
    with serving(lambda one: one.sendall(b"SSH-2.0-OpenSSH\r\n")) as address:
        assert not PROBES.http(address, 20).answered


def test_command_that_leaves_something_running(tmp_path: Path) -> None:
    """Its end is its answer, whoever still holds its output."""
    script = f"sleep 600 & echo $! >{tmp_path}/pid; echo fine; exit 4"
    reply = PROBES.command(["/bin/sh", "-c", script], 60)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (reply.answered, reply.value, reply.code) == (True, "fine\n", 4)


def test_command_that_hangs_is_ended_whole(tmp_path: Path) -> None:
    """With what it started."""
    pid = tmp_path / "pid"
    for patience in (2, 60):  # a busy machine may not even have begun
        reply = PROBES.command(["/bin/sh", "-c", f"sleep 600 & echo $! >{pid}; wait"], patience)
        assert not reply.answered and "still running" in reply.detail
        if pid.exists():
            break
    deadline = time.monotonic() + 60
    while lives(pid.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: str) -> bool:
    """Whether a process runs; one that whoever adopted it has not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_such_command() -> None:
    """It says nothing, and why."""
    reply = PROBES.command(["/nowhere/x"], 5)
    assert not reply.answered and "No such file" in reply.detail
