"""Whether a frozen plan still holds for its hosts, asked just before they are changed.

Invariants: whoever is not what the plan was made for gets nothing, unless solving again under the
same snapshot and policy gives the very same actions; who lost its place, or waits to be accepted,
gets nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpacman.commands import planning
from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, place_all
from cpacman.commands.refresh import Refreshed, refresh_hosts
from cpacman.model import FailedError, Inventory
from cpacman.rollout.job import ALREADY, CHANGED, Recheck
from cpacman.rollout.manifest import is_done, nevras_of
from cpacman.rollout.reports import INTERRUPTED
from cpacman.store import StoredPlan


def recheck(context: Context, stored: StoredPlan, hosts: Sequence[str]) -> Mapping[str, Recheck]:
    """Ask hosts whether they are still what the plan was made for."""
    results = refresh_hosts(context, hosts)
    fleet = place_all(context, hosts)
    inventories = context.store.inventories(hosts)
    return {
        host: _judge(context, stored, host, results[host], fleet, inventories.get(host))
        for host in hosts
    }


def _judge(
    context: Context,
    stored: StoredPlan,
    host: str,
    asked: Refreshed,
    fleet: Fleet,
    inventory: Inventory | None,
) -> Recheck:
    if asked.error or inventory is None:
        return Recheck(None, asked.code, asked.error)
    if unfit := _unfit(stored, fleet, inventory):
        return unfit
    if inventory.cookie == stored.plan.inventories[host].cookie:
        return Recheck(inventory)
    if is_done(nevras_of(inventory), stored.plan.transactions[stored.plan.hosts[host]]):
        return Recheck(None, ALREADY, "has it already")
    return _solve_again(context, stored, host, fleet, inventory)


def _unfit(stored: StoredPlan, fleet: Fleet, inventory: Inventory) -> Recheck | None:
    """Return why a host can't be worked on at all, whatever it has installed."""
    host = inventory.host
    place = fleet.placements[host]
    session = inventory.facts.get("interrupted")
    if session and not stored.plan.request.rollback:
        mend = f"run: salt-run cpacman.recover {host}"
        return Recheck(None, INTERRUPTED, f"{session!s:.100} was cut off there; {mend}")
    if place.problems or place.host.class_ != stored.class_:
        return Recheck(None, CHANGED, f"is not of class {stored.class_} any more")
    if host in fleet.held:
        return Recheck(None, FailedError.NOT_ACCEPTED.value, fleet.held[host].words)
    return None


def _solve_again(
    context: Context, stored: StoredPlan, host: str, fleet: Fleet, inventory: Inventory
) -> Recheck:
    if stored.plan.request.rollback:
        return Recheck(None, CHANGED, "its packages changed since; run rollback again")
    again = planning.make_plan(
        context, stored.class_, {host: fleet.hosts[host]}, stored.plan.request
    )
    if again.hosts.get(host) == stored.plan.hosts[host]:
        return Recheck(inventory, "", "packages changed since the plan; solved again, same actions")
    mend = f"plan again: salt-run cpacman.plan class={stored.class_}"
    return Recheck(None, CHANGED, f"its packages changed since the plan; {mend}")
