"""Taking a rollout back: the reverse plan, from what hosts had before.

Invariants: a way back is planned whole or not at all, and everything that it lacks is named at
once; what comes back is a file of the depot, the very package that the host had; it is shown
first, and carried out like any other plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.commands.answers import plan_body
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context
from cpacman.commands.fleet import place_all
from cpacman.commands.needing import TOLD
from cpacman.commands.offering import rules_of
from cpacman.commands.refresh import refresh_hosts
from cpacman.commands.snapshots import kept_ids
from cpacman.depot.kept import Build
from cpacman.depot.promotion import is_for
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import CpacmanError, Problem, SafetyError, UsageError
from cpacman.model import (
    Action,
    ActionKind,
    InstalledPackage,
    Inventory,
    InventoryRef,
    Package,
    Plan,
    Reason,
    Request,
    Transaction,
    inventory_digest,
    plan_id,
    short_id,
    transaction_id,
)
from cpacman.planner.actions import split_nevra
from cpacman.planner.policy import PROTECTED, is_running
from cpacman.rollout.manifest import nevras_of
from cpacman.rollout.reverse import Undo, undo
from cpacman.store import RolloutHost


class _Way(NamedTuple):
    """A host's way back, as far as it is known without the depot; `builds` are what it had."""

    host: str
    class_: str
    channel: str
    inventory: Inventory
    steps: tuple[Undo, ...]
    builds: Mapping[str, Build]

    @property
    def coming(self) -> list[Build]:
        """What has to come back."""
        return [self.build(one) for one in self.steps if one.action is not ActionKind.REMOVE]

    def build(self, step: Undo) -> Build:
        """Return what a step brings; of what nobody noted any build of that name will do."""
        return self.builds.get(step.nevra, Build(step.nevra))


def rollback(
    context: Context,
    *,
    rollout: str | None = None,
    host: str | None = None,
    at: str = "before",
    now: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Plan the way back of a rollout's hosts, or of one host's last rollout; show it.

    Args:
        context: the outside world.
        rollout: whose hosts.
        host: only this one.
        at: `before`: where the hosts were before it.
        now: carry the plan out at once.
        test: with it, run every check of that and change nothing.
        reason: kept in the journal.
        ticket: kept in the journal.

    Raises:
        UsageError: neither is named, or such hosts have nothing to take back.
        SafetyError: the way back is not known, or material for it is missing; all of it is named.
    """
    if at != "before":
        raise UsageError(Problem("at", f"{at!r} is no moment", "before is the only one"))
    close_abandoned(context)
    number, found = _told(context, rollout, host)
    made = plan_back(context, number, found)
    class_ = str(context.store.rollout_row(number)["class"])
    context.store.put_plan(made, class_=class_, at=context.clock(), who=context.who)
    if now:
        from cpacman.commands.deploying import deploy
        from cpacman.commands.fleet import Selection

        return deploy(
            context, Selection(), plan=made.plan_id, test=test, reason=reason, ticket=ticket
        )
    return {"plan": plan_body(context, context.store.plan(made.plan_id), made)}


def _told(
    context: Context, rollout: str | None, host: str | None
) -> tuple[str, Mapping[str, RolloutHost]]:
    """Return the rollout that is to be taken back, and its hosts that were told to start."""
    if rollout is None and host is None:
        mend = "name a rollout (rollout=r-...), or a host (host=web1)"
        raise UsageError(Problem("rollback", "nothing is taken back by default", mend))
    last = context.store.last_told(hosts=None if host is None else [host])
    if rollout is None:
        if host not in last:
            raise UsageError(Problem(f"host {host}", "no rollout changed it"))
        rollout = last[host][0]
    row, rows = context.store.rollout(rollout)
    told = {h.host: h for h in rows if h.outcome in TOLD and host in (None, h.host)}
    if not told:
        raise UsageError(Problem(short_id(row["id"]), "no host of it was told to start"))
    later = [
        Problem(name, f"was changed by {short_id(last[name][0])} since", "take that back first")
        for name in sorted(told)
        if last[name][0] != row["id"]
    ]
    if later:
        raise SafetyError(later)
    return str(row["id"]), told


def plan_back(context: Context, number: str, told: Mapping[str, RolloutHost]) -> Plan:
    """Return the plan that takes a rollout back on hosts that were told to start; not kept.

    Raises:
        SafetyError: a host gives no answer or has changed since, or packages are missing.
    """
    ways, problems = [], []
    for one in _ways(context, number, told):
        if isinstance(one, _Way):
            ways.append(one)
        else:
            problems.append(one)
    stock = {
        place: _Material(context, *place) for place in {(one.channel, one.class_) for one in ways}
    }
    for place, material in stock.items():
        material.find(b for w in ways if (w.channel, w.class_) == place for b in w.coming)
    transactions, hosts = {}, {}
    for way in ways:
        found = stock[way.channel, way.class_].found
        problems += [
            Problem(way.host, f"{build} is in no snapshot of {way.channel} any more",
                    "leave the host out: host=..., or bring the package back into the mirror")
            for build in way.coming
            if build not in found
        ]  # fmt: skip
        if not problems:
            transaction = _transaction(way, found)
            hosts[way.host] = transaction_id("rpm", "", transaction)
            transactions[hosts[way.host]] = transaction
    if problems:
        raise SafetyError(problems)
    return _plan(number, {way.host: way.inventory for way in ways}, hosts, transactions)


def _plan(
    number: str,
    inventories: Mapping[str, Inventory],
    hosts: Mapping[str, str],
    transactions: Mapping[str, Transaction],
) -> Plan:
    request = Request(rollback=number)
    references = {
        host: InventoryRef(digest=inventory_digest(one), cookie=one.cookie)
        for host, one in sorted(inventories.items())
    }
    named = dict(sorted(hosts.items()))
    return Plan(
        plan_id=plan_id(
            snapshots={}, policy="", request=request, hosts=named, inventories=references
        ),
        request=request,
        policy="",
        snapshots={},
        hosts=named,
        inventories=references,
        transactions=dict(sorted(transactions.items())),
    )


def _ways(
    context: Context, number: str, told: Mapping[str, RolloutHost]
) -> Iterator[_Way | Problem]:
    asked = refresh_hosts(context, sorted(told))
    inventories = context.store.inventories(sorted(told))
    fleet, rules = place_all(context, sorted(told)), rules_of(context)
    placed = fleet.placements
    plan = context.store.plan(str(context.store.rollout_row(number)["plan"])).plan
    had = context.store.package_sets(plan.inventories[host].digest for host in told)
    for host, one in sorted(told.items()):
        if asked[host].error or host not in inventories:
            yield Problem(host, asked[host].error or "has no inventory", "is it up?")
            continue
        if host not in fleet.hosts:
            yield from fleet.problems[host]
            continue
        inventory = inventories[host]
        cut_off = bool(inventory.facts.get("interrupted"))
        actions = plan.transactions[one.transaction].actions
        steps, changed = undo(actions, set(nevras_of(inventory)), cut_off=cut_off)
        if changed:
            words = f"has changed since: {' '.join(changed[:5])}"
            yield Problem(host, words, "there is no way back from here: plan it by names")
        elif kept := _staying(steps, inventory, rules.protected_on(placed[host], inventory)):
            words = f"the way back would remove {' '.join(kept)}, which is protected"
            yield Problem(host, words, "let a narrower policy line allow_removal, or leave it")
        elif runs := _running(steps, inventory):
            words = f"the way back would remove {' '.join(runs)}, the kernel that runs"
            yield Problem(host, words, "boot the kernel from before first, then roll back")
        else:
            place = fleet.hosts[host]
            packages = had.get(plan.inventories[host].digest, ())
            builds = {p.nevra: Build(p.nevra, p.vendor, p.buildtime) for p in packages}
            yield _Way(host, place.class_, place.channel, inventory, steps, builds)


def _staying(steps: Sequence[Undo], inventory: Inventory, protected: Collection[str]) -> list[str]:
    """Return the names that steps would take away and that the host would refuse to lose.

    Of several kernels side by side one may go.
    """
    removed = _removed(steps, inventory)
    stay = {(p.name, p.arch) for p in inventory.packages if p not in removed}
    leaving = {p.name for p in removed if (p.name, p.arch) not in stay}
    coming = {split_nevra(one.nevra)[0] for one in steps if one.action is not ActionKind.REMOVE}
    return sorted((leaving - coming) & {*PROTECTED, *protected})


def _running(steps: Sequence[Undo], inventory: Inventory) -> list[str]:
    """Return what steps would take away of the kernel that runs: the host would refuse that."""
    removed = _removed(steps, inventory)
    return sorted(p.nevra for p in removed if is_running(p, inventory.kernel))


def _removed(steps: Sequence[Undo], inventory: Inventory) -> list[InstalledPackage]:
    """Return the installed packages that steps take away for good."""
    gone = {one.nevra for one in steps if one.action is ActionKind.REMOVE}
    return [package for package in inventory.packages if package.nevra in gone]


class _Material:
    """The packages of a channel that lie in the depot: of the newest snapshot that has each.

    Of one that several repositories have, that is taken which is for the class, so that what comes
    back is not of a repository that the class can't see.
    """

    def __init__(self, context: Context, channel: str, class_: str) -> None:
        self._context, self._class = context, class_
        self._snapshots = kept_ids(context, channel)
        self.found: dict[Build, Package] = {}

    def find(self, wanted: Iterable[Build]) -> None:
        """Look packages up, snapshot by snapshot, until all are found or none is left."""
        missing = set(wanted)
        for number in self._snapshots:
            if not missing:
                return
            nevras = {build.nevra for build in missing}
            for package in self._packages(number):
                if package.nevra in nevras and self._is_kept(package):
                    fitting = (one for one in missing if _fits(one, package))
                    self.found.update({one: package for one in fitting if one not in self.found})
            missing -= self.found.keys()

    def _is_kept(self, package: Package) -> bool:
        return self._context.pool.has(package.sha256, package.size)

    def _packages(self, number: str) -> Sequence[Package]:
        try:
            snapshot = load_snapshot(self._context.settings.depot, number)
        except CpacmanError as error:
            self._context.reporter.line(f"{short_id(number)} is left out: {error}")
            return ()
        theirs = {o.name for o in snapshot.repositories if not is_for(o.classes, self._class)}
        return sorted(snapshot.packages, key=lambda one: one.repository in theirs)


def _fits(build: Build, package: Package) -> bool:
    return build.nevra == package.nevra and build.is_of(package.vendor, package.buildtime)


def _transaction(way: _Way, found: Mapping[Build, Package]) -> Transaction:
    installed = {package.nevra: package for package in way.inventory.packages}
    actions = []
    for step in way.steps:
        if step.action is not ActionKind.REMOVE:
            actions.append(_coming(step, found[way.build(step)]))
        elif step.nevra in installed:
            old = installed[step.nevra]
            actions.append(
                Action(
                    action=step.action, name=old.name, epoch=old.epoch, version=old.version,
                    release=old.release, arch=old.arch, nevra_=step.nevra, reason=Reason.ROLLBACK,
                )
            )  # fmt: skip
    actions.sort(key=lambda action: action.sort_key)
    size = sum({a.sha256: a.size for a in actions if a.sha256}.values())
    return Transaction(actions=tuple(actions), size=size)


def _coming(step: Undo, package: Package) -> Action:
    return Action(
        action=step.action, name=package.name, epoch=package.epoch, version=package.version,
        release=package.release, arch=package.arch, nevra_=step.nevra, from_=step.from_,
        repository=package.repository, sha256=package.sha256, size=package.size,
        reason=Reason.ROLLBACK,
    )  # fmt: skip
