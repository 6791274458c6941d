"""Inventories for tests and benchmarks, made from real metadata.

Each is consistent (closed under dependencies of the versions it has), of about 700 packages, a
third to half of them outdated where the metadata has several versions. The seed is part of the
input: the same seed gives the same fleet.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import createrepo_c
import msgspec

from cpacman.model import Dependency, InstalledPackage, Inventory
from cpacman.planner.solver import Candidate, HostView, Source, Task, Universe, Verb, asked_names

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "repodata"
NAMES = ("cs9-appstream-2025-01", "cs9-baseos-2022-02")
_FLAGS = {"EQ": "=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}
_KINDS = (
    "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements",
    "enhances",
)  # fmt: skip
BASE = (
    "bash", "coreutils", "systemd", "dnf", "rpm", "openssh-server", "sudo", "glibc-langpack-en",
    "kernel", "NetworkManager", "chrony", "rsyslog", "passwd", "which", "vim-minimal", "tar",
)  # fmt: skip


def sources() -> tuple[Source, ...]:
    """Return the CentOS Stream 9 repositories.

    Raises:
        FileNotFoundError: the data is not beside the checkout.
    """
    return tuple(_source(name) for name in NAMES)


def _source(name: str) -> Source:
    folder = DATA / name / "repodata"
    found = {kind: sorted(folder.glob(f"*-{kind}.xml.gz")) for kind in ("primary", "filelists")}
    if not found["primary"]:
        raise FileNotFoundError(f"{folder} has no primary metadata")
    primary = found["primary"][0]
    return Source(
        name=name,
        primary=str(primary),
        checksum=primary.name.split("-")[0],
        filelists=str(found["filelists"][0]),
    )


def read_packages(repositories: Sequence[Source]) -> dict[str, InstalledPackage]:
    """Return NEVRA -> package, with all dependencies, as a host with it installed reports it."""
    found: dict[str, InstalledPackage] = {}
    for source in repositories:
        rows: list[createrepo_c.Package] = []
        createrepo_c.xml_parse_primary(source.primary, pkgcb=rows.append, do_files=True)
        for row in rows:
            package = _installed(row)
            found.setdefault(package.nevra, package)
    return found


def _installed(row: createrepo_c.Package) -> InstalledPackage:
    deps = {kind: tuple(map(_dependency, getattr(row, kind))) for kind in _KINDS}
    return InstalledPackage(
        name=row.name,
        epoch=int(row.epoch or 0),
        version=row.version,
        release=row.release,
        arch=row.arch,
        vendor=row.rpm_vendor or "",
        buildtime=row.time_build,
        installtime=1,
        digest=f"sha256:{row.pkgId}",
        size=row.size_installed,
        files=tuple(f"{folder}{name}" for _, folder, name, *_ in row.files),
        **deps,
    )


def _dependency(row: tuple[str, ...]) -> Dependency:
    name, flags, epoch, version, release, *_ = row
    if not flags:
        return (name, "", "")
    evr = f"{version}-{release}" if release else f"{version}"
    return (name, _FLAGS[flags], f"{epoch}:{evr}" if epoch not in (None, "", "0") else evr)


class Maker:
    """Makes inventories from a universe.

    Args:
        cache: where the solver keeps its files.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.sources = sources()
        self.packages = read_packages(self.sources)
        self.universe = Universe(self.sources, arch="x86_64", cache=cache)
        self.universe.admit(())
        self.names = sorted({p.name for p in self.packages.values() if p.arch != "i686"})

    def make(self, seed: int, *, size: int = 700) -> Inventory:
        """Return one inventory."""
        rng = random.Random(seed)
        with self.universe.host(()) as view:
            hidden = self._too_new(rng)
            chosen: set[str] = set()
            wanted = [*BASE, *rng.sample(self.names, len(self.names))]
            picked: list[Task] = []
            step = 24
            while len(chosen) < size and wanted:
                lot, wanted = wanted[:step], wanted[step:]
                picked, chosen = self._grow(view, picked, lot, hidden, chosen, size)
        rows = tuple(self.packages[nevra] for nevra in sorted(chosen))
        return Inventory(host=f"host{seed:05}", arch="x86_64", cookie=f"{seed}", packages=rows)

    def _grow(
        self,
        view: HostView,
        picked: list[Task],
        lot: Sequence[str],
        hidden: set[Candidate],
        chosen: set[str],
        size: int,
    ) -> tuple[list[Task], set[str]]:
        """Add those names of a lot that can be installed, as long as there is room."""
        for name in lot:
            offered = [c for c in self.universe.candidates(name) if c.arch != "i686"]
            visible = tuple(c for c in offered if c not in hidden)
            if not visible:
                continue
            trial = [*picked, Task(Verb.INSTALL, visible)]
            solution = view.solve(trial, hidden=hidden, weak=False)
            if solution.problems or len(solution.steps) > size + 20:
                continue
            picked = trial
            chosen = {s.new.nevra for s in solution.steps if s.new}
            if len(chosen) >= size:
                break
        return picked, chosen

    def _too_new(self, rng: random.Random) -> set[Candidate]:
        """Return the candidates this host was set up before: newer versions of some sources."""
        hidden: set[Candidate] = set()
        for name in self.names:
            versions = sorted(
                {c.evr for c in self.universe.candidates(name)}, key=self.universe.versions.key
            )
            if len(versions) > 1 and rng.random() < 0.85:
                keep = rng.randrange(1, len(versions))
                late = set(versions[keep:])
                hidden |= {c for c in self.universe.candidates(name) if c.evr in late}
        return hidden


class Variants:
    """Makes further inventories of one that is there, without some packages that nothing needs.

    What is left has all that it requires, by name: conditions of versions were met before.
    """

    def __init__(self, base: Inventory) -> None:
        self.base = base
        owners: dict[str, set[str]] = {}
        for package in base.packages:
            for name in (*(dep[0] for dep in package.provides), *package.files):
                owners.setdefault(name, set()).add(package.nevra)
        needed: set[str] = set()
        for package in base.packages:
            deps = (name for dep in package.requires for name in asked_names(dep[0]))
            found = (owners.get(name, set()) - {package.nevra} for name in deps)
            needed.update(nevra for nevras in found for nevra in nevras)
        self.leaves = [p.nevra for p in base.packages if p.nevra not in needed]

    def make(self, seed: int, host: str) -> Inventory:
        """Return one inventory, with up to 20 packages less."""
        rng = random.Random(seed)
        gone = set(rng.sample(self.leaves, rng.randrange(1, min(20, len(self.leaves)))))
        rows = tuple(p for p in self.base.packages if p.nevra not in gone)
        return msgspec.structs.replace(self.base, host=host, cookie=host, packages=rows)
