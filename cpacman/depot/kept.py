"""Which builds of packages the depot has the files of, whatever snapshot they came with.

Invariant: what is found has a file of the right size in the pool; a manifest that can't be read
finds nothing, which `verify` is there to tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.depot.pool import Pool
from cpacman.depot.snapshot import list_snapshots
from cpacman.model import Package


class Build(NamedTuple):
    """One build of a package. An empty vendor or a time of 0 is not known, and fits any."""

    nevra: str
    vendor: str = ""
    buildtime: int = 0

    def is_of(self, package: Package) -> bool:
        """Whether a package file of this NEVRA is this build."""
        pairs = ((self.buildtime, package.buildtime), (self.vendor, package.vendor))
        return all(mine == theirs or not (mine and theirs) for mine, theirs in pairs)


class _Manifest(msgspec.Struct):
    packages: tuple[Package, ...]


def find_kept(depot: Path, builds: Iterable[Build]) -> set[Build]:
    """Return those builds whose files the depot has; the newest snapshots are asked first.

    Raises:
        SafetyError: a manifest is damaged.
    """
    missing: dict[str, set[Build]] = {}
    for build in builds:
        missing.setdefault(build.nevra, set()).add(build)
    found: set[Build] = set()
    pool = Pool(depot)
    for head in list_snapshots(depot):
        if not missing:
            break
        data = (depot / "snapshots" / head.id / "manifest.msgpack").read_bytes()
        for package in msgspec.msgpack.decode(data, type=_Manifest).packages:
            wanted = missing.get(package.nevra, ())
            mine = {build for build in wanted if build.is_of(package)}
            if mine and pool.has(package.sha256, package.size):
                found |= mine
                missing[package.nevra] -= mine
                if not missing[package.nevra]:
                    del missing[package.nevra]
    return found
