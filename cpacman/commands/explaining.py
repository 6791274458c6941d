"""Commands that explain: why a package is planned, how two things differ, what is outstanding.

Invariants: nothing is changed and no host is asked; what is told of a plan comes from the plan's
own code; two things are compared only when they are of one kind.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, by_channel, select
from cpacman.commands.planning import channel_for
from cpacman.depot.compare import Change, SnapshotDiff, diff_snapshots
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import Action, Advisory, Host, Inventory, Plan, Transaction
from cpacman.planner.outstanding import RANK, Outstanding, rank
from cpacman.planner.solver import Versions
from cpacman.planner.why import explain
from cpacman.rollout.manifest import nevras_digest, nevras_of

NAMED = 12
"""Hosts that an answer names of those that lack an advisory or have an action."""


# ---- why -----------------------------------------------------------------------------------


def why(context: Context, host: str, package: str) -> dict[str, Any]:
    """Tell why a package is, or is not, in the plan of a host.

    Raises:
        InputError: the host can't be planned at all, or nothing is called that.
    """
    told = explain(channel_for(context, host), package, cache=context.settings.cache_dir / "solver")
    return {"why": msgspec.to_builtins(told)}


# ---- diff ----------------------------------------------------------------------------------


class _Thing(NamedTuple):
    """What was named: its kind and its whole id."""

    kind: str
    id: str


def diff(context: Context, a: str, b: str) -> dict[str, Any]:
    """Tell how two hosts, snapshots, classes or plans differ.

    Raises:
        UsageError: they are of different kinds, or one is nothing that is known.
    """
    kinds: dict[str, Callable[[Context, str, str], dict[str, Any]]] = {
        "host": _diff_hosts,
        "snapshot": _diff_snapshots,
        "class": _diff_classes,
        "plan": _diff_plans,
    }
    one, two = _thing(context, a), _thing(context, b)
    if one.kind != two.kind:
        what = f"{a} is a {one.kind}, {b} a {two.kind}"
        raise UsageError(Problem("diff", what, "compare two of one kind"))
    return {"diff": {"kind": one.kind, **kinds[one.kind](context, one.id, two.id)}}


def _thing(context: Context, word: str) -> _Thing:
    if word.startswith("p-"):
        return _Thing("plan", context.store.plan(word).plan.plan_id)
    if word.startswith("s-"):
        return _Thing("snapshot", load_snapshot(context.settings.depot, word).id)
    if word in context.settings.class_names:
        return _Thing("class", word)
    hosts = context.store.inventory_heads()
    if word in hosts:
        return _Thing("host", word)
    near = difflib.get_close_matches(word, [*context.settings.class_names, *hosts], 1)
    mend = f"did you mean {near[0]}?" if near else "a host needs an inventory first"
    raise UsageError(Problem(word, "is no plan, snapshot, class or host that is known", mend))


def _diff_hosts(context: Context, a: str, b: str) -> dict[str, Any]:
    found = context.store.inventories([a, b])
    before, after = _versions_of(found[a]), _versions_of(found[b])
    changes = [_change(key, before.get(key, ()), after.get(key, ())) for key in before | after]
    differing = sorted(one for one in changes if one.before != one.after)
    return {
        "a": _host_side(found[a]),
        "b": _host_side(found[b]),
        **_rows(
            added=[c for c in differing if not c.before],
            removed=[c for c in differing if not c.after],
            updated=[c for c in differing if c.before and c.after],
        ),
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


def _versions_of(inventory: Inventory) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], list[str]] = {}
    for package in inventory.packages:
        found.setdefault((package.name, package.arch), []).append(package.evr)
    return {key: tuple(sorted(evrs)) for key, evrs in found.items()}


def _change(key: tuple[str, str], before: tuple[str, ...], after: tuple[str, ...]) -> Change:
    return Change(*key, before=before, after=after)


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
        **_snapshot_rows(found),
    }


def _snapshot_rows(found: SnapshotDiff) -> dict[str, Any]:
    rows = _rows(added=found.added, removed=found.removed, updated=found.updated)
    return {**rows, "advisories": list(found.advisories)}


def _diff_classes(context: Context, a: str, b: str) -> dict[str, Any]:
    """Compare what two classes hold, channel by channel."""
    pointers = context.store.pointers()
    channels: dict[str, Any] = {}
    for channel in context.settings.channels:
        one, two = (pointers.get((class_, channel)) for class_ in (a, b))
        body: dict[str, Any] = {
            "a": one["snapshot"] if one else None,
            "b": two["snapshot"] if two else None,
        }
        if one and two:
            depot = context.settings.depot
            before, after = (load_snapshot(depot, p["snapshot"]) for p in (one, two))
            body |= _snapshot_rows(diff_snapshots(before, after))
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


# ---- advisories ----------------------------------------------------------------------------


def advisories(
    context: Context,
    selection: Selection,
    *,
    severity: Sequence[str] = (),
    cve: Sequence[str] = (),
) -> dict[str, Any]:
    """Tell which advisories of their class's snapshots the selected hosts lack.

    Raises:
        UsageError: no such hosts, or a severity that no advisory can have.
    """
    wrong = [word for word in severity if word.lower() not in RANK]
    if wrong:
        mend = f"there are: {', '.join(RANK)}"
        raise UsageError([Problem("severity", f"{word!r} is none", mend) for word in wrong])
    hosts = select(context, selection).hosts
    classes = {
        name: _outstanding(context, name, mine, _Wanted.of(severity, cve))
        for name in context.settings.class_names
        if (mine := {h: one for h, one in hosts.items() if one.class_ == name})
    }
    return {"advisories": {"classes": classes}}


class _Wanted(NamedTuple):
    """Which advisories were asked for; nothing said means all."""

    severities: frozenset[str]
    cves: frozenset[str]

    @classmethod
    def of(cls, severity: Iterable[str], cve: Iterable[str]) -> _Wanted:
        """Return the filter that was typed."""
        return cls(frozenset(map(str.lower, severity)), frozenset(map(str.upper, cve)))

    def fits(self, advisory: Advisory) -> bool:
        """Return whether an advisory is among those asked for."""
        severe = not self.severities or advisory.severity.lower() in self.severities
        return severe and (not self.cves or not self.cves.isdisjoint(map(str.upper, advisory.cves)))


def _outstanding(
    context: Context, class_: str, hosts: Mapping[str, Host], wanted: _Wanted
) -> dict[str, Any]:
    """Return what the hosts of one class lack of what the class holds."""
    pointers = context.store.pointers()
    inventories = context.store.inventories(sorted(hosts))
    unknown = sorted(hosts.keys() - inventories.keys())
    lacking: dict[str, _Lacking] = {}
    for channel, names in by_channel(hosts.values()).items():
        if (pointer := pointers.get((class_, channel))) is None:
            unknown += [name for name in names if name in inventories]
            continue
        snapshot = load_snapshot(context.settings.depot, pointer["snapshot"])
        known = {one.id: one for one in snapshot.advisories if wanted.fits(one)}
        rules = Outstanding(known.values(), Versions().compare)
        for name in (n for n in names if n in inventories):
            for number, packages in rules.of(inventories[name].packages).items():
                lacking.setdefault(number, _Lacking(known[number])).add(name, packages)
    rows = sorted(lacking.values(), key=lambda row: row.order)
    return {
        "hosts": len(hosts),
        "affected": len({host for row in rows for host in row.hosts}),
        "unknown": sorted(unknown),
        "severities": _by_severity(rows),
        "advisories": [row.body() for row in rows],
    }


class _Lacking:
    """One advisory, which hosts lack it, and which of their packages it would renew."""

    def __init__(self, advisory: Advisory) -> None:
        self.advisory = advisory
        self.hosts: list[str] = []
        self.packages: set[str] = set()

    def add(self, host: str, packages: set[str]) -> None:
        """Note a host."""
        self.hosts.append(host)
        self.packages |= packages

    @property
    def order(self) -> tuple[int, int, str]:
        """The worst first, then what most hosts lack."""
        return (rank(self.advisory.severity), -len(self.hosts), self.advisory.id)

    def body(self) -> dict[str, Any]:
        """Return it as plain values."""
        one = self.advisory
        return {
            "id": one.id,
            "type": one.type,
            "severity": one.severity,
            "title": one.title,
            "cves": list(one.cves),
            "packages": sorted(self.packages),
            "hosts": len(self.hosts),
            "on": sorted(self.hosts)[:NAMED],
        }


def _by_severity(rows: Sequence[_Lacking]) -> dict[str, dict[str, int]]:
    """Return severity -> how many advisories and CVEs, and on how many hosts; the worst first."""
    found: dict[str, list[_Lacking]] = {}
    for row in rows:
        found.setdefault(row.advisory.severity or "none", []).append(row)
    return {
        word: {
            "advisories": len(mine),
            "cves": len({cve for row in mine for cve in row.advisory.cves}),
            "hosts": len({host for row in mine for host in row.hosts}),
        }
        for word, mine in found.items()
    }
