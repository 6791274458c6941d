"""Taking a snapshot of a channel's repositories.

Invariants: taking it twice with nothing changed gives the same one; every file that it names is in
the depot before it appears; a repository that is rewritten while the snapshot is taken is noticed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cpacman.depot.keeping import (
    check_touched,
    check_unmoved,
    rewritten,
    select_wanted,
    settle_files,
    stage_files,
)
from cpacman.depot.locks import writing
from cpacman.depot.pool import Pool, io_error, sweep_temporary
from cpacman.depot.provenance import Door, check_entering
from cpacman.depot.repository import (
    Repository,
    Unsettled,
    check_files,
    fingerprint_of,
    read_repository,
)
from cpacman.depot.rpmmd import capped
from cpacman.depot.snapshot import (
    Snapshot,
    SnapshotRepository,
    load_snapshot,
    snapshot_id,
    snapshot_ids,
)
from cpacman.depot.writing import publish, with_kept_metadata
from cpacman.errors import Problem, RepositoryError
from cpacman.model import Advisory, canonical_json
from cpacman.report.progress import Reporter, Silent

if TYPE_CHECKING:
    from cpacman.config import RepositorySettings

PAUSES = (0.0, 0.5, 2.0)
"""Seconds before each attempt at a mirror that is being rewritten; then it is refused."""


def take_snapshot(
    channel: str,
    repositories: Mapping[str, RepositorySettings],
    *,
    depot: Path,
    cache: Path,
    now: float | None = None,
    verify: bool = False,
    reporter: Reporter | None = None,
    keys: Sequence[Path] = (),
) -> Snapshot:
    """Take a snapshot of a channel's repositories and keep its files in the depot.

    Args:
        channel: its name.
        repositories: as the channel configures them, by name.
        depot: the depot's directory; made when it is missing.
        cache: where repositories' contents are cached.
        now: seconds since the epoch, for a snapshot that is new; left out, the clock's.
        verify: hash every file, too.
        keys: whose signatures count, see `provenance`.
        reporter: told after each file, and before anything has to be copied.

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
        with writing(depot):
            sweep_temporary(depot)
            told = reporter or Silent()
            door = Door(tuple(keys), depot, cache, told)
            return _retried(_Job(channel, repositories, depot, cache, created, verify, door))
    except OSError as error:
        raise io_error(depot, error) from error


class _Job(NamedTuple):
    channel: str
    repositories: Mapping[str, RepositorySettings]
    depot: Path
    cache: Path
    now: int
    verify: bool
    door: Door


def _retried(job: _Job) -> Snapshot:
    """Take it; again if a mirror was rewritten meanwhile; then refuse."""
    last = Unsettled([])
    for pause in PAUSES:
        time.sleep(pause)
        before: dict[str, str] = {}
        try:
            before = _fingerprints(job.repositories)
            return _take_once(job, before)
        except Unsettled as error:
            last = error
        except RepositoryError:
            # Whoever reads while a mirror is rewritten sees altered files: that is the cause.
            moved = _moved(job.repositories, before)
            if not moved:
                raise
            last = rewritten(moved)
    raise last


def _take_once(job: _Job, before: Mapping[str, str]) -> Snapshot:
    draft = _read_draft(job)
    _refuse_moved({one.name: one.fingerprint for one in draft.repositories}, before)
    pool = Pool(job.depot)
    wanted = [select_wanted(one, pool) for one in draft.repositories]
    _refuse_faulty(draft.repositories, job)
    for each in wanted:
        check_touched(each)
    present = len(draft.snapshot.packages) - sum(len(one.packages) for one in wanted)
    stage_files(wanted, pool, present, job.door.reporter)
    for one in draft.repositories:
        check_entering(one, job.repositories[one.name], lambda p: pool.place_of(p.sha256), job.door)
    is_new = draft.snapshot.id not in snapshot_ids(job.depot)
    snapshot = with_kept_metadata(draft.snapshot, job.depot) if is_new else None
    for each in wanted:
        check_unmoved(each)
    _refuse_moved(_fingerprints(job.repositories), before)
    settle_files(wanted, pool)
    if snapshot is None:
        return load_snapshot(job.depot, draft.snapshot.id)
    publish(snapshot, job.depot)
    return snapshot


def _refuse_moved(now: Mapping[str, str], before: Mapping[str, str]) -> None:
    moved = [name for name, fingerprint in before.items() if now[name] != fingerprint]
    if moved:
        raise rewritten(moved)


def _fingerprints(repositories: Mapping[str, RepositorySettings]) -> dict[str, str]:
    """Return the fingerprints now, or the problems of all repositories that have none."""
    found: dict[str, str] = {}
    unsettled = 0
    problems: list[Problem] = []
    for name, one in repositories.items():
        try:
            found[name] = fingerprint_of(name, one.path)
        except RepositoryError as error:
            problems += error.problems
            unsettled += isinstance(error, Unsettled)
    if problems:
        raise (Unsettled if unsettled == len(problems) else RepositoryError)(problems)
    return found


def _moved(repositories: Mapping[str, RepositorySettings], before: Mapping[str, str]) -> list[str]:
    """Return those of the repositories seen before that are others now, or not to be read."""
    try:
        now = _fingerprints(repositories)
    except Unsettled as error:
        return [one.path for one in error.problems]
    except RepositoryError:
        return []
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
    snapshot = draft_snapshot(job.channel, job.repositories, repositories, now=job.now)
    return _Draft(snapshot, tuple(repositories))


def draft_snapshot(
    channel: str,
    settings: Mapping[str, RepositorySettings],
    repositories: Sequence[Repository],
    *,
    now: int,
) -> Snapshot:
    """Return what a snapshot of some repositories is, of which nothing is in the depot yet.

    Args:
        channel: its name.
        settings: how it configures them, by name.
        repositories: what was read, sorted by name.
        now: seconds since the epoch.
    """
    entries = tuple(_entry(one, settings[one.name]) for one in repositories)
    packages = tuple(package for each in repositories for package in each.packages)
    advisories = _merged_advisories(repositories)
    return Snapshot(
        id=snapshot_id(channel, entries, packages, advisories),
        channel=channel,
        created=now,
        repositories=entries,
        packages=packages,
        advisories=advisories,
    )


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


def _refuse_faulty(repositories: Iterable[Repository], job: _Job) -> None:
    def told(done: int, total: int) -> None:
        job.door.reporter.progress("hashing", done, total, "packages")

    problems = [
        one for each in repositories for one in check_files(each, verify=job.verify, progress=told)
    ]
    if problems:
        raise RepositoryError(capped(problems))
