"""Hosts that were out of reach when their turn came: those of rollouts that wait, and all owed.

Invariants: looking for them starts nothing: a rollout that has some back is only told to go on,
and does so by its own rules; whoever is owed something is found in the database alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpacman.commands.collecting import is_background
from cpacman.commands.context import Context
from cpacman.commands.fleet import everyone, place_all
from cpacman.commands.gatekeeping import JOIN
from cpacman.commands.refresh import refresh_hosts
from cpacman.rollout.machine import RolloutState
from cpacman.store import RolloutHost
from cpacman.store.leases import ENGINE, LIFETIME
from cpacman.transport.port import UNREACHABLE

LATE = "late"
"""The name of the engine's look for hosts that are back."""
EVERY = 300.0
"""Seconds between two of them."""
AT_ONCE = 10.0
"""Seconds between two of them when somebody says that hosts are back: any host can say so."""


def is_due(context: Context) -> bool:
    """Whether it is time to look, or somebody said that a host came back, and any is owed."""
    if context.settings.budget.late != JOIN:
        return False
    wanted, ran, _ = context.store.jobs().get(LATE, (0.0, 0.0, ""))
    pause = AT_ONCE if wanted > ran else EVERY
    return context.clock() >= ran + pause and any(_owed(context).values())


def look_for_late(context: Context) -> dict[str, Any]:
    """Ask who was out of reach in rollouts that wait; those to which hosts come back go on."""
    back: dict[str, list[str]] = {}
    for number, hosts in _owed(context).items():
        found = refresh_hosts(context, hosts)
        here = sorted(host for host, one in found.items() if one.code != UNREACHABLE)
        if here:
            back[number] = here
            context.store.hasten_rollout(number, at=context.clock())
    return {"late": {"back": back}}


def besides(
    context: Context, row: Mapping[str, Any], hosts: Sequence[RolloutHost]
) -> dict[str, Any]:
    """Return what is to be known of a rollout beside its hosts.

    Returns:
        `owed`: those that were out of reach; `late`: what becomes of them when they come back;
        `appeared`: hosts that came to its class since it began, and are not in it; `engine`:
        whether one runs, where it is the engine that has to go on, else None.
    """
    owed = [h.host for h in hosts if h.code == UNREACHABLE]
    appeared = [] if row["ended"] else _appeared(context, row, hosts)
    late = context.settings.budget.late
    return {"owed": owed, "late": late, "appeared": appeared, "engine": _engine(context, row)}


def _engine(context: Context, row: Mapping[str, Any]) -> bool | None:
    goes_on = row["state"] in (RolloutState.RUNNING, RolloutState.WAITING)
    if not (goes_on and is_background(row)):
        return None
    return context.store.is_held(ENGINE, at=context.clock(), lifetime=LIFETIME)


def _appeared(context: Context, row: Mapping[str, Any], hosts: Sequence[RolloutHost]) -> list[str]:
    known = {h.host for h in hosts} | set(context.store.plan(row["plan"]).plan.failed)
    # Who was accepted elsewhere, or before, need not be placed: with pillars that takes long.
    known |= {
        name
        for name, one in context.store.members().items()
        if one.state == "member" and (one.class_ != row["class"] or one.since <= row["created"])
    }
    fleet = place_all(context, [host for host in everyone(context) if host not in known])
    found = []
    for name, host in sorted(fleet.hosts.items()):
        member = fleet.members.get(name)
        since = member.since if member and name not in fleet.held else context.clock()
        if host.class_ == row["class"] and since > row["created"]:
            found.append(name)
    return found


def _owed(context: Context) -> dict[str, list[str]]:
    """Return the rollouts that the engine has left waiting -> who was out of reach in them."""
    rows = context.store.rollouts(active=True)
    waiting = [row for row in rows if row["state"] == RolloutState.WAITING.value]
    return {row["id"]: context.store.unreached(row["id"]) for row in waiting if is_background(row)}
