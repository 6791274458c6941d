"""Whether transactions can be undone: pure.

Invariant: what leaves a host, replaced or removed, is all that is needed to go back; of hosts that
share a transaction the one that lacks most decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from cpacman.model import ActionKind, InstalledPackage, Inventory, Plan, Transaction


def leaving(transaction: Transaction) -> Iterator[str]:
    """Yield the NEVRAs that a transaction takes away."""
    for action in transaction.actions:
        if action.action is ActionKind.REMOVE:
            yield action.nevra_
        elif action.from_:
            yield action.from_


def leaving_packages(
    plan: Plan, inventories: Mapping[str, Inventory]
) -> Iterator[tuple[str, InstalledPackage]]:
    """Yield each transaction with each installed package that it takes away, equal hosts once."""
    seen: set[tuple[str, int]] = set()
    for host, number in plan.hosts.items():
        packages = inventories[host].packages
        if (number, id(packages)) in seen or not plan.transactions[number].actions:
            continue
        seen.add((number, id(packages)))
        gone = set(leaving(plan.transactions[number]))
        yield from ((number, package) for package in packages if package.nevra in gone)


def with_reverse(plan: Plan, lost: Iterable[tuple[str, str]]) -> Plan:
    """Return a plan whose transactions tell what can't be had again.

    Args:
        plan: the plan.
        lost: transactions, and the NEVRA of a package each that nobody has any more.
    """
    missing: dict[str, set[str]] = {}
    for number, nevra in lost:
        missing.setdefault(number, set()).add(nevra)
    transactions = {
        number: msgspec.structs.replace(
            one,
            reversible=number not in missing,
            irreversible=tuple(sorted(missing.get(number, ()))),
        )
        for number, one in plan.transactions.items()
    }
    return msgspec.structs.replace(plan, transactions=transactions)
