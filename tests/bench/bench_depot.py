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
from cpacman.depot.rpmkeys import open_keyring
from cpacman.depot.rpmmd import hash_files
from cpacman.depot.signatures import Entering, check_packages
from cpacman.depot.taking import take_snapshot
from cpacman.model import Package
from cpacman.report.progress import Silent
from tests.bench.mirror import COUNT, fill, make_mirror, own_bytes, size_of
from tests.unit.depot.signing import Signer

Row = dict[str, Any]
FILES, SIZE = 300, 2 * 2**20


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        return [*_snapshot(base), *_verify(base / "bytes"), *_signatures(base / "signed")]


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


def _signatures(base: Path) -> list[Row]:
    """Verifying signed packages as they enter, beside one rpmkeys for all; best of three."""
    base.mkdir()
    signer = Signer(base / "gpg")
    key = signer.key("bench")
    exported = signer.export(key, base / "key")
    files = [signer.sign(one, key) for one in _build(base)]
    signer.end()
    megabytes = sum(one.stat().st_size for one in files) / 1e6
    ring = open_keyring([exported], base / "rings")
    command = ["rpmkeys", "--dbpath", str(ring.folder / "db"), "-K", *map(str, files)]

    def ours() -> None:
        packages = [_package(one) for one in files]
        verdicts = check_packages(
            packages, keys=[exported], depot=base, cache=base, reporter=Silent(), keep=False
        )
        if {one.status for one in verdicts.values()} != {"good"}:
            raise RuntimeError(verdicts)

    def theirs() -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    hashed = _wall(lambda: [_package(one) for one in files])
    pairs = [(_wall(ours) - hashed, _wall(theirs)) for _ in range(3)]
    own, other = (megabytes / min(one) for one in zip(*pairs, strict=True))
    what = f"signatures of {megabytes:.0f} MB as they enter, hashed, too | rpmkeys -K"
    return [_row("signatures.mb-per-s", round(own), "MB/s", round(other), what)]


SPEC = """\
Name: big
Version: 1
Release: 1
Summary: s
License: none
BuildArch: noarch
%description
d
%install
mkdir -p %{buildroot}/d
"""
PACKAGES, PAYLOAD = 64, 8 * 2**20


def _build(base: Path) -> list[Path]:
    """Build packages of bytes that can't be compressed; they are not."""
    text = SPEC
    for number in range(PACKAGES):
        text += f"head -c {PAYLOAD} /dev/urandom > %{{buildroot}}/d/{number}\n"
    for number in range(PACKAGES):
        text += f"%package -n big{number}\nSummary: s\n%description -n big{number}\nd\n"
        text += f"%files -n big{number}\n/d/{number}\n"
    (base / "big.spec").write_text(text)
    define = [f"_topdir {base}", "_binary_payload w0.gzdio", f"_dbpath {base}/db"]
    options = [word for one in define for word in ("--define", one)]
    command = ["rpmbuild", "-bb", "--quiet", *options, str(base / "big.spec")]
    environment = {"HOME": str(base), "PATH": os.environ["PATH"]}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return sorted((base / "RPMS").rglob("*.rpm"))


def _package(file: Path) -> Entering:
    sha256 = hash_files(file, ["sha256"])["sha256"]
    package = Package(
        name=file.stem, epoch=0, version="1", release="1", arch="noarch", sha256=sha256,
        size=file.stat().st_size, repository="bench", location=file.name,
    )  # fmt: skip
    return Entering(package, file)


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(f"{row['name']:32} {row['value']:8} {row['unit']:5} {row['baseline']}\n")
