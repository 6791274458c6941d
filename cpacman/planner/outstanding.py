"""Which advisories a host still lacks: pure rules.

Invariant: an advisory is outstanding when it has a newer version of something that is installed in
that very architecture, whatever a plan would do about it: what is held back is outstanding, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cpacman.model import SEVERITIES, Advisory, InstalledPackage
from cpacman.planner.actions import split_nevra
from cpacman.planner.policy import Compare

_Named = tuple[str, str]


class Outstanding:
    """Compares what hosts have with some advisories.

    Args:
        advisories: those that count.
        compare: the order of versions.
    """

    def __init__(self, advisories: Iterable[Advisory], compare: Compare) -> None:
        self._compare = compare
        self._fixes: dict[_Named, list[tuple[str, str]]] = {}
        self._known: dict[tuple[_Named, str], tuple[str, ...]] = {}
        for advisory in advisories:
            for nevra in advisory.packages:
                name, evr, arch = split_nevra(nevra)
                self._fixes.setdefault((name, arch), []).append((evr, advisory.id))

    def of(self, packages: Sequence[InstalledPackage]) -> dict[str, set[str]]:
        """Return advisory -> names of the packages that it would renew."""
        newest: dict[_Named, str] = {}
        for package in packages:
            key = (package.name, package.arch)
            if key in self._fixes:
                old = newest.get(key)
                if old is None or self._compare(package.evr, old) > 0:
                    newest[key] = package.evr
        found: dict[str, set[str]] = {}
        for key, evr in newest.items():
            for advisory in self._missing(key, evr):
                found.setdefault(advisory, set()).add(key[0])
        return found

    def _missing(self, key: _Named, evr: str) -> tuple[str, ...]:
        """Return the advisories with a newer version of one package; the same for all hosts."""
        if (key, evr) not in self._known:
            newer = (i for fix, i in self._fixes[key] if self._compare(fix, evr) > 0)
            self._known[key, evr] = tuple(dict.fromkeys(newer))
        return self._known[key, evr]


def rank(severity: str) -> int:
    """Return the place of a severity, the worst first; one that nobody knows comes last."""
    word = severity.lower()
    return SEVERITIES.index(word) if word in SEVERITIES else len(SEVERITIES)
