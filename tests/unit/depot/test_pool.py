"""The pool: how files are kept, and that they are hashed before they leave."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from cpacman.depot.pool import Pool, Way, sweep_temporary
from cpacman.errors import RepositoryError, SafetyError

CONTENT = b"the bytes of a package" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A package file of a mirror."""
    path = tmp_path / "mirror" / "a.rpm"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """An empty pool."""
    return Pool(tmp_path / "depot")


def fail_with(number: int) -> Any:
    """Return a function that fails as the kernel would."""

    def fail(source: Any, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), str(source))

    return fail


def leftovers(pool: Pool) -> list[Path]:
    """Return what keeping has left in the temporary directory."""
    return list(pool.temporary.iterdir())


def test_keeping_a_file(pool: Pool, source: Path) -> None:
    """A file appears under its digest, in directories of the owner, and is not kept twice."""
    assert pool.keep(source, SHA256, SIZE) in (Way.REFLINK, Way.LINK)
    path = pool.path_of(SHA256)
    assert path == pool.root / SHA256[:2] / SHA256 and path.read_bytes() == CONTENT
    assert {one.stat().st_mode & 0o777 for one in (pool.root, path.parent)} == {0o700}
    assert pool.keep(source, SHA256, SIZE) is Way.PRESENT
    assert pool.check(SHA256, SIZE) == path
    assert leftovers(pool) == []


def test_the_mirrors_clean_up_takes_nothing_away(pool: Pool, source: Path) -> None:
    """What is kept stays when the mirror deletes or replaces its file."""
    pool.keep(source, SHA256, SIZE)
    source.unlink()
    source.write_bytes(b"another")
    assert pool.check(SHA256, SIZE).read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES])
def test_copy_where_no_link_can_be(
    pool: Pool, source: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Other file systems, protected hard links and too many links end in a private copy."""
    monkeypatch.setattr(fcntl, "ioctl", fail_with(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "link", fail_with(number))
    assert pool.keep(source, SHA256, SIZE) is Way.COPY
    state = pool.path_of(SHA256).stat()
    assert (state.st_mode & 0o777, state.st_nlink) == (0o600, 1)
    assert leftovers(pool) == []


def test_reflink_where_the_file_system_can(
    pool: Pool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reflink comes first; here the kernel's part is played, since ext4 has none."""

    def clone(target: int, _request: int, origin: int) -> int:
        os.write(target, os.pread(origin, SIZE, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert pool.keep(source, SHA256, SIZE) is Way.REFLINK
    state = pool.path_of(SHA256).stat()
    assert (state.st_mode & 0o777, state.st_nlink, state.st_size) == (0o600, 1, SIZE)


def test_a_device_is_asked_once_for_reflinks(
    pool: Pool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for each of thousands of files would cost more than the links."""
    asked = []

    def refuse(*_: Any) -> None:
        asked.append(1)
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    pool.keep(source, SHA256, SIZE)
    other = source.with_name("b.rpm")
    other.write_bytes(b"b")
    pool.keep(other, hashlib.sha256(b"b").hexdigest(), 1)
    assert len(asked) == 1


def test_a_symbolic_link_is_kept_as_its_file(pool: Pool, source: Path) -> None:
    """A depot of links to a mirror would keep nothing."""
    link = source.with_name("link.rpm")
    link.symlink_to(source.name)
    pool.keep(link, SHA256, SIZE)
    assert not pool.path_of(SHA256).is_symlink()
    source.unlink()
    assert pool.check(SHA256, SIZE)


def test_altered_sources_are_refused(
    pool: Pool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another size is always refused; other bytes when they are read anyway."""
    with pytest.raises(RepositoryError, match=r"a\.rpm"):
        pool.keep(source, SHA256, SIZE + 1)
    monkeypatch.setattr(fcntl, "ioctl", fail_with(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "link", fail_with(errno.EXDEV))
    source.write_bytes(bytes(SIZE))
    with pytest.raises(RepositoryError, match="altered"):
        pool.keep(source, SHA256, SIZE)
    source.unlink()
    with pytest.raises(RepositoryError, match=r"a\.rpm"):
        pool.keep(source, SHA256, SIZE)
    assert not pool.path_of(SHA256).exists() and leftovers(pool) == []


def test_an_in_place_rewrite_is_found_before_it_is_sent(pool: Pool, source: Path) -> None:
    """A hard link shares the mirror's bytes: hashing tells which file changed, and the mend."""
    pool.keep(source, SHA256, SIZE)
    pool.path_of(SHA256).unlink()
    os.link(source, pool.path_of(SHA256))
    with source.open("r+b") as stream:
        stream.write(b"X")
    with pytest.raises(SafetyError) as caught:
        pool.check(SHA256, SIZE)
    (problem,) = caught.value.problems
    assert problem.path.endswith(SHA256) and "altered" in problem.message and problem.mend


def test_missing_and_truncated_files_are_not_sent(pool: Pool, source: Path) -> None:
    """What is gone or cut is refused, and kept again from the mirror."""
    with pytest.raises(SafetyError, match="can't be read"):
        pool.check(SHA256, SIZE)
    pool.keep(source, SHA256, SIZE)
    path = pool.path_of(SHA256)
    path.unlink()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(SafetyError, match="altered"):
        pool.check(SHA256, SIZE)
    assert not pool.has(SHA256, SIZE)
    pool.keep(source, SHA256, SIZE)
    assert pool.check(SHA256, SIZE)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_name_files(pool: Pool, name: str) -> None:
    """Nothing but a sha256 becomes a path."""
    with pytest.raises(ValueError, match="sha256"):
        pool.path_of(name)


def test_sweeping(pool: Pool, source: Path) -> None:
    """What an interrupted run left goes; what is kept stays."""
    pool.keep(source, SHA256, SIZE)
    (pool.temporary / "file-x").write_bytes(b"half")
    (pool.temporary / "snapshot-y").mkdir()
    (pool.temporary / "snapshot-y" / "manifest.msgpack").write_bytes(b"half")
    sweep_temporary(pool.root.parent)
    assert leftovers(pool) == [] and pool.has(SHA256, SIZE)
