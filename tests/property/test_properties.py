"""What holds of every plan, whatever dnf would do: random families again, and rpm's own verdict."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cpacman.model import (
    ActionKind,
    HeldReason,
    Inventory,
    Plan,
    Transaction,
    canonical_json,
)
from cpacman.planner.plan import ChannelInput, plan_hosts
from tests.property import oracle
from tests.property.families import make_case
from tests.property.invariants import Row, World
from tests.property.soundness import compare
from tests.unit.planner.casefile import Case, Pkg, channel_of, installed_package, request_of

pytestmark = pytest.mark.property

COUNT = 150
"""How many families each property is tried on."""


def planned(number: int, directory: Path) -> Iterator[tuple[Case, ChannelInput, Plan]]:
    """Yield a family's case, its channel and its plan."""
    case = make_case(number)
    channel = channel_of(case, directory / str(number))
    yield case, channel, plan_hosts([channel], request=request_of(case), workers=1)


def families(first: int, directory: Path) -> Iterator[tuple[Case, ChannelInput, Plan]]:
    """Yield some families that could be planned."""
    for number in range(first, first + COUNT):
        yield from (row for row in planned(number, directory) if row[2].transactions)


def transaction_of(plan: Plan) -> Transaction:
    """Return the one transaction of a plan."""
    (transaction,) = plan.transactions.values()
    return transaction


def after(world: World, inventory: Inventory, transaction: Transaction) -> Inventory:
    """Return a host's inventory when a transaction has been carried out."""
    gone = {a.nevra if a.action is ActionKind.REMOVE else a.from_ for a in transaction.actions}
    offered = {(r.repository, r.package.nevra): r.package for r in world.offered}
    taken = {(a.repository, a.nevra) for a in transaction.actions if a.repository}
    come = [installed_package(offered[key]) for key in sorted(taken)]
    stay = [p for p in inventory.packages if p.nevra not in gone]
    return msgspec.structs.replace(inventory, packages=(*stay, *come))


def test_order_does_not_matter(tmp_path: Path) -> None:
    """Repositories, packages and advisories in another order give the same bytes."""
    shuffle = random.Random(7).sample
    for case, channel, plan in families(10_000, tmp_path):
        (host,) = channel.inventories
        packages = tuple(shuffle(host.packages, len(host.packages)))
        turned = msgspec.structs.replace(
            channel,
            sources=channel.sources[::-1],
            advisories=channel.advisories[::-1],
            inventories=(msgspec.structs.replace(host, packages=packages),),
        )
        again = plan_hosts([turned], request=request_of(case), workers=1)
        assert canonical_json(again) == canonical_json(plan), case.title


def test_a_plan_is_done_once(tmp_path: Path) -> None:
    """After a plan there is nothing to do by the same request; what was held still is.

    What did not fit beside the first synchronised packages may fit now; and for kernels libsolv
    does not count the installed version when repositories have priorities.
    """
    for case, channel, plan in families(20_000, tmp_path):
        request = request_of(case)
        (host,) = channel.inventories
        then = after(World(case), host, transaction_of(plan))
        channel = msgspec.structs.replace(channel, inventories=(then,))
        again = plan_hosts([channel], request=request, workers=1)
        if not (request.upgrade_all or request.sync) and not again.transactions:
            continue  # what is named is not there any more, or has been replaced
        apart = request.sync and transaction_of(plan).held
        ranked = "priority=" in str(case.sections)
        actions = [a for a in transaction_of(again).actions if not (ranked and "kernel" in a.name)]
        # A twin of the same NEVRA may be what something needs.
        actions = [a for a in actions if a.action is not ActionKind.REINSTALL]
        assert apart or not [a.nevra for a in actions], case.title


def test_nothing_forbidden_comes(tmp_path: Path) -> None:
    """What a line or an invariant keeps away is in no plan, whatever is asked for."""
    for case, _, plan in families(30_000, tmp_path):
        request, world = request_of(case), World(case)
        named = {*request.install, *request.upgrade}
        shut = world.forbidden()
        for action in transaction_of(plan).actions:
            rule = shut.get((action.repository or "", action.nevra), "")
            # Who names a version has named its origin; nothing else gives way to a request.
            assert not rule or (rule == "origin" and named), (case.title, action.nevra, rule)


def test_an_update_keeps_its_architecture(tmp_path: Path) -> None:
    """No package of a plan is of another kind than what it replaces; each such one is told."""
    told = 0
    for case, _, plan in families(40_000, tmp_path):
        world, transaction = World(case), transaction_of(plan)
        for action in transaction.actions:
            old = next((r for r in world.installed if r.package.nevra == action.from_), None)
            if old is not None and old.name == action.name and action.repository:
                allowed = world.allows("arch_change", action.name)
                assert action.arch == old.arch or allowed, (case.title, action.nevra)
        if request_of(case).upgrade_all:
            told += _told(world, transaction, case)
    assert told > 3


def _told(world: World, transaction: Transaction, case: Case) -> int:
    """Return how many changes of architecture are told, after looking that all are."""
    shut = {key for key, rule in world.forbidden().items() if rule == "arch"}
    held = {h.nevra for h in transaction.held}
    found = 0
    if request_of(case).by_advisory or case.of("modules"):
        return 0
    for row in (r for r in world.offered if (r.repository, r.package.nevra) in shut):
        for old in world.of_name(row.name):
            if _is_only_newer(world, row, old):
                assert old.package.nevra in held, (case.title, old.package.nevra)
                found += 1
    return found


def _is_only_newer(world: World, row: Row, old: Row) -> bool:
    """Return whether a package is newer than one that its own architecture has no update for."""
    own = [r for r in world.offered if (r.name, r.arch) == (old.name, old.arch)]
    newer = compare(row.evr, old.evr) > 0
    return newer and not any(compare(r.evr, row.evr) >= 0 for r in own)


def test_what_leaves_is_shown(tmp_path: Path) -> None:
    """Without a word that asks for it nothing is removed, and only sync and policy downgrade."""
    for case, _, plan in families(50_000, tmp_path):
        request, world = request_of(case), World(case)
        for action in transaction_of(plan).actions:
            if action.action is ActionKind.REMOVE:
                limited = action.reason.value == "limit" and action.name.startswith("kernel")
                assert request.remove or limited, (case.title, action.nevra)
            if action.action is ActionKind.DOWNGRADE:
                assert request.sync or world.allows("allow_downgrade", action.name), case.title


def test_closed_repositories_serve_what_is_named_only(tmp_path: Path) -> None:
    """Update-all, sync and advisories take nothing of a repository left out of autoupdate."""
    seen = 0
    for number in range(60_000, 60_000 + COUNT):
        case = make_case(number)
        request = request_of(case)
        if not (request.upgrade_all or request.sync):
            continue
        words = [
            (*s.words, "noautoupdate") if s.words[:2] == ("repo", "more") else s.words
            for s in case.sections
        ]
        rows = [s._replace(words=w) for s, w in zip(case.sections, words, strict=True)]
        channel = channel_of(case._replace(sections=rows), tmp_path / str(number))
        plan = plan_hosts([channel], request=request, workers=1)
        for transaction in plan.transactions.values():
            assert "more" not in {a.repository for a in transaction.actions}, case.title
            seen += any(h.reason is HeldReason.NOAUTOUPDATE for h in transaction.held)
    assert seen > 3


def test_only_what_the_snapshot_has(tmp_path: Path) -> None:
    """Every package of a plan is one that a repository of the snapshot offers, byte for byte."""
    for case, channel, plan in families(70_000, tmp_path):
        sums = {(r.repository, r.package.nevra) for r in World(case).offered}
        for action in transaction_of(plan).actions:
            if action.repository:
                assert (action.repository, action.nevra) in sums, case.title
                assert action.sha256, case.title
        assert {s.name for s in channel.sources} >= {r for r, _ in sums}


@pytest.mark.parametrize("first", range(80_000, 80_060, 20))
def test_rpm_agrees(first: int, dnf: oracle.Dnf, tmp_path: Path) -> None:
    """Rpm itself finds no problem in a plan's transaction, and would remove what the plan says."""
    tried = 0
    for number in range(first, first + 20):
        for case, channel, plan in planned(number, tmp_path):
            if not plan.transactions or not transaction_of(plan).actions:
                continue
            tried += 1
            found = _rpm(dnf, World(case), channel, transaction_of(plan), tmp_path / f"r{number}")
            assert not found, (case.title, found)
    assert tried > 5


def test_rpm_would_say(dnf: oracle.Dnf, tmp_path: Path) -> None:
    """Rpm tells what is missing, what clashes, and what it would remove unsaid."""
    old, new = Pkg("a-1-1.x86_64", {}), Pkg("a-2-1.x86_64", {"requires": "nobody"})
    rival = Pkg("b-1-1.x86_64", {"conflicts": "a"})
    here = [msgspec.to_builtins(installed_package(old))]
    come = [_coming(new, ActionKind.UPGRADE), _coming(rival, ActionKind.INSTALL)]
    found = "\n".join(dnf.check(tmp_path / "root", here, come, []))
    for words in ("rpm removes a-1-1.x86_64", "nobody is needed by", "a conflicts with b-1-1"):
        assert words in found


def _rpm(
    dnf: oracle.Dnf, world: World, channel: ChannelInput, transaction: Transaction, root: Path
) -> Sequence[str]:
    (host,) = channel.inventories
    offered = {(r.repository, r.package.nevra): r.package for r in world.offered}
    return dnf.check(
        root,
        [msgspec.to_builtins(p) for p in host.packages],
        [_coming(offered[a.repository or "", a.nevra], a.action) for a in _with_bytes(transaction)],
        sorted(oracle.effects_of(transaction).leave),
    )


def _with_bytes(transaction: Transaction) -> list:
    rows = {(a.repository, a.nevra): a for a in transaction.actions if a.repository}
    return list(rows.values())


def _coming(package: Pkg, kind: ActionKind) -> dict:
    built = msgspec.to_builtins(installed_package(package))
    return {**built, "beside": kind is ActionKind.INSTALL}
