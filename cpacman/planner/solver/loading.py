"""Repositories' metadata into a pool, with the caches that make the next start quick.

Invariants: packages are fed in one canonical order; a cache that is damaged or can't be written
only costs time.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import solv

from cpacman.errors import Problem, RepositoryError
from cpacman.planner.metadata import file_checksum, read_text, sort_primary
from cpacman.planner.solver.pools import DEPENDENCIES, asked_names, new_pool
from cpacman.planner.solver.values import Source

FORMAT = 1
"""Version of the caches' layout: part of their names, so an old cache is never read."""


class Loaded(NamedTuple):
    """A repo in the pool, the id of its first solvable, and the names it asks for (if known)."""

    repo: Any
    start: int
    asked: frozenset[str] | None = None

    @property
    def range(self) -> range:
        """The ids of its solvables, which stand in one row."""
        return range(self.start, self.start + self.repo.nsolvables)


def load_source(pool: Any, source: Source, cache: Path | None) -> Loaded:
    """Load one repository from its cache, or from its metadata and leave a cache behind.

    Raises:
        RepositoryError: the metadata is missing or is not rpm-md.
    """
    start = len(pool.solvables)
    repo = pool.add_repo(source.name)
    repo.priority = -source.priority - (0 if source.autoupdate else 1_000_000)
    cached = cache_file(source, cache)
    if cached is None:
        _read_primary(repo, source)
        return Loaded(repo, start)
    if not _read_solv(repo, cached):
        _read_primary(repo, source)
        write_atomically(cached, lambda path: _write_solv(repo, path))
    return Loaded(repo, start, _asked(repo, cached.with_suffix(".asked")))


def _asked(repo: Any, file: Path) -> frozenset[str]:
    """Return the names that a repository's dependencies ask for, from the cache when it is there.

    Of the 39,000 things that an EL9 host's 700 packages provide, most are symbols of the kernel
    that nobody asks for; knowing that saves half of the work of making a host known.
    """
    try:
        head, *names = file.read_text().split("\n")
        if head == str(len(names)):
            return frozenset(names)
    except (OSError, ValueError):
        pass
    asked = sorted(_asked_names(repo))
    text = "\n".join([str(len(asked)), *asked])
    write_atomically(file, lambda path: write_bytes(path, text.encode()))
    return frozenset(asked)


def _asked_names(repo: Any) -> set[str]:
    keys = [key for field, key in DEPENDENCIES if field != "provides"]
    ids = {i for s in repo.solvables_iter() for key in keys for i in s.lookup_idarray(key)}
    return {name for i in ids for name in asked_names(repo.pool.dep2str(i))}


def cache_file(source: Source, cache: Path | None) -> Path | None:
    """Return where a repository's cache is, or None when there is no place for any."""
    if cache is None:
        return None
    checksum = source.checksum or _checksum(source)
    return cache / f"{checksum}-{FORMAT}.solv"


def _checksum(source: Source) -> str:
    try:
        return file_checksum(Path(source.primary))
    except OSError as error:
        raise _unreadable(source, error.strerror or str(error)) from error


def _unreadable(source: Source, what: str, path: str = "") -> RepositoryError:
    mend = "mirror the repository again"
    return RepositoryError(Problem(path or source.primary, f"{source.name}: {what}", mend))


def _read_solv(repo: Any, path: Path) -> bool:
    """Read a cache; one that is damaged counts as absent."""
    stream = solv.xfopen(str(path))
    if stream is None:
        return False
    read = bool(repo.add_solv(stream))
    stream.close()
    if not read:
        repo.empty(True)
    return read


def _read_primary(repo: Any, source: Source) -> None:
    try:
        text = sort_primary(read_text(Path(source.primary)))
    except (OSError, ValueError) as error:
        raise _unreadable(source, f"cannot be read: {error}") from error
    if not _feed(text, lambda stream: repo.add_rpmmd(stream, None, 0)):
        raise _unreadable(source, f"is not rpm-md: {repo.pool.errstr}")


def _feed(text: bytes, reader: Callable[[Any], Any]) -> bool:
    """Hand a text to one of libsolv's parsers, which want an open file."""
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0)
        stream = solv.xfopen_fd("metadata.xml", os.dup(file.fileno()))
        try:
            return bool(reader(stream))
        finally:
            stream.close()


def _write_solv(repo: Any, path: Path) -> None:
    with path.open("wb") as file:
        stream = solv.xfopen_fd("", os.dup(file.fileno()))
        repo.write(stream)
        stream.close()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a cache beside its place and move it there; failing only costs time later."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            write(Path(scratch) / path.name)
            (Path(scratch) / path.name).replace(path)


Owners = dict[str, tuple[tuple[int, str], ...]]
"""Path -> the packages that own it, as (position in the repository, NEVRA)."""


def find_owners(source: Source, paths: set[str], cache: Path | None) -> Owners:
    """Ask a repository's filelists who owns some paths; answers are remembered.

    Filelists are large and few paths are ever asked for, so what is cached is the answers.

    Raises:
        RepositoryError: the filelists are missing or are not rpm-md.
    """
    primary = cache_file(source, cache)
    file = primary.with_suffix(".owners") if primary else None
    known = _read_owners(file)
    if missing := paths - known.keys():
        known = known | _search_filelists(source, missing, cache)
        if file:
            encoded = msgspec.msgpack.encode(known)
            write_atomically(file, lambda path: write_bytes(path, encoded))
    return {path: known[path] for path in sorted(paths) if known[path]}


def _read_owners(file: Path | None) -> Owners:
    if file is None:
        return {}
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Owners)
    except (OSError, msgspec.DecodeError):
        return {}


def write_bytes(path: Path, data: bytes) -> None:
    """Write a cache that is made of bytes: see `write_atomically`."""
    path.write_bytes(data)


def _search_filelists(source: Source, paths: set[str], cache: Path | None) -> Owners:
    """Load a repository with its filelists into a pool of its own and look the paths up."""
    pool = new_pool(None)
    loaded = load_source(pool, source, cache)
    try:
        text = read_text(Path(source.filelists))
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error}"
        raise _unreadable(source, what, source.filelists) from error
    if not _feed(text, functools.partial(_add_filelists, loaded.repo)):
        raise _unreadable(source, f"is not rpm-md: {pool.errstr}", source.filelists)
    asking = pool.add_repo("asking").add_solvable()
    for path in paths:
        asking.add_deparray(solv.SOLVABLE_REQUIRES, pool.str2id(path))
    pool.addfileprovides()
    pool.createwhatprovides()
    return {path: _owners(pool, loaded.start, path) for path in paths}


def _add_filelists(repo: Any, stream: Any) -> Any:
    return repo.add_rpmmd(stream, "FL", solv.Repo.REPO_EXTEND_SOLVABLES)


def _owners(pool: Any, start: int, path: str) -> tuple[tuple[int, str], ...]:
    found = pool.whatprovides(pool.str2id(path))
    return tuple(sorted((s.id - start, str(s)) for s in found))
