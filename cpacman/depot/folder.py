"""A bare folder of `.rpm` files: what is in it, and metadata written for it, in the cache.

Invariants: nothing is created inside the folder; what is known by (path, size, mtime) is not
read again; a file that is no whole package is an error that names it, and all of them are named
at once; source packages are left out; hidden files and folders (unfinished transfers) too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cpacman.depot.rpmfile import Damaged, read_rpm
from cpacman.depot.rpmmd import (
    SOURCE_ARCHES,
    SUFFIXES,
    Metadata,
    capped,
    location_fault,
    package_fault,
    package_of,
)
from cpacman.errors import Problem, RepositoryError
from cpacman.model import Package

FORMAT = 1
OWN = "repositories"
"""The folder of the cache that is ours alone: what is old in it may be removed."""
UPDATEINFO = tuple(f"updateinfo.xml{suffix}" for suffix in SUFFIXES)


class Found(NamedTuple):
    """A file of the folder: path relative to it, size in bytes, mtime in nanoseconds."""

    location: str
    size: int
    mtime: int


class Indexed(msgspec.Struct, frozen=True, array_like=True):
    """What was read from one file; `package` is None for a source package."""

    size: int
    mtime: int
    package: Package | None
    primary: str
    filelists: str


class _Index(msgspec.Struct, frozen=True, array_like=True):
    format: int
    files: dict[str, Indexed]


def scan_folder(name: str, path: Path) -> tuple[Found, ...]:
    """Return the `.rpm` files and the updateinfo of a folder, sorted by path.

    Raises:
        RepositoryError: files that can't be looked at, or more than one updateinfo.
    """
    problems: list[Problem] = []
    found: list[Found] = []
    unreadable: list[OSError] = []
    for file in _walk(path, unreadable):
        location = str(file.relative_to(path))
        try:
            state = file.stat()
            fault = location_fault(location)
        except OSError as error:
            fault = f"can't be read: {error.strerror}"
        if fault:
            problems.append(Problem(f"{name}: {file}", fault, "mend or remove it"))
        else:
            found.append(Found(location, state.st_size, state.st_mtime_ns))
    for gone in unreadable:
        problems.append(Problem(f"{name}: {gone.filename}", f"can't be read: {gone.strerror}"))
    beside = [one.location for one in found if one.location in UPDATEINFO]
    if len(beside) > 1:
        text = f"holds {' and '.join(beside)}"
        problems.append(Problem(f"{name}: {path}", text, "keep the one that is meant"))
    if problems:
        raise RepositoryError(capped(problems))
    return tuple(sorted(found))


def _walk(path: Path, unreadable: list[OSError]) -> Iterator[Path]:
    """Yield the files that count. Linked folders are followed, each real one once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path, followlinks=True, onerror=unreadable.append):
        here = Path(folder)
        state = here.stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for file in files:
            is_rpm = file.endswith(".rpm") and not file.startswith(".")
            if is_rpm or (here == path and file in UPDATEINFO):
                yield here / file


def folder_fingerprint(found: tuple[Found, ...]) -> str:
    """Return the sha256 over the paths, sizes and mtimes of what is in a folder."""
    text = "".join(f"{one.location}\0{one.size}\0{one.mtime}\n" for one in found)
    return hashlib.sha256(text.encode()).hexdigest()


def read_folder(
    name: str, path: Path, found: tuple[Found, ...], fingerprint: str, cache: Path
) -> list[Package]:
    """Read the packages of a folder and write metadata for it into the cache.

    Raises:
        RepositoryError: files that are damaged or unusable; names all of them.
    """
    index_path = cache / "folders" / f"{hashlib.sha256(str(path).encode()).hexdigest()}.msgpack"
    known = _load_index(index_path)
    rpms = [one for one in found if one.location not in UPDATEINFO]
    fresh = [one for one in rpms if not _is_known(known.get(one.location), one)]
    read, problems = _read_files(name, path, fresh)
    files = {**known, **read}
    index = {one.location: files[one.location] for one in rpms if one.location in files}
    if fresh:
        _write_index(index_path, index)
    if problems:
        raise RepositoryError(capped(problems))
    entries = [one for one in index.values() if one.package is not None]
    _write_metadata(path, found, entries, cache / OWN / fingerprint)
    return [msgspec.structs.replace(one.package, repository=name) for one in entries if one.package]


def folder_metadata(fingerprint: str, cache: Path) -> Metadata | None:
    """Return the metadata written for a folder, or None when it is not there."""
    base = cache / OWN / fingerprint
    if not _is_written(base):
        return None
    updateinfo = next((base / one for one in UPDATEINFO if (base / one).is_file()), None)
    return Metadata(base / "primary.xml.gz", base / "filelists.xml.gz", updateinfo)


def _is_written(base: Path) -> bool:
    return (base / "primary.xml.gz").is_file() and (base / "filelists.xml.gz").is_file()


def _is_known(indexed: Indexed | None, found: Found) -> bool:
    return indexed is not None and (indexed.size, indexed.mtime) == (found.size, found.mtime)


def _load_index(path: Path) -> dict[str, Indexed]:
    """Return what is known; a missing, damaged or older index knows nothing."""
    try:
        index = msgspec.msgpack.decode(path.read_bytes(), type=_Index)
    except (OSError, msgspec.MsgspecError):
        return {}
    return index.files if index.format == FORMAT else {}


def _write_index(path: Path, files: dict[str, Indexed]) -> None:
    write_atomically(path, msgspec.msgpack.encode(_Index(FORMAT, files)))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_files(
    name: str, path: Path, fresh: list[Found]
) -> tuple[dict[str, Indexed], list[Problem]]:
    """Read files: hashing in threads (it releases the lock), headers here (librpm is not safe)."""
    read: dict[str, Indexed] = {}
    problems: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for one, digest in zip(fresh, executor.map(lambda f: _digest(path, f), fresh), strict=True):
            result = digest if digest[:1] == "!" else _read_header(path, one, digest)
            if isinstance(result, Indexed):
                read[one.location] = result
            else:
                mend = "let the transfer finish, or fetch it again"
                problems.append(Problem(f"{name}: {path / one.location}", result[1:], mend))
    return read, problems


def _digest(path: Path, found: Found) -> str:
    """Return a whole package's sha256, or `!` and what is wrong with the file."""
    try:
        digest = read_rpm(path / found.location)
    except Damaged as error:
        return f"!{error}"
    except OSError as error:
        return f"!can't be read: {error.strerror}"
    return digest.sha256 if digest.size == found.size else "!changed while it was read"


def _read_header(path: Path, found: Found, sha256: str) -> Indexed | str:
    import createrepo_c

    try:
        raw: Any = createrepo_c.package_from_rpm(
            str(path / found.location),
            checksum_type=createrepo_c.SHA256,
            location_href=found.location,
            changelog_limit=0,
        )
    except (OSError, createrepo_c.CreaterepoCError) as error:
        return f"!its header can't be read: {error}"
    if raw.pkgId != sha256:
        return "!changed while it was read"
    if raw.arch in SOURCE_ARCHES:
        return Indexed(found.size, found.mtime, None, "", "")
    fault = package_fault(raw)
    if fault:
        return f"!{fault}"
    primary, filelists = createrepo_c.xml_dump(raw)[:2]
    return Indexed(found.size, found.mtime, package_of("", raw, sha256), primary, filelists)


def _write_metadata(
    path: Path, found: tuple[Found, ...], entries: list[Indexed], target: Path
) -> None:
    """Write primary, filelists and a copy of updateinfo into `target`, whole or not at all."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
    try:
        write_xml(temporary / "primary.xml.gz", "PrimaryXmlFile", [e.primary for e in entries])
        write_xml(
            temporary / "filelists.xml.gz", "FilelistsXmlFile", [e.filelists for e in entries]
        )
        for one in found:
            if one.location in UPDATEINFO:
                shutil.copyfile(path / one.location, temporary / one.location)
        if not _is_written(target):
            shutil.rmtree(target, ignore_errors=True)
        try:
            temporary.rename(target)
        except OSError:
            if not _is_written(target):  # else another process was faster, with the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_xml(path: Path, kind: str, chunks: Sequence[str]) -> None:
    """Write packages' XML into a metadata file of one of createrepo_c's kinds."""
    import createrepo_c

    file = getattr(createrepo_c, kind)(str(path), compressiontype=createrepo_c.GZ_COMPRESSION)
    file.set_num_of_pkgs(len(chunks))
    for chunk in chunks:
        file.add_chunk(chunk)
    file.close()
