"""Making plans from what the classes hold and what the hosts have.

Invariants: a plan is for one class, from the snapshots that class points at; a host that can't be
planned stands in `failed` with its reason and spoils no other; rules that are configured and that
nothing enforces stop the planning, since a plan that ignores them would lie.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cpacman.commands.answers import plan_body
from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, Selection, by_channel, one_class, place_all, select
from cpacman.commands.refresh import Refreshed, refresh_hosts
from cpacman.config import parse_match
from cpacman.depot.snapshot import Snapshot, check_metadata, load_snapshot
from cpacman.errors import EXIT_NOT_PLANNED, InputError, Problem, UsageError
from cpacman.fleet import Placement, lines_for
from cpacman.model import FailedError, Failure, Host, Inventory, Plan, Request
from cpacman.planner.lines import Limits, expired, holding, not_for
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.ruling import Policy
from cpacman.planner.solver import Candidate, Source
from cpacman.transport.port import UNREACHABLE

STALE = 3600.0
"""Seconds after which `refresh=stale` asks a host again."""


def plan(
    context: Context,
    selection: Selection,
    *,
    request: Request,
    refresh: str = "stale",
) -> dict[str, Any]:
    """Plan the selected hosts, keep the plan, and return it with what its screen shows.

    Raises:
        UsageError: no such hosts, hosts of several classes, or a request that contradicts itself.
    """
    if refresh not in ("stale", "all", "none"):
        raise UsageError(Problem("refresh", f"{refresh!r} is none of: stale, all, none"))
    fleet, asked = _fresh_fleet(context, selection, refresh)
    class_ = one_class(context, fleet)
    made = make_plan(context, class_, fleet.hosts, request, fleet=fleet, asked=asked)
    context.store.put_plan(made, class_=class_, at=context.clock(), who=context.who)
    body = plan_body(context, context.store.plan(made.plan_id), made)
    return {"plan": body, "retcode": EXIT_NOT_PLANNED if made.failed else 0}


def _fresh_fleet(
    context: Context, selection: Selection, refresh: str
) -> tuple[Fleet, Mapping[str, Refreshed]]:
    """Ask the hosts whose inventory is missing or old, place them, and say how the asking went."""
    fleet = select(context, selection)
    if refresh == "none":
        return fleet, {}
    heads = context.store.inventory_heads()
    oldest = context.clock() - STALE
    ask = [
        host
        for host in sorted(fleet.placements)
        if refresh == "all" or host not in heads or heads[host][1] < oldest
    ]
    asked = refresh_hosts(context, ask)
    return (select(context, selection) if asked else fleet), asked


def make_plan(
    context: Context,
    class_: str,
    hosts: Mapping[str, Host],
    request: Request,
    *,
    fleet: Fleet | None = None,
    asked: Mapping[str, Refreshed] | None = None,
) -> Plan:
    """Plan placed hosts of one class from what the class holds; nothing is kept.

    Args:
        context: the outside world.
        class_: their class.
        hosts: id -> where the host belongs.
        request: what is asked for.
        fleet: the selection they are from; its unplaced hosts stand in `failed`.
        asked: how hosts answered just now. One that is down is planned from what it last said,
            with a warning; one that answers with an error is not planned.
    """
    held = fleet or place_all(context, sorted(hosts))
    inventories = context.store.inventories(sorted(hosts))
    failed = dict(_not_planned(context, class_, hosts, inventories, held))
    errors = {host: one for host, one in (asked or {}).items() if one.error and host in hosts}
    failed.update(_erring(errors))
    ready = {name: host for name, host in hosts.items() if name not in failed}
    channels = [
        _channel(context, class_, channel, [inventories[n] for n in names], held.placements)
        for channel, names in by_channel(ready.values()).items()
    ]
    made = plan_hosts(
        channels,
        request=request,
        cache=context.settings.cache_dir / "solver",
        reporter=context.reporter,
    )
    return msgspec.structs.replace(
        made,
        failed=dict(sorted({**made.failed, **failed}.items())),
        warnings=(
            *made.warnings,
            *_from_the_past(errors, ready),
            *_expired(context, (held.placements[n] for n in ready)),
        ),
    )


def channel_for(context: Context, host: str) -> ChannelInput:
    """Return what one host is planned from.

    Raises:
        InputError: it can't be planned at all, with why.
    """
    if host not in context.directory.accepted():
        raise InputError(Problem(f"host {host}", "the master accepted no key of it"))
    fleet = place_all(context, [host])
    inventories = context.store.inventories([host])
    class_ = fleet.placements[host].host.class_
    for name, failure in _not_planned(context, class_, fleet.hosts, inventories, fleet):
        raise InputError([Problem(f"host {name}", cause) for cause in failure.causes])
    channel = fleet.hosts[host].channel
    return _channel(context, class_, channel, [inventories[host]], fleet.placements)


def _erring(errors: Mapping[str, Refreshed]) -> Iterator[tuple[str, Failure]]:
    """Yield the hosts that answered, but not with an inventory: what they have is not known."""
    for host, one in errors.items():
        if one.code != UNREACHABLE:
            yield host, Failure(error=FailedError.INVENTORY, causes=(one.error,))


def _from_the_past(errors: Mapping[str, Refreshed], ready: Mapping[str, Host]) -> Iterator[str]:
    for host, one in sorted(errors.items()):
        if host in ready:
            yield f"{host}: {one.error}; planned from what it last said"


def _not_planned(
    context: Context,
    class_: str,
    hosts: Mapping[str, Host],
    inventories: Mapping[str, Inventory],
    fleet: Fleet,
) -> Iterator[tuple[str, Failure]]:
    known = context.store.inventory_heads()
    for name, problems in fleet.problems.items():
        error = FailedError.NO_CHANNEL if name in known else FailedError.INVENTORY
        causes = tuple(str(problem._replace(path="")) for problem in problems)
        yield name, Failure(error=error, causes=causes)
    pointers = context.store.pointers()
    for name, host in hosts.items():
        if name not in inventories:
            cause = f"has no inventory yet; run: salt-run cpacman.refresh {name}"
            yield name, Failure(error=FailedError.INVENTORY, causes=(cause,))
        elif (class_, host.channel) not in pointers:
            yield name, Failure(error=FailedError.NO_SNAPSHOT, causes=(_missing(context, host),))


def _missing(context: Context, host: Host) -> str:
    first = context.settings.class_names[0]
    how = "salt-run cpacman.snapshot" if host.class_ == first else (
        f"salt-run cpacman.promote to={host.class_}"
    )  # fmt: skip
    return f"{host.class_} holds no snapshot of {host.channel} yet; run: {how}"


def _channel(
    context: Context,
    class_: str,
    channel: str,
    inventories: Sequence[Inventory],
    placements: Mapping[str, Placement],
) -> ChannelInput:
    pointer = context.store.pointers()[(class_, channel)]
    snapshot = load_snapshot(context.settings.depot, pointer["snapshot"])
    sha256s = {(p.repository, p.nevra): p.sha256 for p in snapshot.packages}
    limits = _limits(snapshot)
    return ChannelInput(
        channel=channel,
        snapshot=snapshot.id,
        sources=sources_of(snapshot),
        inventories=tuple(inventories),
        advisories=snapshot.advisories,
        policies={one.host: _policy(context, placements[one.host], limits) for one in inventories},
        sha256_of=lambda c: _find_sha256(sha256s, c),
    )


def _find_sha256(known: Mapping[tuple[str, str], str], candidate: Candidate) -> str:
    return known.get((candidate.repository, candidate.nevra), "")


def sources_of(snapshot: Snapshot) -> tuple[Source, ...]:
    """Return a snapshot's repositories as the solver reads them: files of the depot."""
    check_metadata(snapshot)
    return tuple(
        Source(
            name=one.name,
            primary=str(one.metadata.primary),
            checksum=one.checksums.get("primary", ""),
            filelists=str(one.metadata.filelists or ""),
            updateinfo=str(one.metadata.updateinfo or ""),
            autoupdate=one.autoupdate,
            priority=one.priority,
            modules=str(one.metadata.modules or ""),
            modules_checksum=one.checksums.get("modules", ""),
            module_hotfixes=one.module_hotfixes,
            origin=one.origin,
        )
        for one in snapshot.repositories
    )


def _policy(context: Context, placement: Placement, limits: Sequence[Limits]) -> Policy:
    """Return the rules that hold for a host today."""
    host, lines = placement.host, lines_for(context.settings, placement)
    return Policy(
        lines=holding(lines, host.meta, _today(context)),
        without=not_for(limits, host.class_, host.meta),
        installonly_limit=context.settings.installonly_limit,
    )


def _limits(snapshot: Snapshot) -> list[Limits]:
    return [
        Limits(one.name, one.classes, parse_match(one.only) if one.only else None)
        for one in snapshot.repositories
        if one.classes or one.only
    ]


def _today(context: Context) -> datetime.date:
    return datetime.datetime.fromtimestamp(context.clock()).astimezone().date()


def _expired(context: Context, placements: Iterable[Placement]) -> list[str]:
    """Return a warning for each line that would hold for some host and is of the past."""
    lines = [placed for one in placements for placed in lines_for(context.settings, one)]
    return list(dict.fromkeys(expired(lines, _today(context))))


def plan_quietly(context: Context, class_: str, hosts: Mapping[str, Host]) -> Plan:
    """Plan an upgrade of everything without keeping it, to see how hosts stand."""
    return make_plan(context, class_, hosts, Request())
