"""Making plans from what the classes hold and what the hosts have.

Invariants: a plan is for one class, from the snapshots that class points at; a host that can't be
planned stands in `failed` with its reason and spoils no other; rules that are configured and that
nothing enforces stop the planning, since a plan that ignores them would lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cpacman.commands.access import check_access
from cpacman.commands.answers import plan_body
from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, Selection, by_channel, one_class, place_all, select
from cpacman.commands.membership import check_moves, note_changes
from cpacman.commands.offering import Rules, channel_input, expired_lines, rules_of
from cpacman.commands.refresh import Refreshed, refresh_hosts
from cpacman.depot.kept import Build, find_kept
from cpacman.depot.snapshot import Snapshot, load_snapshot
from cpacman.errors import EXIT_NOT_PLANNED, InputError, Problem, UsageError
from cpacman.model import FailedError, Failure, Host, Inventory, Plan, Request, short_id
from cpacman.planner.origins import with_origins
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.reverse import leaving_packages, with_reverse
from cpacman.transport.port import UNREACHABLE

STALE = 3600.0
"""Seconds after which `refresh=stale` asks a host again."""

QUIETLY = Request(reasons=False)
"""Upgrade everything, to see what happens and not why: that takes longer than all the rest."""


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
    check_access(context.settings, "plan", class_, context.who)
    check_moves(context, fleet, class_)
    moved = note_changes(context, fleet, class_)
    made = make_plan(context, class_, fleet.hosts, request, fleet=fleet, asked=asked)
    made = msgspec.structs.replace(made, warnings=(*moved, *made.warnings))
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
    instead: Mapping[str, Snapshot] | None = None,
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
        instead: channel -> a snapshot to plan from in place of what the class holds.
    """
    inventories = inventories_of(context, sorted(hosts))
    made = solve_plan(
        context, class_, hosts, request, inventories, fleet=fleet, asked=asked, instead=instead
    )
    return _reversible(context, _referring(context, made), inventories)


def _referring(context: Context, plan: Plan) -> Plan:
    """Return the plan with the digests under which the store keeps what the hosts had."""
    kept = context.store.references(sorted(plan.inventories))
    found = {
        host: kept[host] if host in kept and kept[host].cookie == one.cookie else one
        for host, one in plan.inventories.items()
    }
    return msgspec.structs.replace(plan, inventories=found)


def solve_plan(
    context: Context,
    class_: str,
    hosts: Mapping[str, Host],
    request: Request,
    inventories: Mapping[str, Inventory],
    *,
    fleet: Fleet | None = None,
    asked: Mapping[str, Refreshed] | None = None,
    instead: Mapping[str, Snapshot] | None = None,
) -> Plan:
    """Plan as `make_plan` does, from inventories at hand; what can't be undone is not looked up."""
    rules = rules_of(context)
    held = fleet or place_all(context, sorted(hosts))
    offers = _offers(context, class_, instead or {})
    failed = dict(_not_planned(context, hosts, inventories, held, offers, rules))
    errors = {host: one for host, one in (asked or {}).items() if one.error and host in hosts}
    failed.update(_erring(errors))
    ready = {name: host for name, host in hosts.items() if name not in failed}
    channels = [
        channel_input(
            class_, offers[channel], [inventories[n] for n in names], held.placements, rules
        )
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
            *expired_lines(rules, (held.placements[n] for n in ready)),
        ),
    )


def _reversible(context: Context, plan: Plan, inventories: Mapping[str, Inventory]) -> Plan:
    """Return the plan with what can't be undone: the depot lacks the file of what would leave."""
    leaving = [
        (number, Build(package.nevra, package.vendor, package.buildtime))
        for number, package in leaving_packages(plan, inventories)
    ]
    wanted = {build for _, build in leaving}
    kept = find_kept(context.settings.depot, wanted, context.settings.cache_dir)
    return with_reverse(plan, [(number, one.nevra) for number, one in leaving if one not in kept])


def inventories_of(context: Context, hosts: Sequence[str]) -> dict[str, Inventory]:
    """Return what hosts reported, with what the journal knows of it."""
    return with_origins(context.store.inventories(hosts), context.store.origins(hosts))


def channel_for(context: Context, host: str) -> ChannelInput:
    """Return what one host is planned from.

    Raises:
        InputError: it can't be planned at all, with why.
    """
    if host not in context.directory.accepted():
        raise InputError(Problem(f"host {host}", "the master accepted no key of it"))
    fleet = place_all(context, [host])
    inventories = inventories_of(context, [host])
    class_ = fleet.placements[host].host.class_
    offers, rules = _offers(context, class_, {}), rules_of(context)
    for name, failure in _not_planned(context, fleet.hosts, inventories, fleet, offers, rules):
        raise InputError([Problem(f"host {name}", cause) for cause in failure.causes])
    snapshot = offers[fleet.hosts[host].channel]
    return channel_input(class_, snapshot, [inventories[host]], fleet.placements, rules)


def _erring(errors: Mapping[str, Refreshed]) -> Iterator[tuple[str, Failure]]:
    """Yield the hosts that answered, but not with an inventory: what they have is not known."""
    for host, one in errors.items():
        if one.code != UNREACHABLE:
            yield host, Failure(error=FailedError.INVENTORY, causes=(one.error,))


def _from_the_past(errors: Mapping[str, Refreshed], ready: Mapping[str, Host]) -> Iterator[str]:
    for host, one in sorted(errors.items()):
        if host in ready:
            yield f"{host}: {one.error}; planned from what it last said"


class _Offers(dict[str, Snapshot]):
    """Channel -> the snapshot to plan from, read when it is first asked for."""

    def __init__(self, depot: Path, ids: Mapping[str, str], instead: Mapping[str, Snapshot]):
        super().__init__(instead)
        self._depot = depot
        self.ids = {**ids, **{channel: one.id for channel, one in instead.items()}}

    def __missing__(self, channel: str) -> Snapshot:
        self[channel] = load_snapshot(self._depot, self.ids[channel])
        return self[channel]


def _offers(context: Context, class_: str, instead: Mapping[str, Snapshot]) -> _Offers:
    """Return what a class's hosts are planned from, channel by channel."""
    pointers = context.store.pointers().items()
    ids = {channel: row["snapshot"] for (name, channel), row in pointers if name == class_}
    return _Offers(context.settings.depot, ids, instead)


def _not_planned(
    context: Context,
    hosts: Mapping[str, Host],
    inventories: Mapping[str, Inventory],
    fleet: Fleet,
    offers: _Offers,
    rules: Rules,
) -> Iterator[tuple[str, Failure]]:
    known = context.store.inventory_heads()
    for name, problems in fleet.problems.items():
        error = FailedError.NO_CHANNEL if name in known else FailedError.INVENTORY
        causes = tuple(str(problem._replace(path="")) for problem in problems)
        yield name, Failure(error=error, causes=causes)
    held = fleet.held
    for name, host in hosts.items():
        if name in held:
            cause = f"{held[name].words}; run: salt-run cpacman.accept hosts={name}"
            yield name, Failure(error=FailedError.NOT_ACCEPTED, causes=(cause,))
        elif name not in inventories:
            cause = f"has no inventory yet; run: salt-run cpacman.refresh {name}"
            yield name, Failure(error=FailedError.INVENTORY, causes=(cause,))
        elif (snapshot := offers.ids.get(host.channel)) is None:
            yield name, Failure(error=FailedError.NO_SNAPSHOT, causes=(_missing(context, host),))
        elif (block := rules.snapshots.get(snapshot)) is not None:
            words = f"{short_id(snapshot)} is blocked: {block.reason}"
            mend = f"run: salt-run cpacman.revert class={host.class_} channel={host.channel}"
            yield name, Failure(error=FailedError.BLOCKED, causes=(f"{words}; {mend}",))


def _missing(context: Context, host: Host) -> str:
    first = context.settings.class_names[0]
    how = "salt-run cpacman.snapshot" if host.class_ == first else (
        f"salt-run cpacman.promote to={host.class_}"
    )  # fmt: skip
    return f"{host.class_} holds no snapshot of {host.channel} yet; run: {how}"


def plan_quietly(
    context: Context,
    class_: str,
    hosts: Mapping[str, Host],
    fleet: Fleet,
    *,
    reverse: bool = False,
) -> Plan:
    """Plan an upgrade of everything without keeping it, to see how hosts stand.

    Args:
        context: the outside world.
        class_: the hosts' class.
        hosts: those to plan, all of them accepted.
        fleet: where every host belongs.
        reverse: look up in the depot, too, what can't be undone.
    """
    mine = fleet._replace(placements={name: fleet.placements[name] for name in hosts})
    found = inventories_of(context, sorted(hosts))
    made = solve_plan(context, class_, hosts, QUIETLY, found, fleet=mine)
    return _reversible(context, made, found) if reverse else made
