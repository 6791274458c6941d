"""How a host differs from what a class or a snapshot offers it.

Invariants: nothing is changed and no host is asked; only what the host has is compared, with the
newest of that name and architecture that is for its class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.commands.alike import versions_of
from cpacman.commands.context import Context
from cpacman.commands.fleet import place_all
from cpacman.commands.offering import offered
from cpacman.depot.snapshot import Snapshot, load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import Advisory
from cpacman.planner.actions import split_nevra
from cpacman.planner.solver import Versions


class Thing(NamedTuple):
    """What was named: its kind and its whole id."""

    kind: str
    id: str


def fixes_of(advisories: Iterable[Advisory]) -> Callable[[str, str, Iterable[str]], list[str]]:
    """Return a function that tells which advisories deliver versions of a name and architecture."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for one in advisories:
        for nevra in one.packages:
            name, evr, arch = split_nevra(nevra)
            found.setdefault((name, evr, arch), set()).add(one.id)

    def tell(name: str, arch: str, versions: Iterable[str]) -> list[str]:
        return sorted(set().union(*(found.get((name, evr, arch), set()) for evr in versions)))

    return tell


def offer_and_host(context: Context, a: Thing, b: Thing) -> dict[str, Any]:
    """Tell how a host differs from a class's or a snapshot's offer, in the order they were named.

    Raises:
        UsageError: the class holds nothing of the host's channel.
    """
    host, offer = (a, b) if a.kind == "host" else (b, a)
    place = place_all(context, [host.id]).placements[host.id].host
    snapshot = _snapshot(context, offer, place.channel)
    seen = offered(context.settings, snapshot, offer.id if offer.kind == "class" else place.class_)
    (inventory,) = context.store.inventories([host.id]).values()
    rows = _rows(seen, versions_of(inventory.packages), turned=a is host)
    sides = {
        "host": {"id": host.id, "channel": place.channel},
        offer.kind: {"id": offer.id, "channel": seen.channel, "snapshot": seen.id},
    }
    return {"a": sides[a.kind], "b": sides[b.kind], **rows}


def _snapshot(context: Context, offer: Thing, channel: str) -> Snapshot:
    number: str | None = offer.id
    if offer.kind == "class":
        pointer = context.store.pointers().get((offer.id, channel))
        number = pointer["snapshot"] if pointer else None
    if number is None:
        words = f"holds no snapshot of {channel or 'the channel of that host'}"
        raise UsageError(Problem(offer.id, words, "compare with a snapshot: s-..."))
    return load_snapshot(context.settings.depot, number)


def _rows(
    seen: Snapshot, installed: Mapping[tuple[str, str], Sequence[str]], *, turned: bool
) -> dict[str, list[dict[str, Any]]]:
    """Return what only the host has, and what it has in another version."""
    newest = _newest(seen)
    tell = fixes_of(seen.advisories)
    alone, other = [], []
    for (name, arch), have in sorted(installed.items()):
        best = newest.get((name, arch))
        if best in have:
            continue
        sides = [[best] if best else [], list(have)]
        before, after = sides[::-1] if turned else sides
        row = {"name": name, "arch": arch, "before": before, "after": after}
        if best:
            other.append({**row, "advisories": tell(name, arch, [best])})
        else:
            alone.append(row)
    added, removed = ([], alone) if turned else (alone, [])
    return {"added": added, "removed": removed, "updated": other}


def _newest(seen: Snapshot) -> dict[tuple[str, str], str]:
    order = functools.cmp_to_key(Versions().compare)
    found: dict[tuple[str, str], set[str]] = {}
    for one in seen.packages:
        found.setdefault((one.name, one.arch), set()).add(one.evr)
    return {key: max(evrs, key=order) for key, evrs in found.items()}
