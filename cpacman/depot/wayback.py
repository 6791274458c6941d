"""Snapshots that must stay for single packages of theirs, beside those that stay as a whole: pure.

Invariant: of every package that is needed each build that any snapshot has is had by one that
stays, as nobody can tell here which of them a host had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Build = tuple[str, str, str]
"""Channel, NEVRA and sha256 of a package."""


def keep_for_packages(
    reasons: Mapping[str, Sequence[str]],
    having: Iterable[tuple[str, Mapping[Build, str]]],
) -> dict[str, tuple[str, ...]]:
    """Return the reasons to stay, with those for the sake of packages.

    Args:
        reasons: snapshot -> why it stays as a whole; nothing means that it may go.
        having: each snapshot, the newest first, with those of its packages that are needed, and
            why they are.
    """
    rows = list(having)
    there = {build for snapshot, mine in rows if reasons.get(snapshot) for build in mine}
    found = {snapshot: tuple(said) for snapshot, said in reasons.items()}
    for snapshot, mine in rows:
        if not found.get(snapshot) and (lacking := mine.keys() - there):
            found[snapshot] = tuple(sorted({mine[build] for build in lacking}))
            there |= mine.keys()
    return found
