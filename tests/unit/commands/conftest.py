"""A master without Salt for the tests of commands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.commands.world import World, packages


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three classes, one channel of one empty mirror, and no host."""
    if not shutil.which("rpmbuild"):
        if os.environ.get("CI") == "true":
            pytest.fail("rpmbuild is not installed")
        pytest.skip("rpmbuild is not installed")
    made = World(tmp_path, packages(_top(tmp_path_factory)))
    yield made
    made.store.close()


def _top(factory: pytest.TempPathFactory) -> Path:
    """Return the one directory of the session in which packages are built."""
    top = factory.getbasetemp() / "command-packages"
    top.mkdir(exist_ok=True)
    return top
