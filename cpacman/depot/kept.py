"""Which builds of packages the depot has the files of, whatever snapshot they came with.

Invariants: what is found has a file of the right size in the pool; each manifest is read once, and
what it names is remembered beside the caches, in a file that can be thrown away at any time.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.depot.pool import Pool
from cpacman.depot.snapshot import snapshot_ids
from cpacman.errors import Problem, SafetyError
from cpacman.model import Package

_FORMAT = 1
"""Version of the index's layout: part of its name, so an old one is never read."""

_SCHEMA = """
create table if not exists seen (snapshot text primary key);
create table if not exists packages (
    nevra text, sha256 text, size integer, vendor text, buildtime integer,
    primary key (nevra, sha256)
) without rowid;
"""
_ASK = "select vendor, buildtime, sha256, size from packages where nevra = ?"
_NOTE = "insert or ignore into packages values (?, ?, ?, ?, ?)"
_MEMORY = ":memory:"


class Build(NamedTuple):
    """One build of a package. An empty vendor or a time of 0 is not known, and fits any."""

    nevra: str
    vendor: str = ""
    buildtime: int = 0

    def __str__(self) -> str:
        when = datetime.datetime.fromtimestamp(self.buildtime, datetime.timezone.utc)
        known = [self.vendor, f"built {when:%Y-%m-%d %H:%M}" if self.buildtime else ""]
        words = ", ".join(filter(None, known))
        return f"{self.nevra} ({words})" if words else self.nevra

    def is_of(self, vendor: str, buildtime: int) -> bool:
        """Whether a package file of this NEVRA is this build."""
        pairs = ((self.buildtime, buildtime), (self.vendor, vendor))
        return all(mine == theirs or not (mine and theirs) for mine, theirs in pairs)


class _Manifest(msgspec.Struct):
    packages: tuple[Package, ...]


def find_kept(depot: Path, builds: Iterable[Build], cache: Path | None = None) -> set[Build]:
    """Return those builds whose files the depot has.

    Args:
        depot: where the snapshots and the files are.
        builds: what is asked for.
        cache: a directory for what was read of manifests, or None: then all are read each time.

    Raises:
        SafetyError: a manifest is damaged; names all of them.
    """
    wanted = set(builds)
    if not wanted:
        return set()
    file = _place(cache)
    try:
        return _find(file, depot, wanted)
    except sqlite3.Error:
        # Damaged, locked for too long, or of another user: it only saves time.
        with suppress(OSError):
            Path(file).unlink()
        return _find(_MEMORY, depot, wanted)


def _place(cache: Path | None) -> str:
    """Return where the index is; without a place for it, it lives as long as the question."""
    if cache is None:
        return _MEMORY
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return _MEMORY
    return str(cache / f"kept-{_FORMAT}.sqlite")


def _find(file: str, depot: Path, wanted: Iterable[Build]) -> set[Build]:
    pool = Pool(depot)
    with closing(sqlite3.connect(file, timeout=30)) as index, index:
        index.executescript(_SCHEMA)
        _catch_up(index, depot)
        return {
            build
            for build in wanted
            if any(
                build.is_of(vendor, buildtime) and pool.has(sha256, size)
                for vendor, buildtime, sha256, size in index.execute(_ASK, (build.nevra,))
            )
        }


def _catch_up(index: sqlite3.Connection, depot: Path) -> None:
    """Note what the snapshots brought that the index does not know yet.

    Of one that was removed the packages stay noted: whether their files are there is asked anyway.
    """
    seen = {row[0] for row in index.execute("select snapshot from seen")}
    problems: list[Problem] = []
    for number in [one for one in snapshot_ids(depot) if one not in seen]:
        path = depot / "snapshots" / number / "manifest.msgpack"
        try:
            manifest = msgspec.msgpack.decode(path.read_bytes(), type=_Manifest)
        except FileNotFoundError:
            if path.parent.exists():
                problems.append(
                    Problem(str(path), "is missing", "restore it, or remove the folder")
                )
            continue
        except (OSError, msgspec.MsgspecError) as error:
            problems.append(Problem(str(path), f"can't be read: {error}", "restore or remove it"))
            continue
        rows = ((p.nevra, p.sha256, p.size, p.vendor, p.buildtime) for p in manifest.packages)
        index.executemany(_NOTE, rows)
        index.execute("insert or ignore into seen values (?)", (number,))
    if problems:
        raise SafetyError(problems)
