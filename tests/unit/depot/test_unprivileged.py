"""Taking snapshots as a user who does not own the mirrors, as packaged Salt masters do."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpacman.depot.snapshot import load_snapshot
from cpacman.depot.taking import take_snapshot
from cpacman.report.progress import Silent
from tests.unit.depot.conftest import settings

NOBODY = 65534
PROTECTED = Path("/proc/sys/fs/protected_hardlinks")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Ways(Silent):
    """Keeps what was said, in its order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        """Keep a line."""
        self.said.append(text)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Keep how files are kept."""
        self.said.append(what)


@pytest.fixture
def place(indexed: Path) -> Iterator[Path]:
    """A folder that anybody can reach, with a mirror that is root's."""
    base = Path(tempfile.mkdtemp(prefix="cpacman-"))
    base.chmod(0o755)
    shutil.copytree(indexed, base / "mirror")
    for own in ("depot", "cache"):
        (base / own).mkdir()
        os.chown(base / own, NOBODY, NOBODY)
    yield base
    shutil.rmtree(base)


def take(base: Path, user: int) -> tuple[str, list[str]]:
    """Take a snapshot in a process of that user; return its id and what was said."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_take, args=(base, user, there))
    process.start()
    there.close()
    answer: Any = here.recv()
    process.join(300)
    return answer[0], answer[1]


def _take(base: Path, user: int, answer: Any) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    told = Ways()
    try:
        found = take_snapshot(
            "el9",
            {"zoo": settings(base / "mirror")},
            depot=base / "depot",
            cache=base / "cache",
            reporter=told,
        ).id
    except Exception as error:  # the other process judges it
        found = f"{type(error).__name__}: {error}"
    answer.send((found, told.said))


def test_somebody_elses_mirror(place: Path) -> None:
    """Where the kernel protects hard links, files are copied, said at the first of them."""
    found, said = take(place, NOBODY)
    snapshot = load_snapshot(place / "depot", found)
    kept = list((place / "depot" / "files").glob("*/*"))
    assert len(kept) == len(snapshot.packages) == 35
    assert {one.stat().st_uid for one in (place / "depot" / "files").glob("*")} == {NOBODY}
    if "reflink" in said[-1]:
        return
    if PROTECTED.read_text().strip() == "1":
        assert said[0].startswith("zoo: 35 files are copied") and said[-1] == "35 copy"
        assert {one.stat().st_nlink for one in kept} == {1}
    else:
        assert said[-1] == "35 hard link"


def test_ones_own_mirror(place: Path) -> None:
    """Root, or whoever owns the mirror, shares its bytes and copies nothing."""
    for file in (place / "mirror").rglob("*"):
        os.chown(file, NOBODY, NOBODY)
    found, said = take(place, NOBODY)
    assert found.startswith("s-") and said[-1] in ("35 reflink", "35 hard link")


def test_root_links_what_is_anybodys(place: Path) -> None:
    """Root may link what it does not own."""
    for file in (place / "mirror").rglob("*.rpm"):
        os.chown(file, NOBODY, NOBODY)
    found, said = take(place, 0)
    assert found.startswith("s-") and said[-1] in ("35 reflink", "35 hard link")


def test_a_file_that_one_may_not_read(place: Path) -> None:
    """A mirror's private file is named, and nothing is taken."""
    (place / "mirror" / "walrus-5.21-1.noarch.rpm").chmod(0o600)
    found, _ = take(place, NOBODY)
    assert "RepositoryError" in found and "walrus-5.21" in found
    assert "Permission denied" in found
