"""What hosts have that CPacMan did not leave there, worked out on the master.

Invariants: nothing is changed; a host that nothing was carried out on, or whose last transaction
is not known to have succeeded, is `unknown`, never equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, named_hosts
from cpacman.commands.refresh import refresh_hosts
from cpacman.errors import EXIT_OTHER
from cpacman.model import Inventory, Outcome, Plan, short_id
from cpacman.rollout.manifest import after_of, nevras_after, nevras_digest, nevras_of
from cpacman.store import RolloutHost

EQUAL, DRIFTED, UNKNOWN, FAILED = "equal", "drifted", "unknown", "failed"


def drift(context: Context, selection: Selection) -> dict[str, Any]:
    """Ask the selected hosts what they have, and compare it with what was left there.

    Raises:
        UsageError: nothing is named, or what is named means nobody.
    """
    hosts = named_hosts(context, selection)
    asked = refresh_hosts(context, hosts)
    errors = {host: one.error for host, one in asked.items() if one.error}
    rows = drift_of(context, [host for host in hosts if host not in errors])
    rows |= {host: _row(FAILED, note=error) for host, error in errors.items()}
    other = any(row["state"] != EQUAL for row in rows.values())
    return {"drift": {"hosts": dict(sorted(rows.items()))}, "retcode": EXIT_OTHER if other else 0}


def drift_of(context: Context, hosts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return host -> how it differs from what its last rollout left, as far as is known here.

    Returns:
        `state`, `rollout`, and `added` and `removed`: NEVRAs.
    """
    told = context.store.last_told(hosts=hosts)
    numbers = {number for number, _ in told.values()}
    plans = {
        number: context.store.plan(str(context.store.rollout_row(number)["plan"])).plan
        for number in numbers
    }
    digests = {
        host: plans[number].inventories[host].digest
        for host, (number, _) in told.items()
        if host in plans[number].inventories
    }
    had = {
        digest: [package.nevra for package in packages]
        for digest, packages in context.store.package_sets(digests.values()).items()
    }
    now = context.store.inventories(list(hosts))
    return {
        host: _compared(host, now.get(host), told.get(host), plans, had.get(digests.get(host, "")))
        for host in hosts
    }


def _compared(
    host: str,
    inventory: Inventory | None,
    told: tuple[str, RolloutHost] | None,
    plans: Mapping[str, Plan],
    had: Sequence[str] | None,
) -> dict[str, Any]:
    """Compare what a host has with what it was to have after its last transaction."""
    if inventory is None:
        return _row(UNKNOWN, note="has no inventory yet")
    if told is None:
        return _row(UNKNOWN, note="nothing was carried out yet")
    number, row = told
    if row.outcome != Outcome.APPLIED.value:
        return _row(UNKNOWN, number, note=f"{short_id(number)}: {row.outcome or row.state}")
    have = nevras_of(inventory)
    if nevras_digest(have) == after_of(row.manifest):
        return _row(EQUAL, number)
    if had is None:
        return _row(DRIFTED, number, note="what it had before is not known any more")
    left = Counter(nevras_after(had, plans[number].transactions[row.transaction]))
    found = Counter(have)
    added, removed = sorted((found - left).elements()), sorted((left - found).elements())
    state = DRIFTED if added or removed else EQUAL
    return {**_row(state, number), "added": added, "removed": removed}


def _row(state: str, rollout: str = "", *, note: str = "") -> dict[str, Any]:
    return {"state": state, "rollout": rollout, "note": note, "added": [], "removed": []}
