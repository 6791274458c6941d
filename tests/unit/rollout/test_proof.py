"""The proof: what a plan would do to a class, beside what it holds now."""

from __future__ import annotations

from cpacman.model import (
    Action,
    ActionKind,
    FailedError,
    Failure,
    Held,
    HeldReason,
    InventoryRef,
    Plan,
    Request,
    Transaction,
)
from cpacman.rollout.proof import explained, refusals, weigh, witnesses


def held(name: str, reason: HeldReason = HeldReason.UNEXPLAINED, detail: str = "") -> Held:
    """A held package of version 1, of which there is a 2."""
    return Held(nevra=f"{name}-1-1.noarch", candidate=f"{name}-2-1.noarch", reason=reason,
                detail=detail)  # fmt: skip


def action(name: str, size: int) -> Action:
    """An upgrade to version 2."""
    return Action(
        action=ActionKind.UPGRADE, name=name, epoch=0, version="2", release="1", arch="noarch",
        nevra_=f"{name}-2-1.noarch", from_=f"{name}-1-1.noarch", repository="r", sha256=name,
        size=size,
    )  # fmt: skip


def plan(failed: tuple[str, ...] = (), **hosts: Transaction) -> Plan:
    """A plan of hosts and their transactions."""
    numbers = {host: f"t-{sorted(hosts).index(host)}" for host in hosts}
    return Plan(
        plan_id="p-1", request=Request(), policy="", snapshots={}, hosts=numbers,
        inventories={h: InventoryRef(digest="", cookie="") for h in hosts},
        transactions={numbers[host]: one for host, one in hosts.items()},
        failed={h: Failure(error=FailedError.REQUIRES, causes=("needs x",)) for h in failed},
    )  # fmt: skip


def change(*names: str, reboot: bool = False, held: tuple[Held, ...] = ()) -> Transaction:
    """A transaction that upgrades these, a kilobyte each."""
    actions = tuple(action(name, 1000) for name in names)
    return Transaction(actions=actions, held=held, size=1000 * len(names), reboot=reboot)


def test_hosts_and_bytes_are_counted_once() -> None:
    """Every host is in one of three; a file that two hosts get is one of the distinct ones."""
    made = plan(("db9",), a=change("x", "y", reboot=True), b=change("y"), c=change())
    proof = weigh(made, None, {"a": 9})
    assert (proof.change, proof.same, set(proof.failed)) == (("a", "b"), ("c",), {"db9"})
    assert (proof.hosts, proof.reboots, proof.wire, proof.distinct) == (4, 1, 3000, 2000)
    assert proof.newly == () and dict(proof.stale) == {"a": 9}
    assert [(p.path, p.message) for p in refusals(proof)] == [("db9", "needs x")]


def test_newly_held_is_what_nothing_holds_now() -> None:
    """Held before for another reason is no news; who could not be planned before tells nothing."""
    now = plan(a=change(held=(held("x"), held("y"))), b=change(held=(held("x"),)),
               c=change(held=(held("z"),)))  # fmt: skip
    before = plan(a=change(held=(held("y", HeldReason.LOCK),)), b=change())
    proof = weigh(now, before, {})
    assert [(one.held.nevra, one.hosts) for one in proof.newly] == [("x-1-1.noarch", ("a", "b"))]
    assert [p.path for p in refusals(proof)] == ["x-1-1.noarch"]


def test_blocked_is_held_on_purpose() -> None:
    """What stands on the block list refuses nothing."""
    now = plan(a=change(held=(held("x", HeldReason.BLOCKED),)))
    proof = weigh(now, plan(a=change()), {})
    assert len(proof.newly) == 1 and refusals(proof) == [] and witnesses(proof) == []


def test_few_hosts_are_asked_for_reasons() -> None:
    """One host stands for all that it holds; its reasons are those of the others."""
    now = plan(a=change(held=(held("x"),)), b=change(held=(held("x"), held("y"))),
               c=change(held=(held("z", HeldReason.ARCH),)))  # fmt: skip
    proof = weigh(now, plan(a=change(), b=change(), c=change()), {})
    assert witnesses(proof) == ["b"]
    why = held("x", HeldReason.REQUIRES, "needs q")
    told = explained(proof, plan(b=change(held=(why,))))
    assert [one.held.reason for one in told.newly] == [
        HeldReason.REQUIRES, HeldReason.UNEXPLAINED, HeldReason.ARCH,
    ]  # fmt: skip
    assert "requires: needs q" in refusals(told)[0].message
