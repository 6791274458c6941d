"""A real master and three real hosts for the whole session, and a way to leave them as found."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, rpms


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
    """A base of its own for the labs that a test starts itself (short: sockets live below it)."""
    base = Path(tempfile.mkdtemp(prefix="lab-"))
    monkeypatch.setenv("CPACMAN_LAB_DIR", str(base))
    yield base
    shutil.rmtree(base)
