"""Bringing a repository's package files into the pool.

Invariants: a file that was replaced or rewritten between the first look at it and the last one is
noticed, and only then do files appear in the pool, which is trusted from there on; that files are
copied, and how much, is said before the first one is, and refused when the disk has no room; what
the pool has already is not read from the mirror.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from cpacman.depot.pool import Pool, Way
from cpacman.depot.repository import Repository, Unsettled, check_files, file_state
from cpacman.depot.rpmmd import capped
from cpacman.errors import CpacmanError, Problem, RepositoryError
from cpacman.model import Package
from cpacman.report.progress import Reporter


class FileState(NamedTuple):
    """What of a file changes when it is replaced or rewritten (links alone don't change it)."""

    device: int
    inode: int
    size: int
    mtime: int


class Wanted(NamedTuple):
    """A repository and those of its packages that the pool lacks, as their files were seen."""

    repository: Repository
    packages: tuple[Package, ...]
    states: tuple[FileState, ...]


GONE = FileState(0, 0, -1, 0)


def select_wanted(repository: Repository, pool: Pool) -> Wanted:
    """Return what the pool lacks of a repository; a file that is gone has the state `GONE`."""
    packages = tuple(one for one in repository.packages if not pool.has(one.sha256, one.size))
    return Wanted(repository, packages, tuple(_states(repository, packages)))


def _states(repository: Repository, packages: Sequence[Package]) -> Iterator[FileState]:
    for one in packages:
        try:
            state = file_state(repository.path, one)
        except OSError:
            yield GONE
        else:
            yield FileState(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


def check_touched(wanted: Wanted) -> None:
    """Hash what was written after the metadata that names it.

    Sizes are trusted otherwise: a mirror is filled before its metadata is written, and hashing
    all of it takes minutes.

    Raises:
        RepositoryError: files are others than the metadata says; names them.
    """
    primary = wanted.repository.metadata.primary
    try:
        indexed = primary.stat().st_mtime_ns
    except OSError as error:
        words = f"went away while it was read: {error.strerror}"
        raise RepositoryError(Problem(str(primary), words)) from error
    touched = tuple(
        one
        for one, state in zip(wanted.packages, wanted.states, strict=True)
        if state.mtime > indexed
    )
    if not touched:
        return
    only = msgspec.structs.replace(wanted.repository, packages=touched)
    if problems := check_files(only, verify=True):
        raise RepositoryError(capped(problems))


def stage_files(wanted: Sequence[Wanted], pool: Pool, present: int, reporter: Reporter) -> None:
    """Bring every wanted file beside the pool.

    Args:
        wanted: what the pool lacks, by repository.
        pool: where it goes.
        present: how many more packages there are, which the pool has.
        reporter: told after each file, and before anything is copied.

    Raises:
        RepositoryError: a file is gone, or is another than its metadata says.
        CpacmanError: the disk has no room for the copies.
        OSError: the depot can't be written.
    """
    ways = Counter({Way.PRESENT: present})
    total = present + sum(len(one.packages) for one in wanted)
    for one in wanted:
        copying = False
        for package in one.packages:
            source = one.repository.path / package.location
            way = pool.stage(source, package.sha256, package.size)
            ways[way] += 1
            if way is Way.COPY and not copying:
                copying = True
                _announce(one, pool, reporter)
            told = ", ".join(f"{n} {way.value}" for way, n in ways.items() if n)
            reporter.progress(told, ways.total(), total, "packages")


def _announce(wanted: Wanted, pool: Pool, reporter: Reporter) -> None:
    """Say that a mirror is copied, once its first file had to be; refuse what can't fit."""
    left = sum(one.size for one in wanted.packages)
    name, path = wanted.repository.name, wanted.repository.path
    reporter.line(
        f"{name}: {len(wanted.packages)} files are copied, {left / 1e9:.1f} GB: neither reflink"
        f" nor hard link leads from {path} to {pool.root}"
    )
    state = os.statvfs(pool.root)
    free = state.f_bavail * state.f_frsize
    if left > free:
        words = f"{left / 1e9:.1f} GB are to be copied there, {free / 1e9:.1f} GB are free"
        mend = "make room there, or name another depot, best on the mirrors' file system"
        raise CpacmanError(Problem(str(pool.root), words, mend))


def check_unmoved(wanted: Wanted) -> None:
    """Look at the files again, when all are staged.

    Raises:
        Unsettled: the mirror replaced or rewrote some meanwhile; names the repository.
    """
    if tuple(_states(wanted.repository, wanted.packages)) != wanted.states:
        raise rewritten([wanted.repository.name])


def settle_files(wanted: Sequence[Wanted], pool: Pool) -> None:
    """Let the staged files appear in the pool: nothing wrong was found with any."""
    for each in wanted:
        for one in each.packages:
            pool.settle(one.sha256)


def rewritten(names: Sequence[str]) -> Unsettled:
    """Return the error for repositories that did not hold still."""
    return Unsettled(
        [
            Problem(name, "is being rewritten while the snapshot is taken", "let the mirror finish")
            for name in names
        ]
    )
