"""Plans: frozen documents made from snapshots, policies, inventories and a request.

Invariants: same inputs, same bytes, in whatever order repositories, hosts and packages are given;
inventories that are equal in what matters are solved once; a host is planned whole or stands in
`failed`, and a host that can't be planned never spoils the others.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.model import (
    Action,
    ActionKind,
    Advisory,
    FailedError,
    Failure,
    InstalledPackage,
    Inventory,
    InventoryRef,
    Plan,
    Reason,
    Request,
    Transaction,
    canonical_json,
    content_id,
    inventory_digest,
    plan_id,
    transaction_id,
)
from cpacman.planner.fleet import FEW, Book, Group, Memory, Solved, solve_groups
from cpacman.planner.host import CannotPlan, Host
from cpacman.planner.lines import naming_nothing
from cpacman.planner.modes import check_request
from cpacman.planner.policy import (
    ARCHES,
    REBOOT_NAMES,
    color,
    is_vendor_change,
)
from cpacman.planner.resolve import Outcome, resolve
from cpacman.planner.ruling import Line, Policy, with_holds, with_request
from cpacman.planner.solver import Candidate, HostView, Source, Step, Universe
from cpacman.report.progress import Reporter, Silent

Digest = Callable[[Candidate], str]
"""Finds the sha256 of a package whose metadata has a checksum of another kind."""


class ChannelInput(msgspec.Struct, frozen=True, kw_only=True):
    """What one channel brings to a plan.

    `policies` are those of single hosts, by host id; the others have `policy`. `sha256_of` is
    asked for packages whose metadata carries no sha256 (repositories of EL6 and before).
    """

    channel: str
    snapshot: str
    sources: tuple[Source, ...]
    inventories: tuple[Inventory, ...]
    advisories: tuple[Advisory, ...] = ()
    policy: Policy = Policy()
    policies: dict[str, Policy] = {}
    platform: str = "rpm"
    sha256_of: Digest | None = None


def plan_hosts(
    channels: Iterable[ChannelInput],
    *,
    request: Request,
    cache: Path | None = None,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Plan:
    """Plan every host of some channels.

    Args:
        channels: snapshots and hosts; no host may stand in two.
        request: what was asked for.
        cache: a directory for the solver's files and for answers that a later plan may use again,
            or None.
        reporter: told how far the planning is.
        workers: processes at most; as many as there are processors when not given.

    Raises:
        UsageError: a request that contradicts itself, or names advisories that nobody knows.
        RepositoryError: metadata that can't be read; every problem of all channels' sources.
        CpacmanError: a process of ours was killed; what was solved until then is kept.
    """
    channels = sorted(channels, key=lambda c: c.channel)
    check_request(request, (a for channel in channels for a in channel.advisories))
    how = _How(request, cache, reporter or Silent(), workers, {})
    hosts: dict[str, str] = {}
    transactions: dict[str, Transaction] = {}
    failed: dict[str, Failure] = {}
    references: dict[str, InventoryRef] = {}
    for channel in channels:
        for host, digest, (number, result) in _plan_channel(channel, how):
            references[host.host] = InventoryRef(digest=digest, cookie=host.cookie)
            if isinstance(result, Failure):
                failed[host.host] = result
            else:
                hosts[host.host] = number
                other = transactions.setdefault(number, result)
                if other is not result:
                    # What is outside the id may differ, and who comes first is chance.
                    transactions[number] = min(other, result, key=canonical_json)
    snapshots = {c.channel: c.snapshot for c in channels}
    policy = _policy_hash(channels)
    warnings = (*_naming_nothing(channels, how),)
    return Plan(
        plan_id=plan_id(
            snapshots=snapshots,
            policy=policy,
            request=request,
            hosts=hosts,
            inventories=references,
        ),
        request=request,
        policy=policy,
        snapshots=snapshots,
        hosts=dict(sorted(hosts.items())),
        inventories=dict(sorted(references.items())),
        transactions=dict(sorted(transactions.items())),
        failed=dict(sorted(failed.items())),
        warnings=warnings,
    )


def _naming_nothing(channels: Sequence[ChannelInput], how: _How) -> Iterator[str]:
    """Yield a warning for each word of policy that names nothing in any of the channels."""
    policies = {id(p): p for c in channels for p in (c.policy, *c.policies.values())}
    lines = dict.fromkeys(line for p in policies.values() for line in p.lines)
    lines |= dict.fromkeys(with_request(Policy(), how.request).lines)
    if lines:
        installed = (host.packages for channel in channels for host in channel.inventories)
        yield from naming_nothing(lines, installed, _Offered(channels, how))


class _Offered:
    """What the repositories of all channels offer; nothing is loaded twice for it."""

    def __init__(self, channels: Sequence[ChannelInput], how: _How) -> None:
        self._channels, self._how = channels, how

    def packages(self, words: set[str]) -> set[str]:
        """Return the words that name an advisory or a package."""
        known = words & {advisory.id for c in self._channels for advisory in c.advisories}
        for channel in self._channels:
            if rest := words - known:
                known |= self._universe(channel).offered(rest)
        return known

    def vendors(self) -> frozenset[str]:
        """Return the vendors of packages."""
        return frozenset().union(*(self._universe(c).vendors for c in self._channels))

    def repositories(self) -> frozenset[str]:
        """Return the names of repositories."""
        return frozenset(source.name for c in self._channels for source in c.sources)

    def _universe(self, channel: ChannelInput) -> Universe:
        known = self._how.universes
        if channel.channel not in known:
            arch = arch_of(channel.inventories[0]) if channel.inventories else "noarch"
            known[channel.channel] = Universe(channel.sources, arch=arch, cache=self._how.cache)
        return known[channel.channel]


def _policy_hash(channels: Sequence[ChannelInput]) -> str:
    """Return the hash of every rule that had a say, repositories' flags included.

    The reason of a line is wording and stays outside, and so does a last day that has not come.
    """
    body = [
        (
            c.channel,
            _rules(c.policy),
            sorted((host, _rules(rules)) for host, rules in c.policies.items()),
            sorted(_flags(s) for s in c.sources),
        )
        for c in channels
    ]
    return content_id("policy", body).removeprefix("policy-")


def _flags(source: Source) -> list[object]:
    flags: list[object] = [source.name, source.autoupdate, source.priority]
    if source.module_hotfixes:
        flags.append("hotfixes")
    return [*flags, f"origin {source.origin}"] if source.origin else flags


def _rules(rules: Policy) -> list[tuple[str, tuple[str, ...]]]:
    lines = [(_effect(line), line.packages) for line in rules.lines]
    if rules.without:
        lines.append(("without", rules.without))
    if rules.installonly_limit != Policy().installonly_limit:
        lines.append(("installonly_limit", (str(rules.installonly_limit),)))
    return lines


def _effect(line: Line) -> str:
    """Return what a line does, apart from the packages."""
    rank = f"rank {line.rank}" if line.rank else ""
    return " ".join(filter(None, [line.kind, line.to, *line.vendors, rank]))


class _How(NamedTuple):
    """What holds for all hosts of a plan: what was asked for, and how the work is done."""

    request: Request
    cache: Path | None
    reporter: Reporter
    workers: int | None
    universes: dict[str, Universe]
    """Those that were loaded by this process, by channel, of any one architecture."""


_Case = tuple[str, Policy]
"""What makes two hosts equal: the digest of the inventory and the policy."""


def _plan_channel(channel: ChannelInput, how: _How) -> Iterator[tuple[Inventory, str, Solved]]:
    """Yield every host of a channel with its inventory's digest and its result."""
    book = Book(_wrong_with)
    groups: dict[_Case, list[Inventory]] = {}
    for inventory in sorted(channel.inventories, key=lambda i: i.host):
        known = book.look_up(inventory.packages)
        digest = inventory_digest(inventory, known.digest)
        if failure := _check(inventory, channel.platform, known.causes, known.doubles):
            yield inventory, digest, Solved("", failure)
        else:
            rules = channel.policies.get(inventory.host, channel.policy)
            groups.setdefault((digest, rules), []).append(inventory)
    arches = {case: arch_of(found[0]) for case, found in groups.items()}
    for arch in sorted(set(arches.values())):
        mine = {case: found for case, found in groups.items() if arches[case] == arch}
        for case, solved in _solve_groups(channel, arch, mine, book, how):
            yield from ((inventory, case[0], solved) for inventory in mine[case])


def _solve_groups(
    channel: ChannelInput,
    arch: str,
    groups: Mapping[_Case, Sequence[Inventory]],
    book: Book,
    how: _How,
) -> Iterator[tuple[_Case, Solved]]:
    """Solve each group of equal hosts once."""
    cases = sorted(groups, key=lambda case: groups[case][0].host)
    hosts = [groups[case][0] for case in cases]
    rows = [
        Group(_key(case), book.look_up(groups[case][0].packages).numbers, len(groups[case]))
        for case in cases
    ]

    def prepare() -> Callable[[Sequence[int]], Iterator[Solved]]:
        universe = Universe(channel.sources, arch=arch, cache=how.cache, words=how.request.words)
        how.universes[channel.channel] = universe
        delivered = _Delivered(channel.advisories, universe.versions.compare)

        def solve(lot: Sequence[int]) -> Iterator[Solved]:
            universe.admit(package for place in lot for package in hosts[place].packages)
            for place in lot:
                rules = cases[place][1]
                found = _solve(universe, hosts[place], rules, how.request, delivered, channel)
                yield Solved(_number(channel, found), found)

        return solve

    memory = _memory(channel, arch, how) if len(rows) > FEW else None
    found = solve_groups(rows, prepare, memory=memory, reporter=how.reporter, workers=how.workers)
    with closing(found):
        yield from ((cases[place], solved) for place, solved in found)


def _key(case: _Case) -> bytes:
    """Return what one group's answer is found by, among those of one `_memory`."""
    return hashlib.sha256(canonical_json(case)).digest()


def _number(channel: ChannelInput, result: Transaction | Failure) -> str:
    if isinstance(result, Failure):
        return ""
    return transaction_id(channel.platform, channel.snapshot, result)


def _memory(channel: ChannelInput, arch: str, how: _How) -> Memory | None:
    """Return the place of answers from this snapshot to this request, if they can be told apart.

    What one group brings is left out: that is its key.
    """
    if how.cache is None or not all(source.checksum for source in channel.sources):
        return None
    rest = msgspec.structs.replace(
        channel,
        inventories=(),
        policy=Policy(),
        policies={},
        sha256_of=None,
        sources=tuple(sorted(channel.sources, key=lambda s: s.name)),
    )
    return Memory(how.cache / "solved", [rest, arch, how.request])


def _solve(
    universe: Universe,
    inventory: Inventory,
    rules: Policy,
    request: Request,
    delivered: _Delivered,
    channel: ChannelInput,
) -> Transaction | Failure:
    """Return the transaction of one inventory, or why there is none."""
    with _opened(universe, inventory, rules, request, delivered) as host:
        return _solve_host(host, request, delivered, channel)


@contextmanager
def _opened(
    universe: Universe,
    inventory: Inventory,
    rules: Policy,
    request: Request,
    delivered: _Delivered,
) -> Iterator[Host]:
    """Give what is known of one host, whose packages were admitted, for as long as it is solved."""
    with universe.host(
        inventory.packages,
        modules=inventory.modules,
        disabled=inventory.modules_disabled,
        without=rules.without,
    ) as view:
        yield Host(
            universe,
            view,
            inventory.packages,
            with_holds(with_request(rules, request), inventory.holds),
            kernel=inventory.kernel,
            wanted=delivered.wanted(request),
            delivers=delivered.packages_of,
        )


def _solve_host(
    host: Host, request: Request, delivered: _Delivered, channel: ChannelInput
) -> Transaction | Failure:
    try:
        outcome = resolve(host, request)
        actions = _actions(host, outcome, request, delivered, channel.sha256_of)
    except CannotPlan as error:
        return Failure(error=error.error, causes=error.causes)
    if request.strict and outcome.held:
        causes = tuple(f"{h.nevra} is held: {h.detail}" for h in outcome.held)
        return Failure(error=FailedError.POLICY, causes=causes)
    if doubles := tuple(_left_double(host, host.view, actions)):
        return Failure(error=FailedError.INVENTORY, causes=doubles)
    return _transaction(host, actions, outcome, delivered)


@contextmanager
def solve_one(
    channel: ChannelInput, request: Request, cache: Path | None = None
) -> Iterator[tuple[Host, Transaction | Failure]]:
    """Plan the one host of a channel, and give what was known of it meanwhile.

    Raises:
        UsageError: a request that contradicts itself.
        RepositoryError: metadata that can't be read.
    """
    (inventory,) = channel.inventories
    check_request(request, channel.advisories)
    rules = channel.policies.get(inventory.host, channel.policy)
    words = request.words
    universe = Universe(channel.sources, arch=arch_of(inventory), cache=cache, words=words)
    delivered = _Delivered(channel.advisories, universe.versions.compare)
    universe.admit(inventory.packages)
    with _opened(universe, inventory, rules, request, delivered) as host:
        yield host, _solve_host(host, request, delivered, channel)


def _left_double(host: Host, view: HostView, actions: Sequence[Action]) -> Iterator[str]:
    """Yield what would still be installed twice: no plan may call such a host well."""
    leaving = {a.nevra if a.action is ActionKind.REMOVE else a.from_ for a in actions}
    stays: dict[tuple[str, str], list[InstalledPackage]] = {}
    for package in host.by_nevra.values():
        if package.nevra not in leaving:
            stays.setdefault((package.name, package.arch), []).append(package)
    for (name, arch), found in sorted(stays.items()):
        if len(found) > 1 and not view.stands_beside(found[0]):
            versions = ", ".join(sorted(p.evr for p in found))
            words = "left by a transaction that was cut off? remove the older one on the host"
            yield f"{name}.{arch} is installed in several versions ({versions}); {words}"


def _transaction(
    host: Host, actions: tuple[Action, ...], outcome: Outcome, delivered: _Delivered
) -> Transaction:
    lost = sorted({a.from_ for a in actions if a.from_ and not _is_offered(host, a.from_)})
    return Transaction(
        actions=actions,
        held=outcome.held,
        size=sum(a.size for a in actions),
        reboot=any(a.name in REBOOT_NAMES or delivered.wants_reboot(a) for a in actions),
        reversible=not lost,
        irreversible=tuple(lost),
        vendor_changes=tuple(sorted(set(_vendor_changes(host, outcome.steps)))),
    )


def _vendor_changes(host: Host, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        for old in (host.by_nevra[nevra] for nevra in step.old):
            if step.new is not None and is_vendor_change(old.vendor, step.new.vendor):
                yield f"{step.new.nevra}: {old.vendor} -> {step.new.vendor or '(none)'}"


def _is_offered(host: Host, nevra: str) -> bool:
    """Return whether an installed package could be had again from the snapshot."""
    name = host.by_nevra[nevra].name
    return any(c.nevra == nevra for c in host.universe.candidates(name))


# Steps to actions


def _actions(
    host: Host,
    outcome: Outcome,
    request: Request,
    delivered: _Delivered,
    sha256_of: Digest | None,
) -> tuple[Action, ...]:
    """Return the actions of a solution, in the order of the format."""
    found = _kinds(host, outcome.steps)
    made = [
        _action(kind, new, old, first, _reason(kind, step, new, outcome, request), sha256_of)
        for step, kind, new, old, first in found
    ]
    gone = [host.by_nevra[o] for s in outcome.steps if s.new is None for o in s.old]
    made += [_removal(old, _why_removed(old, outcome)) for old in gone]
    told = (delivered.tell(action, host.by_nevra.get(action.from_ or "")) for action in made)
    return tuple(sorted(told, key=lambda action: action.sort_key))


_Kind = tuple[Step, ActionKind, Candidate, InstalledPackage | None, bool]
"""A step, what it is, what comes, what it replaces, and whether it carries the bytes."""


def _kinds(host: Host, steps: Sequence[Step]) -> Iterator[_Kind]:
    """Yield what each step is: one row for each package that comes or is replaced.

    A package that its own newer version replaces is upgraded; that another one obsoletes its old
    version besides is not worth a word.
    """
    renewed = {o for s in steps if s.new for o in s.old if host.by_nevra[o].name == s.new.name}
    for step in steps:
        if step.new is None:
            continue
        olds = [host.by_nevra[nevra] for nevra in step.old]
        own = [p for p in olds if p.name == step.new.name]
        others = [p for p in olds if p.name != step.new.name and p.nevra not in renewed]
        own.sort(key=lambda p: host.universe.versions.key(p.evr), reverse=True)
        yield from _rows(host, step, step.new, own, others)


def _rows(
    host: Host,
    step: Step,
    new: Candidate,
    own: Sequence[InstalledPackage],
    others: Sequence[InstalledPackage],
) -> Iterator[_Kind]:
    if own:
        yield step, _direction(host, new, own[0]), new, own[0], True
        rest = [*own[1:], *others]
    elif others:
        yield step, ActionKind.OBSOLETE, new, others[0], True
        rest = list(others[1:])
    else:
        yield step, ActionKind.INSTALL, new, None, True
        rest = []
    yield from ((step, ActionKind.OBSOLETE, new, old, False) for old in rest)


def _direction(host: Host, new: Candidate, old: InstalledPackage) -> ActionKind:
    order = host.compare(new.evr, old.evr)
    if order == 0:
        return ActionKind.REINSTALL
    return ActionKind.UPGRADE if order > 0 else ActionKind.DOWNGRADE


def _reason(
    kind: ActionKind, step: Step, new: Candidate, outcome: Outcome, request: Request
) -> Reason:
    if new in outcome.asked and not request.sync:
        return Reason.REQUESTED
    if kind is ActionKind.OBSOLETE:
        return Reason.OBSOLETES
    if request.sync and new in outcome.meant:
        return Reason.SYNC
    own = new in outcome.meant or not request.by_advisory
    whole = request.upgrade_all or request.by_advisory
    if whole and own and (kind is ActionKind.UPGRADE or step.side_by_side):
        return Reason.UPDATE
    if new in outcome.swapped:
        return Reason.UPDATE
    return Reason.WEAK if step.weak else Reason.DEPENDENCY


def _action(
    kind: ActionKind,
    new: Candidate,
    old: InstalledPackage | None,
    first: bool,
    reason: Reason,
    sha256_of: Digest | None,
) -> Action:
    epoch, _, rest = new.evr.rpartition(":")
    version, _, release = rest.rpartition("-")
    return Action(
        action=kind,
        name=new.name,
        epoch=int(epoch or 0),
        version=version or release,
        release=release if version else "",
        arch=new.arch,
        nevra_=new.nevra,
        from_=old.nevra if old else None,
        repository=new.repository,
        sha256=_sha256(new, sha256_of),
        size=new.size if first else 0,
        reason=reason,
    )


def _why_removed(old: InstalledPackage, outcome: Outcome) -> Reason:
    if old.nevra in outcome.limited:
        return Reason.LIMIT
    if old.nevra in outcome.removed:
        return Reason.REQUESTED
    return Reason.UPDATE if old.name in {c.name for c in outcome.swapped} else Reason.DEPENDENCY


def _removal(old: InstalledPackage, reason: Reason) -> Action:
    """Return the action for a package that leaves without a replacement of its own."""
    return Action(
        action=ActionKind.REMOVE,
        name=old.name,
        epoch=old.epoch,
        version=old.version,
        release=old.release,
        arch=old.arch,
        nevra_=old.nevra,
        reason=reason,
    )


def _sha256(new: Candidate, sha256_of: Digest | None) -> str:
    """Return the package file's sha256.

    Raises:
        CannotPlan: the metadata has none and nobody else knows it: what can't be verified is
            not planned.
    """
    kind, _, digest = new.checksum.partition(":")
    if kind == "sha256":
        return digest
    if sha256_of is not None and (found := sha256_of(new)):
        return found
    words = f"{new.nevra}: the metadata of {new.repository} has no sha256 of it"
    raise CannotPlan(FailedError.REQUIRES, (words,))


class _Delivered:
    """Which advisories an action delivers."""

    def __init__(self, advisories: Iterable[Advisory], compare: Callable[[str, str], int]) -> None:
        self._compare = compare
        self._rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._advisories = tuple(advisories)
        self._reboot = {a.id for a in self._advisories if a.reboot}
        self._wanted: dict[Request, dict[tuple[str, str], list[str]]] = {}
        for advisory in self._advisories:
            for nevra in advisory.packages:
                name, evr, arch = split_nevra(nevra)
                self._rows.setdefault((name, arch), []).append((evr, advisory.id))

    def packages_of(self, advisory: str) -> tuple[str, ...]:
        """Return the NEVRAs that an advisory delivers; none when there is no such advisory."""
        return next((a.packages for a in self._advisories if a.id == advisory), ())

    def wanted(self, request: Request) -> Mapping[tuple[str, str], Sequence[str]]:
        """Return (name, arch) -> the versions that the advisories asked for deliver."""
        if request not in self._wanted:
            rows = self._wanted[request] = {}
            asked = (a for a in self._advisories if request.by_advisory and request.wants(a))
            for name, evr, arch in (split_nevra(n) for a in asked for n in a.packages):
                rows.setdefault((name, arch), []).append(evr)
        return self._wanted[request]

    def tell(self, action: Action, old: InstalledPackage | None) -> Action:
        """Return the action with its advisories: newer than what it replaces, up to itself."""
        rows = self._rows.get((action.name, action.arch), ())
        same = old if old is not None and old.name == action.name else None
        found = {i for evr, i in rows if self._delivers(evr, action.evr, same)}
        return msgspec.structs.replace(action, advisories=tuple(sorted(found)))

    def _delivers(self, evr: str, new: str, old: InstalledPackage | None) -> bool:
        order = self._compare(evr, new)
        return order == 0 or (order < 0 and old is not None and self._compare(evr, old.evr) > 0)

    def wants_reboot(self, action: Action) -> bool:
        """Return whether an advisory of the action suggests a reboot."""
        return not self._reboot.isdisjoint(action.advisories)


def split_nevra(nevra: str) -> tuple[str, str, str]:
    """Return name, `[epoch:]version-release` and arch of a NEVRA."""
    rest, _, arch = nevra.rpartition(".")
    rest, _, release = rest.rpartition("-")
    name, _, version = rest.rpartition("-")
    return name, f"{version}-{release}", arch


# What a host may say


_WORD = re.compile(r"[A-Za-z0-9._+~^%{}:@-]{1,255}\Z")
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LINE = re.compile(r"[ -~]{1,300}\Z")
_MANY = 10
"""Causes shown of one inventory."""


def check_inventory(inventory: Inventory, platform: str) -> Failure | None:
    """Return why an inventory can't be planned from, or None: what a host says is only data."""
    known = Book(_wrong_with).look_up(inventory.packages)
    return _check(inventory, platform, known.causes, known.doubles)


def _check(
    inventory: Inventory, platform: str, causes: Sequence[str], doubles: bool
) -> Failure | None:
    """Judge an inventory, knowing what is wrong with its packages and if some stand there twice."""
    if inventory.platform != platform:
        words = f"the host reports platform {inventory.platform!r}, its channel is {platform!r}"
        return Failure(error=FailedError.PLATFORM, causes=(words,))
    if inventory.arch and inventory.arch not in ARCHES:
        words = f"architecture {_shown(inventory.arch)} is not one that rpm knows"
        return Failure(error=FailedError.PLATFORM, causes=(words,))
    causes = list(causes)
    if doubles:
        counts = Counter(p.nevra for p in inventory.packages)
        causes += [f"{_shown(n)} is listed {many} times" for n, many in counts.items() if many > 1]
    # One that can't be read must not be passed over: the host would get what it holds back.
    causes += [f"hold {_shown(text)} is no line" for text in inventory.holds if not _is_line(text)]
    if not causes:
        return None
    more = [f"and {len(causes) - _MANY} more"] if len(causes) > _MANY else []
    return Failure(error=FailedError.INVENTORY, causes=(*sorted(causes)[:_MANY], *more))


def _is_line(text: str) -> bool:
    return bool(_LINE.match(text))


def arch_of(inventory: Inventory) -> str:
    """Return a host's architecture; one that it does not tell shows in its packages."""
    arches = {p.arch for p in inventory.packages} - {"noarch", ""}
    widest = sorted(arches, key=lambda arch: (-color(arch), arch))
    return inventory.arch or (widest[0] if widest else "noarch")


def _wrong_with(package: InstalledPackage) -> Iterator[str]:
    words = {"name": package.name, "version": package.version}
    if package.release:
        words["release"] = package.release
    for field, value in words.items():
        if not _WORD.match(value):
            yield f"{_shown(package.name)}: {field} {_shown(value)} is not one that rpm allows"
    if package.arch and package.arch not in ARCHES:
        yield f"{_shown(package.name)}: architecture {_shown(package.arch)} is unknown"
    if package.epoch < 0 or package.epoch > 0xFFFFFFFF:
        yield f"{_shown(package.name)}: epoch {package.epoch} is out of range"
    if not _is_clean(package):
        yield f"{_shown(package.name)}: a dependency or file has characters that rpm does not allow"


def _is_clean(package: InstalledPackage) -> bool:
    """Return whether no text of a package has control characters, all texts in one look."""
    deps = (
        package.provides, package.requires, package.conflicts, package.obsoletes,
        package.recommends, package.suggests, package.supplements, package.enhances,
    )  # fmt: skip
    words = chain.from_iterable(chain.from_iterable(deps))
    return not _UNCLEAN.search("".join((package.vendor, *package.files, *words)))


def _shown(text: str) -> str:
    """Return a host's text fit for a terminal: escaped, and not too long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
