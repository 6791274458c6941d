"""Taking a snapshot of a channel's repositories.

Invariants: taking it twice with nothing changed gives the same one; every file that it names is in
the depot before it appears; a repository that is rewritten while the snapshot is taken is noticed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cpacman.depot.pool import Pool, Way, io_error, sweep_temporary
from cpacman.depot.repository import Repository, check_files, fingerprint_of, read_repository
from cpacman.depot.rpmmd import capped
from cpacman.depot.snapshot import (
    Snapshot,
    SnapshotRepository,
    load_snapshot,
    snapshot_id,
    snapshot_ids,
)
from cpacman.depot.writing import locked, publish, with_kept_metadata
from cpacman.errors import Problem, RepositoryError
from cpacman.model import Advisory, canonical_json

if TYPE_CHECKING:
    from cpacman.config import RepositorySettings

Progress = Callable[[int, int, str], None]
"""Called with how many of how many files are done, and what is going on."""


def no_progress(done: int, total: int, text: str) -> None:
    """Say nothing."""


class _Moved(Exception):
    """A repository changed while it was read."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.names = names


def take_snapshot(
    channel: str,
    repositories: Mapping[str, RepositorySettings],
    *,
    depot: Path,
    cache: Path,
    now: float | None = None,
    verify: bool = False,
    progress: Progress = no_progress,
) -> Snapshot:
    """Take a snapshot of a channel's repositories and keep its files in the depot.

    Args:
        channel: its name.
        repositories: as the channel configures them, by name.
        depot: the depot's directory; made when it is missing.
        cache: where repositories' contents are cached.
        now: seconds since the epoch, for a snapshot that is new; left out, the clock's.
        verify: hash every file, too.
        progress: told after each file.

    Returns:
        The snapshot; when nothing changed, the very one that was taken before.

    Raises:
        RepositoryError: files or metadata are missing or altered, all of them named; or a mirror
            kept changing.
        ConflictError: somebody else takes a snapshot in this depot.
        CpacmanError: the depot can't be written.
    """
    if not repositories:
        raise RepositoryError(Problem(channel, "the channel has no repositories", "add one"))
    created = int(time.time() if now is None else now)
    try:
        with locked(depot):
            sweep_temporary(depot)
            return _retried(_Job(channel, repositories, depot, cache, created, verify, progress))
    except OSError as error:
        raise io_error(depot, error) from error


class _Job(NamedTuple):
    channel: str
    repositories: Mapping[str, RepositorySettings]
    depot: Path
    cache: Path
    now: int
    verify: bool
    progress: Progress


def _retried(job: _Job) -> Snapshot:
    """Take it; once more if a mirror was rewritten meanwhile; then refuse."""
    moved: list[str] = []
    for _ in range(2):
        before = _fingerprints(job.repositories)
        try:
            return _take_once(job, before)
        except RepositoryError:
            # Whoever reads while a mirror is rewritten sees altered files: that is the cause.
            moved = _moved(job.repositories, before)
            if not moved:
                raise
        except _Moved as error:
            moved = error.names
    raise RepositoryError(
        [
            Problem(name, "is being rewritten while the snapshot is taken", "let the mirror finish")
            for name in moved
        ]
    )


def _take_once(job: _Job, before: Mapping[str, str]) -> Snapshot:
    draft = _read_draft(job)
    _refuse_faulty(draft.repositories, verify=job.verify)
    _keep_files(draft.repositories, Pool(job.depot), job.progress)
    is_new = draft.snapshot.id not in snapshot_ids(job.depot)
    snapshot = with_kept_metadata(draft.snapshot, job.depot) if is_new else None
    moved = _moved(job.repositories, before)
    if moved:
        raise _Moved(moved)
    if snapshot is None:
        return load_snapshot(job.depot, draft.snapshot.id)
    publish(snapshot, job.depot)
    return snapshot


def _fingerprints(repositories: Mapping[str, RepositorySettings]) -> dict[str, str]:
    """Return the fingerprints now, or the problems of all repositories that have none."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, one in repositories.items():
        try:
            found[name] = fingerprint_of(name, one.path)
        except RepositoryError as error:
            problems += error.problems
    if problems:
        raise RepositoryError(problems)
    return found


def _moved(repositories: Mapping[str, RepositorySettings], before: Mapping[str, str]) -> list[str]:
    now = _fingerprints(repositories)
    return [name for name, fingerprint in before.items() if now[name] != fingerprint]


class _Draft(NamedTuple):
    """A snapshot whose metadata paths still point at where the repositories were read."""

    snapshot: Snapshot
    repositories: tuple[Repository, ...]


def _read_draft(job: _Job) -> _Draft:
    repositories: list[Repository] = []
    problems: list[Problem] = []
    for name, one in sorted(job.repositories.items()):
        try:
            repositories.append(read_repository(name, one.path, job.cache))
        except RepositoryError as error:
            problems += error.problems
    if problems:
        raise RepositoryError(problems)
    entries = tuple(_entry(one, job.repositories[one.name]) for one in repositories)
    packages = tuple(package for each in repositories for package in each.packages)
    advisories = _merged_advisories(repositories)
    snapshot = Snapshot(
        id=snapshot_id(job.channel, entries, packages, advisories),
        channel=job.channel,
        created=job.now,
        repositories=entries,
        packages=packages,
        advisories=advisories,
    )
    return _Draft(snapshot, tuple(repositories))


def _entry(repository: Repository, settings: RepositorySettings) -> SnapshotRepository:
    return SnapshotRepository(
        name=repository.name,
        path=str(repository.path),
        kind=repository.kind,
        fingerprint=repository.fingerprint,
        metadata=repository.metadata,
        checksums=repository.checksums,
        autoupdate=settings.autoupdate,
        classes=settings.classes,
        only=settings.only.texts if settings.only else (),
        priority=settings.priority,
        module_hotfixes=settings.module_hotfixes,
        origin=settings.origin,
    )


def _merged_advisories(repositories: Iterable[Repository]) -> tuple[Advisory, ...]:
    """Return the advisories of all repositories, each once, sorted."""
    found = {canonical_json(one): one for each in repositories for one in each.advisories}
    return tuple(found[key] for key in sorted(found, key=lambda key: (found[key].id, key)))


def _refuse_faulty(repositories: Iterable[Repository], *, verify: bool) -> None:
    problems = [one for each in repositories for one in check_files(each, verify=verify)]
    if problems:
        raise RepositoryError(capped(problems))


def _keep_files(repositories: Sequence[Repository], pool: Pool, progress: Progress) -> None:
    total = sum(len(one.packages) for one in repositories)
    ways: Counter[Way] = Counter()
    for repository in repositories:
        _check_touched(repository, pool)
        for package in repository.packages:
            source = repository.path / package.location
            ways[pool.keep(source, package.sha256, package.size)] += 1
            progress(ways.total(), total, ", ".join(f"{n} {way.value}" for way, n in ways.items()))


def _check_touched(repository: Repository, pool: Pool) -> None:
    """Hash what is new to the depot and was written after the metadata that names it.

    Sizes are trusted otherwise: a mirror is filled before its metadata is written, and hashing
    all of it takes minutes.
    """
    try:
        indexed = repository.metadata.primary.stat().st_mtime
        touched = [
            one
            for one in repository.packages
            if not pool.has(one.sha256, one.size)
            and (repository.path / one.location).stat().st_mtime > indexed
        ]
    except OSError as error:
        words = f"went away while it was read: {error.strerror}"
        raise RepositoryError(Problem(str(error.filename), words)) from error
    if not touched:
        return
    only = msgspec.structs.replace(repository, packages=tuple(touched))
    if problems := check_files(only, verify=True):
        raise RepositoryError(problems)
