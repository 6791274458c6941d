"""The order of hosts within a level: neighbours of one rack or role do not go together. Pure.

Invariant: every host stands once in the order, and the same hosts always stand in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any


def spread_hosts(
    hosts: Sequence[str], meta: Mapping[str, Mapping[str, Any]], key: str
) -> list[str]:
    """Return hosts so that those of one value of a metadata field stand far from each other.

    Args:
        hosts: their ids.
        meta: id -> metadata; who lacks the field is of a group of its own.
        key: the field.
    """
    groups: dict[str, deque[str]] = {}
    for host in sorted(hosts):
        groups.setdefault(str(meta.get(host, {}).get(key, "")), deque()).append(host)
    # Each host stands at its share of its own group's length: large groups are spread evenly.
    placed = [
        ((index + 0.5) / len(group), name, host)
        for name, group in sorted(groups.items())
        for index, host in enumerate(group)
    ]
    return [host for _, _, host in sorted(placed)]
