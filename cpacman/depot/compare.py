"""How two snapshots differ, pure."""

from __future__ import annotations

from typing import NamedTuple

from cpacman.depot.snapshot import Snapshot


class Change(NamedTuple):
    """What one name.arch has in either snapshot only; versions are in no order of age."""

    name: str
    arch: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class SnapshotDiff(NamedTuple):
    """How two snapshots differ: names that came, went, and have other versions or bytes."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    updated: tuple[Change, ...]
    advisories: tuple[str, ...]


def diff_snapshots(before: Snapshot, after: Snapshot) -> SnapshotDiff:
    """Return what `after` has that `before` has not, and the other way round."""
    old, new = _by_name(before), _by_name(after)
    changes = [_change(key, old.get(key, set()), new.get(key, set())) for key in old | new]
    changes = sorted(one for one in changes if one.before or one.after)
    known = {one.id for one in before.advisories}
    return SnapshotDiff(
        added=tuple(one for one in changes if (one.name, one.arch) not in old),
        removed=tuple(one for one in changes if (one.name, one.arch) not in new),
        updated=tuple(
            one for one in changes if (one.name, one.arch) in old and (one.name, one.arch) in new
        ),
        advisories=tuple(sorted({one.id for one in after.advisories} - known)),
    )


_Versions = set[tuple[str, str]]


def _by_name(snapshot: Snapshot) -> dict[tuple[str, str], _Versions]:
    found: dict[tuple[str, str], _Versions] = {}
    for one in snapshot.packages:
        found.setdefault((one.name, one.arch), set()).add((one.evr, one.sha256))
    return found


def _change(key: tuple[str, str], old: _Versions, new: _Versions) -> Change:
    return Change(
        *key,
        before=tuple(sorted({evr for evr, _ in old - new})),
        after=tuple(sorted({evr for evr, _ in new - old})),
    )
