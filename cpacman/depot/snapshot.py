"""Snapshots: immutable, content-addressed lists of a channel's packages and advisories.

Invariants: a snapshot is there whole or not at all (written aside, flushed, renamed); its id is a
hash of everything that decides what a plan from it contains, so taking it twice with nothing
changed gives the same one, and a manifest that was altered is refused; nothing of a snapshot is
read from the mirror again; a repository that is rewritten while the snapshot is taken is noticed.

Layout: `snapshots/<id>/manifest.msgpack`, `metadata/<sha256>/` (the metadata files of a
repository), `files/` (the pool), `tmp/` (whatever is not finished), `lock`.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cpacman.depot.pool import Pool, Way, io_error, sweep_temporary
from cpacman.depot.repository import (
    Kind,
    Repository,
    check_files,
    fingerprint_of,
    read_repository,
)
from cpacman.depot.rpmmd import Metadata, capped, hash_files, location_fault
from cpacman.errors import (
    ConflictError,
    InputError,
    Problem,
    RepositoryError,
    SafetyError,
)
from cpacman.model import SCHEMA, Advisory, Package, canonical_json, content_id

if TYPE_CHECKING:
    from cpacman.config import RepositorySettings

_ID = re.compile(r"s-[0-9a-f]{64}")
_PREFIX = re.compile(r"s-[0-9a-f]{1,64}")

Progress = Callable[[int, int, str], None]
"""Called with how many of how many files are done, and what is going on."""


def no_progress(done: int, total: int, text: str) -> None:
    """Say nothing."""


class SnapshotRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository in a snapshot: where it came from, its flags, its metadata in the depot."""

    name: str
    path: str
    kind: Kind
    fingerprint: str
    metadata: Metadata
    checksums: dict[str, str]
    autoupdate: bool = True
    classes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    priority: int = 99
    module_hotfixes: bool = False
    origin: str = ""


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of snapshots shows. `created` is in seconds since the epoch."""

    id: str
    channel: str
    created: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, with paths into the depot it was loaded from."""

    schema: int = SCHEMA
    id: str
    channel: str
    created: int
    repositories: tuple[SnapshotRepository, ...]
    packages: tuple[Package, ...]
    advisories: tuple[Advisory, ...] = ()


def snapshot_id(
    channel: str,
    repositories: Iterable[SnapshotRepository],
    packages: Iterable[Package],
    advisories: Iterable[Advisory],
) -> str:
    """Return the `s-` id: over the channel, sorted packages and advisories, and what else decides.

    That is each repository's flags and its module definitions. Paths, locations, fingerprints and
    times are outside: the same packages mirrored elsewhere, or indexed anew, are the same snapshot.
    """
    flags = sorted(
        [
            one.name, one.autoupdate, sorted(one.classes), sorted(one.only), one.priority,
            one.checksums.get("modules", ""), *(["hotfixes"] if one.module_hotfixes else []),
            *([f"origin {one.origin}"] if one.origin else []),
        ]
        for one in repositories
    )  # fmt: skip
    files = sorted({(one.repository, one.nevra, one.sha256, one.size) for one in packages})
    digests = sorted({hashlib.sha256(canonical_json(one)).hexdigest() for one in advisories})
    return content_id("s", [channel, flags, files, digests])


# ------------------------------------------------------------------------------------------ taking


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
        with _locked(depot):
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
    snapshot = _with_kept_metadata(draft.snapshot, job.depot) if is_new else None
    moved = _moved(job.repositories, before)
    if moved:
        raise _Moved(moved)
    if snapshot is None:
        return load_snapshot(job.depot, draft.snapshot.id)
    _publish(snapshot, job.depot)
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


def _with_kept_metadata(snapshot: Snapshot, depot: Path) -> Snapshot:
    repositories = tuple(
        msgspec.structs.replace(one, metadata=_keep_metadata(one, depot))
        for one in snapshot.repositories
    )
    return msgspec.structs.replace(snapshot, repositories=repositories)


def _keep_metadata(repository: SnapshotRepository, depot: Path) -> Metadata:
    """Copy metadata files into `metadata/<sha256 over them>`, unless they are there."""
    digest = hashlib.sha256(canonical_json(repository.checksums)).hexdigest()
    target = depot / "metadata" / digest
    kept = Metadata(
        **{kind: target / _kept_name(kind, path) for kind, path in repository.metadata.items()}
    )
    if target.is_dir():
        return kept
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=depot / "tmp", prefix="metadata-"))
    for kind, path in repository.metadata.items():
        _copy_checked(path, temporary / _kept_name(kind, path), repository, kind)
    temporary.rename(target)
    return kept


def _kept_name(kind: str, path: Path) -> str:
    """Return `primary.xml.gz` for `5f...-primary.xml.gz`."""
    base = "modules.yaml" if kind == "modules" else f"{kind}.xml"
    suffix = PurePosixPath(path.name).suffix
    return base if suffix in (".xml", ".yaml") else base + suffix


def _copy_checked(source: Path, target: Path, repository: SnapshotRepository, kind: str) -> None:
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != repository.checksums[kind]:
        raise RepositoryError(
            Problem(
                f"{repository.name}: {source}",
                "was altered while the snapshot was taken",
                "let the mirror finish",
            )
        )
    target.write_bytes(data)
    target.chmod(0o600)


def _publish(snapshot: Snapshot, depot: Path) -> None:
    """Make the snapshot appear: everything on disk first, then one rename."""
    target = depot / "snapshots" / snapshot.id
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=depot / "tmp", prefix="snapshot-"))
    manifest = temporary / "manifest.msgpack"
    manifest.write_bytes(_encoded(snapshot, depot))
    manifest.chmod(0o600)
    _sync_filesystem(depot)
    temporary.rename(target)
    _sync_filesystem(depot)


def _sync_filesystem(depot: Path) -> None:
    """Flush the depot's file system: one call where thousands of fsync would take minutes."""
    handle = os.open(depot, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(depot))
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(depot: Path) -> Iterator[None]:
    """Hold the depot's lock; the kernel drops it when the process dies."""
    depot.mkdir(mode=0o700, parents=True, exist_ok=True)
    (depot / "tmp").mkdir(mode=0o700, exist_ok=True)
    handle = os.open(depot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConflictError(
            Problem(str(depot), "somebody else is taking a snapshot", "try again when it is done")
        ) from None
    try:
        yield
    finally:
        os.close(handle)


# ----------------------------------------------------------------------------------------- loading


def _encoded(snapshot: Snapshot, depot: Path) -> bytes:
    """Return the manifest: paths are relative to the depot, which may be moved."""

    def plain(value: Any) -> str:
        return str(value.relative_to(depot))

    return msgspec.msgpack.encode(snapshot, enc_hook=plain)


def _decoded(data: bytes, depot: Path) -> Snapshot:
    def path(_kind: type, value: Any) -> Path:
        fault = location_fault(value)
        if fault:
            raise ValueError(fault)
        return depot / str(value)

    return msgspec.msgpack.decode(data, type=Snapshot, dec_hook=path)


def load_snapshot(depot: Path, prefix: str) -> Snapshot:
    """Return a snapshot by its id or a unique prefix of it.

    Raises:
        InputError: there is none, or several; says which are near.
        SafetyError: its manifest is damaged or was altered.
    """
    full = find_snapshot(depot, prefix)
    path = depot / "snapshots" / full / "manifest.msgpack"
    mend = "restore the file from a backup, or remove the folder and take the snapshot again"
    try:
        snapshot = _decoded(path.read_bytes(), depot)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise SafetyError(Problem(str(path), f"can't be read: {error}", mend)) from None
    found = snapshot_id(
        snapshot.channel, snapshot.repositories, snapshot.packages, snapshot.advisories
    )
    if not found == snapshot.id == full:
        raise SafetyError(Problem(str(path), "was altered: its content has another id", mend))
    missing = [
        Problem(str(file), "metadata of the snapshot is missing", mend)
        for repository in snapshot.repositories
        for _, file in repository.metadata.items()
        if not file.is_file()
    ]
    if missing:
        raise SafetyError(missing)
    return snapshot


def find_snapshot(depot: Path, prefix: str) -> str:
    """Return the full id of the snapshot that a unique prefix means.

    Raises:
        InputError: there is none, or several.
    """
    known = snapshot_ids(depot)
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InputError(Problem("snapshot", f"{prefix!r} is no id of a snapshot", "s-0123abcd"))
    fitting = [one for one in known if one.startswith(prefix)]
    if len(fitting) == 1:
        return fitting[0]
    shown = [one[:14] for one in fitting] or _nearest_ids(prefix, known)
    what = f"{prefix} is not unique" if fitting else f"there is no snapshot {prefix}"
    raise InputError(Problem("snapshot", what, _named(shown)))


def _nearest_ids(prefix: str, known: Iterable[str]) -> list[str]:
    short = [one[:14] for one in known]
    return difflib.get_close_matches(prefix[:14], short, n=3, cutoff=0.5) or short[:3]


def _named(ids: list[str]) -> str:
    return f"there are {', '.join(ids[:5])}" if ids else "take one first"


def snapshot_ids(depot: Path) -> tuple[str, ...]:
    """Return the ids of all snapshots of a depot, sorted."""
    try:
        names = [one.name for one in (depot / "snapshots").iterdir()]
    except FileNotFoundError:
        return ()
    return tuple(sorted(one for one in names if _ID.fullmatch(one)))


def list_snapshots(depot: Path, channel: str | None = None) -> tuple[SnapshotHead, ...]:
    """Return the snapshots of a depot, or of one channel, newest first.

    Raises:
        SafetyError: a manifest is damaged; names all of them.
    """
    heads: list[SnapshotHead] = []
    problems: list[Problem] = []
    for one in snapshot_ids(depot):
        path = depot / "snapshots" / one / "manifest.msgpack"
        try:
            heads.append(msgspec.msgpack.decode(path.read_bytes(), type=SnapshotHead))
        except (OSError, msgspec.MsgspecError) as error:
            problems.append(Problem(str(path), f"can't be read: {error}", "restore or remove it"))
    if problems:
        raise SafetyError(problems)
    wanted = [one for one in heads if channel in (None, one.channel)]
    return tuple(sorted(wanted, key=lambda one: (-one.created, one.id)))


def check_snapshot(depot: Path, snapshot: Snapshot) -> list[Problem]:
    """Return the packages whose kept files are missing or have another size (bytes unread)."""
    pool = Pool(depot)
    mend = "take the snapshot again while the mirror has the file"
    return [
        Problem(str(pool.path_of(one.sha256)), f"{one.nevra} is missing or altered", mend)
        for one in snapshot.packages
        if not pool.has(one.sha256, one.size)
    ]


def check_metadata(snapshot: Snapshot) -> None:
    """Hash the kept metadata: a plan is made from what the snapshot's id stands for, or not at all.

    Raises:
        SafetyError: files are missing or altered; all of them are named.
    """
    problems = []
    for repository in snapshot.repositories:
        for kind, path in repository.metadata.items():
            try:
                found = hash_files(path, ["sha256"])["sha256"]
            except OSError:
                found = ""
            if found != repository.checksums[kind]:
                words = f"metadata of {repository.name} is missing or altered"
                mend = "remove its folder and take the snapshot again"
                problems.append(Problem(str(path), words, mend))
    if problems:
        raise SafetyError(problems)


# --------------------------------------------------------------------------------------- comparing


class Change(NamedTuple):
    """What one name.arch has in either snapshot only; versions are in no order of age."""

    name: str
    arch: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class SnapshotDiff(NamedTuple):
    """How two snapshots differ: names that came, went, and have other versions or bytes."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    updated: tuple[Change, ...]
    advisories: tuple[str, ...]


def diff_snapshots(before: Snapshot, after: Snapshot) -> SnapshotDiff:
    """Return what `after` has that `before` has not, and the other way round."""
    old, new = _by_name(before), _by_name(after)
    changes = [_change(key, old.get(key, set()), new.get(key, set())) for key in old | new]
    changes = sorted(one for one in changes if one.before or one.after)
    known = {one.id for one in before.advisories}
    return SnapshotDiff(
        added=tuple(one for one in changes if (one.name, one.arch) not in old),
        removed=tuple(one for one in changes if (one.name, one.arch) not in new),
        updated=tuple(
            one for one in changes if (one.name, one.arch) in old and (one.name, one.arch) in new
        ),
        advisories=tuple(sorted({one.id for one in after.advisories} - known)),
    )


_Versions = set[tuple[str, str]]


def _by_name(snapshot: Snapshot) -> dict[tuple[str, str], _Versions]:
    found: dict[tuple[str, str], _Versions] = {}
    for one in snapshot.packages:
        found.setdefault((one.name, one.arch), set()).add((one.evr, one.sha256))
    return found


def _change(key: tuple[str, str], old: _Versions, new: _Versions) -> Change:
    return Change(
        *key,
        before=tuple(sorted({evr for evr, _ in old - new})),
        after=tuple(sorted({evr for evr, _ in new - old})),
    )
