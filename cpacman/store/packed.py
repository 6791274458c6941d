"""Sets of packages as packed arrays: what thousands of hosts have in common is kept once.

Invariant: what comes out of a packed set equals what went in, package by package.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from cpacman.model import InstalledPackage
from cpacman.store.rows import pack


class Own(NamedTuple):
    """What belongs to a host's package and not to all that share its details."""

    id: int
    reason: str
    files: tuple[str, ...]


class Members(NamedTuple):
    """A distinct set of packages: their ids as a packed array, and what is the host's own.

    `reasons` has a byte for each id, a place in `_REASONS`, or `_OWN` for a package whose files
    are not those that all hosts share: those stand in `own`, in the same order. Sets of before
    have no `reasons`, and each id in `own` at most once.
    """

    ids: bytes
    own: tuple[Own, ...]
    reasons: bytes = b""


_REASONS = ("", "user", "dep", "weak")
_OWN = len(_REASONS)


def members_of(
    packages: Iterable[InstalledPackage], rows: Mapping[str, tuple[int, InstalledPackage]]
) -> bytes:
    """Return what is kept of a set of packages."""
    pairs: list[tuple[int, int]] = []
    own: list[Own] = []
    for package in packages:
        number, details = rows[package.digest]
        plain = package.files == details.files and package.reason in _REASONS
        pairs.append((number, _REASONS.index(package.reason) if plain else _OWN))
        if not plain:
            own.append(Own(number, package.reason, package.files))
    pairs.sort()
    ids = array("I", [number for number, _ in pairs])
    return pack(Members(ids.tobytes(), tuple(sorted(own)), bytes(code for _, code in pairs)))


class Assembler:
    """Puts sets of packages together: what is equal on several hosts is one object."""

    def __init__(self, details: dict[int, InstalledPackage]) -> None:
        self._details = details
        self._tables: list[dict[int, InstalledPackage]] = [details, {}, {}, {}]
        self._own: dict[Own, InstalledPackage] = {}

    def packages_of(self, members: Members) -> tuple[InstalledPackage, ...]:
        """Return the packages of one set."""
        ids = array("I", members.ids)
        if not members.reasons:
            by_id = {one.id: one for one in members.own}
            return tuple(self._own_of(by_id[n]) if n in by_id else self._details[n] for n in ids)
        tables, own = self._tables, iter(members.own)
        return tuple(
            [
                self._own_of(next(own))
                if code == _OWN
                else tables[code].get(number) or self._add(number, code)
                for number, code in zip(ids, members.reasons, strict=True)
            ]
        )

    def _add(self, number: int, code: int) -> InstalledPackage:
        made = msgspec.structs.replace(self._details[number], reason=_REASONS[code])
        self._tables[code][number] = made
        return made

    def _own_of(self, own: Own) -> InstalledPackage:
        if own not in self._own:
            self._own[own] = msgspec.structs.replace(
                self._details[own.id], reason=own.reason, files=own.files
            )
        return self._own[own]


@contextmanager
def without_collector() -> Iterator[None]:
    """Make very many values that all stay without looking for garbage among them all the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
