"""A real master and three real hosts for the whole session, and a way to leave them as found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, rpms
from lab.directory import sweep

PREFIX = "cpacman-lab-test-"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The session's lab. Whoever changes it asks for `clean_lab` instead.

    Only the lack of root is a reason to skip: a missing program is a failure that names its mend.
    """
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with Lab(["web1", "web2", "db1"]) as started:
        yield started


@pytest.fixture
def clean_lab(lab: Lab) -> Iterator[Lab]:
    """The session's lab, brought back to its first state after the test."""
    yield lab
    lab.reset()


@pytest.fixture
def mirror(clean_lab: Lab) -> Path:
    """A repository with the updates, on the master's disk."""
    return rpms.repository(clean_lab.path("mirror", "el9"))


@pytest.fixture
def lab_base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base of its own for the labs that a test starts itself (short: sockets live below it).

    Those of test runs that were killed are known by their lock, which is free, and removed first.
    """
    for stale in Path("/tmp").glob(f"{PREFIX}*"):
        remove_stale(stale)
    with held_base() as base:
        monkeypatch.setenv("CPACMAN_LAB_DIR", str(base))
        yield base


@contextlib.contextmanager
def held_base() -> Iterator[Path]:
    """Make a base and hold it, so that no other run of these tests takes it for a stale one."""
    lock = None
    while lock is None:
        base = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        lock = hold(base)
    try:
        yield base
        shutil.rmtree(base)
    finally:
        os.close(lock)


def hold(base: Path) -> int | None:
    """Lock a directory for as long as the returned file is open; None if somebody else has it."""
    with contextlib.suppress(OSError):
        lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), base.stat()):
                return lock
        except OSError:
            pass
        os.close(lock)
    return None


def remove_stale(base: Path) -> None:
    """Remove a base that nobody holds, unless a lab lives there all the same."""
    lock = hold(base)
    if lock is not None:
        sweep(base)
        with contextlib.suppress(OSError):
            base.rmdir()
        os.close(lock)
