"""Verifying the depot: bytes against the snapshots, signatures against the keys of today.

Invariants: every file that a snapshot names is hashed; nothing is changed unless repair is asked
for, and then only replaced by bytes with the same sha256; while damage is left the command fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.provenance import told
from cpacman.config import Channel
from cpacman.depot.health import Damage, Health, check_depot, load_all, mend
from cpacman.depot.locks import using, writing
from cpacman.depot.pool import Pool, io_error
from cpacman.depot.provenance import is_required, mode_for, standing_of
from cpacman.depot.signatures import Entering, check_packages
from cpacman.errors import EXIT_OTHER
from cpacman.model import Package


def verify(context: Context, *, repair: bool = False) -> dict[str, Any]:
    """Hash the depot; with `repair` read what is damaged again from repositories that have it.

    Raises:
        ConflictError: with `repair`, somebody adds to the depot.
    """
    depot = context.settings.depot
    try:
        with _at_rest(depot, repair=repair):
            health = check_depot(depot, context.reporter)
            if repair:
                health = _mended(context, health)
            signatures = _signatures(context, health)
    except OSError as error:
        raise io_error(depot, error) from error
    left = [one for one in health.damaged if not one.source]
    bad = left or health.problems or any(one["refused"] for one in signatures.values())
    body = _body(context, health, signatures, repair=repair)
    return {"verify": body, "retcode": EXIT_OTHER if bad else 0}


@contextlib.contextmanager
def _at_rest(depot: Path, *, repair: bool) -> Iterator[None]:
    if not repair or not depot.is_dir():
        with using(depot):
            yield
        return
    with writing(depot, "repairing it"), using(depot):
        yield


def _mended(context: Context, health: Health) -> Health:
    repositories = [
        (name, one.path)
        for channel in context.settings.channels.values()
        for name, one in channel.repositories.items()
    ]
    return mend(
        health,
        repositories,
        depot=context.settings.depot,
        cache=context.settings.cache_dir,
        reporter=context.reporter,
    )


def _body(
    context: Context, health: Health, signatures: dict[str, Any], *, repair: bool
) -> dict[str, Any]:
    classes: dict[str, list[str]] = {}
    for (class_, _), pointer in context.store.pointers().items():
        classes.setdefault(pointer["snapshot"], []).append(class_)
    return {
        "files": health.files,
        "snapshots": health.snapshots,
        "damaged": [_row(one, classes) for one in health.damaged],
        "problems": [one._asdict() for one in health.problems],
        "signatures": signatures,
        "repair": repair,
    }


def _row(damage: Damage, classes: dict[str, list[str]]) -> dict[str, Any]:
    needing = sorted({name for one in damage.file.snapshots for name in classes.get(one, ())})
    return {
        "path": str(damage.file.path),
        "what": damage.file.what,
        "fault": damage.fault,
        "snapshots": list(damage.file.snapshots),
        "classes": needing,
        "source": damage.source,
    }


# -------------------------------------------------------------------------------------- signatures


def _signatures(context: Context, health: Health) -> dict[str, Any]:
    """Verify what classes hold, as far as it has no verdict by today's keys, and tell it all."""
    damaged = {one.file.sha256 for one in health.damaged if not one.source}
    rows = {}
    for channel, settings in context.settings.channels.items():
        if settings.keys:
            held = _held_packages(context, channel)
            whole = [one for one in held if one.sha256 not in damaged]
            _verify(context, settings, whole)
            standing = standing_of(settings, whole, context.settings.depot)
            refused = [o for o, _ in standing.problems if is_required(settings, o.repository)]
            rows[channel] = {**told(standing), "refused": len(refused)}
    return rows


def _held_packages(context: Context, channel: str) -> list[Package]:
    """Return the packages of what classes hold of a channel, each once."""
    ids = {
        pointer["snapshot"]
        for (_, name), pointer in context.store.pointers().items()
        if name == channel
    }
    snapshots, _ = load_all(context.settings.depot, ids)
    found = {(one.repository, one.sha256): one for each in snapshots for one in each.packages}
    return list(found.values())


def _verify(context: Context, channel: Channel, packages: Sequence[Package]) -> None:
    pool = Pool(context.settings.depot)
    check_packages(
        [
            Entering(one, pool.path_of(one.sha256))
            for one in packages
            if mode_for(channel, one.repository) != "off"
        ],
        keys=channel.keys,
        depot=context.settings.depot,
        cache=context.settings.cache_dir,
        reporter=context.reporter,
    )
