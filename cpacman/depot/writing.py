"""Writing snapshots into the depot.

Invariants: a snapshot is there whole or not at all (written aside, flushed, renamed); metadata is
kept by its content, and only as its checksum says. Callers hold the depot's lock.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath

import msgspec

from cpacman.depot.rpmmd import Metadata, hash_files
from cpacman.depot.snapshot import Snapshot, SnapshotRepository, encoded
from cpacman.errors import Problem, RepositoryError
from cpacman.model import canonical_json


def with_kept_metadata(snapshot: Snapshot, depot: Path) -> Snapshot:
    """Return the snapshot with its metadata files copied into the depot."""
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
        if all(_has(path, repository.checksums[kind]) for kind, path in kept.items()):
            return kept
        target.rename(depot / "tmp" / f"damaged-{digest}")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=depot / "tmp", prefix="metadata-"))
    for kind, path in repository.metadata.items():
        _copy_checked(path, temporary / _kept_name(kind, path), repository, kind)
    temporary.rename(target)
    return kept


def _has(path: Path, sha256: str) -> bool:
    try:
        return hash_files(path, ["sha256"])["sha256"] == sha256
    except OSError:
        return False


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


def publish(snapshot: Snapshot, depot: Path) -> None:
    """Make the snapshot appear: everything on disk first, then one rename."""
    target = depot / "snapshots" / snapshot.id
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=depot / "tmp", prefix="snapshot-"))
    manifest = temporary / "manifest.msgpack"
    manifest.write_bytes(encoded(snapshot, depot))
    manifest.chmod(0o600)
    sync_filesystem(depot)
    temporary.rename(target)
    sync_filesystem(depot)


def sync_filesystem(depot: Path) -> None:
    """Flush the depot's file system: one call where thousands of fsync would take minutes."""
    handle = os.open(depot, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(depot))
    finally:
        os.close(handle)
