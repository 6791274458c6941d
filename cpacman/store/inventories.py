"""Inventories: a row for each host, for each distinct set of packages, and for each package.

Invariant: an inventory that is read equals the one that was put, whatever hosts share.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cpacman.model import (
    InstalledPackage,
    Inventory,
    InventoryRef,
    inventory_digest,
    package_hash,
    packages_digest,
)
from cpacman.store.engine import Database
from cpacman.store.packed import Assembler, Members, members_of, without_collector
from cpacman.store.rows import insert_all_missing, pack, parts, unpack
from cpacman.store.tables import inventories_table, packages_table, sets_table

_MOST_PACKAGES = 20_000
"""Details of packages that one open store remembers: some 100 MB."""


class Inventories(Database):
    """What hosts reported."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._packages: dict[str, tuple[int, InstalledPackage]] = {}

    def unknown_packages(self, keys: Iterable[str]) -> list[str]:
        """Return those keys whose details are not in the store, sorted."""
        wanted = set(keys)
        return sorted(wanted - set(self._package_ids(wanted)))

    def _package_ids(self, digests: Iterable[str]) -> dict[str, int]:
        p = packages_table.c
        found: dict[str, int] = {}
        with self._read() as connection:
            for part in parts(sorted(digests)):
                rows = connection.execute(sa.select(p.digest, p.id).where(p.digest.in_(part)))
                found.update((row[0], row[1]) for row in rows)
        return found

    def add_packages(self, packages: Mapping[str, InstalledPackage]) -> None:
        """Keep the details of installed packages, one row for each key: a digest and a seal."""
        if packages.keys() <= self._packages.keys():
            return
        known = self._package_ids(packages)
        rows = [
            {"digest": key, "detail": pack(_without_host(package))}
            for key, package in sorted(packages.items())
            if key not in known
        ]
        if rows:
            with self._write() as connection:
                insert_all_missing(connection, packages_table, "digest", rows)

    def put_inventory(
        self, inventory: Inventory, *, at: float, keys: Mapping[str, str] | None = None
    ) -> None:
        """Keep what a host reported; equal sets of packages share one row.

        Args:
            inventory: the whole of it.
            at: when it was taken.
            keys: digest -> key of the package's details, where it is not the digest itself.
        """
        self.put_inventories([inventory], at=at, keys={inventory.host: keys or {}})

    def put_inventories(
        self,
        inventories: Sequence[Inventory],
        *,
        at: float,
        keys: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Keep what hosts reported, all or none of it; what they have in common is done once.

        Args:
            inventories: the whole of each; of one host the last word counts.
            at: when they were taken.
            keys: host -> its `keys`, as for one inventory.
        """
        latest = {one.host: one for one in inventories}
        keys_of = {host: (keys or {}).get(host, {}) for host in latest}
        fresh: dict[str, InstalledPackage] = {}
        hashes: dict[int, bytes] = {}
        for host, one in latest.items():
            for package in one.packages:
                if id(package) not in hashes or keys_of[host]:
                    hashes.setdefault(id(package), package_hash(package))
                    _keep_plainest(
                        fresh, keys_of[host].get(package.digest, package.digest), package
                    )
        self.add_packages(fresh)
        rows = self._package_rows(fresh)
        sets: dict[str, bytes] = {}
        hosts: list[tuple[str, dict[str, Any]]] = []
        for host, one in latest.items():
            known = packages_digest(hashes[id(p)] for p in one.packages)
            digest = inventory_digest(one, known)
            if digest not in sets:
                own = {p.digest: keys_of[host].get(p.digest, p.digest) for p in one.packages}
                sets[digest] = members_of(one.packages, {d: rows[key] for d, key in own.items()})
            head = pack(msgspec.structs.replace(one, packages=()))
            hosts.append((digest, {"host": host, "cookie": one.cookie, "head": head, "taken": at}))
        self._put_sets(sets, hosts)

    def _put_sets(
        self, sets: Mapping[str, bytes], hosts: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        """Write sets of packages and the hosts that have them, given with their set's digest."""
        s, i = sets_table, inventories_table
        ids: dict[str, int] = {}
        with self._write() as connection:
            new = [{"digest": digest, "members": blob} for digest, blob in sorted(sets.items())]
            insert_all_missing(connection, s, "digest", new)
            for part in parts(sorted(sets)):
                query = sa.select(s.c.digest, s.c.id).where(s.c.digest.in_(part))
                ids.update((row[0], row[1]) for row in connection.execute(query))
            for part in parts(sorted({row["host"] for _, row in hosts})):
                connection.execute(i.delete().where(i.c.host.in_(part)))
            rows = [{**row, "set_id": ids[digest]} for digest, row in hosts]
            if rows:
                connection.execute(i.insert(), rows)

    def renew_inventory(self, head: Inventory, *, at: float) -> None:
        """Keep a host's new head; its packages are unchanged."""
        i = inventories_table
        with self._write() as connection:
            row = {"head": pack(head), "taken": at}
            connection.execute(i.update().where(i.c.host == head.host).values(row))

    def inventory_heads(self) -> dict[str, tuple[Inventory, float]]:
        """Return host -> (inventory without packages, when it was taken)."""
        i = inventories_table.c
        rows = self._rows(sa.select(i.host, i.head, i.taken))
        return {r["host"]: (unpack(r["head"], Inventory), r["taken"]) for r in rows}

    def inventories(self, hosts: Sequence[str]) -> dict[str, Inventory]:
        """Return the inventories of those hosts that have one; equal sets are read once."""
        i, s = inventories_table.c, sets_table.c
        found: dict[str, tuple[int, bytes]] = {}
        sets: dict[int, bytes] = {}
        with self._read() as connection:
            for part in parts(sorted(hosts)):
                query = sa.select(i.host, i.set_id, i.head).where(i.host.in_(part))
                found.update({h: (set_id, head) for h, set_id, head in connection.execute(query)})
            for part in parts(sorted({set_id for set_id, _ in found.values()})):
                query = sa.select(s.id, s.members).where(s.id.in_(part))
                sets.update((row[0], row[1]) for row in connection.execute(query))
        with without_collector():
            members = {number: unpack(blob, Members) for number, blob in sets.items()}
            numbers = {n for one in members.values() for n in array("I", one.ids)}
            assembler = Assembler(self._details(numbers))
            packages = {number: assembler.packages_of(one) for number, one in members.items()}
            return {
                host: msgspec.structs.replace(unpack(head, Inventory), packages=packages[set_id])
                for host, (set_id, head) in found.items()
            }

    def references(self, hosts: Sequence[str]) -> dict[str, InventoryRef]:
        """Return under which digest the packages of hosts are kept, also when they have others."""
        i, s = inventories_table, sets_table
        joined = i.join(s, i.c.set_id == s.c.id)
        found: dict[str, InventoryRef] = {}
        with self._read() as connection:
            for part in parts(sorted(hosts)):
                query = sa.select(i.c.host, s.c.digest, i.c.cookie).select_from(joined)
                rows = connection.execute(query.where(i.c.host.in_(part)))
                found.update({h: InventoryRef(digest=d, cookie=c) for h, d, c in rows})
        return found

    def package_sets(self, digests: Iterable[str]) -> dict[str, tuple[InstalledPackage, ...]]:
        """Return digest -> packages of those sets that any host has or had."""
        s = sets_table.c
        found: dict[str, Members] = {}
        with self._read() as connection:
            for part in parts(sorted(set(digests))):
                query = sa.select(s.digest, s.members).where(s.digest.in_(part))
                rows = connection.execute(query)
                found.update({digest: unpack(blob, Members) for digest, blob in rows})
        numbers = {n for one in found.values() for n in array("I", one.ids)}
        assembler = Assembler(self._details(numbers))
        return {digest: assembler.packages_of(one) for digest, one in found.items()}

    def _details(self, numbers: set[int]) -> dict[int, InstalledPackage]:
        p = packages_table.c
        found: dict[int, InstalledPackage] = {}
        with self._read() as connection:
            for part in parts(sorted(numbers)):
                query = sa.select(p.id, p.detail).where(p.id.in_(part))
                for number, blob in connection.execute(query):
                    found[number] = unpack(blob, InstalledPackage)
        return found

    def _package_rows(self, keys: Iterable[str]) -> dict[str, tuple[int, InstalledPackage]]:
        """Return key -> (id, details) of the known ones; those rows never change."""
        wanted = set(keys)
        if missing := wanted - self._packages.keys():
            ids = self._package_ids(missing)
            details = self._details(set(ids.values()))
            if len(self._packages) + len(ids) > _MOST_PACKAGES:
                kept = wanted & self._packages.keys()
                self._packages = {key: self._packages[key] for key in kept}
            self._packages.update({key: (n, details[n]) for key, n in ids.items()})
        return {key: self._packages[key] for key in wanted & self._packages.keys()}

    def packages(self, keys: Iterable[str]) -> dict[str, InstalledPackage]:
        """Return key -> details of those installed packages that the store knows."""
        return {key: details for key, (_, details) in self._package_rows(keys).items()}


def _keep_plainest(found: dict[str, InstalledPackage], key: str, package: InstalledPackage) -> None:
    """Keep a package's details for all hosts: files that one of them was asked for are its own."""
    known = found.setdefault(key, package)
    if len(package.files) < len(known.files):
        found[key] = package


def _without_host(package: InstalledPackage) -> InstalledPackage:
    return msgspec.structs.replace(package, installtime=0, reason="", origin="")
