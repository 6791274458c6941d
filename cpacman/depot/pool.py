"""The depot's package files, by content: `files/ab/<sha256>`.

Invariants: a file appears under its name whole or not at all, and from a mirror only after the
mirror was seen to have held still (`stage`, then `settle`); one that is there with its size is
never written again; what is sent from here is hashed first (`check`), because a hard link shares
its bytes with the mirror and an in-place rewrite there writes through. Readable by the owner
only, as far as the file is ours: a hard link keeps the mirror's mode, the directories are 0700.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from enum import Enum
from pathlib import Path

from cpacman.errors import CpacmanError, Problem, RepositoryError, SafetyError

FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Across file systems, no permission (fs.protected_hardlinks), too many links, not supported.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

_SOURCE_GONE = {errno.ENOENT, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTDIR}


def is_package_name(name: str) -> bool:
    """Whether a file in the pool is called as a package is: by its sha256."""
    return bool(_SHA256.fullmatch(name))


class Way(str, Enum):
    """How a file came to be kept."""

    PRESENT = "present"
    REFLINK = "reflink"
    LINK = "hard link"
    COPY = "copy"


class Pool:
    """The package files below a depot. Making one touches nothing."""

    def __init__(self, depot: Path) -> None:
        self.root = depot / "files"
        self._prefix = f"{self.root}/"
        self.temporary = depot / "tmp"
        self._no_reflink: set[int] = set()  # devices that said they can't
        self._made: set[Path] = set()

    def path_of(self, sha256: str) -> Path:
        """Return where a file is, or would be.

        Raises:
            ValueError: it is no sha256.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no sha256")
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Whether a file of that size is there; its bytes are not looked at."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no sha256")
        # Asked twenty thousand times for a snapshot: making paths would be half of the time.
        return _is_file_of(f"{self._prefix}{sha256[:2]}/{sha256}", size)

    def keep(self, source: Path, sha256: str, size: int) -> Way:
        """Keep a file: reflink, else hard link, else copy. Copies are hashed on the way.

        Raises:
            RepositoryError: the source has another size, or (copied) other bytes.
            OSError: it can't be read, or the depot can't be written.
        """
        way = self.stage(source, sha256, size)
        if way is not Way.PRESENT:
            self.settle(sha256)
        return way

    def stage(self, source: Path, sha256: str, size: int) -> Way:
        """Keep a file aside: it counts only when it is settled. Raises as `keep` does."""
        target = self._staged(sha256)
        if self.has(sha256, size) or _is_file_of(target, size):
            return Way.PRESENT
        if not source.is_file():
            raise _altered(source, "is no regular file")
        self._make_folder(self.temporary)
        target.unlink(missing_ok=True)
        try:
            way = self._fill(source, target, sha256)
            if target.stat().st_size != size:
                raise _altered(source, f"has other than the {size} bytes it must have")
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) and _is_gone(error, source):
                raise _altered(source, f"can't be read: {error.strerror}") from None
            raise
        return way

    def place_of(self, sha256: str) -> Path:
        """Return where a file's bytes are now: kept aside, or under its name."""
        staged = self._staged(sha256)
        return staged if staged.exists() else self.path_of(sha256)

    def settle(self, sha256: str) -> None:
        """Let a file that was kept aside appear under its name."""
        target = self.path_of(sha256)
        self._make_folder(target.parent)
        with contextlib.suppress(FileNotFoundError):  # two repositories may have the same file
            self._staged(sha256).replace(target)

    def restore(self, source: Path, target: Path, sha256: str) -> None:
        """Replace a damaged file of the depot by a copy that no mirror shares.

        Raises:
            RepositoryError: the source has other bytes.
            OSError: it can't be read, or the depot can't be written.
        """
        self._make_folder(self.temporary)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.temporary, prefix="mend-")
        try:
            try:
                _copy(source, handle, sha256)
            finally:
                os.close(handle)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)

    def _staged(self, sha256: str) -> Path:
        return self.temporary / f"file-{sha256}"

    def _make_folder(self, folder: Path) -> None:
        if folder not in self._made:
            for one in (self.root, folder):
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made.add(folder)

    def _fill(self, source: Path, target: Path, sha256: str) -> Way:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if self._reflink(source, handle):
                return Way.REFLINK
            if _hard_link(source, target):
                return Way.LINK
            _copy(source, handle, sha256)
        finally:
            os.close(handle)
        return Way.COPY

    def _reflink(self, source: Path, handle: int) -> bool:
        """Share the source's blocks, where the file system can; it is asked once per device."""
        with source.open("rb") as stream:
            device = os.fstat(stream.fileno()).st_dev
            if device in self._no_reflink:
                return False
            try:
                fcntl.ioctl(handle, FICLONE, stream.fileno())
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                self._no_reflink.add(device)
                return False
        return True

    def check(self, sha256: str, size: int) -> Path:
        """Hash a kept file, before its bytes leave, and return where it is.

        Raises:
            SafetyError: it is missing or altered; says which file, and the mend.
        """
        path = self.path_of(sha256)
        try:
            found, digest = _hash(path)
        except OSError as error:
            raise SafetyError(
                Problem(str(path), f"a kept package can't be read: {error.strerror}", _MEND)
            ) from None
        if (found, digest) != (size, sha256):
            raise SafetyError(
                Problem(
                    str(path),
                    "a kept package was altered since the snapshot was taken "
                    f"({found} of {size} bytes, sha256 {digest[:12]}), so it is not sent",
                    _MEND,
                )
            )
        return path


_MEND = "read it again from a mirror that has the right one: salt-run cpacman.verify repair=True"


def _is_file_of(path: Path | str, size: int) -> bool:
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


def _is_gone(error: OSError, source: Path) -> bool:
    return error.errno in _SOURCE_GONE and error.filename == str(source)


def _hard_link(source: Path, target: Path) -> bool:
    """Replace the empty target by a link to the source; False where that can't be."""
    link = target.with_name(f"{target.name}.link")
    try:
        # link() makes one to a symbolic link itself
        os.link(source.resolve() if source.is_symlink() else source, link)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    link.replace(target)
    return True


def _copy(source: Path, handle: int, sha256: str) -> None:
    """Copy into an open file, on disk when this returns, refusing other bytes than named."""
    digest = hashlib.sha256()
    with source.open("rb") as stream, os.fdopen(os.dup(handle), "wb") as target:
        while block := stream.read(1 << 20):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != sha256:
        raise _altered(source, "is not the file that the metadata names: it was altered")


def _altered(source: Path, message: str) -> RepositoryError:
    return RepositoryError(Problem(str(source), message, "let the mirror finish, or mirror again"))


def _hash(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def sweep_temporary(depot: Path) -> None:
    """Remove what an interrupted run left. Only for whoever holds the depot's lock."""
    with contextlib.suppress(FileNotFoundError):
        for entry in (depot / "tmp").iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def io_error(depot: Path, error: OSError) -> CpacmanError:
    """Return the error for a file that can't be written or read on the master's disk."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = "make room there, or name another depot" if full else ""
    where = str(error.filename or depot)
    return CpacmanError(Problem(where, error.strerror or str(error), mend))
