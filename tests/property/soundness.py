"""Which of some packages could be installed together: plain requirements, conflicts, obsoletes.

Invariant: written without the planner's code but for the order of versions. Rich dependencies
are taken for met: they make some hosts unsound, as some are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cpacman.model import Dependency
from cpacman.planner.solver import Versions
from tests.unit.planner.casefile import Pkg

if TYPE_CHECKING:
    from tests.property.families import Build

_VERSIONS = Versions()


def compare(left: str, right: str) -> int:
    """Return the order of two versions; a release that one of them lacks does not count."""
    if "-" not in right or "-" not in left:
        left, right = left.partition("-")[0], right.partition("-")[0]
    return _VERSIONS.compare(left, right)


def meets(provide: Dependency, need: Dependency) -> bool:
    """Return whether something that is provided meets a plain dependency."""
    if provide[0] != need[0]:
        return False
    if not need[1]:
        return True
    if not provide[1]:
        return False
    order = compare(provide[2], need[2])
    return "<=>"[order + 1] in need[1]


def is_met(need: Dependency, packages: Iterable[Pkg]) -> bool:
    """Return whether some packages meet a dependency."""
    if need[0].startswith("("):
        return True
    if need[0].startswith("/"):
        return any(need[0] in p.files for p in packages)
    return any(meets(provide, need) for p in packages for provide in p.provides)


def sound(builds: Sequence[Build], more: Sequence[Build], *, broken: bool) -> list[Build]:
    """Return the builds that can stand together, with those of `more` that they need.

    With `broken` some may lack something.
    """
    found: list[Build] = []
    for build in builds:
        if _fits(build, found):
            found.append(build)
    while not broken:
        unmet = [(build, need) for build in found for need in _unmet(build, found)]
        if not unmet:
            break
        build, need = unmet[0]
        helping = (b for b in more if is_met(need, [b.pkg]) and _fits(b, found))
        if (helper := next(helping, None)) and not need[0].startswith("/"):
            found.append(helper)
        else:
            found.remove(build)
            more = [b for b in more if b.name != build.name]
    return found


def _unmet(build: Build, found: Sequence[Build]) -> list[Dependency]:
    here = [b.pkg for b in found]
    return [need for need in build.pkg.deps("requires") if not is_met(need, here)]


def _fits(build: Build, found: Sequence[Build]) -> bool:
    """Return whether a build can stand beside others: once of each name, nothing excluded."""
    kin = [b for b in found if b.name == build.name]
    if any(b.evr != build.evr or b.arch == build.arch for b in kin) and not _is_kernel(build):
        return False
    return not any(_exclude(build, other) or _exclude(other, build) for other in found)


def _is_kernel(build: Build) -> bool:
    return build.name.startswith("kernel")


def _exclude(one: Build, other: Build) -> bool:
    """Return whether one conflicts with another, or obsoletes it; nothing excludes itself."""
    if one.name == other.name:
        return False
    conflicts = any(meets(p, d) for d in one.pkg.deps("conflicts") for p in other.pkg.provides)
    itself = other.pkg.provides[0]
    return conflicts or any(meets(itself, d) for d in one.pkg.deps("obsoletes"))
