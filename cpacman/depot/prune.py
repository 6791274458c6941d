"""Removing snapshots that may go, and every file that none of the others needs.

Invariants: a snapshot disappears whole, by one rename that is on disk before any of its files goes,
so a run that dies anywhere leaves every remaining snapshot complete; a manifest that can't be
read stops it, since nobody knows what it needs; files without an owner (of runs that died, of
snapshots that were refused) go, too. Callers hold the depot's locks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from cpacman.depot.health import load_all
from cpacman.depot.pool import is_package_name, sweep_temporary
from cpacman.depot.signatures import forget_verdicts
from cpacman.depot.snapshot import snapshot_ids
from cpacman.depot.writing import sync_filesystem
from cpacman.errors import SafetyError
from cpacman.report.progress import Reporter


class Garbage(NamedTuple):
    """What would go: snapshots, package files, metadata folders, and the bytes that frees."""

    snapshots: tuple[str, ...]
    files: tuple[Path, ...]
    metadata: tuple[Path, ...]
    freed: int
    shared: int


def find_garbage(depot: Path, staying: Collection[str]) -> Garbage:
    """Return what no snapshot that stays needs.

    `freed` are the bytes on disk that only the depot has; `shared` are those of files that a
    mirror has, too, under another name: they are free when it drops them.

    Raises:
        SafetyError: the manifest of one that stays can't be read.
    """
    snapshots, problems = load_all(depot, staying)
    if problems:
        raise SafetyError(problems)
    needed = {one.sha256 for snapshot in snapshots for one in snapshot.packages}
    folders = {
        path.parent
        for snapshot in snapshots
        for repository in snapshot.repositories
        for _, path in repository.metadata.items()
    }
    files = [one for one in _pool_files(depot) if one.name not in needed]
    metadata = [one for one in _entries(depot / "metadata") if one not in folders]
    inside = [file for folder in metadata for file in _entries(folder)]
    freed = shared = 0
    for one in (*files, *inside):
        state = one.lstat()
        freed += state.st_blocks * 512 if state.st_nlink == 1 else 0
        shared += state.st_blocks * 512 if state.st_nlink > 1 else 0
    gone = tuple(one for one in snapshot_ids(depot) if one not in staying)
    return Garbage(gone, tuple(files), tuple(metadata), freed, shared)


def remove_garbage(depot: Path, garbage: Garbage, reporter: Reporter) -> None:
    """Remove it: first the snapshots, for good, then what they needed.

    Raises:
        OSError: the depot can't be written.
    """
    for one in garbage.snapshots:
        (depot / "snapshots" / one).rename(depot / "tmp" / f"pruned-{one}")
    # If the power fails now, no manifest may come back whose files are gone.
    sync_filesystem(depot)
    for folder in garbage.metadata:  # whole, or a half of it would be taken for kept
        folder.rename(depot / "tmp" / f"metadata-{folder.name}")
    for done, file in enumerate(garbage.files, 1):
        file.unlink(missing_ok=True)
        reporter.progress("removing", done, len(garbage.files), "files")
    sweep_temporary(depot)
    forget_verdicts(depot, {one.name for one in _pool_files(depot)})


def _pool_files(depot: Path) -> Iterator[Path]:
    """Yield the package files; what has another name is not ours to judge."""
    for shard in _entries(depot / "files"):
        if shard.is_dir() and not shard.is_symlink():
            yield from (one for one in _entries(shard) if is_package_name(one.name))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
