"""How hosts, snapshots, classes and plans differ.

Invariants: nothing is changed and no host is asked; two things are compared only when they are of
one kind, or as an offer and a host; one thing alone with itself: the hosts of a class, or of the
groups of a plan.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from cpacman.commands.alike import changes_between, class_groups, plan_groups, versions_of
from cpacman.commands.context import Context
from cpacman.commands.fleet import everyone, place_all
from cpacman.commands.lacking import Thing, fixes_of, offer_and_host
from cpacman.commands.offering import offered_to
from cpacman.depot.compare import Change, SnapshotDiff, diff_snapshots
from cpacman.depot.snapshot import Snapshot, load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import Action, Inventory, Plan, Transaction
from cpacman.rollout.manifest import nevras_digest, nevras_of


def diff(context: Context, a: str, b: str | None = None) -> dict[str, Any]:
    """Tell how two hosts, snapshots, classes or plans differ, or the hosts of one class or plan.

    Raises:
        UsageError: they are of different kinds, or one is nothing that is known.
    """
    kinds: dict[str, Callable[[Context, str, str], dict[str, Any]]] = {
        "host": _diff_hosts,
        "snapshot": _diff_snapshots,
        "class": _diff_classes,
        "plan": _diff_plans,
    }
    one = _thing(context, a)
    if b is None:
        return {"diff": {"kind": one.kind, "a": {"id": one.id}, "groups": _alike(context, one)}}
    two = _thing(context, b)
    if {one.kind, two.kind} in ({"class", "host"}, {"snapshot", "host"}):
        kind = f"{one.kind} and {two.kind}"
        return {"diff": {"kind": kind, **offer_and_host(context, one, two)}}
    if one.kind != two.kind:
        what = f"{a} is a {one.kind}, {b} a {two.kind}"
        mend = "compare two of one kind, or a class or a snapshot and a host"
        raise UsageError(Problem("diff", what, mend))
    return {"diff": {"kind": one.kind, **kinds[one.kind](context, one.id, two.id)}}


def _alike(context: Context, thing: Thing) -> dict[str, Any]:
    """Return the groups of hosts that one thing has, and how alike they are.

    Raises:
        UsageError: it has none.
    """
    if thing.kind == "class":
        return class_groups(context, thing.id)
    if thing.kind == "plan":
        return plan_groups(context, context.store.plan(thing.id).plan)
    mend = "name another one, or a class or a plan alone"
    raise UsageError(Problem(thing.id, f"is a {thing.kind}, and has no hosts of its own", mend))


def _thing(context: Context, word: str) -> Thing:
    if word.startswith("p-"):
        return Thing("plan", context.store.plan(word).plan.plan_id)
    if word.startswith("s-"):
        return Thing("snapshot", load_snapshot(context.settings.depot, word).id)
    if word in context.settings.class_names:
        return Thing("class", word)
    hosts = context.store.inventory_heads()
    if word in hosts:
        return Thing("host", word)
    near = difflib.get_close_matches(word, [*context.settings.class_names, *hosts], 1)
    mend = f"did you mean {near[0]}?" if near else "a host needs an inventory first"
    raise UsageError(Problem(word, "is no plan, snapshot, class or host that is known", mend))


def _diff_hosts(context: Context, a: str, b: str) -> dict[str, Any]:
    found = context.store.inventories([a, b])
    before, after = (versions_of(found[host].packages) for host in (a, b))
    return {
        "a": _host_side(found[a]),
        "b": _host_side(found[b]),
        **changes_between(before, after),
    }


def _host_side(inventory: Inventory) -> dict[str, Any]:
    """Return what one sees of a host at once: equal fingerprints are equal packages."""
    return {
        "id": inventory.host,
        "fingerprint": nevras_digest(nevras_of(inventory)),
        "packages": len(inventory.packages),
        "kernel": inventory.kernel,
        "modules": sorted(inventory.modules),
    }


def _rows(
    *, added: Iterable[Change], removed: Iterable[Change], updated: Iterable[Change]
) -> dict[str, list[dict[str, Any]]]:
    def rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
        return [
            {"name": c.name, "arch": c.arch, "before": list(c.before), "after": list(c.after)}
            for c in changes
        ]

    return {"added": rows(added), "removed": rows(removed), "updated": rows(updated)}


def _diff_snapshots(context: Context, a: str, b: str) -> dict[str, Any]:
    depot = context.settings.depot
    one, two = load_snapshot(depot, a), load_snapshot(depot, b)
    found = diff_snapshots(one, two)
    return {
        "a": {"id": one.id, "channel": one.channel},
        "b": {"id": two.id, "channel": two.channel},
        **_snapshot_rows(found, one, two),
    }


def _snapshot_rows(found: SnapshotDiff, before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the rows, those that came with the advisories that deliver them."""
    rows = _rows(added=found.added, removed=found.removed, updated=found.updated)
    tell = fixes_of((*before.advisories, *after.advisories))
    for row in (*rows["added"], *rows["updated"]):
        row["advisories"] = tell(row["name"], row["arch"], row["after"])
    return {**rows, "advisories": list(found.advisories)}


def _diff_classes(context: Context, a: str, b: str) -> dict[str, Any]:
    """Compare what two classes hold, channel by channel, as each of them sees it."""
    pointers = context.store.pointers()
    hosts = place_all(context, everyone(context)).hosts.values()
    channels: dict[str, Any] = {}
    for channel in context.settings.channels:
        one, two = (pointers.get((class_, channel)) for class_ in (a, b))
        body: dict[str, Any] = {
            "a": one["snapshot"] if one else None,
            "b": two["snapshot"] if two else None,
        }
        if one and two:
            depot = context.settings.depot
            before, after = (
                offered_to(
                    context.settings,
                    load_snapshot(depot, pointer["snapshot"]),
                    class_,
                    [h for h in hosts if (h.class_, h.channel) == (class_, channel)],
                )
                for class_, pointer in ((a, one), (b, two))
            )
            body |= _snapshot_rows(diff_snapshots(before, after), before, after)
        channels[channel] = body
    return {"a": {"id": a}, "b": {"id": b}, "channels": channels}


def _diff_plans(context: Context, a: str, b: str) -> dict[str, Any]:
    one, two = context.store.plan(a).plan, context.store.plan(b).plan
    both = one.hosts.keys() & two.hosts.keys()
    differing = sorted(h for h in both if _of(one, h).actions != _of(two, h).actions)
    before, after = _actions(one, differing), _actions(two, differing)
    return {
        "a": {"id": one.plan_id, "snapshots": one.snapshots, "hosts": len(one.hosts)},
        "b": {"id": two.plan_id, "snapshots": two.snapshots, "hosts": len(two.hosts)},
        "hosts": {
            "added": sorted(two.hosts.keys() - one.hosts.keys()),
            "removed": sorted(one.hosts.keys() - two.hosts.keys()),
            "changed": differing,
            "equal": len(both) - len(differing),
        },
        "added": _counted(after - before),
        "removed": _counted(before - after),
    }


def _of(plan: Plan, host: str) -> Transaction:
    return plan.transactions[plan.hosts[host]]


def _actions(plan: Plan, hosts: Iterable[str]) -> Counter[tuple[str, str, str]]:
    """Return how many of some hosts have an action: what it is, to what, from what."""
    return Counter(_action(action) for host in hosts for action in _of(plan, host).actions)


def _action(action: Action) -> tuple[str, str, str]:
    return (action.action.value, action.nevra_, action.from_ or "")


def _counted(actions: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"action": what, "nevra": nevra, "from": old or None, "hosts": count}
        for (what, nevra, old), count in sorted(actions.items(), key=lambda row: row[0][1])
    ]
