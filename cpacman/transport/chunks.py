"""How needed segments become chunks: pure rules.

Invariant: a host is only ever sent bytes that it asked for, and the chunks of a host cover each of
its segments exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cpacman.transport.port import Segment


class Chunk(NamedTuple):
    """Segments that travel in one load, and the hosts that lack all of them."""

    segments: tuple[Segment, ...]
    hosts: frozenset[str]

    @property
    def size(self) -> int:
        """Bytes of package data in this chunk."""
        return sum(length for _, _, length in self.segments)


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments sorted, with those of a file that touch or overlap made one.

    So nobody is sent a byte twice, however often he asks for it.
    """
    found: list[Segment] = []
    for sha256, offset, length in sorted(segments):
        last = found[-1] if found else ("", 0, 0)
        if last[0] == sha256 and offset <= last[1] + last[2]:
            end = max(last[1] + last[2], offset + length)
            found[-1] = (sha256, last[1], end - last[1])
        else:
            found.append((sha256, offset, length))
    return found


def plan_chunks(needs: Mapping[str, Sequence[Segment]], limit: int) -> list[Chunk]:
    """Cut what hosts need into chunks of at most `limit` bytes, shared where needs are equal."""
    wanted: dict[Segment, set[str]] = defaultdict(set)
    for host, segments in needs.items():
        for segment in segments:
            wanted[segment].add(host)
    groups: dict[frozenset[str], list[Segment]] = defaultdict(list)
    for segment in sorted(wanted):
        groups[frozenset(wanted[segment])].append(segment)
    # The largest audiences first: a byte that many wait for goes before one for a single host.
    order = sorted(groups, key=lambda hosts: (-len(hosts), sorted(hosts)))
    return [Chunk(part, hosts) for hosts in order for part in _fill(groups[hosts], limit)]


def _fill(segments: Sequence[Segment], limit: int) -> Iterator[tuple[Segment, ...]]:
    part: list[Segment] = []
    free = limit
    for sha256, start, length in segments:
        offset, end = start, start + length
        while offset < end:
            step = min(free, end - offset)
            part.append((sha256, offset, step))
            offset, free = offset + step, free - step
            if not free:
                yield tuple(part)
                part, free = [], limit
    if part:
        yield tuple(part)
