"""The metadata of a case's repositories, written as createrepo would."""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from cpacman.model import Dependency
from cpacman.planner.actions import split_nevra
from cpacman.planner.cases.text import DEPENDENCIES, Pkg, Section, packages, split
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.solver import Source

_FLAGS = {"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}


def _entries(tag: str, deps: tuple[Dependency, ...]) -> str:
    rows = []
    for name, flags, evr in deps:
        extra = ""
        if flags:
            epoch, _, rest = evr.rpartition(":")
            version, _, release = rest.partition("-")
            extra = f' flags="{_FLAGS[flags]}" epoch="{epoch or 0}" ver={quoteattr(version)}'
            extra += f" rel={quoteattr(release)}" if release else ""
        rows.append(f"<rpm:entry name={quoteattr(name)}{extra}/>")
    return f"<rpm:{tag}>{''.join(rows)}</rpm:{tag}>" if rows else ""


def evr_fields(nevra: str) -> tuple[str, str, str, str, str]:
    """Return name, epoch, version, release and arch of a NEVRA."""
    name, evr, arch = split_nevra(nevra)
    epoch, _, rest = evr.rpartition(":")
    version, _, release = rest.rpartition("-")
    if not (name and arch and (version or release)):
        raise ValueError(f"{nevra!r} is not name-[epoch:]version-release.arch")
    return name, epoch or "0", version, release, arch


def checksum_of(repository: str, package: Pkg) -> str:
    """Return a checksum that differs when anything about a package does."""
    text = f"{repository}\n{package.nevra}\n{sorted(package.said.items())}"
    return hashlib.sha256(text.encode()).hexdigest()


def primary_xml(repository: str, rows: list[Pkg]) -> str:
    """Return the primary metadata of packages."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<metadata xmlns="http://linux.duke.edu/metadata/common" '
        f'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{len(rows)}">\n'
        + "\n".join(_primary_entry(repository, row) for row in rows)
        + "\n</metadata>\n"
    )


def _primary_entry(repository: str, package: Pkg) -> str:
    name, epoch, version, release, arch = evr_fields(package.nevra)
    kinds = (k for k in DEPENDENCIES if k != "provides")
    deps = "".join(_entries(kind, package.deps(kind)) for kind in kinds)
    files = "".join(f"<file>{escape(f)}</file>" for f in package.files if is_in_primary(f))
    vendor = f"<rpm:vendor>{escape(package.vendor)}</rpm:vendor>" if package.vendor else ""
    return (
        f'<package type="rpm"><name>{escape(name)}</name><arch>{arch}</arch>'
        f'<version epoch="{epoch}" ver={quoteattr(version)} rel={quoteattr(release)}/>'
        f'<checksum type="sha256" pkgid="YES">{checksum_of(repository, package)}</checksum>'
        "<summary>x</summary><description>x</description><packager/><url/>"
        f'<time file="1" build="{package.said.get("buildtime", 0)}"/>'
        '<size package="1000" installed="2000" archive="3000"/>'
        f'<location href="Packages/{escape(package.nevra)}.rpm"/>'
        f"<format><rpm:license>x</rpm:license>{vendor}"
        f"{_entries('provides', package.provides)}{deps}{files}</format></package>"
    )


def filelists_xml(repository: str, rows: list[Pkg]) -> str:
    """Return the filelists of packages."""
    entries = []
    for row in rows:
        name, epoch, version, release, arch = evr_fields(row.nevra)
        files = "".join(f"<file>{escape(f)}</file>" for f in row.files)
        entries.append(
            f'<package pkgid="{checksum_of(repository, row)}" name={quoteattr(name)} arch="{arch}">'
            f'<version epoch="{epoch}" ver={quoteattr(version)} rel={quoteattr(release)}/>'
            f"{files}</package>"
        )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<filelists '
    head += f'xmlns="http://linux.duke.edu/metadata/filelists" packages="{len(rows)}">\n'
    return head + "\n".join(entries) + "\n</filelists>\n"


def modules_yaml(section: Section) -> str:
    """Return the module metadata of a section."""
    import yaml

    documents: list[dict[str, object]] = []
    for head, said in section.lines:
        module, _, stream = head.partition(":")
        if "default" in said:
            data = {"module": module, "stream": stream}
            documents.append({"document": "modulemd-defaults", "version": 1, "data": data})
        requires: dict[str, list[str]] = {"platform": ["el9"]}
        for need in split(said.get("requires", "")):
            name, _, wanted = need.partition(":")
            requires.setdefault(name, []).extend([wanted] if wanted else [])
        body = {
            "name": module,
            "stream": stream,
            "version": int(said.get("version", 1)),
            "context": said.get("context", "c0ffee"),
            "arch": "x86_64",
            "summary": "x",
            "description": "x",
            "license": {"module": ["MIT"]},
            "dependencies": [{"requires": requires}],
            "artifacts": {"rpms": [_with_epoch(n) for n in split(said.get("artifacts", ""))]},
        }
        documents.append({"document": "modulemd", "version": 2, "data": body})
    made: str = yaml.safe_dump_all(documents, explicit_start=True)
    return made


def _with_epoch(nevra: str) -> str:
    name, epoch, version, release, arch = evr_fields(nevra)
    return f"{name}-{epoch}:{version}-{release}.{arch}"


def source_of(section: Section, directory: Path, modules: Section | None = None) -> Source:
    """Write a repository's metadata and return it as a source."""
    name, *options = section.words[1:]
    rows = packages(section)
    directory.mkdir(parents=True, exist_ok=True)
    primary, filelists = directory / f"{name}-primary.xml", directory / f"{name}-filelists.xml"
    primary.write_text(primary_xml(name, rows))
    filelists.write_text(filelists_xml(name, rows))
    priority = next((int(o.split("=")[1]) for o in options if o.startswith("priority=")), 99)
    if modules is not None:
        (directory / f"{name}-modules.yaml").write_text(modules_yaml(modules))
    return Source(
        name=name,
        primary=str(primary),
        filelists=str(filelists),
        autoupdate="noautoupdate" not in options,
        priority=priority,
        modules=str(directory / f"{name}-modules.yaml") if modules else "",
        module_hotfixes="module_hotfixes" in options,
        origin=next((o[7:] for o in options if o.startswith("origin=")), ""),
    )
