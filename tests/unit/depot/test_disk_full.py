"""A depot on a file system that is full: a real one, small, in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can mount"
)

SCRIPT = """\
import json, subprocess, sys
from pathlib import Path
from cpacman.config import RepositorySettings
from cpacman.depot.health import check_depot
from cpacman.depot.snapshot import list_snapshots
from cpacman.depot.taking import take_snapshot
from cpacman.errors import CpacmanError
from cpacman.report.progress import Silent

zoo, small, cache, *attempts = sys.argv[1:]
mirror = {"zoo": RepositorySettings.model_validate({"path": zoo})}
mount = ["mount", "-t", "tmpfs", "-o"]
subprocess.run([*mount, attempts[0], "tmpfs", small], check=True)
depot = Path(small) / "depot"
said = []
for options in attempts:
    subprocess.run(["mount", "-o", "remount," + options, small], check=True)
    try:
        taken = take_snapshot("el9", mirror, depot=depot, cache=Path(cache))
        said.append(["taken", taken.id])
    except CpacmanError as error:
        said.append([type(error).__name__, str(error)])
    health = check_depot(depot, Silent())
    said[-1] += [len(list_snapshots(depot)), len(health.damaged) + len(health.problems)]
said.append([one.name for one in (depot / "tmp").iterdir()])
print(json.dumps(said))
"""


def run(zoo: Path, base: Path, *attempts: str) -> list[Any]:
    """Take a snapshot on a tmpfs with each of these options in turn; return what came of each."""
    small, cache = base / "small", base / "cache"
    small.mkdir()
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        [*command, str(zoo), str(small), str(cache), *attempts],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "permission denied" in done.stderr.lower() and "mount" in done.stderr:
        pytest.skip("this machine does not let root mount")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_no_room_for_the_copies(indexed: Path, tmp_path: Path) -> None:
    """What can't fit is refused at the first copy, with both sizes; with room it is taken."""
    *refused, taken, left = run(indexed, tmp_path, "size=24k", "size=48k", "size=64m")
    for kind, text, snapshots, damage in refused:
        assert (kind, snapshots, damage) == ("CpacmanError", 0, 0)
        assert "GB are free" in text or "make room there" in text, text
    assert taken[0] == "taken" and taken[2:] == [1, 0]
    assert left == []


def test_full_in_the_middle(indexed: Path, tmp_path: Path) -> None:
    """The disk runs full at many different files: nothing is taken, the place is said, and after
    that it goes on."""
    limits = [f"size=64m,nr_inodes={number}" for number in (3, 4, 6, 12, 30, 43, 60, 80, 100)]
    *turns, left = run(indexed, tmp_path, *limits, "size=64m,nr_inodes=9999")
    refused = [one for one in turns if one[0] != "taken"]
    assert len(refused) > 4
    for kind, text, snapshots, damage in refused:
        assert (kind, snapshots, damage) == ("CpacmanError", 0, 0)
        assert "No space left on device; make room there" in text
    assert turns[-1][0] == "taken" and turns[-1][2:] == [1, 0]
    assert left == []
