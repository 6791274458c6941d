"""libsolv's own objects as all of this package makes them: pools, solvers, dependencies, versions.

Invariant: every pool has rpm's rules, every solver libdnf's flags.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import solv

from cpacman.model import Dependency

INSTALL_ONLY = (
    "kernel",
    "kernel-PAE",
    "kernel-core",
    "kernel-modules",
    "kernel-modules-core",
    "kernel-modules-extra",
    "kernel-devel",
    "kernel-debug",
    "kernel-rt",
    "kernel-uek",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
)
"""Packages with one of these among their provides stand side by side and are never replaced."""

_FLAGS = {
    "=": solv.REL_EQ,
    "<": solv.REL_LT,
    ">": solv.REL_GT,
    "<=": solv.REL_LT | solv.REL_EQ,
    ">=": solv.REL_GT | solv.REL_EQ,
}

DEPENDENCIES = (
    ("provides", solv.SOLVABLE_PROVIDES),
    ("requires", solv.SOLVABLE_REQUIRES),
    ("conflicts", solv.SOLVABLE_CONFLICTS),
    ("obsoletes", solv.SOLVABLE_OBSOLETES),
    ("recommends", solv.SOLVABLE_RECOMMENDS),
    ("suggests", solv.SOLVABLE_SUGGESTS),
    ("supplements", solv.SOLVABLE_SUPPLEMENTS),
    ("enhances", solv.SOLVABLE_ENHANCES),
)


def new_pool(arch: str | None) -> Any:
    """Return a pool with rpm's rules; without an arch packages of every one count."""
    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    if arch is not None:
        pool.setarch(arch)
    for flag in (
        solv.Pool.POOL_FLAG_OBSOLETEUSESCOLORS,
        solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS,
        solv.Pool.POOL_FLAG_WHATPROVIDESWITHDISABLED,
    ):
        pool.set_flag(flag, 1)
    return pool


def new_solver(pool: Any, *, weak: bool) -> Any:
    """Return a solver with libdnf's flags. Changes of vendor are hidden before, not refused here.

    libsolv takes an empty vendor for a vendor of its own, while a host whose inventory lacks the
    field has merely not told it; so the rule is applied to candidates, where the two differ.
    """
    solver = pool.Solver()
    for flag in (
        solv.Solver.SOLVER_FLAG_ALLOW_VENDORCHANGE,
        solv.Solver.SOLVER_FLAG_KEEP_ORPHANS,
        solv.Solver.SOLVER_FLAG_BEST_OBEY_POLICY,
        solv.Solver.SOLVER_FLAG_YUM_OBSOLETES,
    ):
        solver.set_flag(flag, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, 0 if weak else 1)
    return solver


def dep_id(pool: Any, dep: Dependency) -> int:
    """Return the pool's id of a dependency as inventories have it."""
    name, flags, evr = dep
    if name.startswith("(") and (rich := pool.parserpmrichdep(name)) is not None:
        return int(rich.id)
    known: int = pool.str2id(name)
    if flags in _FLAGS:
        known = pool.rel2id(known, pool.str2id(evr), _FLAGS[flags])
    return known


class Versions:
    """The order of versions as rpm has it, by libsolv itself."""

    def __init__(self) -> None:
        pool = new_pool(None)
        repo = pool.add_repo("versions")
        self._pool = pool
        self._left, self._right = repo.add_solvable(), repo.add_solvable()
        self._known: dict[tuple[str, str], int] = {}

    def compare(self, left: str, right: str) -> int:
        """Return -1, 0 or 1 as `left` is older than, equal to or newer than `right`."""
        known = self._known.get((left, right))
        if known is None:
            self._left.evr, self._right.evr = left, right
            known = self._known[left, right] = self._left.evrcmp(self._right)
        return known

    @functools.cached_property
    def key(self) -> Callable[[str], Any]:
        """A sort key for `[epoch:]version-release` texts."""
        return functools.cmp_to_key(self.compare)


def asked_names(dep: str) -> Iterator[str]:
    """Yield the names that a dependency's text asks for; of a rich one more than those."""
    if not dep.startswith("("):
        yield dep.split(" ", 1)[0]
        return
    for word in dep.split():
        # Parentheses belong to names, too: (a()(64bit) if b).
        name = word.lstrip("(")
        yield name
        while name.endswith(")"):
            name = name[:-1]
            yield name
