"""New snapshots from parts of old ones: what a promotion in part points a class at.

Invariants: the metadata of a derived snapshot names exactly its packages, so whatever is solved
from it can't choose another one; each package is one of a parent's, byte for byte; nothing is read
from a mirror; the id is made by the rule that holds for every snapshot, so the same content
derived twice, or taken whole, is the same snapshot.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from cpacman.depot.folder import write_xml
from cpacman.depot.locks import writing
from cpacman.depot.pool import io_error, sweep_temporary
from cpacman.depot.repository import sorted_packages
from cpacman.depot.rpmmd import Metadata, hash_files, read_primary
from cpacman.depot.snapshot import (
    Lineage,
    Snapshot,
    SnapshotRepository,
    check_metadata,
    check_snapshot,
    load_snapshot,
    snapshot_id,
    snapshot_ids,
)
from cpacman.depot.writing import publish, with_kept_metadata
from cpacman.errors import Problem, RepositoryError, SafetyError
from cpacman.model import Advisory, Package, canonical_json
from cpacman.planner.metadata import read_text
from cpacman.planner.modules import Modules, parse_modules

_DOCUMENT = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)


def derive_snapshot(
    depot: Path,
    parents: Sequence[Snapshot],
    *,
    packages: Iterable[Package],
    advisories: Collection[str],
    how: str,
    now: float | None = None,
    scratch: Path | None = None,
) -> Snapshot:
    """Make a snapshot of some packages and advisories of one or more snapshots of a channel.

    Args:
        depot: the depot that holds the parents.
        parents: the first one's repository settings and default streams win; a later one brings
            repositories and module streams that its packages need.
        packages: each one of a parent's (equal repository, nevra, sha256 and size).
        advisories: ids; each advisory of a parent that has one of them is in.
        how: one line that says how it was chosen, such as `packages: httpd`. Like the parents it
            is kept as the snapshot's lineage, outside of its id.
        now: seconds since the epoch, for a snapshot that is new; left out, the clock's.
        scratch: an empty directory of the caller for the metadata. Then nothing is written to the
            depot: a snapshot to solve against, for a proof, as long as the directory is there.

    Returns:
        The snapshot; when the depot has one of that content, that one, with its own lineage.

    Raises:
        SafetyError: a package or advisory is of no parent, its file or a parent's metadata is
            missing or altered, or the metadata written names other packages.
        ConflictError: somebody else writes to the depot.
        CpacmanError: the depot can't be written.
    """
    job = _checked(_Job(tuple(parents), tuple(packages), frozenset(advisories), how))
    created = int(time.time() if now is None else now)
    try:
        if scratch is not None:
            return _drafted(job, created, scratch)
        with writing(depot, "deriving a snapshot"):
            sweep_temporary(depot)
            with tempfile.TemporaryDirectory(dir=depot / "tmp", prefix="derive-") as own:
                return _published(_drafted(job, created, Path(own)), depot)
    except OSError as error:
        raise io_error(depot, error) from error


class _Job(NamedTuple):
    parents: tuple[Snapshot, ...]
    packages: tuple[Package, ...]
    advisories: frozenset[str]
    how: str


def _published(draft: Snapshot, depot: Path) -> Snapshot:
    if problems := check_snapshot(depot, draft):
        raise SafetyError(problems)
    if draft.id in snapshot_ids(depot):
        return load_snapshot(depot, draft.id)
    kept = with_kept_metadata(draft, depot)
    publish(kept, depot)
    return kept


_Key = tuple[str, str, str, int]


def _key(package: Package) -> _Key:
    return package.repository, package.nevra, package.sha256, package.size


def _checked(job: _Job) -> _Job:
    """Refuse what is of no parent, and go on with the parents' own values of the packages."""
    channels = {one.channel for one in job.parents}
    if len(channels) != 1:
        raise SafetyError(Problem("snapshot", f"is derived from {len(channels)} channels, not one"))
    known = {_key(one): one for parent in reversed(job.parents) for one in parent.packages}
    problems = [
        Problem(f"package {one.nevra}", f"of {one.repository} is in none of the parents")
        for one in job.packages
        if _key(one) not in known
    ]
    ids = {one.id for parent in job.parents for one in parent.advisories}
    problems += [
        Problem(f"advisory {one}", "is in none of the parents")
        for one in sorted(job.advisories - ids)
    ]
    if problems:
        raise SafetyError(problems)
    for parent in job.parents:
        check_metadata(parent)
    return job._replace(packages=sorted_packages(known[_key(one)] for one in job.packages))


def _drafted(job: _Job, created: int, folder: Path) -> Snapshot:
    """Return the snapshot with its metadata in `folder`, checked against its packages."""
    channel = job.parents[0].channel
    entries = tuple(_entries(job, folder))
    advisories = _advisories(job)
    return Snapshot(
        id=snapshot_id(channel, entries, job.packages, advisories),
        channel=channel,
        created=created,
        repositories=entries,
        packages=job.packages,
        advisories=advisories,
        lineage=Lineage(parents=tuple(one.id for one in job.parents), how=job.how),
    )


def _advisories(job: _Job) -> tuple[Advisory, ...]:
    found = {
        canonical_json(one): one
        for parent in job.parents
        for one in parent.advisories
        if one.id in job.advisories
    }
    return tuple(found[key] for key in sorted(found, key=lambda key: (found[key].id, key)))


class _Part(NamedTuple):
    """What one parent gives to one repository: its entry, its own packages, those of it taken."""

    entry: SnapshotRepository
    own: frozenset[str]
    taken: tuple[Package, ...]


def _entries(job: _Job, folder: Path) -> Iterator[SnapshotRepository]:
    """Yield the repositories: all of the first parent, and those that packages come from."""
    first = {one.name for one in job.parents[0].repositories}
    names = sorted(first | {one.repository for one in job.packages})
    for number, name in enumerate(names):
        target = folder / str(number)
        target.mkdir(mode=0o700)
        yield _entry(list(_parts(job, name)), target)


def _parts(job: _Job, name: str) -> Iterator[_Part]:
    """Yield what each parent gives to a repository; a package is the first parent's that has it."""
    left = {_key(one): one for one in job.packages if one.repository == name}
    for parent in job.parents:
        for entry in parent.repositories:
            if entry.name == name:
                own = [one for one in parent.packages if one.repository == name]
                # The parent's own value: its location is the one its metadata has.
                taken = tuple(one for one in own if left.pop(_key(one), None))
                yield _Part(entry, frozenset(one.nevra for one in own), taken)


def _entry(parts: Sequence[_Part], target: Path) -> SnapshotRepository:
    metadata = _write_metadata(parts, target)
    _check_written(parts, metadata)
    checksums = {kind: hash_files(one, ["sha256"])["sha256"] for kind, one in metadata.items()}
    return msgspec.structs.replace(
        parts[0].entry,
        metadata=metadata,
        checksums=checksums,
        fingerprint=checksums["primary"],
    )


def _write_metadata(parts: Sequence[_Part], target: Path) -> Metadata:
    """Write primary, filelists and modules; advisories are read from the manifest alone."""
    chunks: list[tuple[Package, str]] = []
    lists: dict[str, str] = {}
    for part in parts:
        read, ids = _primary_chunks(part)
        chunks += read
        if part.entry.metadata.filelists is not None:
            lists.update(_filelist_chunks(part.entry.metadata.filelists, ids))
    order = {_key(one): n for n, one in enumerate(sorted_packages(one for one, _ in chunks))}
    chunks.sort(key=lambda one: order[_key(one[0])])
    primary, filelists = target / "primary.xml.gz", target / "filelists.xml.gz"
    write_xml(primary, "PrimaryXmlFile", [text for _, text in chunks])
    metadata = Metadata(primary=primary, modules=_write_modules(parts, target))
    if all(one.entry.metadata.filelists is None for one in parts):
        return metadata
    write_xml(filelists, "FilelistsXmlFile", [lists[key] for key in sorted(lists)])
    return msgspec.structs.replace(metadata, filelists=filelists)


def _primary_chunks(part: _Part) -> tuple[list[tuple[Package, str]], set[str]]:
    """Return the taken packages with their primary metadata, and the checksums that name them."""
    import createrepo_c

    wanted = {one.location: one for one in part.taken}
    chunks: list[tuple[Package, str]] = []
    ids: set[str] = set()

    def take(raw: Any) -> None:
        package = wanted.pop(raw.location_href, None)
        if package is not None:
            ids.add(raw.pkgId)
            chunks.append((package, createrepo_c.xml_dump_primary(raw)))

    _parsed(createrepo_c.xml_parse_primary, part.entry.metadata.primary, pkgcb=take, do_files=True)
    return chunks, ids


def _filelist_chunks(path: Path, ids: Collection[str]) -> dict[str, str]:
    """Return the file lists of packages by their checksum."""
    import createrepo_c

    chunks: dict[str, str] = {}

    def make(checksum: str, _name: str, _arch: str) -> Any:
        return createrepo_c.Package() if checksum in ids else None

    def take(raw: Any) -> None:
        chunks[raw.pkgId] = createrepo_c.xml_dump_filelists(raw)

    _parsed(createrepo_c.xml_parse_filelists, path, newpkgcb=make, pkgcb=take)
    return chunks


def _parsed(parse: Callable[..., None], path: Path, **options: Any) -> None:
    import createrepo_c

    try:
        parse(str(path), warningcb=lambda _kind, _text: True, **options)
    except (createrepo_c.CreaterepoCError, ValueError) as error:
        what = f"can't be parsed: {error}".replace("\n", " ")
        raise RepositoryError(Problem(str(path), what)) from None


def _check_written(parts: Sequence[_Part], metadata: Metadata) -> None:
    """Read what was written: the solver is given these packages, no more and no less."""
    name = parts[0].entry.name
    packages, others = read_primary(name, metadata.primary)
    taken = [one for part in parts for one in part.taken]
    found = [*packages, *(one.package for one in others)]
    strange = {one.sha256 for one in packages} - {one.sha256 for one in taken}
    if strange or sorted(map(_place, found)) != sorted(map(_place, taken)):
        what = "the metadata written for it names other packages than were chosen"
        raise SafetyError(Problem(f"derived repository {name}", what))


def _place(package: Package) -> tuple[str, int, str]:
    return package.nevra, package.size, package.location


# ----------------------------------------------------------------------------------------- modules


def _write_modules(parts: Sequence[_Part], target: Path) -> Path | None:
    """Write the module documents that the packages need; unchanged ones keep their file."""
    having = [(one, one.entry.metadata.modules) for one in parts if one.entry.metadata.modules]
    if not having:
        return None
    kept: list[str] = []
    known: set[str] = set()
    for part, path in having:
        documents = _documents(path)
        chosen = _chosen_documents(part, documents, known, first=part is parts[0])
        if part is parts[0] and len(chosen) == len(documents) and not _adds(having[1:]):
            return path
        kept += [text for text in chosen if text not in kept]
    path = target / "modules.yaml.gz"
    path.write_bytes(gzip.compress("".join(kept).encode(), mtime=0))
    return path


def _adds(later: Sequence[tuple[_Part, Path]]) -> bool:
    return any(part.taken for part, _ in later)


def _documents(path: Path) -> list[tuple[str, Modules]]:
    """Return the documents of a modules file, each as its text and as what it says."""
    try:
        bodies = _DOCUMENT.split(read_text(path).decode())
        return [
            (f"---{one.rstrip()}\n", parse_modules(one.encode())) for one in bodies if one.strip()
        ]
    except (ValueError, yaml.YAMLError) as error:
        what = f"is no module metadata: {error}".replace("\n", " ")
        raise RepositoryError(Problem(str(path), what, "mirror the repository again")) from None


def _chosen_documents(
    part: _Part, documents: Iterable[tuple[str, Modules]], known: set[str], *, first: bool
) -> list[str]:
    """Return the documents that stay: streams with a package left, and what is no stream.

    A stream none of whose packages the parent had either stays as it is; one of a later parent
    must bring a package. `known` collects the modules whose defaults are said already.
    """
    taken = {one.nevra for one in part.taken}
    said: set[str] = set()
    chosen = []
    for text, found in documents:
        artifacts = {nevra for stream in found.streams for nevra in stream.artifacts}
        modules = {module for module, _ in found.defaults}
        said |= modules
        stays = bool(artifacts & taken) or (first and not artifacts & part.own)
        if stays if found.streams else (first or bool(modules - known)):
            chosen.append(text)
    known |= said
    return chosen
