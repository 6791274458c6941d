"""What is wrong with what a host has installed, whatever any repository offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import solv

from cpacman.model import InstalledPackage
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.solver.installed import Installed
from cpacman.planner.solver.pools import new_pool, new_solver


def broken_dependencies(packages: Iterable[InstalledPackage], arch: str) -> list[str]:
    """Return a line for each requirement that is not met and each conflict among packages.

    A requirement of a path that inventories do not list is no finding: nobody asked the host.
    """
    pool = new_pool(arch)
    installed = Installed(pool, map(_judgeable, packages), {}, None)
    installed.provide_files({pool.id2str(i) for i in pool.addfileprovides_queue()})
    installed.close()
    pool.createwhatprovides()
    installed.show(installed.range)
    verify = solv.Job.SOLVER_VERIFY | solv.Job.SOLVER_SOLVABLE_ALL
    solver = new_solver(pool, weak=False)  # problems live no longer than their solver
    problems = solver.solve([pool.Job(verify, 0)])
    # The solver stops at the first finding of a package, and alone understands rich dependencies.
    found = {rule.info().problemstr() for one in problems for rule in one.findallproblemrules()}
    return sorted(found.union(_unmet(pool, installed)))


def _judgeable(package: InstalledPackage) -> InstalledPackage:
    known = tuple(d for d in package.requires if not d[0].startswith("/") or is_in_primary(d[0]))
    return msgspec.structs.replace(package, requires=known)


def _unmet(pool: Any, installed: Installed) -> Iterator[str]:
    for number in installed.range:
        solvable = pool.id2solvable(number)
        for dep in solvable.lookup_deparray(solv.SOLVABLE_REQUIRES):
            if not str(dep).startswith("(") and not pool.whatprovides(dep):
                yield f"nothing provides {dep} needed by {solvable}"
