"""The distinct packages of many hosts, and the shadow of their repo that counts as installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import solv

from cpacman.model import Dependency, InstalledPackage
from cpacman.planner.solver.pools import DEPENDENCIES, asked_names, dep_id


class Installed:
    """The distinct packages of a chunk of hosts, and the shadow that counts as installed."""

    def __init__(
        self,
        pool: Any,
        packages: Iterable[InstalledPackage],
        dep_ids: dict[Dependency, int],
        asked: frozenset[str] | None,
    ) -> None:
        self._pool = pool
        self._dep_ids = dep_ids
        # Most hosts share the objects, too: each is looked at once, and kept so that its id stays.
        self._objects = {id(p): p for p in packages}
        contents = {key: _content(p) for key, p in self._objects.items()}
        distinct = {contents[key]: p for key, p in self._objects.items()}
        order = sorted(distinct, key=lambda c: (_order(distinct[c]), c))
        self._repo = pool.add_repo("installed on some host")
        self._packages = [distinct[content] for content in order]
        self._asked = None if asked is None else asked | self._asked_here()
        ids = [self._add(package) for package in self._packages]
        self._ids = dict(zip(order, ids, strict=True))
        self._by_object = {key: self._ids[content] for key, content in contents.items()}
        self.range = range(ids[0], ids[-1] + 1) if ids else range(0)
        rows = list(zip(ids, self._packages, strict=True))
        self.names = {i: package.name for i, package in rows}
        self.arches = {i: package.arch or "noarch" for i, package in rows}
        self.recommending = frozenset(i for i, package in rows if package.recommends)

    def _asked_here(self) -> set[str]:
        """Return the names that the hosts' own packages ask for."""
        fields = [field for field, _ in DEPENDENCIES if field != "provides"]
        deps = {dep[0] for p in self._packages for field in fields for dep in getattr(p, field)}
        return {name for dep in deps for name in asked_names(dep)}

    def _add(self, package: InstalledPackage) -> int:
        solvable = self._repo.add_solvable()
        solvable.name, solvable.evr = package.name, package.evr
        solvable.arch = package.arch or "noarch"
        if package.vendor:
            solvable.vendor = package.vendor
        for field, key in DEPENDENCIES:
            deps = self._provides(package) if field == "provides" else getattr(package, field)
            for dep in deps:
                solvable.add_deparray(key, self._dep_id(dep))
        added: int = solvable.id
        return added

    def _provides(self, package: InstalledPackage) -> list[Dependency]:
        """Return what a package provides, itself included, as far as anybody asks for it."""
        itself = (package.name, "=", package.evr)
        asked = self._asked
        rest = (d for d in package.provides if asked is None or d[0] in asked)
        return [itself, *(d for d in rest if d != itself)]

    def _dep_id(self, dep: Dependency) -> int:
        if (known := self._dep_ids.get(dep)) is None:
            known = self._dep_ids[dep] = dep_id(self._pool, dep)
        return known

    def provide_files(self, wanted: set[str]) -> None:
        """Let packages provide those of their files that a dependency names."""
        for i, package in zip(self.range, self._packages, strict=True):
            for path in wanted.intersection(package.files):
                dep = self._pool.str2id(path)
                self._pool.id2solvable(i).add_deparray(solv.SOLVABLE_PROVIDES, dep)

    def close(self) -> None:
        """Finish filling: from now on packages only move between repo and shadow."""
        self._repo.internalize()
        self._shadow = self._repo.createshadow("@System")
        self._pool.installed = self._shadow
        self._shadow.moveshadow(list(self.range))

    def ids_of(self, packages: Iterable[InstalledPackage]) -> dict[str, int]:
        """Return NEVRA -> id of one host's packages."""
        known = self._by_object
        return {p.nevra: known.get(id(p)) or self._ids[_content(p)] for p in packages}

    def show(self, ids: Iterable[int]) -> None:
        """Make a host's packages, and no others, the installed ones."""
        self.hide(self.range)
        self._shadow.moveshadow(list(ids))

    def hide(self, ids: Iterable[int]) -> None:
        """Take packages out of what counts as installed."""
        self._repo.moveshadow(list(ids))

    def drop(self) -> None:
        """Forget the chunk."""
        self._pool.installed = None
        self._repo.moveshadow(list(self.range))
        self._shadow.free(True)
        self._repo.free(True)


def _order(package: InstalledPackage) -> tuple[str, str, str, str]:
    return (package.name, package.arch, package.evr, package.digest)


def _content(package: InstalledPackage) -> bytes:
    """Return the bytes of all that matters for solving.

    The digest alone would not do: two hosts may lie differently about one.
    """
    fields = (getattr(package, field) for field, _ in DEPENDENCIES)
    head = (*_order(package), package.vendor, package.buildtime, package.origin, package.files)
    return msgspec.msgpack.encode((*head, *fields))
