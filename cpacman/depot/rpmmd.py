"""Reading rpm-md metadata: repomd.xml, primary and updateinfo, as data that may be hostile.

Invariants: only the repository's own directory is looked at; a metadata file counts when it has
the size and checksum that repomd.xml says; no name, version, size or location leaves here that
could mean a path outside of the repository, break a line, or be taken for an option. What is
wrong is reported with the repository, the file and the package, all at once.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import msgspec

from cpacman.errors import Problem, RepositoryError
from cpacman.model import Advisory, Package

KINDS = ("primary", "filelists", "updateinfo", "modules")
SUFFIXES = ("", ".gz", ".xz", ".bz2", ".zst")
MAX_SIZE = 1 << 50
MAX_SHOWN = 50

_NAMESPACE = "{http://linux.duke.edu/metadata/repo}"
_DIGESTS = {
    "md5": ("md5", 32),
    "sha": ("sha1", 40),
    "sha1": ("sha1", 40),
    "sha224": ("sha224", 56),
    "sha256": ("sha256", 64),
    "sha384": ("sha384", 96),
    "sha512": ("sha512", 128),
}
_HEX = re.compile(r"[0-9a-f]+")
# What rpm itself allows in each (rpmCharCheck), and no leading dash: it must never be an option.
_NAME = re.compile(r"[A-Za-z0-9_.+%{}~^][A-Za-z0-9_.+%{}~^-]*")
_VERSION = re.compile(r"[A-Za-z0-9_.+%{}~^]+")
_EPOCH = re.compile(r"[0-9]{1,9}")
_ARCH = re.compile(r"[A-Za-z0-9_]+")
_ADVISORY_ID = re.compile(r"[!-~]{1,128}")
SOURCE_ARCHES = ("src", "nosrc")


class Metadata(msgspec.Struct, frozen=True):
    """Paths of the metadata files that a solver needs; only primary is always there."""

    primary: Path
    filelists: Path | None = None
    updateinfo: Path | None = None
    modules: Path | None = None

    def items(self) -> Iterator[tuple[str, Path]]:
        """Yield `(kind, path)` of the files that are there."""
        for kind in KINDS:
            path = getattr(self, kind)
            if path is not None:
                yield kind, path


class Record(NamedTuple):
    """A metadata file as repomd.xml names it; `size` is -1 where it does not say."""

    kind: str
    href: str
    algorithm: str
    checksum: str
    size: int


class FileChecksum(NamedTuple):
    """A package whose metadata gives a checksum that is not sha256."""

    package: Package
    algorithm: str
    checksum: str


def capped(problems: list[Problem]) -> list[Problem]:
    """Return at most so many problems as a person reads, and how many more there are."""
    if len(problems) <= MAX_SHOWN:
        return problems
    path = problems[0].path.split(":")[0]
    return [*problems[:MAX_SHOWN], Problem(path, f"and {len(problems) - MAX_SHOWN} more")]


def location_fault(location: Any) -> str:
    """Return why a location can't name a file inside a repository, or an empty text."""
    if not isinstance(location, str) or not location:
        return "has no location"
    if not location.isprintable() or "\\" in location or len(location) > 4096:
        return f"has the location {location!r}"
    path = PurePosixPath(location)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return f"has the location {location!r}, outside of the repository"
    return ""


# -------------------------------------------------------------------------------------- repomd.xml


def read_repomd(name: str, path: Path) -> bytes:
    """Return the bytes of `repodata/repomd.xml` of a repository's directory."""
    try:
        return (path / "repodata" / "repomd.xml").read_bytes()
    except OSError as error:
        raise RepositoryError(
            Problem(
                f"{name}: {path}/repodata/repomd.xml",
                f"can't be read: {error.strerror}",
                "let the mirror finish, or mirror it again",
            )
        ) from None


def parse_repomd(name: str, path: Path, data: bytes) -> dict[str, Record]:
    """Return the records that matter here, by kind.

    Raises:
        RepositoryError: it is no repomd.xml, or names what it must not.
    """
    where = f"{name}: {path}/repodata/repomd.xml"
    try:
        # expat 2.4.1 and later bounds entity expansion, and nothing outside is ever fetched
        root = ElementTree.fromstring(data)  # noqa: S314
    except ElementTree.ParseError as error:
        raise RepositoryError(
            Problem(where, f"is no valid XML: {error}", "mirror it again")
        ) from None
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    for element in root.iter(f"{_NAMESPACE}data"):
        kind = element.get("type", "")
        if kind in KINDS:
            records[kind] = _record(kind, element)
            fault = _record_fault(records[kind])
            if fault:
                problems.append(Problem(f"{where}: {kind}", fault, "mirror it again"))
    if "primary" not in records:
        problems.append(Problem(where, "names no primary metadata", "mirror it again"))
    if problems:
        raise RepositoryError(problems)
    return records


def _record(kind: str, element: ElementTree.Element) -> Record:
    location = element.find(f"{_NAMESPACE}location")
    checksum = element.find(f"{_NAMESPACE}checksum")
    size = element.findtext(f"{_NAMESPACE}size", "-1").strip()
    return Record(
        kind,
        "" if location is None else location.get("href", ""),
        "" if checksum is None else checksum.get("type", ""),
        "" if checksum is None else (checksum.text or "").strip(),
        int(size) if re.fullmatch(r"-1|[0-9]{1,15}", size) else -2,
    )


def _record_fault(record: Record) -> str:
    fault = location_fault(record.href)
    if fault:
        return fault
    if suffix_of(record.href) not in SUFFIXES:
        return f"is compressed in a way that is not read: {record.href}"
    if record.size == -2:
        return "has no valid size"
    return _checksum_fault(record.algorithm, record.checksum)


def suffix_of(href: str) -> str:
    """Return how a metadata file is compressed: the suffix after `.xml` or `.yaml`."""
    suffix = PurePosixPath(href).suffix
    return "" if suffix in (".xml", ".yaml") else suffix


def _checksum_fault(algorithm: Any, checksum: Any) -> str:
    known = _DIGESTS.get(algorithm)
    if known is None:
        return f"has a checksum of the unknown type {algorithm!r}"
    if not isinstance(checksum, str) or len(checksum) != known[1] or not _HEX.fullmatch(checksum):
        return f"has no valid {algorithm} checksum"
    return ""


def hash_files(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Return the hex digests of a file, by algorithm, reading it once.

    Raises:
        OSError: it can't be read.
    """
    digests = {one: hashlib.new(one, usedforsecurity=False) for one in set(algorithms)}
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def verify_records(
    name: str, path: Path, records: Mapping[str, Record]
) -> tuple[Metadata, dict[str, str]]:
    """Check the metadata files against repomd.xml.

    Returns:
        Their paths, and their sha256 by kind.

    Raises:
        RepositoryError: files are missing or altered; names all of them.
    """
    problems: list[Problem] = []
    paths: dict[str, Path] = {}
    sha256s: dict[str, str] = {}
    for kind, record in records.items():
        paths[kind] = path / record.href
        algorithm = _DIGESTS[record.algorithm][0]
        try:
            found = hash_files(paths[kind], (algorithm, "sha256"))
        except OSError as error:
            fault = f"is named by repomd.xml, but can't be read: {error.strerror}"
        else:
            sha256s[kind] = found["sha256"]
            altered = found[algorithm] != record.checksum
            fault = "is not the file that repomd.xml names: it was altered" if altered else ""
        if fault:
            mend = "let the mirror finish, or mirror it again"
            problems.append(Problem(f"{name}: {paths[kind]}", fault, mend))
    if problems:
        raise RepositoryError(problems)
    return Metadata(**paths), sha256s


# ----------------------------------------------------------------------------------------- primary


def read_primary(name: str, path: Path) -> tuple[list[Package], list[FileChecksum]]:
    """Read the packages of primary metadata; source packages are left out.

    Returns:
        Packages whose metadata carries a sha256, and those whose sha256 their files must tell.

    Raises:
        RepositoryError: it can't be parsed, or what it says is unusable; names every package.
    """
    import createrepo_c

    packages: list[Package] = []
    others: list[FileChecksum] = []
    problems: list[Problem] = []

    def take(raw: Any) -> None:
        if raw.arch in SOURCE_ARCHES:
            return
        fault = package_fault(raw)
        if fault:
            label = f"{raw.name}-{raw.version}-{raw.release}.{raw.arch}"
            problems.append(Problem(f"{name}: {path}: {label!r}", fault, "mirror it again"))
        elif raw.checksum_type == "sha256":
            packages.append(package_of(name, raw, raw.pkgId))
        else:
            algorithm = _DIGESTS[raw.checksum_type][0]
            others.append(FileChecksum(package_of(name, raw, ""), algorithm, raw.pkgId))

    try:
        createrepo_c.xml_parse_primary(
            str(path), pkgcb=take, warningcb=lambda _kind, _text: True, do_files=False
        )
    except (createrepo_c.CreaterepoCError, OSError, ValueError) as error:
        raise RepositoryError(
            Problem(f"{name}: {path}", f"can't be parsed: {_line(error)}", "mirror it again")
        ) from None
    if problems:
        raise RepositoryError(capped(problems))
    return packages, others


def package_fault(raw: Any) -> str:
    """Return what makes a package of the metadata unusable, or an empty text."""
    for what, value, pattern in (
        ("name", raw.name, _NAME),
        ("epoch", raw.epoch or "0", _EPOCH),
        ("version", raw.version, _VERSION),
        ("release", raw.release, _VERSION),
        ("arch", raw.arch, _ARCH),
    ):
        if not isinstance(value, str) or len(value) > 255 or not pattern.fullmatch(value):
            return f"has the {what} {value!r}" if value else f"has no {what}"
    if not 0 < raw.size_package < MAX_SIZE:
        return f"has the size {raw.size_package}"
    return location_fault(raw.location_href) or _checksum_fault(raw.checksum_type, raw.pkgId)


def package_of(name: str, raw: Any, sha256: str) -> Package:
    """Return createrepo_c's package as ours."""
    return Package(
        name=raw.name,
        epoch=int(raw.epoch or 0),
        version=raw.version,
        release=raw.release,
        arch=raw.arch,
        sha256=sha256,
        size=raw.size_package,
        repository=name,
        location=raw.location_href,
        vendor=one_line(raw.rpm_vendor),
        buildtime=max(raw.time_build, 0),
    )


def one_line(text: str | None) -> str:
    """Return a text that a screen can show: control characters become spaces."""
    text = text or ""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def _line(error: Exception) -> str:
    return one_line(str(error)).strip()


# -------------------------------------------------------------------------------------- updateinfo


def read_updateinfo(name: str, path: Path) -> tuple[Advisory, ...]:
    """Read the advisories of updateinfo, sorted by id.

    Raises:
        RepositoryError: it can't be parsed, or an advisory has no usable id.
    """
    import createrepo_c

    try:
        records = createrepo_c.UpdateInfo(str(path)).updates
    except (createrepo_c.CreaterepoCError, OSError, ValueError) as error:
        raise RepositoryError(
            Problem(f"{name}: {path}", f"can't be parsed: {_line(error)}", "mirror it again")
        ) from None
    bad = [one.id for one in records if not _ADVISORY_ID.fullmatch(one.id or "")]
    if bad:
        raise RepositoryError(
            capped([Problem(f"{name}: {path}", f"an advisory has the id {one!r}") for one in bad])
        )
    found = [_advisory(one) for one in records]
    return tuple(sorted(found, key=lambda one: (one.id, one.packages)))


def _advisory(record: Any) -> Advisory:
    parts = [part for collection in record.collections for part in collection.packages]
    return Advisory(
        id=record.id,
        type=one_line(record.type),
        severity=one_line(record.severity),
        title=one_line(record.title),
        cves=tuple(sorted({one.id for one in record.references if _is_cve(one)})),
        packages=tuple(sorted({_nevra(part) for part in parts})),
        reboot=bool(record.reboot_suggested or any(part.reboot_suggested for part in parts)),
        issued=_seconds(record, "issued_date"),
        updated=_seconds(record, "updated_date"),
    )


def _seconds(record: Any, name: str) -> int:
    """Return a date of an advisory in seconds since the epoch; 0 where there is none to be read."""
    import createrepo_c

    try:
        found = getattr(record, name)
    except createrepo_c.CreaterepoCError:
        return 0  # It is parsed when it is asked for, and mirrors write whatever they like.
    if isinstance(found, datetime.datetime):
        return max(int(found.replace(tzinfo=datetime.timezone.utc).timestamp()), 0)
    return found if isinstance(found, int) and found > 0 else 0


def _is_cve(reference: Any) -> bool:
    return reference.type == "cve" and bool(_ADVISORY_ID.fullmatch(reference.id or ""))


def _nevra(part: Any) -> str:
    epoch = f"{part.epoch}:" if part.epoch not in (None, "", "0") else ""
    return one_line(f"{part.name}-{epoch}{part.version}-{part.release}.{part.arch}")
