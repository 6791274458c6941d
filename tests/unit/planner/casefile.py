"""Planner cases as text: what they say, turned into metadata, inventories and a plan.

A case file reads like this; indentation matters, order of lines does not:

    # One sentence: what the case shows.
    repo base                              (words after the name: noautoupdate, priority=50)
      httpd-2.4-2.x86_64
        requires: apr >= 1.7, /usr/bin/env (also provides, conflicts, obsoletes, recommends, ...)
        vendor: Example                    (one word, default V; `-` is none; also buildtime, files,
                                            of what is installed origin)
    advisory ADV-1 reboot                  (packages; type=security severity=Low CVE-1 may follow)
      httpd-2.4-2.x86_64
    modules base                           (streams; also requires: perl:5.26, version, context)
      nodejs:18
        artifacts: nodejs-18-1.x86_64
        default: yes
    installed web1 modules=nodejs:18       (a host; several may be given; the name may be left out;
                                            also disabled=MODULE, kernel=, arch=)
      httpd-2.4-1.x86_64
    holds                                  (what every host holds itself)
      versionlock: httpd-2.4-1.*
    policy                                 (also without: REPO, installonly_limit: 2)
      lock: httpd                          (`policy level` and the like: lines of that place)
      pin: httpd to base
      vendors: httpd nginx to A B          (vendors that may replace each other, `_` is a space)
    request
      upgrade: httpd                       (or any other field; nothing means update all)
    expect                                 (of every host, or of `expect web1`)
      upgrade httpd-2.4-2.x86_64 from httpd-2.4-1.x86_64 (update) ADV-1
    held
      httpd-2.4-1.x86_64 -> httpd-2.4-3.x86_64 lock: words that the detail must contain
    failed requires
      words that the causes must contain

`(reason)` and advisories are looked at when they are given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import yaml

from cpacman.model import (
    Advisory,
    Dependency,
    InstalledPackage,
    Inventory,
    Plan,
    Request,
    Transaction,
)
from cpacman.planner.actions import split_nevra
from cpacman.planner.lines import PLACES
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.ruling import Line, Policy
from cpacman.planner.solver import Source

DEPENDENCIES = (
    "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements",
    "enhances",
)  # fmt: skip
_FLAGS = {"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}


class Pkg(NamedTuple):
    """A package of a case: its NEVRA and what was said of it."""

    nevra: str
    said: dict[str, str]

    def deps(self, kind: str) -> tuple[Dependency, ...]:
        """Return one kind of its dependencies."""
        return tuple(_dependency(text) for text in _split(self.said.get(kind, "")))

    @property
    def files(self) -> tuple[str, ...]:
        """The paths it owns."""
        return tuple(_split(self.said.get("files", "")))

    @property
    def vendor(self) -> str:
        """Its vendor; `-` is none."""
        vendor = self.said.get("vendor", "V")
        return "" if vendor == "-" else vendor

    @property
    def provides(self) -> tuple[Dependency, ...]:
        """What it provides, itself included as rpm does."""
        name, evr, _ = split_nevra(self.nevra)
        return ((name, "=", evr), *self.deps("provides"))


class Section(NamedTuple):
    """A headline and the lines under it, each with its own lines under it."""

    words: tuple[str, ...]
    lines: tuple[tuple[str, dict[str, str]], ...]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(", ") if part.strip()]


def _dependency(text: str) -> Dependency:
    if text.startswith("("):
        return (text, "", "")
    name, _, rest = text.partition(" ")
    flags, _, evr = rest.partition(" ")
    return (name, flags, evr)


def read_sections(text: str) -> list[Section]:
    """Return the sections of a case."""
    found: list[tuple[tuple[str, ...], list[tuple[str, dict[str, str]]]]] = []
    for line in text.splitlines():
        body = line.split("#", 1)[0].rstrip()
        if not body:
            continue
        depth = len(body) - len(body.lstrip())
        if depth == 0:
            found.append((tuple(body.split()), []))
        elif depth == 2:
            found[-1][1].append((body.strip(), {}))
        else:
            key, _, value = body.strip().partition(":")
            said = found[-1][1][-1][1]
            said[key] = f"{said[key]}, {value.strip()}" if key in said else value.strip()
    return [Section(words, tuple(lines)) for words, lines in found]


class Case(NamedTuple):
    """A case file."""

    title: str
    sections: list[Section]

    def of(self, kind: str) -> list[Section]:
        """Return the sections of a kind."""
        return [s for s in self.sections if s.words[0] == kind]


def read_case(path: Path) -> Case:
    """Read a case file, whose first line says what it shows."""
    text = path.read_text()
    return Case(text.splitlines()[0].lstrip("# "), read_sections(text))


def packages(section: Section) -> list[Pkg]:
    """Return the packages of a section."""
    return [Pkg(nevra, said) for nevra, said in section.lines]


# ------------------------------------------------------------------------------------ metadata


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


def _evr_fields(nevra: str) -> tuple[str, str, str, str, str]:
    name, evr, arch = split_nevra(nevra)
    epoch, _, rest = evr.rpartition(":")
    version, _, release = rest.rpartition("-")
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
    name, epoch, version, release, arch = _evr_fields(package.nevra)
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
        name, epoch, version, release, arch = _evr_fields(row.nevra)
        files = "".join(f"<file>{escape(f)}</file>" for f in row.files)
        entries.append(
            f'<package pkgid="{checksum_of(repository, row)}" name={quoteattr(name)} arch="{arch}">'
            f'<version epoch="{epoch}" ver={quoteattr(version)} rel={quoteattr(release)}/>'
            f"{files}</package>"
        )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<filelists '
    head += f'xmlns="http://linux.duke.edu/metadata/filelists" packages="{len(rows)}">\n'
    return head + "\n".join(entries) + "\n</filelists>\n"


# ------------------------------------------------------------------------------------ planning


def modules_yaml(section: Section) -> str:
    """Return the module metadata of a section."""
    documents: list[dict[str, object]] = []
    for head, said in section.lines:
        module, _, stream = head.partition(":")
        if "default" in said:
            data = {"module": module, "stream": stream}
            documents.append({"document": "modulemd-defaults", "version": 1, "data": data})
        requires: dict[str, list[str]] = {"platform": ["el9"]}
        for need in _split(said.get("requires", "")):
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
            "artifacts": {"rpms": [_with_epoch(n) for n in _split(said.get("artifacts", ""))]},
        }
        documents.append({"document": "modulemd", "version": 2, "data": body})
    return yaml.safe_dump_all(documents, explicit_start=True)


def _with_epoch(nevra: str) -> str:
    name, epoch, version, release, arch = _evr_fields(nevra)
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


def installed_package(package: Pkg) -> InstalledPackage:
    """Return a package of a case as a host reports it."""
    name, epoch, version, release, arch = _evr_fields(package.nevra)
    deps = {kind: package.deps(kind) for kind in DEPENDENCIES if kind != "provides"}
    return InstalledPackage(
        name=name,
        epoch=int(epoch),
        version=version,
        release=release,
        arch=arch,
        vendor=package.vendor,
        buildtime=int(package.said.get("buildtime", 0)),
        digest="sha256:" + checksum_of("installed", package),
        provides=package.provides,
        files=package.files,
        origin=package.said.get("origin", ""),
        **deps,
    )


def inventory_of(section: Section, number: int, holds: Sequence[Section] = ()) -> Inventory:
    """Return a host's inventory."""
    host = section.words[1] if len(section.words) > 1 else f"host{number}"
    options = dict(word.split("=") for word in section.words[2:])
    found = tuple(installed_package(p) for p in packages(section))
    return Inventory(
        host=host,
        arch=options.get("arch", "x86_64"),
        cookie=host,
        kernel=options.get("kernel", ""),
        modules=tuple(filter(None, options.get("modules", "").split(","))),
        modules_disabled=tuple(filter(None, options.get("disabled", "").split(","))),
        holds=tuple(text for section in holds for text, _ in section.lines),
        packages=found,
    )


def policy_of(case: Case) -> Policy:
    """Return the lines of policy of a case."""
    lines = [
        _line(text, (section.words[1:] or ("fleet",))[0], number)
        for section in case.of("policy")
        for number, (text, _) in enumerate(section.lines)
    ]
    plain = [line for line in lines if line.kind not in ("without", "installonly_limit")]
    words = {line.kind: line.packages for line in lines if line not in plain}
    limit = int(words.get("installonly_limit", ("3",))[0])
    return Policy(lines=tuple(plain), without=words.get("without", ()), installonly_limit=limit)


def _line(row: str, place: str, number: int) -> Line:
    """Return one line of policy as it would stand at a place."""
    kind, _, names = row.partition(":")
    names, _, to = names.partition(" to ")
    vendors = tuple(word.replace("_", " ") for word in to.split()) if kind == "vendors" else ()
    return Line(
        kind=kind,
        packages=tuple(names.split()),
        where=f"{'' if place == 'fleet' else f'{place}.'}policy[{number}]",
        to="" if vendors else to,
        rank=2 * PLACES.index(place),
        vendors=vendors,
    )


def request_of(case: Case) -> Request:
    """Return what a case asks for."""
    words: dict[str, list[str]] = {}
    for section in case.of("request"):
        for row, _ in section.lines:
            kind, _, spec = row.partition(":")
            words.setdefault(kind, []).append(spec.strip())
    flags = {key: key in words for key in ("strict", "sync", "security", "minimal")}
    lists = ("upgrade", "install", "remove", "exclude", "lock", "advisory", "severity")
    return Request(**flags, **{key: tuple(words.get(key, ())) for key in lists})


def advisories_of(case: Case) -> tuple[Advisory, ...]:
    """Return the advisories of a case."""
    return tuple(
        Advisory(
            id=section.words[1],
            type=next((w[5:] for w in section.words if w.startswith("type=")), ""),
            severity=next((w[9:] for w in section.words if w.startswith("severity=")), ""),
            cves=tuple(w for w in section.words if w.startswith("CVE-")),
            reboot="reboot" in section.words,
            packages=tuple(nevra for nevra, _ in section.lines),
        )
        for section in case.of("advisory")
    )


def channel_of(case: Case, directory: Path) -> ChannelInput:
    """Write a case's repositories and return all that a plan needs."""
    hosts = case.of("installed")
    modules = {section.words[1]: section for section in case.of("modules")}
    return ChannelInput(
        channel="el9-x86_64",
        snapshot="s-case",
        sources=tuple(
            source_of(section, directory, modules.get(section.words[1]))
            for section in case.of("repo")
        ),
        inventories=tuple(inventory_of(s, n, case.of("holds")) for n, s in enumerate(hosts, 1)),
        advisories=advisories_of(case),
        policy=policy_of(case),
    )


def plan_case(case: Case, directory: Path) -> Plan:
    """Plan a case."""
    return plan_hosts([channel_of(case, directory)], request=request_of(case), cache=None)


# ------------------------------------------------------------------------------------ expecting


def shown(transaction: Transaction) -> Iterator[tuple[str, str, str]]:
    """Yield each action as a case writes it, its reason, its advisories."""
    for action in transaction.actions:
        text = f"{action.action.value} {action.nevra}"
        text += f" from {action.from_}" if action.from_ else ""
        yield text, action.reason.value, " ".join(action.advisories)


def compare_actions(section: Section | None, transaction: Transaction) -> None:
    """Fail when the actions are not those expected."""
    found = list(shown(transaction))
    wanted = [line for line, _ in section.lines] if section else []
    told = []
    for line in wanted:
        text, _, rest = line.partition(" (")
        reason, _, advisories = rest.partition(")")
        told.append((text, reason, advisories.strip()))
    told.sort()
    found.sort()
    assert [t[0] for t in found] == [t[0] for t in told]
    for (text, reason, advisories), (_, wanted_reason, wanted_advisories) in zip(
        found, told, strict=True
    ):
        if wanted_reason:
            assert (text, reason) == (text, wanted_reason)
        if wanted_advisories:
            assert (text, advisories) == (text, wanted_advisories)


def compare_held(section: Section | None, transaction: Transaction) -> None:
    """Fail when what is held is not what is expected."""
    found = {f"{h.nevra} -> {h.candidate} {h.reason.value}": h.detail for h in transaction.held}
    wanted: dict[str, str] = {}
    for line, _ in section.lines if section else ():
        head, _, words = line.partition(": ")
        wanted[head] = words
    assert sorted(found) == sorted(wanted), found
    for head, words in wanted.items():
        assert words in found[head], found[head]


def check_case(case: Case, plan: Plan) -> None:
    """Fail when a plan is not what its case expects of each host."""
    for host in sorted({*plan.hosts, *plan.failed}):
        check_host(case, plan, host)


def _section_for(case: Case, kind: str, host: str) -> Section | None:
    for section in case.of(kind):
        named = section.words[2:] if kind == "failed" else section.words[1:]
        if not named or host in named:
            return section
    return None


def check_host(case: Case, plan: Plan, host: str) -> None:
    """Fail when one host's part of a plan is not what its case expects."""
    failed = _section_for(case, "failed", host)
    if failed is None:
        assert host not in plan.failed, plan.failed[host].causes
        transaction = plan.transactions[plan.hosts[host]]
        compare_actions(_section_for(case, "expect", host), transaction)
        compare_held(_section_for(case, "held", host), transaction)
        return
    assert host in plan.failed, [a.nevra for a in plan.transactions[plan.hosts[host]].actions]
    assert plan.failed[host].error.value == failed.words[1], plan.failed[host].causes
    for words, _ in failed.lines:
        assert words in "\n".join(plan.failed[host].causes)
