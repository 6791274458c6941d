"""A real master and three real hosts for the whole session, and a way to leave them as found."""

from __future__ import annotations

import contextlib
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

    Those of test runs that were killed are found by their name and removed first.
    """
    for stale in Path("/tmp").glob(f"{PREFIX}*"):
        sweep(stale)
        with contextlib.suppress(OSError):  # another run's labs live there
            stale.rmdir()
    base = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    monkeypatch.setenv("CPACMAN_LAB_DIR", str(base))
    yield base
    shutil.rmtree(base)
