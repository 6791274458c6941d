"""A mirror of 20,000 packages for benchmarks: real metadata, files of the right names and sizes.

The metadata is that of CentOS Stream 9 (18,774 packages), and more packages are made of its own by
another name until the count is full. Nobody has the files behind it, so they are sparse: right
for whatever looks at names, sizes and times only; what reads bytes is measured with `fill`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import createrepo_c

from tests.bench.fleet import DATA, NAMES

COUNT = 20_000


def make_mirror(path: Path, count: int = COUNT) -> Path:
    """Make a mirror of `count` packages: sparse files first, then the metadata that names them."""
    (path / "repodata").mkdir(parents=True)
    packages = list(_packages(count))
    for one in packages:
        _sparse(path / one.location_href, one.size_package)
    _index(path, packages)
    return path


def list_only(path: Path, share: int, count: int = COUNT) -> set[str]:
    """Let the metadata of a mirror leave out each `share`-th package; return the names left out.

    A share of zero leaves out none.
    """
    packages = list(_packages(count))
    out = packages[::share] if share else []
    gone = {id(one) for one in out}
    _index(path, [one for one in packages if id(one) not in gone])
    return {one.name for one in out}


def fill(path: Path, count: int, size: int) -> Path:
    """Make a mirror whose `count` files of `size` bytes each are what its metadata says."""
    (path / "repodata").mkdir(parents=True)
    packages = []
    for number, one in zip(range(count), _packages(COUNT), strict=False):
        data = hashlib.sha256(str(number).encode()).digest() * (size // 32)
        target = path / one.location_href
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        one.pkgId, one.size_package = hashlib.sha256(data).hexdigest(), len(data)
        packages.append(one)
    _index(path, packages)
    return path


def size_of(path: Path) -> int:
    """Return the bytes of a mirror's files as a real mirror would have them on disk."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def own_bytes(depot: Path) -> int:
    """Return the bytes on disk that a depot needs beyond files that it shares with a mirror."""
    states = [one.lstat() for one in depot.rglob("*")]
    return sum(one.st_blocks * 512 for one in states if one.st_nlink == 1 or _is_folder(one))


def _is_folder(state: os.stat_result) -> bool:
    return (state.st_mode & 0o170000) == 0o040000


def _packages(count: int) -> Iterator[Any]:
    known: set[str] = set()
    for turn in range(2):
        for repository in NAMES:
            for one in _read(repository):
                if len(known) == count:
                    return
                _place(one, turn)
                if one.location_href not in known:  # some are listed twice
                    known.add(one.location_href)
                    yield one


def _read(repository: str) -> list[Any]:
    found: list[Any] = []
    (primary,) = (DATA / repository / "repodata").glob("*primary.xml*")
    createrepo_c.xml_parse_primary(str(primary), pkgcb=found.append, do_files=True)
    return found


def _place(one: Any, turn: int) -> None:
    """Give a package a place of its own; in the second turn also another name and checksum."""
    if turn:
        one.name = f"more-{one.name}"
        one.pkgId = hashlib.sha256(one.pkgId.encode()).hexdigest()
    name = f"{one.name}-{one.version}-{one.release}.{one.arch}.rpm"
    one.location_href = f"Packages/{name[0].lower()}/{one.pkgId[:4]}/{name}"


def _sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)


def _index(path: Path, packages: list[Any]) -> None:
    """Write primary and filelists, and the repomd.xml that names them."""
    repomd = createrepo_c.Repomd()
    for kind, name, dump in (
        ("primary", "PrimaryXmlFile", createrepo_c.xml_dump_primary),
        ("filelists", "FilelistsXmlFile", createrepo_c.xml_dump_filelists),
    ):
        target = path / "repodata" / f"{kind}.xml.gz"
        target.unlink(missing_ok=True)
        file = getattr(createrepo_c, name)(str(target), createrepo_c.GZ_COMPRESSION)
        file.set_num_of_pkgs(len(packages))
        for one in packages:
            file.add_chunk(dump(one))
        file.close()
        record = createrepo_c.RepomdRecord(kind, str(target))
        record.fill(createrepo_c.SHA256)
        repomd.set_record(record)
    (path / "repodata" / "repomd.xml").write_text(repomd.xml_dump(), encoding="utf-8")
