"""Snapshots: what the first class points at.

Invariants: a snapshot lies whole in the depot before a class points at it; each channel's pointer
moves from where it was seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cpacman.commands.blocking import check_snapshots
from cpacman.commands.context import Context
from cpacman.commands.everywhere import keep_delivered
from cpacman.depot.compare import diff_snapshots
from cpacman.depot.locks import using
from cpacman.depot.provenance import Door, check_entering, standing_of
from cpacman.depot.repository import Repository, check_files, read_repository
from cpacman.depot.snapshot import Snapshot, find_snapshot, load_snapshot, snapshot_ids
from cpacman.depot.taking import draft_snapshot, take_snapshot
from cpacman.errors import ConfigError, Problem, RepositoryError, UsageError
from cpacman.model import Package


def channels_of(context: Context, asked: Sequence[str]) -> list[str]:
    """Return the channels that are meant; none given means all of them.

    Raises:
        UsageError: unknown channels.
        ConfigError: none is configured.
    """
    known = list(context.settings.channels)
    wrong = [name for name in asked if name not in known]
    if wrong:
        mend = f"known are: {', '.join(known)}"
        raise UsageError([Problem("channel", f"there is no {name!r}", mend) for name in wrong])
    if not known:
        mend = "describe one under cpacman: channels: in the master's configuration"
        raise ConfigError(Problem("channels", "none is configured", mend))
    return list(asked) or known


def kept_ids(context: Context, channel: str) -> list[str]:
    """Return the snapshots of a channel that are in the depot still, the newest first."""
    there = set(snapshot_ids(context.settings.depot))
    known = [str(row["id"]) for row in context.store.snapshots(channel)]
    return [one for one in reversed(known) if one in there]


def check_there(context: Context, ids: Iterable[str]) -> None:
    """Refuse snapshots that were removed since they were chosen; call it within `using`.

    Raises:
        InputError: one is not in the depot any more.
    """
    for one in ids:
        find_snapshot(context.settings.depot, one)


def snapshot(
    context: Context, asked: Sequence[str] = (), *, verify: bool = False, test: bool = False
) -> dict[str, Any]:
    """Take a snapshot of each channel and point the first class at it."""
    first = context.settings.class_names[0]
    channels = channels_of(context, asked)
    if test:
        drafts = {name: _rehearse(context, name, verify=verify) for name in channels}
        check_snapshots(context, (one.id for one in drafts.values()))
        rows = {name: _told(context, name, one, first) for name, one in drafts.items()}
    else:
        with using(context.settings.depot):
            taken = {name: _take(context, name, verify=verify) for name in channels}
            check_snapshots(context, (one.id for one in taken.values()))
            keep_delivered(context, (a for one in taken.values() for a in one.advisories))
            rows = {name: _settle(context, name, one, first) for name, one in taken.items()}
    return {"snapshot": {"class": first, "channels": rows, "test": test}}


def _take(context: Context, channel: str, *, verify: bool) -> Snapshot:
    return take_snapshot(
        channel,
        context.settings.channels[channel].repositories,
        depot=context.settings.depot,
        cache=context.settings.cache_dir,
        now=context.clock(),
        verify=verify,
        reporter=context.reporter,
        keys=context.settings.channels[channel].keys,
    )


def _rehearse(context: Context, channel: str, *, verify: bool) -> Snapshot:
    """Read and check a channel's repositories as taking a snapshot does, and keep nothing."""
    settings = context.settings
    keys = settings.channels[channel].keys
    door = Door(keys, settings.depot, settings.cache_dir, context.reporter, rehearsing=True)
    repositories = [
        read_repository(name, one.path, context.settings.cache_dir)
        for name, one in sorted(context.settings.channels[channel].repositories.items())
    ]
    problems = [p for one in repositories for p in check_files(one, verify=verify)]
    if problems:
        raise RepositoryError(problems)
    for each in repositories:
        entry = settings.channels[channel].repositories[each.name]
        check_entering(each, entry, functools.partial(_in_mirror, each), door)
    entries = settings.channels[channel].repositories
    return draft_snapshot(channel, entries, repositories, now=int(context.clock()))


def _in_mirror(repository: Repository, package: Package) -> Path:
    return repository.path / package.location


def _settle(context: Context, channel: str, taken: Snapshot, first: str) -> dict[str, Any]:
    now = context.clock()
    row = _told(context, channel, taken, first)
    context.store.add_snapshot(
        taken.id, channel=channel, packages=len(taken.packages), at=now, who=context.who
    )
    if row["new"]:
        context.store.point(
            first, channel, taken.id, expected=row["before"], action="snapshot", at=now,
            who=context.who,
        )  # fmt: skip
    channel_settings = context.settings.channels[channel]
    standing = standing_of(channel_settings, taken.packages, context.settings.depot)
    return {**row, "signatures": standing.counts}


def _told(context: Context, channel: str, taken: Snapshot, first: str) -> dict[str, Any]:
    """Return what a snapshot changes for the first class."""
    pointer = context.store.pointers().get((first, channel))
    before = pointer["snapshot"] if pointer else None
    row = {"id": taken.id, "packages": len(taken.packages), "new": before != taken.id}
    return {**row, "before": before, **changes_between(context, before, taken)}


def changes_between(context: Context, before: str | None, after: Snapshot) -> dict[str, int]:
    """Count what changed for a class that held `before`, None for nothing."""
    if before is None or before == after.id:
        return {"added": 0, "updated": 0, "removed": 0}
    changes = diff_snapshots(load_snapshot(context.settings.depot, before), after)
    return {
        "added": len(changes.added),
        "updated": len(changes.updated),
        "removed": len(changes.removed),
    }
