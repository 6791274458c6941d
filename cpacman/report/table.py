"""A plan as a person reads it: groups of equal hosts, their actions, what is held and what failed.

Invariants: a pure function of the plan and what is handed in besides; what removes, downgrades,
changes vendor or architecture has a count of its own that is never left out; no text of a host
or repository reaches the terminal with control characters in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.model import Action, ActionKind, Failure, Held, Plan, Transaction, short_id
from cpacman.report.depot import signatures as signature_lines
from cpacman.words import many

FEW_ACTIONS = 20
FEW_HOSTS = 3
_OWN = "\0"
"""What stands for a host's own name while causes are compared; no text of ours has it."""
STALE = 86400
"""Seconds after which the age of an inventory is worth a word."""


class Group(NamedTuple):
    """Hosts with one and the same transaction, and the letter they go by."""

    letter: str
    hosts: tuple[str, ...]
    transaction: Transaction


def render_plan(
    plan: Plan,
    *,
    class_: str = "",
    by: str = "",
    ages: Mapping[str, float] | None = None,
    severities: Mapping[str, str] | None = None,
    full: bool = False,
    group: str | None = None,
    signatures: Mapping[str, Any] | None = None,
) -> str:
    """Return the screen of a plan.

    Args:
        plan: the plan.
        class_: the class it is for, by: who made it.
        ages: host -> seconds since its inventory was taken.
        severities: advisory -> its severity.
        full: every action and host, not only the first ones.
        group: the letter of the only group to show.
        signatures: `counts` by verdict and the `packages` that were not verified.
    """
    groups = group_hosts(plan)
    lines = [_title(plan, class_, by), _sums(plan, groups, ages or {})]
    shown = [g for g in groups if group in (None, g.letter)]
    for one in shown:
        lines += _group(one, severities or {}, full=full or group is not None)
    lines += _held(plan, full=full)
    lines += _counts(plan)
    lines += signature_lines(signatures, full=full)
    lines += [f"warning  {text}" for text in plan.warnings]
    lines += _failed(plan.failed, full=full)
    return "\n".join(map(_clean, lines))


def group_hosts(plan: Plan) -> list[Group]:
    """Return the hosts that change in groups of equal ones, the largest first."""
    rows: dict[str, list[str]] = {}
    for host, transaction in sorted(plan.hosts.items()):
        if plan.transactions[transaction].actions:
            rows.setdefault(transaction, []).append(host)
    order = sorted(rows, key=lambda t: (-len(rows[t]), rows[t]))
    return [
        Group(_letter(number), tuple(rows[t]), plan.transactions[t])
        for number, t in enumerate(order)
    ]


def _letter(number: int) -> str:
    """Return A to Z, then AA, AB, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def _title(plan: Plan, class_: str, by: str) -> str:
    where = ", ".join(f"{c} @ {short_id(s)}" for c, s in sorted(plan.snapshots.items()))
    words = [short_id(plan.plan_id), class_, where, *_asked(plan), f"by {by}" if by else ""]
    return "plan " + "  ".join(filter(None, words))


def _asked(plan: Plan) -> Iterator[str]:
    """Yield the parts of a request that are not left out."""
    for key in plan.request.__struct_fields__:
        value = getattr(plan.request, key)
        if key == "reasons":
            if not value:
                yield "no reasons"
        elif value is True:
            yield key
        elif value:
            yield f"{key} {' '.join(value)}"


def _sums(plan: Plan, groups: Sequence[Group], ages: Mapping[str, float]) -> str:
    change = sum(len(g.hosts) for g in groups)
    parts = [
        f"{change} {'changes' if change == 1 else 'change'} in {many(len(groups), 'group')}",
        f"{len(plan.hosts) - change} unchanged",
    ]
    if plan.failed:
        parts.append(f"{len(plan.failed)} NOT PLANNED")
    old = sorted((-age, host) for host, age in ages.items() if age >= STALE)
    if old:
        days = f"{int(-old[0][0] // 86400)} d old ({old[0][1]})"
        inventories = "inventory" if len(old) == 1 else "inventories, the oldest"
        parts.append(f"{len(old)} {inventories} {days}")
    return f"{many(len(plan.hosts) + len(plan.failed), 'host')}: {', '.join(parts)}"


def _group(group: Group, severities: Mapping[str, str], *, full: bool) -> Iterator[str]:
    facts = [many(len(group.hosts), "host"), f"{_bytes(group.transaction.size)} each"]
    if group.transaction.reboot:
        facts.append("REBOOT")
    yield f"{group.letter}  {', '.join(facts)}: {_some(group.hosts, FEW_HOSTS, full=full)}"
    actions = group.transaction.actions
    shown = actions if full else actions[:FEW_ACTIONS]
    yield from _columns(_row(action, severities) for action in shown)
    if len(actions) > len(shown):
        yield f"  ... and {len(actions) - len(shown)} more (group={group.letter})"


def _row(action: Action, severities: Mapping[str, str]) -> tuple[str, str, str]:
    what = f"{action.action.value} {action.name}.{action.arch}"
    told = [f"{a} {severities.get(a, '')}".strip() for a in action.advisories]
    return what, _versions(action), ", ".join(told)


def _versions(action: Action) -> str:
    """Return old and new version; a package of another name or arch is named in full."""
    old = action.from_
    if not old or action.action is ActionKind.REMOVE:
        return action.evr
    own = f"{action.name}-"
    tail = f".{action.arch}"
    if action.action is not ActionKind.OBSOLETE and old.startswith(own) and old.endswith(tail):
        return f"{old[len(own) : -len(tail)]} -> {action.evr}"
    if action.action is ActionKind.OBSOLETE:
        return f"{action.evr} replaces {old}"
    return f"{old} -> {action.evr}"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    cells = list(rows)
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
    joined = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return [f"  {text}".rstrip() for text in joined]


def _held(plan: Plan, *, full: bool) -> Iterator[str]:
    """Yield one line for each package that is held, with how many hosts it is held on."""
    hosts: dict[Held, int] = {}
    for transaction in plan.hosts.values():
        for held in plan.transactions[transaction].held:
            hosts[held] = hosts.get(held, 0) + 1
    rows = sorted(hosts, key=lambda h: (-hosts[h], h.nevra, h.candidate, h.reason.value))
    shown = rows if full else rows[:FEW_ACTIONS]
    for held in shown:
        where = f"  ({many(hosts[held], 'host')})" if len(plan.hosts) > 1 else ""
        detail = f": {held.detail}" if held.detail else ""
        arrow = f" -> {held.candidate}" if held.candidate else ""
        yield f"held  {held.nevra}{arrow}  {held.reason.value}{detail}{where}"
    if len(rows) > len(shown):
        yield f"held  ... and {len(rows) - len(shown)} more"


def _counts(plan: Plan) -> Iterator[str]:
    """Yield the line of what a person must not miss, counted in actions of all hosts."""
    kinds = {ActionKind.REMOVE: 0, ActionKind.DOWNGRADE: 0}
    arches = vendors = 0
    final: list[str] = []
    for host, number in plan.hosts.items():
        transaction = plan.transactions[number]
        for action in transaction.actions:
            if action.action in kinds:
                kinds[action.action] += 1
            arches += _changes_arch(action)
        vendors += len(transaction.vendor_changes)
        final += [] if transaction.reversible else [host]
    yield (
        f"removed {kinds[ActionKind.REMOVE]}  downgraded {kinds[ActionKind.DOWNGRADE]}"
        f"  vendor changed {vendors}  architecture changed {arches}"
        f"  not reversible {len(final)}{f' ({_some(final, FEW_HOSTS)})' if final else ''}"
    )
    yield from _lost(plan)
    lines = {c for t in plan.hosts.values() for c in plan.transactions[t].vendor_changes}
    yield from (f"vendor changed  {line}" for line in sorted(lines))


def _lost(plan: Plan) -> Iterator[str]:
    """Yield one line for each package that could not be had again, with how many hosts lose it."""
    hosts: dict[str, int] = {}
    for number in plan.hosts.values():
        for nevra in plan.transactions[number].irreversible:
            hosts[nevra] = hosts.get(nevra, 0) + 1
    rows = sorted(hosts, key=lambda nevra: (-hosts[nevra], nevra))
    for nevra in rows[:FEW_ACTIONS]:
        yield f"not reversible  {nevra} is kept nowhere ({many(hosts[nevra], 'host')})"
    if len(rows) > FEW_ACTIONS:
        yield f"not reversible  ... and {len(rows) - FEW_ACTIONS} more packages"


def _changes_arch(action: Action) -> bool:
    if not action.from_ or action.action is ActionKind.OBSOLETE:
        return False
    return action.from_.rpartition(".")[2] != action.arch


def _failed(failed: Mapping[str, Failure], *, full: bool) -> Iterator[str]:
    """Yield the hosts that could not be planned, those with the same causes on one line.

    Causes are the same when they differ in the host's own name only.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for host, failure in sorted(failed.items()):
        own = rf"(?<![\w.-]){re.escape(host)}(?![\w.-])"
        causes = re.sub(own, _OWN, "; ".join(failure.causes))
        rows.setdefault((failure.error.value, causes), []).append(host)
    most = FEW_HOSTS * 4
    for (error, causes), hosts in sorted(rows.items(), key=lambda row: row[1]):
        typed = ",".join(hosts[:most]) + (",..." if len(hosts) > most else "")
        told = causes.replace(f"={_OWN}", f"={typed}")
        told = told.replace(_OWN, hosts[0] if len(hosts) == 1 else "HOST")
        yield f"NOT PLANNED {_some(hosts, most, full=full)}: {error}: {told}"


def _some(names: Sequence[str], most: int, *, full: bool = False) -> str:
    shown = names if full else names[:most]
    more = f" ... ({len(names) - len(shown)} more)" if len(names) > len(shown) else ""
    return " ".join(shown) + more


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{size} B"


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
