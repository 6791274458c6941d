"""Who may do what in a depot at the same time.

Invariants: one process at a time adds or removes (`writing`); nothing is removed while somebody
makes sure of a snapshot and then relies on it (`using`), such as who points a class at it. The
kernel drops every lock when its process dies, so none is ever stale. Whoever only reads what a
class points at, or pushes it, needs no lock: what a class held lately is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cpacman.errors import ConflictError, Problem

PATIENCE = 20.0
"""Seconds that a removal waits for those who use the depot, and they for a removal."""
_STEP = 0.1


@contextlib.contextmanager
def writing(depot: Path, what: str = "taking a snapshot") -> Iterator[None]:
    """Add to the depot, or remove, alone; the depot is made when it is missing.

    Raises:
        ConflictError: somebody else does; says what.
    """
    depot.mkdir(mode=0o700, parents=True, exist_ok=True)
    (depot / "tmp").mkdir(mode=0o700, exist_ok=True)
    handle = _opened(depot / "lock")
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = f"somebody else is {_said(handle) or 'writing to it'}"
            raise ConflictError(Problem(str(depot), words, "try again when it is done")) from None
        _say(handle, what)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def using(depot: Path) -> Iterator[None]:
    """Rely on snapshots that nobody points at yet; others may, too.

    Raises:
        ConflictError: something is being removed for long.
    """
    if not depot.is_dir():  # nothing there that could be removed
        yield
        return
    with _waited(depot, fcntl.LOCK_SH, "snapshots are being removed"):
        yield


@contextlib.contextmanager
def removing(depot: Path) -> Iterator[None]:
    """Remove snapshots and files; call it within `writing`.

    Raises:
        ConflictError: somebody relies on a snapshot for long.
    """
    with _waited(depot, fcntl.LOCK_EX, "somebody is using snapshots: promoting, or verifying"):
        yield


@contextlib.contextmanager
def _waited(depot: Path, kind: int, why: str) -> Iterator[None]:
    handle = _opened(depot / "use.lock")
    try:
        end = time.monotonic() + PATIENCE
        while not _try(handle, kind):
            if time.monotonic() > end:
                raise ConflictError(Problem(str(depot), why, "try again when it is done"))
            time.sleep(_STEP)
        yield
    finally:
        os.close(handle)


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _say(handle: int, what: str) -> None:
    """Write what the lock is held for: only for messages, so it may fail."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{what} (process {os.getpid()})".encode(), 0)


def _said(handle: int) -> str:
    text = os.pread(handle, 200, 0).decode("utf-8", "replace")
    return text if text.isprintable() else ""
