"""What a snapshot would do to the hosts of a class, weighed before it is promoted: pure.

Invariants: every host of the class is in exactly one of change, same and failed; a package counts
as newly held on a host when no plan from what the class holds now would hold it there; a host that
could not be planned before has nothing to compare with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cpacman.errors import Problem
from cpacman.model import Failure, Held, HeldReason, Plan, Transaction
from cpacman.report.table import Group, group_hosts
from cpacman.words import many


class NewlyHeld(NamedTuple):
    """A package that would be held and is not now, and where."""

    held: Held
    hosts: tuple[str, ...]


class Proof(NamedTuple):
    """The plans of all hosts of a class, from the snapshot that is to come.

    `wire` is what all hosts together would be sent at most, `distinct` each file once, in bytes;
    `stale` is how old the inventories are of hosts that could not be asked, in seconds.
    """

    plan: Plan
    change: tuple[str, ...]
    same: tuple[str, ...]
    failed: Mapping[str, Failure]
    stale: Mapping[str, int]
    newly: tuple[NewlyHeld, ...]
    reboots: int
    wire: int
    distinct: int

    @property
    def hosts(self) -> int:
        """How many hosts it is about."""
        return len(self.change) + len(self.same) + len(self.failed)

    @property
    def groups(self) -> list[Group]:
        """The hosts that change, in groups of equal transactions."""
        return group_hosts(self.plan)


def weigh(plan: Plan, before: Plan | None, stale: Mapping[str, int]) -> Proof:
    """Weigh a plan from the snapshot to come.

    Args:
        plan: upgrades of all hosts of the class from it.
        before: the same from what the class holds, None when it holds nothing.
        stale: host -> age of an inventory that could not be renewed.
    """
    change = tuple(h for h in sorted(plan.hosts) if _of(plan, h).actions)
    coming = {
        action.sha256: action.size
        for transaction in plan.transactions.values()
        for action in transaction.actions
        if action.sha256 and action.size
    }
    return Proof(
        plan=plan,
        change=change,
        same=tuple(h for h in sorted(plan.hosts) if not _of(plan, h).actions),
        failed=plan.failed,
        stale=stale,
        newly=tuple(_newly_held(plan, before)) if before else (),
        reboots=sum(_of(plan, host).reboot for host in change),
        wire=sum(_of(plan, host).size for host in change),
        distinct=sum(coming.values()),
    )


def _of(plan: Plan, host: str) -> Transaction:
    return plan.transactions[plan.hosts[host]]


def _newly_held(plan: Plan, before: Plan) -> Iterator[NewlyHeld]:
    """Yield what is held on hosts where it was not, each with its hosts."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for host in sorted(plan.hosts.keys() & before.hosts.keys()):
        pairs.setdefault((plan.hosts[host], before.hosts[host]), []).append(host)
    found: dict[Held, list[str]] = {}
    for (now, then), hosts in pairs.items():
        known = {one.nevra for one in before.transactions[then].held}
        fresh = {one.nevra: one for one in reversed(plan.transactions[now].held)}
        for nevra, one in fresh.items():
            if nevra not in known:
                found.setdefault(one, []).extend(hosts)
    for one, hosts in sorted(found.items(), key=lambda row: (row[0].nevra, row[0].candidate)):
        yield NewlyHeld(one, tuple(sorted(hosts)))


def witnesses(proof: Proof) -> list[str]:
    """Return the few hosts of which it is enough to ask why all that is newly held is held."""
    open_ = {one.held: set(one.hosts) for one in proof.newly
             if one.held.reason is HeldReason.UNEXPLAINED}  # fmt: skip
    asked: list[str] = []
    while open_:
        votes = Counter(host for hosts in open_.values() for host in hosts)
        best = min(votes, key=lambda host: (-votes[host], host))
        asked.append(best)
        open_ = {held: hosts for held, hosts in open_.items() if best not in hosts}
    return asked


def explained(proof: Proof, told: Plan) -> Proof:
    """Return a proof whose newly held packages have the reasons that another plan tells."""
    known = {
        (one.nevra, one.candidate): one
        for transaction in told.transactions.values()
        for one in transaction.held
    }
    newly = (
        one._replace(held=known.get((one.held.nevra, one.held.candidate), one.held))
        for one in proof.newly
    )
    return proof._replace(newly=tuple(newly))


def refusals(proof: Proof) -> list[Problem]:
    """Return why a snapshot must not be promoted as it is.

    What is held because it stands on the block list is held on purpose.
    """
    problems = [
        Problem(host, "; ".join(failure.causes) or failure.error.value)
        for host, failure in sorted(proof.failed.items())
    ]
    problems += [
        Problem(one.held.nevra, f"would be held newly on {many(len(one.hosts), 'host')},"
                f" {one.held.reason.value}: {one.held.detail}",
                f"leave it out: exclude={one.held.nevra.rsplit('-', 2)[0]}")
        for one in proof.newly
        if one.held.reason is not HeldReason.BLOCKED
    ]  # fmt: skip
    return problems
