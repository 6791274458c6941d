"""Which hosts have newer packages than their snapshot offers: pure.

Invariant: only a name and architecture that the snapshot has at all can tell; what it does not
know makes no host ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cpacman.model import InstalledPackage, Package


class Newest:
    """The newest version of each name and architecture that a snapshot offers.

    Args:
        packages: what it offers.
        compare: the order of two `[epoch:]version-release` texts.
    """

    def __init__(self, packages: Iterable[Package], compare: Callable[[str, str], int]) -> None:
        self._compare = compare
        self._newest: dict[tuple[str, str], str] = {}
        self._judged: dict[int, bool] = {}
        self._alive: list[InstalledPackage] = []
        for one in packages:
            known = self._newest.get((one.name, one.arch))
            if known is None or compare(one.evr, known) > 0:
                self._newest[one.name, one.arch] = one.evr

    def is_behind(self, packages: Iterable[InstalledPackage]) -> bool:
        """Return whether any of these packages is newer than what is offered.

        What several hosts have in common is one object, and looked at once.
        """
        judged = self._judged
        for package in packages:
            known = judged.get(id(package))
            if known if known is not None else self._judge(package):
                return True
        return False

    def _judge(self, package: InstalledPackage) -> bool:
        offered = self._newest.get((package.name, package.arch))
        newer = offered not in (None, package.evr) and self._compare(package.evr, str(offered)) > 0
        self._judged[id(package)] = newer
        self._alive.append(package)
        return newer
