"""How long the depot takes: snapshots of 20,000 packages, hashing files, room on disk.

`python -m tests.bench.bench_depot` prints the rows. Files whose bytes nobody reads are sparse, with
the names and sizes that CentOS Stream 9's metadata has; what is hashed has real bytes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpacman.config import RepositorySettings
from cpacman.depot.taking import take_snapshot
from tests.bench.mirror import COUNT, fill, make_mirror, own_bytes, size_of

Row = dict[str, Any]
FILES, SIZE = 300, 2 * 2**20


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as scratch:
        return [*_snapshot(Path(scratch)), *_verify(Path(scratch) / "bytes")]


def _row(name: str, value: float, unit: str, baseline: float | None, command: str) -> Row:
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "command": command}


def _wall(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _take(base: Path, *, verify: bool = False) -> Any:
    repository = RepositorySettings.model_validate({"path": str(base / "mirror")})
    return take_snapshot(
        "el9", {"cs9": repository}, depot=base / "depot", cache=base / "cache", verify=verify
    )


def _snapshot(base: Path) -> list[Row]:
    """The first snapshot of a mirror and one with nothing changed; the baseline is the goal."""
    mirror = make_mirror(base / "mirror", COUNT)
    first = _wall(lambda: _take(base))
    again = statistics.median(_wall(lambda: _take(base)) for _ in range(5))
    overhead = 100 * own_bytes(base / "depot") / size_of(mirror)
    what = f"cpacman.snapshot of {COUNT} packages, signatures off"
    return [
        _row(f"snapshot.{COUNT}.first.seconds", round(first, 2), "s", 20.0, what),
        _row(f"snapshot.{COUNT}.again.seconds", round(again, 3), "s", 1.0, what),
        _row(
            "depot.overhead.percent", round(overhead, 3), "%", 5.0, "blocks that only the depot has"
        ),
    ]


def _verify(base: Path) -> list[Row]:
    """Hashing every file, beside sha256sum on all processors; best of three of each."""
    mirror = fill(base / "mirror", FILES, SIZE)
    megabytes = FILES * SIZE / 1e6
    _take(base)
    names = "\0".join(str(one) for one in mirror.rglob("*.rpm"))
    command = ["xargs", "-0", "-n", "20", "-P", str(os.cpu_count()), "sha256sum"]

    def theirs() -> None:
        subprocess.run(command, input=names.encode(), stdout=subprocess.DEVNULL, check=True)

    pairs = [(_wall(lambda: _take(base, verify=True)), _wall(theirs)) for _ in range(3)]
    ours, other = (megabytes / min(one) for one in zip(*pairs, strict=True))
    what = f"cpacman.snapshot verify=True, {megabytes:.0f} MB | xargs -P sha256sum"
    return [_row("snapshot.verify.mb-per-s", round(ours), "MB/s", round(other), what)]


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(f"{row['name']:32} {row['value']:8} {row['unit']:5} {row['baseline']}\n")
