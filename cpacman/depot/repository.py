"""Reading repositories: rpm-md and bare folders of `.rpm`, someone else's directories.

Invariants: a repository is only ever read, nothing is created in its directory; what is returned
is verified against its own metadata, complete and sorted, and the same content gives the same
value; every package has a sha256 of its file, whatever kind of checksum the metadata has. The
fingerprint names the content: the same fingerprint is read from the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from cpacman.depot import folder, rpmmd
from cpacman.depot.rpmmd import FileChecksum, Metadata
from cpacman.errors import CpacmanError, Problem, RepositoryError
from cpacman.model import Advisory, Package

FORMAT = 2
CACHE_AGE = 30 * 86400

Kind = Literal["rpm-md", "folder"]
T = TypeVar("T")
R = TypeVar("R")


class Unsettled(RepositoryError):
    """A repository that is being rewritten right now: a little later it may be whole."""


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository as it was read.

    `fingerprint` is 64 hex digits that name its content; `checksums` are the sha256 of the
    metadata files by kind.
    """

    name: str
    path: Path
    kind: Kind
    fingerprint: str
    packages: tuple[Package, ...]
    metadata: Metadata
    checksums: dict[str, str]
    advisories: tuple[Advisory, ...] = ()


class _Cached(msgspec.Struct, frozen=True, array_like=True):
    format: int
    fingerprint: str
    packages: tuple[Package, ...]
    advisories: tuple[Advisory, ...]


class _State(NamedTuple):
    """What defines a repository's content at one moment."""

    kind: Kind
    fingerprint: str
    repomd: bytes = b""
    found: tuple[folder.Found, ...] = ()


def read_repository(name: str, path: Path, cache: Path) -> Repository:
    """Read a repository, from the cache when its content is known there.

    Args:
        name: as it is configured; it becomes the packages' `repository`.
        path: its directory.
        cache: a directory of our own, for what was read and for metadata of bare folders.

    Raises:
        RepositoryError: it is missing, empty, damaged or says what it must not.
        CpacmanError: the cache can't be written.
    """
    path = path.absolute()
    state = _state(name, path)
    read = _read_rpmmd if state.kind == "rpm-md" else _read_folder
    try:
        return read(name, path, state, cache)
    except OSError as error:
        what = f"the cache can't be used: {error.strerror or error}"
        where = str(error.filename or cache)
        raise CpacmanError(Problem(where, what, "make room, or name another cache")) from error


def fingerprint_of(name: str, path: Path) -> str:
    """Return the fingerprint of a repository's content as it is now.

    Raises:
        RepositoryError: it is missing or empty.
    """
    return _state(name, path.absolute()).fingerprint


def _state(name: str, path: Path) -> _State:
    where = f"{name}: {path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise RepositoryError(
            Problem(where, f"can't be read: {error.strerror}", "check the repository's path")
        ) from None
    if not stat.S_ISDIR(mode):
        raise RepositoryError(Problem(where, "is not a directory", "name the repository's folder"))
    if (path / "repodata").exists():
        repomd = rpmmd.read_repomd(name, path)
        return _State("rpm-md", hashlib.sha256(repomd).hexdigest(), repomd)
    if (path / ".repodata").exists():
        # createrepo_c makes this one first, and takes the old one away before it renames it.
        words = "is being indexed: it has .repodata and no repodata"
        mend = "let createrepo_c finish; if it died, remove .repodata and run it again"
        raise Unsettled(Problem(where, words, mend))
    found = folder.scan_folder(name, path)
    if not any(one.location not in folder.UPDATEINFO for one in found):
        raise RepositoryError(
            Problem(where, "holds neither repodata nor any .rpm file", "fill it, or mend the path")
        )
    return _State("folder", folder.folder_fingerprint(found), found=found)


def _read_rpmmd(name: str, path: Path, state: _State, cache: Path) -> Repository:
    records = rpmmd.parse_repomd(name, path, state.repomd)
    metadata, checksums = rpmmd.verify_records(name, path, records)

    def read() -> tuple[list[Package], tuple[Advisory, ...]]:
        packages, others = rpmmd.read_primary(name, metadata.primary)
        return [*packages, *_with_sha256(name, path, others)], _advisories(name, metadata)

    packages, advisories = _through_cache(name, state, cache, read)
    return Repository(
        name=name,
        path=path,
        kind=state.kind,
        fingerprint=state.fingerprint,
        packages=packages,
        metadata=metadata,
        checksums=checksums,
        advisories=advisories,
    )


def _read_folder(name: str, path: Path, state: _State, cache: Path) -> Repository:
    if folder.folder_metadata(state.fingerprint, cache) is None:
        _cache_path(name, state, cache).unlink(missing_ok=True)

    def read() -> tuple[list[Package], tuple[Advisory, ...]]:
        packages = folder.read_folder(name, path, state.found, state.fingerprint, cache)
        return packages, _advisories(name, _written(state, cache))

    packages, advisories = _through_cache(name, state, cache, read)
    metadata = _written(state, cache)
    return Repository(
        name=name,
        path=path,
        kind=state.kind,
        fingerprint=state.fingerprint,
        packages=packages,
        metadata=metadata,
        checksums={
            kind: rpmmd.hash_files(one, ["sha256"])["sha256"] for kind, one in metadata.items()
        },
        advisories=advisories,
    )


def _written(state: _State, cache: Path) -> Metadata:
    metadata = folder.folder_metadata(state.fingerprint, cache)
    if metadata is None:
        raise RepositoryError(
            Problem(str(cache), "metadata that was just written is gone", "use it from one place")
        )
    os.utime(metadata.primary.parent)
    return metadata


def _advisories(name: str, metadata: Metadata) -> tuple[Advisory, ...]:
    return rpmmd.read_updateinfo(name, metadata.updateinfo) if metadata.updateinfo else ()


# ------------------------------------------------------------------------------------------- cache


def _cache_path(name: str, state: _State, cache: Path) -> Path:
    key = hashlib.sha256(f"{FORMAT}\0{name}\0{state.fingerprint}".encode()).hexdigest()
    return cache / folder.OWN / f"{key}.msgpack"


def _through_cache(
    name: str,
    state: _State,
    cache: Path,
    read: Callable[[], tuple[list[Package], tuple[Advisory, ...]]],
) -> tuple[tuple[Package, ...], tuple[Advisory, ...]]:
    path = _cache_path(name, state, cache)
    known = _load_cached(path, state)
    if known is not None:
        return known.packages, known.advisories
    packages, advisories = read()
    kept = sorted_packages(packages)
    data = msgspec.msgpack.encode(_Cached(FORMAT, state.fingerprint, kept, advisories))
    with contextlib.suppress(OSError):  # without a cache the next read is slow, not wrong
        folder.write_atomically(path, data)
        _sweep(path.parent, time.time() - CACHE_AGE)
    return kept, advisories


def _load_cached(path: Path, state: _State) -> _Cached | None:
    try:
        cached = msgspec.msgpack.decode(path.read_bytes(), type=_Cached)
        os.utime(path)
    except (OSError, msgspec.MsgspecError):
        return None
    return cached if (cached.format, cached.fingerprint) == (FORMAT, state.fingerprint) else None


def _sweep(own: Path, before: float) -> None:
    """Remove what was not used for long: each change of a mirror leaves an entry behind."""
    for entry in own.iterdir():
        if entry.stat().st_mtime >= before:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def sorted_packages(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Return packages in their one order, each once.

    A file that is listed twice is one package; equal NEVRAs with different bytes stay two.
    """
    kept: dict[tuple[str, str, str], Package] = {}
    for one in sorted(packages, key=_order):
        kept.setdefault((one.repository, one.nevra, one.sha256), one)
    return tuple(kept.values())


def _order(package: Package) -> tuple[str, str, int, str, str, str, str, str]:
    return (
        package.name,
        package.arch,
        package.epoch,
        package.version,
        package.release,
        package.sha256,
        package.repository,
        package.location,
    )


# ------------------------------------------------------------------------------------------- files


def in_threads(function: Callable[[T], R], values: list[T]) -> Iterable[R]:
    """Apply a function that waits for disks or hashes to values, in parallel, in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield from executor.map(function, values)


def _with_sha256(name: str, path: Path, others: list[FileChecksum]) -> list[Package]:
    """Return packages with the sha256 of their files, where metadata has another checksum."""

    def read(one: FileChecksum) -> Package | Problem:
        fault, digest = _hashed(path, one)
        if fault:
            where = f"{name}: {path / one.package.location}"
            return Problem(where, fault, "let the mirror finish, or mirror it again")
        return msgspec.structs.replace(one.package, sha256=digest)

    results = list(in_threads(read, others))
    problems = [one for one in results if isinstance(one, Problem)]
    if problems:
        raise RepositoryError(rpmmd.capped(problems))
    return [one for one in results if isinstance(one, Package)]


def _hashed(path: Path, one: FileChecksum) -> tuple[str, str]:
    fault = _file_fault(path, one.package)
    if fault:
        return fault, ""
    try:
        found = rpmmd.hash_files(path / one.package.location, (one.algorithm, "sha256"))
    except OSError as error:
        return f"can't be read: {error.strerror}", ""
    if found[one.algorithm] != one.checksum:
        return "is not the file that the metadata names: it was altered", ""
    return "", found["sha256"]


def file_state(path: Path, package: Package) -> os.stat_result:
    """Return the inode of a package's file; twenty thousand times, so without making paths."""
    return os.stat(f"{path}/{package.location}")  # noqa: PTH116


def _file_fault(path: Path, package: Package) -> str:
    """Return what is wrong with a package's file as far as its inode tells."""
    try:
        state = file_state(path, package)
    except OSError as error:
        return f"is named by the metadata, but can't be read: {error.strerror}"
    if not stat.S_ISREG(state.st_mode):
        return "is named by the metadata, but is no file"
    if state.st_size != package.size:
        return f"has {state.st_size} bytes where the metadata says {package.size}"
    return ""


def _untold(done: int, total: int) -> None:
    """Tell nobody."""


def check_files(
    repository: Repository,
    *,
    verify: bool = False,
    progress: Callable[[int, int], None] = _untold,
) -> list[Problem]:
    """Return what is wrong with the package files that a repository names.

    Args:
        repository: its packages are looked at.
        verify: read and hash every file, in parallel; else only sizes are looked at.
        progress: told how many of how many files are hashed.
    """

    def check(package: Package) -> Problem | None:
        fault = _file_fault(repository.path, package)
        if not fault and verify:
            fault = _content_fault(repository.path, package)
        if not fault:
            return None
        where = f"{repository.name}: {repository.path / package.location}"
        return Problem(where, fault, "let the mirror finish, or mirror it again")

    packages = list(repository.packages)
    if not verify:
        return [one for one in map(check, packages) if one is not None]
    problems = []
    for done, problem in enumerate(in_threads(check, packages), 1):
        progress(done, len(packages))
        problems += [problem] if problem else []
    return problems


def _content_fault(path: Path, package: Package) -> str:
    try:
        found = rpmmd.hash_files(path / package.location, ["sha256"])["sha256"]
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if found == package.sha256 else "is not the file that the metadata names: altered"
