"""The lab's packages: built from `specs/` by rpmbuild, once, outside the source tree.

Invariants: the same specs, table and rpm give the same bytes (fixed build time, build host and
payload); a build directory is complete or does not exist; the caller's rpm database and home
directory are not touched.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cpacman.errors import Problem
from lab.errors import LabError
from lab.requirements import SYSTEM_PATH

CHECKOUT = Path(__file__).resolve().parents[1]
SPECS = Path(__file__).resolve().parent / "specs"
BUILD_TIME = 1_767_225_600  # 2026-01-01; part of every package's header
MIB = 1 << 20


class Build(NamedTuple):
    """One package to build.

    Args:
        name: the package's name.
        version: its version.
        arch: what rpm calls its architecture.
        size: bytes of payload, for a spec that asks (`%{size}`).
        spec: the spec's name, where it is not the package's.
    """

    name: str
    version: str
    arch: str = "noarch"
    size: int = 0
    spec: str = ""
    release: str = "1"

    @property
    def spec_file(self) -> str:
        """The name of the spec's file."""
        return f"{self.spec or self.name}.spec"

    @property
    def nevra(self) -> str:
        """Name, version, release and architecture, as a plan writes them."""
        return f"{self.name}-{self.version}-{self.release}.{self.arch}"


BASE = (Build("lab-base", "9"),)
# What hosts start with, and what the repository brings. Only new has libwebapp and hugedata; jlib
# stays at 1.0, since 2.0 is another architecture.
OLD_BUILDS = (
    *BASE,
    Build("webapp", "1.0"),
    Build("oldtool", "1.0"),
    Build("jlib", "1.0"),
    Build("scripted", "1.0"),
    Build("fickle", "1.0"),
    Build("confapp", "1.0"),
    Build("bigdata", "1.0", size=4096, spec="payload"),
)
NEW_BUILDS = (
    Build("webapp", "1.1"),
    Build("libwebapp", "1.0", "x86_64"),
    Build("newtool", "2.0"),
    Build("jlib", "2.0", "x86_64"),
    Build("scripted", "1.1"),
    Build("fickle", "1.1"),
    Build("confapp", "1.1"),
    Build("bigdata", "1.1", size=8 * MIB, spec="payload"),
    Build("hugedata", "1.0", size=20 * MIB, spec="payload"),
)
OLD = tuple(build.nevra for build in OLD_BUILDS)
NEW = tuple(build.nevra for build in NEW_BUILDS)
ADVISORY, ADVISED = "LAB-2026:0001", "webapp-1.1-1.noarch"

MACROS = {
    "_buildhost": "lab.invalid",
    "vendor": "CPacMan Lab",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "source_date_epoch_from_changelog": "0",
    "_binary_payload": "w1.gzdio",
    "__os_install_post": "%{nil}",
    "debug_package": "%{nil}",
    "_build_id_links": "none",
    "python": sys.executable,
}


def build(
    builds: Iterable[Build] = (*OLD_BUILDS, *NEW_BUILDS), specs: Path = SPECS
) -> dict[str, Path]:
    """Build what is not built yet; returns each package's file by its NEVRA.

    Raises:
        LabError: rpmbuild failed; with the end of what it said.
    """
    return dict(build_once(tuple(builds), specs))


@functools.cache
def build_once(wanted: tuple[Build, ...], specs: Path) -> dict[str, Path]:
    """`build`, looked up once in a process."""
    target = CHECKOUT / "build" / "lab-rpms" / digest(wanted, specs)
    if not target.is_dir():
        with locked(target.with_suffix(".lock")):
            if not target.is_dir():
                build_into(target, wanted, specs)
    return {one.nevra: target / f"{one.nevra}.rpm" for one in wanted}


def digest(builds: Iterable[Build], specs: Path) -> str:
    """A hash over all that decides the packages' bytes."""
    version = subprocess.run(
        ["rpmbuild", "--version"], env=environ("/"), capture_output=True, check=True
    ).stdout
    macros = {name: value for name, value in MACROS.items() if name != "python"}
    parts = [version.decode(), repr(macros), str(BUILD_TIME)]
    for one in builds:
        parts += [repr(one), (specs / one.spec_file).read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build_into(target: Path, builds: Iterable[Build], specs: Path) -> None:
    """Build all of `builds`, then put the directory in place."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as name:
        work = Path(name)
        for one in builds:
            build_one(work, one, specs)
        packages = work / "packages"
        packages.rename(target)


def build_one(work: Path, one: Build, specs: Path) -> None:
    """One run of rpmbuild.

    Raises:
        LabError: it failed, or made another file than its entry in the table says.
    """
    macros = {
        **MACROS,
        "_topdir": str(work),
        "_rpmdir": str(work / "packages"),
        "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        "_dbpath": str(work / "db"),
        "n": one.name,
        "v": one.version,
        "size": str(one.size),
    }
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    target = [] if one.arch == "noarch" else ["--target", one.arch]
    command = ["rpmbuild", "-bb", "--nodeps", "--quiet", *target, *defines]
    done = subprocess.run(
        [*command, str(specs / one.spec_file)],
        env=environ(str(work)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (work / "packages" / f"{one.nevra}.rpm").exists():
        raise LabError(Problem(one.nevra, f"rpmbuild failed: {done.stderr.strip()[-500:]}"))


def environ(home: str) -> dict[str, str]:
    """What rpmbuild sees: a home of its own, so that no ~/.rpmdb or ~/.rpmmacros plays a part."""
    return {
        "PATH": SYSTEM_PATH,
        "HOME": home,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(BUILD_TIME),
    }


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock: two labs that start together build once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def repository(
    directory: Path,
    nevras: Iterable[str] = NEW,
    *,
    metadata: bool = True,
    advisories: Mapping[str, Iterable[str]] | None = None,
    packages: Mapping[str, Path] | None = None,
) -> Path:
    """Fill `directory` with packages, as a mirror would; returns it.

    Args:
        directory: made if it is not there; what is in it stays.
        nevras: which packages.
        metadata: with `repodata/`; without it is a bare folder.
        advisories: advisory id -> NEVRAs; None: `ADVISORY` if it has its package.
        packages: NEVRA -> file; None: the lab's own.

    Raises:
        LabError: a NEVRA that nobody built.
    """
    files = build() if packages is None else packages
    wanted = tuple(nevras)
    unknown = [
        Problem(nevra, "no such package in the lab") for nevra in wanted if nevra not in files
    ]
    if unknown:
        raise LabError(unknown)
    directory.mkdir(parents=True, exist_ok=True)
    for nevra in wanted:
        copy(files[nevra], directory / files[nevra].name)
    if metadata:
        known = {ADVISORY: [ADVISED]} if ADVISED in wanted else {}
        write_metadata(directory, known if advisories is None else advisories)
    return directory


def copy(source: Path, target: Path) -> None:
    """A file of its own (a link would let a test that damages a mirror damage the build too)."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    os.utime(fresh, (BUILD_TIME, BUILD_TIME))
    fresh.replace(target)


def write_metadata(directory: Path, advisories: Mapping[str, Iterable[str]]) -> None:
    """Write `repodata/` anew for all packages in `directory`."""
    import createrepo_c as cr

    shutil.rmtree(directory / "repodata", ignore_errors=True)
    files = sorted(directory.glob("*.rpm"))
    with cr.RepositoryWriter(str(directory), compression=cr.GZ_COMPRESSION) as writer:
        writer.set_num_of_pkgs(len(files))
        listed = {file.stem: writer.add_pkg_from_file(str(file)) for file in files}
        for advisory, nevras in advisories.items():
            writer.add_update_record(update_record(advisory, [listed[nevra] for nevra in nevras]))


def update_record(advisory: str, packages: Iterable[Any]) -> Any:
    """A security advisory for `packages` (createrepo_c's), with one CVE."""
    import createrepo_c as cr

    record, collection, reference = cr.UpdateRecord(), cr.UpdateCollection(), cr.UpdateReference()
    record.id, record.type, record.severity = advisory, "security", "Important"
    record.fromstr, record.status, record.version = "lab@example.invalid", "final", "1"
    record.title = record.summary = record.description = f"{advisory}: a hole is mended"
    record.issued_date = record.updated_date = datetime.datetime(2026, 1, 2)
    reference.type, reference.id = "cve", advisory.replace("LAB", "CVE").replace(":", "-")
    reference.href = reference.title = reference.id
    record.append_reference(reference)
    collection.shortname = collection.name = "lab"
    for package in packages:
        entry = cr.UpdateCollectionPackage()
        for field in ("name", "epoch", "version", "release", "arch"):
            setattr(entry, field, getattr(package, field))
        entry.filename = package.location_href
        collection.append(entry)
    record.append_collection(collection)
    return record
