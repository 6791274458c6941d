"""Inventories with what the journal knows of where packages came from: pure.

Invariant: packages that are equal, of an equal origin, stay one and the same object on all hosts.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cpacman.model import InstalledPackage, Inventory


def with_origins(
    inventories: Mapping[str, Inventory], origins: Mapping[str, Mapping[str, str]]
) -> dict[str, Inventory]:
    """Return host -> inventory, whose packages say from which repository they came.

    Args:
        inventories: host -> what it reported.
        origins: host -> NEVRA -> repository.
    """
    packages: dict[tuple[int, str], InstalledPackage] = {}
    sets: dict[tuple[int, int], tuple[InstalledPackage, ...]] = {}

    def placed(package: InstalledPackage, known: Mapping[str, str]) -> InstalledPackage:
        repository = known.get(package.nevra, "")
        if not repository:
            return package
        key = (id(package), repository)
        if key not in packages:
            packages[key] = msgspec.structs.replace(package, origin=repository)
        return packages[key]

    found = dict(inventories)
    for host, known in origins.items():
        if host in found:
            own = found[host].packages
            key = (id(own), id(known))
            if key not in sets:
                sets[key] = tuple(placed(package, known) for package in own)
            found[host] = msgspec.structs.replace(found[host], packages=sets[key])
    return found
