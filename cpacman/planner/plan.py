"""Plans: frozen documents made from snapshots, policies, inventories and a request.

Invariants: same inputs, same bytes, in whatever order repositories, hosts and packages are given;
inventories that are equal in what matters are solved once; a host is planned whole or stands in
`failed`, and a host that can't be planned never spoils the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.model import (
    Advisory,
    FailedError,
    Failure,
    Inventory,
    InventoryRef,
    Plan,
    Request,
    Transaction,
    canonical_json,
    content_id,
    inventory_digest,
    plan_id,
    transaction_id,
)
from cpacman.planner.actions import Delivered, Digest, left_double, make_actions, make_transaction
from cpacman.planner.fleet import FEW, Book, Group, Memory, Solved, solve_groups
from cpacman.planner.host import CannotPlan, Host
from cpacman.planner.lines import naming_nothing
from cpacman.planner.modes import check_repositories, check_request
from cpacman.planner.reported import arch_of, judge_inventory, wrong_with
from cpacman.planner.resolve import resolve
from cpacman.planner.ruling import Line, Policy, with_holds, with_request
from cpacman.planner.solver import Candidate, Source, Universe
from cpacman.report.progress import Reporter, Silent


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
    check_repositories(request, [one.name for channel in channels for one in channel.sources])
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

    def packages(self, words: set[str]) -> dict[str, list[Candidate]]:
        """Return what each word names in any channel."""
        known: dict[str, list[Candidate]] = {}
        for channel in self._channels:
            for word, found in self._universe(channel).offered(words).items():
                known.setdefault(word, []).extend(found)
        return known

    def advisories(self) -> set[str]:
        """Return the ids of advisories."""
        return {advisory.id for c in self._channels for advisory in c.advisories}

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
    if not rules.weak_deps:
        lines.append(("weak_deps", ("no",)))
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
    book = Book(wrong_with)
    groups: dict[_Case, list[Inventory]] = {}
    for inventory in sorted(channel.inventories, key=lambda i: i.host):
        known = book.look_up(inventory.packages)
        digest = inventory_digest(inventory, known.digest)
        if failure := judge_inventory(inventory, channel.platform, known.causes, known.doubles):
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
        delivered = Delivered(channel.advisories, universe.versions.compare)

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
    delivered: Delivered,
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
    delivered: Delivered,
) -> Iterator[Host]:
    """Give what is known of one host, whose packages were admitted, for as long as it is solved."""
    with universe.host(
        inventory.packages,
        modules=inventory.modules,
        disabled=inventory.modules_disabled,
        without=(*rules.without, *request.exclude_repos),
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
    host: Host, request: Request, delivered: Delivered, channel: ChannelInput
) -> Transaction | Failure:
    try:
        outcome = resolve(host, request)
        actions = make_actions(host, outcome, request, delivered, channel.sha256_of)
    except CannotPlan as error:
        return Failure(error=error.error, causes=error.causes)
    if request.strict and outcome.held:
        causes = tuple(f"{h.nevra} is held: {h.detail}" for h in outcome.held)
        return Failure(error=FailedError.POLICY, causes=causes)
    if doubles := tuple(left_double(host, host.view, actions)):
        return Failure(error=FailedError.INVENTORY, causes=doubles)
    return make_transaction(host, actions, outcome, delivered)


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
    check_repositories(request, [one.name for one in channel.sources])
    rules = channel.policies.get(inventory.host, channel.policy)
    words = request.words
    universe = Universe(channel.sources, arch=arch_of(inventory), cache=cache, words=words)
    delivered = Delivered(channel.advisories, universe.versions.compare)
    universe.admit(inventory.packages)
    with _opened(universe, inventory, rules, request, delivered) as host:
        yield host, _solve_host(host, request, delivered, channel)
