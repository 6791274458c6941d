"""What a case says, as the planner's own values: repositories, hosts, policy, request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cpacman.errors import InputError, Problem
from cpacman.model import Advisory, InstalledPackage, Inventory, Plan, Request
from cpacman.planner.cases.metadata import checksum_of, evr_fields, source_of
from cpacman.planner.cases.text import DEPENDENCIES, Case, Pkg, Section, packages
from cpacman.planner.lines import PLACES
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.ruling import Line, Policy


def installed_package(package: Pkg) -> InstalledPackage:
    """Return a package of a case as a host reports it."""
    name, epoch, version, release, arch = evr_fields(package.nevra)
    deps = {kind: package.deps(kind) for kind in DEPENDENCIES if kind != "provides"}
    fields = {
        "name": name,
        "epoch": int(epoch),
        "version": version,
        "release": release,
        "arch": arch,
        "vendor": package.vendor,
        "buildtime": int(package.said.get("buildtime", 0)),
        "digest": "sha256:" + checksum_of("installed", package),
        "provides": package.provides,
        "files": package.files,
        "origin": package.said.get("origin", ""),
        **deps,
    }
    return msgspec.convert(fields, InstalledPackage)


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


_SETTINGS = ("without", "installonly_limit", "weak_deps")


def policy_of(case: Case) -> Policy:
    """Return the lines of policy of a case."""
    rows = [
        _line(text, (section.words[1:] or ("fleet",))[0], number, said)
        for section in case.of("policy")
        for number, (text, said) in enumerate(section.lines)
    ]
    plain = [line for line in rows if line.kind not in _SETTINGS]
    words = {line.kind: line.packages for line in rows if line not in plain}
    limit = int(words.get("installonly_limit", ("3",))[0])
    return Policy(
        lines=tuple(plain),
        without=words.get("without", ()),
        installonly_limit=limit,
        weak_deps=words.get("weak_deps") != ("no",),
    )


def _line(row: str, place: str, number: int, said: dict[str, str]) -> Line:
    """Return one line of policy as it would stand at a place."""
    if place not in PLACES:
        raise ValueError(f"there is no place {place!r}, only {', '.join(PLACES)}")
    kind, _, names = row.partition(":")
    names, _, to = names.partition(" to ")
    vendors = tuple(word.replace("_", " ") for word in to.split()) if kind == "vendors" else ()
    return Line(
        kind=kind,
        packages=tuple(names.split()),
        where=said.get("where", f"{'' if place == 'fleet' else f'{place}.'}policy[{number}]"),
        reason=said.get("reason", ""),
        until=said.get("until", ""),
        to="" if vendors else to,
        rank=int(said.get("rank", 2 * PLACES.index(place))),
        vendors=vendors,
    )


def request_of(case: Case) -> Request:
    """Return what a case asks for."""
    words: dict[str, list[str]] = {}
    for section in case.of("request"):
        for row, _ in section.lines:
            kind, _, spec = row.partition(":")
            words.setdefault(kind, []).append(spec.strip())
    fields = {one.name: one.type for one in msgspec.structs.fields(Request)}
    if unknown := words.keys() - fields.keys():
        raise ValueError(f"a request has no {' and no '.join(sorted(unknown))}")
    said = {k: v[-1] != "no" if fields[k] is bool else v for k, v in words.items()}
    return msgspec.convert(said, Request)


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
    """Plan a case, whose metadata is written into a directory.

    Raises:
        InputError: a line of it is not what it should be.
    """
    try:
        channel, request = channel_of(case, directory), request_of(case)
    except (ValueError, KeyError, IndexError, TypeError, msgspec.ValidationError) as error:
        mend = "cpacman/planner/cases/text.py shows what a case looks like"
        what = f"a line is not what it should be: {type(error).__name__}: {error}"
        raise InputError(Problem(case.title, what, mend)) from error
    return plan_hosts([channel], request=request, cache=None)
