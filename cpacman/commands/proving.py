"""The proof before a promotion: every host of the class is planned from the snapshot to come.

Invariants: hosts are planned by the plan's own code, under their own policy and from what they
really have; inventories that are old are renewed, or the host is named with the age of what it
last said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, everyone, place_all
from cpacman.commands.planning import QUIETLY, STALE, inventories_of, solve_plan
from cpacman.commands.refresh import Refreshed, refresh_hosts
from cpacman.depot.snapshot import Snapshot
from cpacman.model import Host, Inventory, Plan, Request
from cpacman.report.table import Group
from cpacman.rollout.proof import Proof, explained, weigh, witnesses

SHOWN_GROUPS = 26
NAMED = 12
"""Hosts that an answer names of a group."""


class Members(NamedTuple):
    """The hosts of a class, by channel, and how those were answered that were asked just now."""

    hosts: Mapping[str, Mapping[str, Host]]
    fleet: Fleet
    asked: Mapping[str, Refreshed]
    ages: Mapping[str, float]
    unplaced: tuple[str, ...]
    waiting: tuple[str, ...] = ()
    """Those that nobody accepted: they get nothing, so they prove and refuse nothing."""

    def of(self, channel: str) -> Mapping[str, Host]:
        """Return the hosts of one channel."""
        return self.hosts.get(channel, {})


def members_of(context: Context, class_: str, channels: Sequence[str]) -> Members:
    """Return the hosts of a class, after those whose inventory is missing or old were asked."""
    fleet = place_all(context, everyone(context))
    mine = [h for h, one in fleet.hosts.items() if one.class_ == class_ and one.channel in channels]
    heads = context.store.inventory_heads()
    oldest = context.clock() - STALE
    old = [host for host in sorted(mine) if host not in heads or heads[host][1] < oldest]
    asked = refresh_hosts(context, old)
    if asked:
        fleet = place_all(context, everyone(context))
        heads = context.store.inventory_heads()
    found: dict[str, dict[str, Host]] = {}
    waiting = sorted(h for h in fleet.held if fleet.placements[h].host.class_ == class_)
    for name, host in sorted(fleet.hosts.items()):
        if host.class_ == class_ and name not in fleet.held:
            found.setdefault(host.channel, {})[name] = host
    unplaced = [h for h, one in fleet.placements.items() if one.problems
                and one.host.class_ == class_]  # fmt: skip
    ages = {host: context.clock() - taken for host, (_, taken) in heads.items()}
    return Members(found, fleet, asked, ages, tuple(sorted(unplaced)), tuple(waiting))


def prove(
    context: Context, class_: str, candidate: Snapshot, held: Snapshot | None, members: Members
) -> Proof:
    """Plan every host of a class and channel from a snapshot, and from what the class holds.

    The solver is asked for its reasons only about what would be held newly.
    """
    hosts = members.of(candidate.channel)
    inventories = inventories_of(context, sorted(hosts))
    plan = _planned(context, class_, candidate, hosts, members, inventories)
    before = None
    if held is not None:
        # Only where something is held there is something to compare.
        some = {h: hosts[h] for h, t in plan.hosts.items() if plan.transactions[t].held}
        same = held.id == candidate.id
        before = plan if same else _planned(context, class_, held, some, members, inventories)
    stale = {h: int(members.ages[h]) for h in hosts if members.ages.get(h, 0) > STALE}
    proof = weigh(plan, before, stale)
    asked = witnesses(proof)
    if not asked:
        return proof
    few = {name: hosts[name] for name in asked}
    told = _planned(context, class_, candidate, few, members, inventories, Request())
    return explained(proof, told)


def _planned(
    context: Context,
    class_: str,
    snapshot: Snapshot,
    hosts: Mapping[str, Host],
    members: Members,
    inventories: Mapping[str, Inventory],
    request: Request = QUIETLY,
) -> Plan:
    fleet = members.fleet._replace(
        placements={name: members.fleet.placements[name] for name in hosts}
    )
    asked = {name: one for name, one in members.asked.items() if name in hosts}
    return solve_plan(
        context, class_, hosts, request, {name: inventories[name] for name in hosts
                                            if name in inventories},
        fleet=fleet, asked=asked, instead={snapshot.channel: snapshot},
    )  # fmt: skip


def proof_body(proof: Proof, members: Members) -> dict[str, Any]:
    """Return a proof as a runner answers it."""
    return {
        "hosts": proof.hosts,
        "change": len(proof.change),
        "same": len(proof.same),
        "stale": dict(proof.stale),
        "failed": msgspec.to_builtins(dict(proof.failed)),
        "unplaced": list(members.unplaced),
        "waiting": list(members.waiting),
        "newly_held": [
            {**msgspec.to_builtins(one.held), "hosts": len(one.hosts), "on": one.hosts[:NAMED]}
            for one in proof.newly
        ],
        "groups": [_group_body(one) for one in proof.groups[:SHOWN_GROUPS]],
        "omitted": max(len(proof.groups) - SHOWN_GROUPS, 0),
        "reboots": proof.reboots,
        "wire": proof.wire,
        "distinct": proof.distinct,
    }


def _group_body(group: Group) -> dict[str, Any]:
    transaction = group.transaction
    return {
        "letter": group.letter,
        "hosts": len(group.hosts),
        "on": list(group.hosts[:NAMED]),
        "size": transaction.size,
        "reboot": transaction.reboot,
        "actions": [
            {"action": one.action.value, "nevra": one.nevra, "from": one.from_}
            for one in transaction.actions
        ],
    }
