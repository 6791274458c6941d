"""Snapshots and promotion: what a class points at.

Invariants: a snapshot lies whole in the depot before a class points at it; a class receives only
what the class before it holds; each channel's pointer moves from where it was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpacman.commands.context import Context
from cpacman.depot.promotion import check_promotion
from cpacman.depot.repository import check_files, read_repository
from cpacman.depot.snapshot import Snapshot, diff_snapshots, load_snapshot, take_snapshot
from cpacman.errors import ConfigError, Problem, RepositoryError, SafetyError, UsageError


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


def snapshot(
    context: Context, asked: Sequence[str] = (), *, verify: bool = False, test: bool = False
) -> dict[str, Any]:
    """Take a snapshot of each channel and point the first class at it."""
    first = context.settings.class_names[0]
    channels = channels_of(context, asked)
    if test:
        rows = {name: _rehearse(context, name, verify=verify) for name in channels}
    else:
        taken = {name: _take(context, name, verify=verify) for name in channels}
        rows = {name: _settle(context, name, one, first) for name, one in taken.items()}
    return {"snapshot": {"class": first, "channels": rows, "test": test}}


def _take(context: Context, channel: str, *, verify: bool) -> Snapshot:
    return take_snapshot(
        channel,
        context.settings.channels[channel].repositories,
        depot=context.settings.depot,
        cache=context.settings.cache_dir,
        verify=verify,
        progress=lambda done, total, text: context.reporter.progress(text, done, total, "packages"),
    )


def _rehearse(context: Context, channel: str, *, verify: bool) -> dict[str, Any]:
    """Read a channel's repositories and check their files, as taking a snapshot does."""
    repositories = [
        read_repository(name, one.path, context.settings.cache_dir)
        for name, one in context.settings.channels[channel].repositories.items()
    ]
    problems = [p for one in repositories for p in check_files(one, verify=verify)]
    if problems:
        raise RepositoryError(problems)
    packages = sum(len(one.packages) for one in repositories)
    return {"id": None, "packages": packages, "new": None, "before": None}


def _settle(context: Context, channel: str, taken: Snapshot, first: str) -> dict[str, Any]:
    now = context.clock()
    pointer = context.store.pointers().get((first, channel))
    before = pointer["snapshot"] if pointer else None
    new = before != taken.id
    context.store.add_snapshot(
        taken.id, channel=channel, packages=len(taken.packages), at=now, who=context.who
    )
    if new:
        context.store.point(
            first, channel, taken.id, expected=before, action="snapshot", at=now, who=context.who
        )
    row: dict[str, Any] = {"id": taken.id, "packages": len(taken.packages), "new": new}
    return {**row, "before": before, **_changes(context, before, taken)}


def _changes(context: Context, before: str | None, after: Snapshot) -> dict[str, int]:
    if before is None or before == after.id:
        return {"added": 0, "updated": 0, "removed": 0}
    changes = diff_snapshots(load_snapshot(context.settings.depot, before), after)
    return {
        "added": len(changes.added),
        "updated": len(changes.updated),
        "removed": len(changes.removed),
    }


def promote(
    context: Context,
    to: str,
    asked: Sequence[str] = (),
    *,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Point a class at what the class before it holds, channel by channel.

    Raises:
        UsageError: no such class, or it is the first, which takes snapshots.
        SafetyError: a safeguard is configured that this version can't enforce.
        ConflictError: somebody moved a pointer meanwhile.
    """
    source = check_promotion(context.settings.class_names, to)
    standing = context.settings.unenforced(to)
    if standing:
        raise SafetyError(standing)
    pointers = context.store.pointers()
    moves = {}
    for channel in channels_of(context, asked):
        held = pointers.get((source, channel))
        if held is not None:
            target = pointers.get((to, channel))
            moves[channel] = (target["snapshot"] if target else None, held["snapshot"])
    if not moves:
        mend = "take one: salt-run cpacman.snapshot" if source == context.settings.class_names[0] \
            else f"promote to {source} first"  # fmt: skip
        raise UsageError(Problem(source, "holds no snapshot yet", mend))
    rows = {
        c: _promote_one(context, to, c, move, test, reason, ticket) for c, move in moves.items()
    }
    return {"promote": {"from": source, "to": to, "channels": rows, "test": test}}


def _promote_one(
    context: Context,
    to: str,
    channel: str,
    move: tuple[str | None, str],
    test: bool,
    reason: str | None,
    ticket: str | None,
) -> dict[str, Any]:
    before, after = move
    snapshot = load_snapshot(context.settings.depot, after)
    if before != after and not test:
        context.store.point(
            to, channel, after, expected=before, action="promote", at=context.clock(),
            who=context.who, reason=reason, ticket=ticket,
        )  # fmt: skip
    row = {"before": before, "id": after, "new": before != after}
    return {**row, "packages": len(snapshot.packages), **_changes(context, before, snapshot)}
