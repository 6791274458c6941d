"""Snapshots: immutable, content-addressed lists of a channel's packages and advisories.

Invariants: a snapshot's id is a hash of everything that decides what a plan from it contains, so
a manifest that was altered is refused; nothing of a snapshot is read from the mirror again.

Layout of a depot: `snapshots/<id>/manifest.msgpack`, `metadata/<sha256>/` (the metadata files of
a repository), `files/` (the pool), `tmp/` (whatever is not finished), `lock`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from cpacman.depot.pool import Pool
from cpacman.depot.repository import Kind
from cpacman.depot.rpmmd import Metadata, hash_files, location_fault
from cpacman.errors import InputError, Problem, SafetyError
from cpacman.model import SCHEMA, Advisory, Package, canonical_json, content_id

_ID = re.compile(r"s-[0-9a-f]{64}")
_PREFIX = re.compile(r"s-[0-9a-f]{1,64}")


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


class Lineage(msgspec.Struct, frozen=True):
    """Where a derived snapshot comes from: its parents' ids, and how its packages were chosen."""

    parents: tuple[str, ...]
    how: str


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of snapshots shows. `created` is in seconds since the epoch."""

    id: str
    channel: str
    created: int
    lineage: Lineage | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, with paths into the depot it was loaded from."""

    schema: int = SCHEMA
    id: str
    channel: str
    created: int
    repositories: tuple[SnapshotRepository, ...]
    packages: tuple[Package, ...]
    advisories: tuple[Advisory, ...] = ()
    lineage: Lineage | None = None


def snapshot_id(
    channel: str,
    repositories: Iterable[SnapshotRepository],
    packages: Iterable[Package],
    advisories: Iterable[Advisory],
) -> str:
    """Return the `s-` id: over the channel, sorted packages and advisories, and what else decides.

    That is each repository's flags and its module definitions. Paths, locations, fingerprints and
    times, of advisories, too, are outside: the same packages mirrored elsewhere, or indexed anew,
    are the same snapshot.
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
    digests = sorted(
        {hashlib.sha256(canonical_json(one.content)).hexdigest() for one in advisories}
    )
    return content_id("s", [channel, flags, files, digests])


def encoded(snapshot: Snapshot, depot: Path) -> bytes:
    """Return a manifest's bytes: paths are relative to the depot, which may be moved."""

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


def load_remaining(depot: Path, ids: Iterable[str]) -> list[Snapshot]:
    """Return those of some snapshots that no prune has removed since.

    Raises:
        SafetyError: one is damaged.
    """
    there = set(snapshot_ids(depot))
    return [load_snapshot(depot, one) for one in ids if one in there]


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
