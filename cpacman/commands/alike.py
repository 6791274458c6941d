"""Which hosts of a group are equal, and how the odd ones differ from the others.

Invariant: a fingerprint is a hash of NEVRAs alone: equal ones mean the same packages, on one host
or on all hosts of a group, whenever and by whomever they were installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, by_channel, select
from cpacman.model import InstalledPackage, Inventory, Plan
from cpacman.report.table import group_hosts
from cpacman.rollout.manifest import nevras_digest, nevras_of

Versions = Mapping[tuple[str, str], tuple[str, ...]]


def class_groups(context: Context, class_: str) -> dict[str, Any]:
    """Return channel -> how alike its hosts of a class are."""
    hosts = select(context, Selection(class_=class_)).hosts
    return {
        channel: group(context.store.inventories(names), names)
        for channel, names in sorted(by_channel(hosts.values()).items())
    }


def plan_groups(context: Context, plan: Plan) -> dict[str, Any]:
    """Return the letter of each group of a plan -> how alike its hosts are now."""
    inventories = context.store.inventories(sorted(plan.hosts))
    return {one.letter: group(inventories, one.hosts) for one in group_hosts(plan)}


def group(inventories: Mapping[str, Inventory], hosts: Iterable[str]) -> dict[str, Any]:
    """Return the fingerprint of a group, and its sets of equal hosts, the largest first.

    Every set but the first tells how it differs from that.
    """
    names = sorted(hosts)
    found: dict[str, list[str]] = {}
    digests: dict[int, str] = {}
    for name in (name for name in names if name in inventories):
        packages = inventories[name].packages
        if id(packages) not in digests:
            digests[id(packages)] = nevras_digest(nevras_of(inventories[name]))
        found.setdefault(digests[id(packages)], []).append(name)
    order = sorted(found, key=lambda digest: (-len(found[digest]), found[digest]))
    usual = versions_of(inventories[found[order[0]][0]].packages) if order else {}
    return {
        "fingerprint": order[0] if len(order) == 1 else nevras_digest(order),
        "hosts": len(names),
        "unknown": [name for name in names if name not in inventories],
        "sets": [
            _set(digest, found[digest], inventories, usual, first=number == 0)
            for number, digest in enumerate(order)
        ],
    }


def _set(
    digest: str,
    hosts: list[str],
    inventories: Mapping[str, Inventory],
    usual: Versions,
    *,
    first: bool,
) -> dict[str, Any]:
    packages = inventories[hosts[0]].packages
    body = {"fingerprint": digest, "hosts": hosts, "packages": len(packages)}
    return body if first else {**body, **changes_between(usual, versions_of(packages))}


def versions_of(packages: Iterable[InstalledPackage]) -> Versions:
    """Return (name, arch) -> the versions that are installed."""
    found: dict[tuple[str, str], list[str]] = {}
    for package in packages:
        found.setdefault((package.name, package.arch), []).append(package.evr)
    return {key: tuple(sorted(evrs)) for key, evrs in found.items()}


def changes_between(before: Versions, after: Versions) -> dict[str, list[dict[str, Any]]]:
    """Return what was added, removed and updated, as rows."""
    rows: dict[str, list[dict[str, Any]]] = {"added": [], "removed": [], "updated": []}
    for name, arch in sorted(before.keys() | after.keys()):
        old, new = before.get((name, arch), ()), after.get((name, arch), ())
        if old != new:
            what = "updated" if old and new else "added" if new else "removed"
            row = {"name": name, "arch": arch, "before": list(old), "after": list(new)}
            rows[what].append(row)
    return rows
