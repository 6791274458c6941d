"""The board: classes and channels, their snapshots, and how the hosts stand to them.

Invariants: nothing is changed and no host is asked; a host stands to its class in exactly one
way; a fleet is solved once, and what an earlier plan or board found out is used again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cpacman.commands.chains import chain_row
from cpacman.commands.collecting import is_abandoned
from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, by_channel, everyone, place_all
from cpacman.commands.gatekeeping import freeze_of
from cpacman.commands.offering import offered
from cpacman.commands.planning import plan_quietly
from cpacman.commands.ticking import engine_now
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import Host
from cpacman.planner.ahead import Newest
from cpacman.planner.solver import Versions
from cpacman.rollout.view import view_of


def status(
    context: Context, classes: Sequence[str] = (), channels: Sequence[str] = ()
) -> dict[str, Any]:
    """Show classes and channels: snapshot, age, how many hosts stand how."""
    wanted = _known("class", classes, context.settings.class_names)
    serving = _known("channel", channels, tuple(context.settings.channels))
    fleet = place_all(context, everyone(context))
    hosts = _rows(context, fleet, wanted, serving)
    pointers = context.store.pointers()
    cells = {
        channel: {
            class_: _cell(context, pointers.get((class_, channel)), hosts, class_, channel)
            for class_ in wanted
        }
        for channel in serving
    }
    return {
        "status": {
            "classes": list(wanted),
            "board": cells,
            "hosts": hosts,
            "unplaced": _unplaced(fleet),
            "rollouts": [_active(context, row) for row in context.store.rollouts(active=True)],
            "chains": [
                chain_row(context.store, one, context.clock())
                for one in context.store.chains(active=True)
            ],
            "engine": engine_now(context),
            "freeze": _freeze(context, wanted),
            "now": context.clock(),
        }
    }


def _known(what: str, asked: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    wrong = [name for name in asked if name not in known]
    if wrong:
        mend = f"known are: {', '.join(known)}"
        raise UsageError([Problem(what, f"there is no {what} {name!r}", mend) for name in wrong])
    return asked or known


# ---- how hosts stand -----------------------------------------------------------------------


def standing_of(
    context: Context, fleet: Fleet, classes: Collection[str] | None = None
) -> dict[str, str]:
    """Return host -> how it stands to its class's snapshot, or what about it nobody accepted.

    `behind` would change by a plan of now; `ahead` would not, and has something newer than the
    snapshot; `current` is neither; `unknown` can't be planned.
    """
    found: dict[str, str] = {}
    held = fleet.held
    for class_ in sorted({host.class_ for host in fleet.hosts.values()}):
        if classes is not None and class_ not in classes:
            continue
        members = {
            name: host
            for name, host in fleet.hosts.items()
            if host.class_ == class_ and name not in held
        }
        found |= _of_class(context, class_, members, fleet)
    return {**found, **{name: change.state for name, change in held.items()}}


def _of_class(
    context: Context, class_: str, members: Mapping[str, Host], fleet: Fleet
) -> dict[str, str]:
    plan = plan_quietly(context, class_, members, fleet)
    found = dict.fromkeys(members.keys() & plan.failed.keys(), "unknown")
    idle = {number for number, one in plan.transactions.items() if not one.actions}
    found |= dict.fromkeys((h for h, t in plan.hosts.items() if t not in idle), "behind")
    rest = {h: members[h] for h, t in plan.hosts.items() if t in idle}
    for channel, names in by_channel(rest.values()).items():
        snapshot = load_snapshot(context.settings.depot, plan.snapshots[channel])
        newest = Newest(offered(context.settings, snapshot, class_).packages, Versions().compare)
        for host, one in context.store.inventories(names).items():
            found[host] = "ahead" if newest.is_behind(one.packages) else "current"
    return found


# ---- the answer ----------------------------------------------------------------------------


def _rows(
    context: Context, fleet: Fleet, classes: Sequence[str], channels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    standing = standing_of(context, fleet, classes)
    now, heads = context.clock(), context.store.inventory_heads()
    ages = {host: int(now - taken) for host, (_, taken) in heads.items()}
    return {
        name: {"class": host.class_, "level": host.level, "channel": host.channel,
               "state": standing.get(name, "unknown"), "age": ages.get(name)}
        for name, host in sorted(fleet.hosts.items())
        if host.class_ in classes and host.channel in channels
    }  # fmt: skip


def _cell(
    context: Context,
    pointer: Mapping[str, Any] | None,
    hosts: Mapping[str, Mapping[str, Any]],
    class_: str,
    channel: str,
) -> dict[str, Any]:
    mine = (one for one in hosts.values() if (one["class"], one["channel"]) == (class_, channel))
    counts = dict(Counter(str(one["state"]) for one in mine))
    if pointer is None:
        return {"snapshot": None, "hosts": counts}
    return {
        "snapshot": pointer["snapshot"],
        "previous": pointer["previous"],
        "age": int(context.clock() - pointer["since"]),
        "by": pointer["who"],
        "hosts": counts,
    }


def _unplaced(fleet: Fleet) -> dict[str, list[str]]:
    return {
        host: [str(p._replace(path="") if p.path == host else p) for p in found]
        for host, found in sorted(fleet.problems.items())
    }


def _active(context: Context, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far a rollout is, and whether its process died and nobody goes on with it."""
    view = view_of(context.store, row, context.clock())
    shown = (
        "id",
        "class",
        "state",
        "why",
        "until",
        "who",
        "created",
        "alive",
        "at",
        "done",
        "total",
    )
    return {**{name: view[name] for name in shown}, "died": is_abandoned(row, context.clock())}


def _freeze(context: Context, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the freeze of any of these classes that holds, or the next one that will."""
    now = context.clock()
    found = [freeze_of(one) for one in context.settings.freeze]
    ahead = [
        one
        for one in found
        if one.end.timestamp() > now
        and (not one.classes or not set(one.classes).isdisjoint(classes))
    ]
    if not ahead:
        return None
    first = min(ahead, key=lambda one: one.start)
    return {"from": first.start.timestamp(), "until": first.end.timestamp(),
            "classes": list(first.classes), "reason": first.reason}  # fmt: skip
