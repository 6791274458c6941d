"""Taking a fleet in that was looked after by other means: what is wrong with it is told first.

Invariant: nothing is accepted unless asked for, and nothing else is changed at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, Selection, select
from cpacman.commands.membership import accept
from cpacman.commands.planning import plan_quietly
from cpacman.commands.snapshots import kept_ids
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import Inventory, Plan


class _Findings(NamedTuple):
    """What is to be known of a host before it is managed. All are sorted lines."""

    unknown: tuple[str, ...]
    broken: tuple[str, ...]
    irreversible: tuple[str, ...]
    not_planned: tuple[str, ...]


def adopt(
    context: Context,
    selection: Selection,
    *,
    now: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """List what is to be known of hosts before they are managed; with `now` accept them, too.

    Raises:
        UsageError: no hosts are named.
        SafetyError: as `accept`.
    """
    if selection.is_empty:
        raise UsageError(
            Problem("adopt", "name the hosts", "a target such as '*', or class= level= channel=")
        )
    fleet = select(context, selection)
    taken = sorted(host for host, change in fleet.held.items() if change.state != "retired")
    body: dict[str, Any] = {
        "groups": list(_groups(context, fleet, taken)),
        "members": sorted(set(fleet.hosts) - set(taken)),
        "unplaced": {h: [str(p) for p in found] for h, found in sorted(fleet.problems.items())},
        "accepted": [],
        "test": test,
    }
    ready = [host for host in taken if host in fleet.hosts]
    if now and ready:
        accept(context, ready, test=test, reason=reason, ticket=ticket)
        body["accepted"] = ready
    return {"adopt": body}


def _groups(context: Context, fleet: Fleet, taken: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the findings, each with the hosts that have the very same ones."""
    found: dict[_Findings, list[str]] = {}
    for host, one in _findings(context, fleet, taken):
        found.setdefault(one, []).append(host)
    for one, hosts in sorted(found.items(), key=lambda item: (-len(item[1]), item[1])):
        lists = {name: list(lines) for name, lines in one._asdict().items()}
        yield {"hosts": hosts, **lists}


def _findings(
    context: Context, fleet: Fleet, taken: Sequence[str]
) -> Iterator[tuple[str, _Findings]]:
    hosts = {name: fleet.hosts[name] for name in taken if name in fleet.hosts}
    inventories = context.store.inventories(sorted(hosts))
    known = {c: _known(context, c) for c in sorted({one.channel for one in hosts.values()})}
    broken: dict[int, tuple[str, ...]] = {}
    # They are planned as if they were members: that is what adopting them means.
    as_members = fleet._replace(changes={})
    for class_ in sorted({host.class_ for host in hosts.values()}):
        mine = {name: host for name, host in hosts.items() if host.class_ == class_}
        plan = plan_quietly(context, class_, mine, as_members, reverse=True)
        for name in sorted(mine):
            one = inventories.get(name)
            yield (
                name,
                _Findings(
                    unknown=_unknown(one, known[mine[name].channel]),
                    broken=_broken(one, broken),
                    irreversible=_irreversible(plan, name),
                    not_planned=tuple(plan.failed[name].causes) if name in plan.failed else (),
                ),
            )
            context.reporter.progress("looked at", len(broken), len(hosts), "hosts")


def _known(context: Context, channel: str) -> frozenset[str]:
    """Return every package that some snapshot of a channel in the depot has."""
    depot = context.settings.depot
    snapshots = (load_snapshot(depot, one) for one in kept_ids(context, channel))
    return frozenset(package.nevra for one in snapshots for package in one.packages)


def _unknown(inventory: Inventory | None, known: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(p.nevra for p in inventory.packages if p.nevra not in known)) \
        if inventory else ()  # fmt: skip


def _broken(inventory: Inventory | None, seen: dict[int, tuple[str, ...]]) -> tuple[str, ...]:
    """Return broken dependencies; equal sets of packages are one object, and judged once."""
    from cpacman.planner.solver import broken_dependencies

    if inventory is None:
        return ()
    key = id(inventory.packages)
    if key not in seen:
        seen[key] = tuple(broken_dependencies(inventory.packages, inventory.arch))
    return seen[key]


def _irreversible(plan: Plan, host: str) -> tuple[str, ...]:
    transactions: Mapping[str, Any] = plan.transactions
    return tuple(transactions[plan.hosts[host]].irreversible) if host in plan.hosts else ()
