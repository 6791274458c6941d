"""Plans and rollouts as a runner answers them: plain values, of a size that fits one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.following import foretold
from cpacman.commands.provenance import plan_signatures
from cpacman.depot.snapshot import load_remaining
from cpacman.errors import InputError, Problem
from cpacman.model import Plan, short_id
from cpacman.rollout.machine import LevelState
from cpacman.store import RolloutHost, RolloutLevel, StoredPlan

MOST_TRANSACTIONS = 200
SHOWN_TRANSACTIONS = 26
"""Above so many distinct transactions an answer holds those of the largest groups only."""


def only_host(plan: Plan, host: str) -> Plan:
    """Return the part of a plan that is about one host, under the same id.

    Raises:
        InputError: the plan has no such host.
    """
    if host not in plan.hosts and host not in plan.failed:
        raise InputError(Problem(host, f"is not in {short_id(plan.plan_id)}"))
    hosts = {h: t for h, t in plan.hosts.items() if h == host}
    return msgspec.structs.replace(
        plan,
        hosts=hosts,
        inventories={h: plan.inventories[h] for h in hosts},
        transactions={t: plan.transactions[t] for t in hosts.values()},
        failed={h: f for h, f in plan.failed.items() if h == host},
    )


def plan_body(context: Context, stored: StoredPlan, plan: Plan) -> dict[str, Any]:
    """Return a plan as a runner answers it: the document, and what the screen says around it."""
    heads = context.store.inventory_heads()
    now = context.clock()
    shown = summary_of(plan)
    ages = {h: int(now - heads[h][1]) for h in shown.hosts if h in heads}
    return {
        **msgspec.to_builtins(shown),
        "omitted": len(plan.hosts) - len(shown.hosts),
        "class": stored.class_,
        "by": stored.who,
        "created": stored.created,
        "ages": ages,
        "severities": _severities(context, plan),
        "signatures": plan_signatures(context, plan),
        "follows": foretold(context, stored.class_, plan),
    }


def summary_of(plan: Plan) -> Plan:
    """Return a plan that can be answered in one piece: of very many groups only the largest."""
    if len(plan.transactions) <= MOST_TRANSACTIONS:
        return plan
    sizes = Counter(plan.hosts.values())
    kept = set(sorted(sizes, key=lambda t: (-sizes[t], t))[:SHOWN_TRANSACTIONS])
    hosts = {host: number for host, number in plan.hosts.items() if number in kept}
    return msgspec.structs.replace(
        plan,
        hosts=hosts,
        inventories={host: plan.inventories[host] for host in hosts},
        transactions={number: plan.transactions[number] for number in sorted(kept)},
    )


def _severities(context: Context, plan: Plan) -> dict[str, str]:
    """Return advisory -> severity of what the plan delivers."""
    delivered = {a for t in plan.transactions.values() for one in t.actions for a in one.advisories}
    if not delivered:
        return {}
    # A plan of the past is shown for as long as it is known, its snapshot is not kept as long.
    return {
        advisory.id: advisory.severity
        for snapshot in load_remaining(context.settings.depot, plan.snapshots.values())
        for advisory in snapshot.advisories
        if advisory.id in delivered
    }


def rollout_body(
    row: Mapping[str, Any], hosts: Sequence[RolloutHost], levels: Sequence[RolloutLevel] = ()
) -> dict[str, Any]:
    """Return a rollout as plain values: its header, its levels, each host, and the sums."""
    shown = {
        h.host: {"level": h.level, "state": h.state, "outcome": h.outcome, "code": h.code,
                 "detail": h.detail, "transaction": h.transaction, "attempt": h.attempt,
                 "findings": msgspec.json.decode(h.findings) if h.findings else {}}
        for h in hosts
    }  # fmt: skip
    sums: dict[str, dict[str, int]] = {level.level: {} for level in levels}
    for h in hosts:
        level = sums.setdefault(h.level, {})
        level[h.outcome or h.state] = level.get(h.outcome or h.state, 0) + 1
    header = {k: row[k] for k in ("id", "plan", "class", "state", "why", "until", "wish")}
    header["chain"] = msgspec.json.decode(row["settings"] or "{}").get("chain") or None
    more = {k: row[k] for k in ("who", "reason", "ticket", "created", "ended")}
    gates = {
        level.level: {"state": level.state, "since": level.since, "soak": level.limits["soak"],
                      "until": _soaks_until(level), "gate": level.limits["gate"],
                      "findings": level.findings or []}
        for level in levels
    }  # fmt: skip
    return {**header, **more, "levels": sums, "gates": gates, "hosts": shown}


def _soaks_until(level: RolloutLevel) -> float | None:
    """Return when a soak is over; it counts on from where it was when hosts came late."""
    soaks = level.state == LevelState.SOAKING and level.soaking is not None
    return float(level.soaking or 0) + float(level.limits["soak"]) if soaks else None
