"""Which packages of repositories matter to one host's plan, so that a case stays small.

Invariant: what is left out is named by nothing that is kept, neither as a name, an obsoleted one, a
requirement nor a weak one. Whether that was enough is for who replays the case to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cpacman.model import Dependency, InstalledPackage
from cpacman.planner.actions import split_nevra
from cpacman.planner.ruling import forms, matches
from cpacman.planner.solver import Source, asked_names
from cpacman.planner.solver.pools import INSTALL_ONLY

_FLAGS = {"EQ": "=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}
KINDS = (
    "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements",
    "enhances",
)  # fmt: skip


class Row(NamedTuple):
    """One package with all that a case can say of it."""

    nevra: str
    vendor: str
    buildtime: int
    deps: Mapping[str, tuple[Dependency, ...]]
    files: tuple[str, ...]
    origin: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return split_nevra(self.nevra)[0]

    def asked(self, kinds: Iterable[str]) -> set[str]:
        """Return the names that its dependencies of some kinds ask for."""
        return {name for kind in kinds for dep in self.deps[kind] for name in asked_names(dep[0])}


def installed_row(package: InstalledPackage) -> Row:
    """Return an installed package as a row."""
    deps = {kind: tuple(getattr(package, kind)) for kind in KINDS}
    return Row(
        package.nevra, package.vendor, package.buildtime, deps, package.files, package.origin
    )


def read_rows(source: Source) -> list[Row]:
    """Return all packages of a repository, with the files that its primary metadata lists."""
    import createrepo_c

    found: list[createrepo_c.Package] = []
    createrepo_c.xml_parse_primary(source.primary, pkgcb=found.append, do_files=True)
    return [_row(one) for one in found]


def _row(package: object) -> Row:
    """Return createrepo_c's package as a row."""
    get = package.__getattribute__
    epoch = f"{get('epoch')}:" if get("epoch") not in (None, "", "0") else ""
    nevra = f"{get('name')}-{epoch}{get('version')}-{get('release')}.{get('arch')}"
    deps = {kind: tuple(dict.fromkeys(map(_dependency, get(kind)))) for kind in KINDS}
    files = tuple(f"{folder}{name}" for _, folder, name, *_ in get("files"))
    return Row(nevra, get("rpm_vendor") or "", get("time_build"), deps, files)


def _dependency(row: Sequence[str]) -> Dependency:
    name, flags, epoch, version, release, *_ = row
    if not flags:
        return (name, "", "")
    evr = f"{version}-{release}" if release else f"{version}"
    return (name, _FLAGS[flags], f"{epoch}:{evr}" if epoch not in (None, "", "0") else evr)


def read_owners(source: Source, paths: set[str]) -> dict[str, tuple[str, ...]]:
    """Return NEVRA -> those of some paths that it owns, as the filelists tell."""
    import createrepo_c

    found: dict[str, tuple[str, ...]] = {}

    def look(package: object) -> None:
        owned = tuple(p for p in _row(package).files if p in paths)
        if owned:
            found[_row(package).nevra] = owned

    if source.filelists and paths:
        createrepo_c.xml_parse_filelists(source.filelists, pkgcb=look)
    return found


def select(
    rows: Mapping[str, Sequence[Row]], installed: Sequence[Row], words: Sequence[str]
) -> dict[str, list[Row]]:
    """Return the rows that an installed package or a word leads to, and what those lead to.

    Args:
        rows: repository -> what it has.
        installed: what the host has.
        words: what the request and lines of policy name.
    """
    every = [row for found in rows.values() for row in found]
    providers = _providers(every)
    names = {row.name for row in installed}
    start = [row for row in every if row.name in names or _is_meant(row, words)]
    start += [row for row in every if row.asked(("obsoletes", "supplements")) & names]
    kept = {id(row) for row in start}
    todo = [*start, *installed]
    while todo:
        for name in todo.pop().asked(("requires", "recommends")):
            new = [row for row in providers.get(name, ()) if id(row) not in kept]
            kept.update(map(id, new))
            todo += new
    return {name: [row for row in found if id(row) in kept] for name, found in rows.items()}


def _is_meant(row: Row, words: Sequence[str]) -> bool:
    name, evr, arch = split_nevra(row.nevra)
    own = (
        name,
        f"{name}.{arch}",
        *forms(name, evr, arch),
        *(dep[0] for dep in row.deps["provides"]),
    )
    return any(matches(one, words) for one in own) or any(word in row.files for word in words)


def _providers(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        for name in {row.name, *(dep[0] for dep in row.deps["provides"]), *row.files}:
            found.setdefault(name, []).append(row)
    return found


def trim(rows: Iterable[Row], asked: set[str]) -> list[Row]:
    """Return rows without the provides and files that nobody asks for."""
    return [
        row._replace(
            deps={**row.deps, "provides": tuple(d for d in row.deps["provides"] if d[0] in asked)},
            files=tuple(path for path in row.files if path in asked),
        )
        for row in rows
    ]


def all_asked(rows: Iterable[Row], words: Iterable[str]) -> set[str]:
    """Return every name that rows or words ask for."""
    kinds = [kind for kind in KINDS if kind != "provides"]
    return {*INSTALL_ONLY, *words}.union(*(row.asked(kinds) for row in rows))
