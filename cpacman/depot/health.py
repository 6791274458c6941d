"""Whether a depot still has what its snapshots name, byte for byte, and how to mend it.

Invariants: every file that a snapshot names is hashed, and so is its metadata; a file is mended
only from bytes with the very same sha256, copied, so that no mirror shares them; what has no
source is left as it is, and named with the snapshots that need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cpacman.depot.pool import Pool
from cpacman.depot.repository import in_threads, read_repository
from cpacman.depot.rpmmd import hash_files
from cpacman.depot.snapshot import Snapshot, load_snapshot, snapshot_ids
from cpacman.errors import CpacmanError, Problem, RepositoryError, SafetyError
from cpacman.report.progress import Reporter


class Kept(NamedTuple):
    """A file that snapshots need: a package (`what` is its NEVRA), or metadata."""

    path: Path
    sha256: str
    what: str
    snapshots: tuple[str, ...]


class Damage(NamedTuple):
    """A kept file that is `missing` or `altered`; `source`: it was mended from there."""

    file: Kept
    fault: str
    source: str = ""


class Health(NamedTuple):
    """How many files were hashed, those damaged, and what is wrong with unreadable snapshots."""

    files: int
    snapshots: int
    damaged: tuple[Damage, ...]
    problems: tuple[Problem, ...]


def load_all(depot: Path, ids: Iterable[str] | None = None) -> tuple[list[Snapshot], list[Problem]]:
    """Return snapshots of a depot (all, or some), and what is wrong with those unreadable."""
    snapshots: list[Snapshot] = []
    problems: list[Problem] = []
    for one in snapshot_ids(depot) if ids is None else sorted(ids):
        try:
            snapshots.append(load_snapshot(depot, one))
        except SafetyError as error:
            problems += error.problems
    return snapshots, problems


def check_depot(depot: Path, reporter: Reporter) -> Health:
    """Hash everything that the snapshots of a depot need, in parallel."""
    snapshots, problems = load_all(depot)
    files = list(_kept_files(snapshots, Pool(depot)))
    damaged = []
    for done, (file, fault) in enumerate(zip(files, in_threads(_fault, files), strict=True), 1):
        reporter.progress("hashing the depot", done, len(files), "files")
        if fault:
            damaged.append(Damage(file, fault))
    return Health(len(files), len(snapshots), tuple(damaged), tuple(problems))


def _kept_files(snapshots: Iterable[Snapshot], pool: Pool) -> Iterator[Kept]:
    """Yield every file once, with the snapshots that need it."""
    needing: dict[Path, tuple[str, str, list[str]]] = {}
    for snapshot in snapshots:
        for package in snapshot.packages:
            path = pool.path_of(package.sha256)
            row = needing.setdefault(path, (package.sha256, package.nevra, []))
            if snapshot.id not in row[2]:
                row[2].append(snapshot.id)
        for repository in snapshot.repositories:
            for kind, path in repository.metadata.items():
                what = f"{kind} of {repository.name}"
                needing.setdefault(path, (repository.checksums[kind], what, []))[2].append(
                    snapshot.id
                )
    for path, (sha256, what, ids) in needing.items():
        yield Kept(path, sha256, what, tuple(ids))


def _fault(file: Kept) -> str:
    try:
        found = hash_files(file.path, ["sha256"])["sha256"]
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if found == file.sha256 else "altered"


# ----------------------------------------------------------------------------------------- mending


def mend(
    health: Health,
    repositories: Sequence[tuple[str, Path]],
    *,
    depot: Path,
    cache: Path,
    reporter: Reporter,
) -> Health:
    """Read damaged files again from any repository that has the same bytes.

    Args:
        health: what was found; the caller holds the depot's lock since.
        repositories: names and directories, of all channels.
        depot: the depot, cache: as for reading repositories.
        reporter: told of repositories that can't be read, and how far it is.

    Returns:
        The same, with the sources of what was mended.

    Raises:
        OSError: the depot can't be written.
    """
    sources = _sources(health.damaged, repositories, cache, reporter)
    pool = Pool(depot)
    mended: list[Damage] = []
    for done, damage in enumerate(health.damaged, 1):
        reporter.progress("mending", done, len(health.damaged), "files")
        mended.append(_mended(damage, sources.get(damage.file.sha256, ()), pool))
    return health._replace(damaged=tuple(mended))


def _mended(damage: Damage, sources: Sequence[Path], pool: Pool) -> Damage:
    for source in sources:
        try:
            pool.restore(source, damage.file.path, damage.file.sha256)
        except (RepositoryError, FileNotFoundError):
            continue  # the mirror has other bytes, too: look on
        return damage._replace(source=str(source))
    return damage


def _sources(
    damaged: Sequence[Damage],
    repositories: Sequence[tuple[str, Path]],
    cache: Path,
    reporter: Reporter,
) -> dict[str, list[Path]]:
    """Return sha256 -> files that repositories say have it."""
    wanted = {one.file.sha256 for one in damaged}
    found: dict[str, list[Path]] = {}
    for name, path in repositories if wanted else ():
        try:
            repository = read_repository(name, path, cache)
        except CpacmanError as error:
            reporter.line(f"no source: {error}")
            continue
        for package in repository.packages:
            if package.sha256 in wanted:
                found.setdefault(package.sha256, []).append(path / package.location)
        for kind, file in repository.metadata.items():
            if repository.checksums[kind] in wanted:
                found.setdefault(repository.checksums[kind], []).append(file)
    return found
