"""Who is meant by a command, and where every host belongs.

Invariant: membership is worked out anew from its sources; a host that can't be placed is listed
with its problems and is in no selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.errors import HostError, Problem, UsageError
from cpacman.fleet.hostfiles import HostsFiles, load_hosts_files
from cpacman.fleet.placing import Placement, facts_of, place_host
from cpacman.fleet.selecting import parse_selector
from cpacman.membership import Change, ChangeKind, Member, Seen, changes_among
from cpacman.model import Host, Inventory


class Selection(NamedTuple):
    """Which hosts a command line means; nothing given means nothing said.

    `owed` are those of them that were out of reach in their last rollout.
    """

    tgt: str | None = None
    tgt_type: str = "glob"
    class_: str | list[str] | None = None
    level: str | list[str] | None = None
    channel: str | list[str] | None = None
    meta: str | list[str] | None = None
    owed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said. That never means every host where something is changed."""
        return self == Selection(tgt_type=self.tgt_type)


class Fleet(NamedTuple):
    """The hosts that were meant and where each belongs; `placements` has the unplaced ones too.

    `changes` are what about them nobody accepted yet; `seen` is what that is judged by, and
    `members` what was accepted before. These three are of all hosts that were looked at.
    """

    placements: Mapping[str, Placement]
    changes: Mapping[str, Change] = {}
    seen: Mapping[str, Seen] = {}
    members: Mapping[str, Member] = {}

    @property
    def hosts(self) -> dict[str, Host]:
        """Those that could be placed."""
        return {name: p.host for name, p in self.placements.items() if not p.problems}

    @property
    def problems(self) -> dict[str, tuple[Problem, ...]]:
        """Those that could not, with why."""
        return {name: p.problems for name, p in self.placements.items() if p.problems}

    @property
    def held(self) -> dict[str, Change]:
        """Those that get nothing until somebody accepts them."""
        return {n: c for n, c in self.changes.items() if c.held and n in self.placements}


def place_all(
    context: Context, hosts: Sequence[str], heads: Mapping[str, Inventory] | None = None
) -> Fleet:
    """Work out where these hosts belong, and what about them nobody accepted yet.

    Args:
        context: the outside world.
        hosts: ids of accepted hosts.
        heads: their inventories without packages, where they are at hand.
    """
    files = load_hosts_files(context.settings.membership.hosts_d, context.settings)
    known = heads if heads is not None else _heads(context)
    sources = context.settings.membership.sources
    wants_grains = "grains" in sources or "pillar" in sources
    grains = context.directory.grains(hosts) if wants_grains else {}
    pillars = context.directory.pillars(hosts, grains) if "pillar" in sources else {}
    placements = {
        host: _place(
            context, host, files, pillars.get(host, {}), grains.get(host, {}), known.get(host)
        )
        for host in hosts
    }
    seen = _seen(context, placements, known)
    members = context.store.members()
    return Fleet(
        {host: _where_it_was(one, members.get(host)) for host, one in placements.items()},
        _changes(context, members, seen),
        seen,
        members,
    )


def _where_it_was(placement: Placement, member: Member | None) -> Placement:
    """Keep a member that lost its class in the lists of the class that it was accepted in."""
    if not placement.problems or placement.host.class_ or member is None:
        return placement
    host = msgspec.structs.replace(placement.host, class_=member.class_)
    return replace(placement, host=host)


def _seen(
    context: Context, placements: Mapping[str, Placement], heads: Mapping[str, Inventory]
) -> dict[str, Seen]:
    keys = context.directory.fingerprints(sorted(placements))
    return {
        host: Seen(placement.host.class_, keys.get(host, ""), _machine_of(heads.get(host)))
        for host, placement in placements.items()
    }


def _machine_of(head: Inventory | None) -> str | None:
    return None if head is None else str(head.facts.get("machine_id") or "")


def _changes(
    context: Context, members: Mapping[str, Member], seen: Mapping[str, Seen]
) -> dict[str, Change]:
    rules = context.settings.membership
    return changes_among(
        members,
        seen,
        rules={
            ChangeKind.NEW: rules.on_new,
            ChangeKind.REBUILT: rules.on_rebuilt,
            ChangeKind.MOVED: rules.on_move,
        },
        max_moves=rules.max_moves,
    )


def _heads(context: Context) -> dict[str, Inventory]:
    return {host: head for host, (head, _) in context.store.inventory_heads().items()}


def _place(
    context: Context,
    host: str,
    files: HostsFiles,
    pillar: Mapping[str, Any] | HostError,
    grains: Mapping[str, Any],
    head: Inventory | None,
) -> Placement:
    sources = context.settings.membership.sources
    if isinstance(pillar, HostError):
        # What a broken pillar would have said must not be said by a later source instead.
        return Placement(Host(id=host, channel="", class_="", level=""), tuple(pillar.problems))
    return place_host(
        host,
        settings=context.settings,
        hosts_files=files,
        pillar=pillar,
        grains=grains if "grains" in sources else {},
        facts=facts_of(head) if head else None,
        transport=context.directory.transport_of(host),
    )


def target_of(context: Context, selection: Selection) -> list[str]:
    """Return the accepted hosts that the target of a selection names; without one, all of them.

    Retired hosts are in no selection.

    Raises:
        UsageError: the target matches no accepted host.
    """
    if selection.tgt is None:
        return everyone(context)
    found = context.directory.match(selection.tgt, selection.tgt_type)
    left = without_retired(context, found)
    if not left:
        problem = Problem(f"tgt {selection.tgt}", "matches no host whose key is accepted",
                          "look with: salt-key -L")  # fmt: skip
        if found:
            back = f"take them back: salt-run cpacman.accept hosts={found[0]}"
            problem = Problem(f"tgt {selection.tgt}", "matches only retired hosts", back)
        raise UsageError(problem)
    return left


def everyone(context: Context) -> list[str]:
    """Return every host that counts: its key is accepted, and it is not retired."""
    return without_retired(context, context.directory.accepted())


def without_retired(context: Context, hosts: Sequence[str]) -> list[str]:
    """Return those hosts that are not retired; one that came back with another key is new."""
    gone = {h: m for h, m in context.store.members().items() if m.state == "retired"}
    keys = context.directory.fingerprints([host for host in hosts if host in gone])
    return [host for host in hosts if host not in gone or keys[host] != gone[host].key]


def select(context: Context, selection: Selection) -> Fleet:
    """Return the hosts that a selection means, each with its place.

    A host that can't be placed stays in while nothing it is judged by contradicts: with `class=`
    given, one of no class is left out, one that only lacks a channel is not.

    Raises:
        UsageError: unknown class, level or channel; or nothing is left.
    """
    selector = parse_selector(
        context.settings,
        class_=selection.class_,
        level=selection.level,
        channel=selection.channel,
        meta=selection.meta,
    )
    fleet = place_all(context, target_of(context, selection))
    chosen = {
        name: placement
        for name, placement in fleet.placements.items()
        if selector.selects(placement.host)
    }
    if selection.owed:
        owed = context.store.owed()
        chosen = {name: one for name, one in chosen.items() if name in owed}
    if not chosen and not selection.is_empty:
        raise UsageError(Problem("selection", "no host fits it", "see: salt-run cpacman.status"))
    return fleet._replace(placements=chosen)


def named_hosts(context: Context, selection: Selection) -> list[str]:
    """Return the hosts that a command is told to ask, sorted.

    By target alone every accepted host is meant, also one that has no place yet.

    Raises:
        UsageError: nothing is named, or what is named means nobody.
    """
    if selection.is_empty:
        raise UsageError("name the hosts: a target such as '*', or class= level= channel= meta=")
    if Selection(tgt=selection.tgt, tgt_type=selection.tgt_type) == selection:
        return sorted(target_of(context, selection))
    return sorted(select(context, selection).placements)


def one_class(context: Context, fleet: Fleet) -> str:
    """Return the class that all placed hosts are of.

    Raises:
        UsageError: they are of several; a plan is for one class, since classes point at
            different snapshots.
    """
    found = sorted({host.class_ for host in fleet.hosts.values()})
    if len(found) > 1:
        names = ", ".join(found)
        raise UsageError(
            Problem("class", f"hosts of several classes are selected ({names})", "name one: class=")
        )
    return found[0] if found else context.settings.class_names[0]


def by_channel(hosts: Iterable[Host]) -> dict[str, list[str]]:
    """Return channel -> hosts, both sorted."""
    found: dict[str, list[str]] = {}
    for host in sorted(hosts, key=lambda h: h.id):
        found.setdefault(host.channel, []).append(host.id)
    return dict(sorted(found.items()))
