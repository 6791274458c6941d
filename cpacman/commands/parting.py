"""A part of a newer snapshot as a snapshot of its own: what was named, what it needs, proved.

Invariants: it is closed twice: the solver finds what its packages need on a bare host, then every
host of the class is planned from it, and what a host lacks comes, too; what was excluded never
does. Nothing is written to the depot here: it is made in a directory of the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet
from cpacman.commands.offering import sources_of
from cpacman.commands.planning import make_plan
from cpacman.commands.proving import Members, prove
from cpacman.depot.derive import derive_snapshot
from cpacman.depot.partial import Part, Unfit, Wanted, advisories_of, choose_part, key, new_in
from cpacman.depot.promotion import seen_by
from cpacman.depot.snapshot import Snapshot
from cpacman.errors import Problem
from cpacman.model import HeldReason, Package, Request
from cpacman.planner.closure import Closure, Need, Row, Side
from cpacman.planner.reported import arch_of
from cpacman.planner.solver import Versions
from cpacman.rollout.proof import Proof

_ROUNDS = 5
"""Times that hosts are planned again because one of them needed more."""

_LACKING = frozenset(
    {HeldReason.REQUIRES, HeldReason.CONFLICTS, HeldReason.TOGETHER, HeldReason.UNEXPLAINED}
)
"""Reasons for which a package is held that more of the newer snapshot might lift."""


class Task(NamedTuple):
    """What is to be made: a part of `source` for a class that holds `held`."""

    to: str
    source: Snapshot
    held: Snapshot
    wanted: Wanted


class Made(NamedTuple):
    """A part, as a snapshot that is not in the depot yet, and its proof.

    `needs` came because something chosen needs it, `left` stays because it needs what was
    excluded; `unmet` tells what can't be installed with neither.
    """

    snapshot: Snapshot
    proof: Proof
    part: Part
    needs: tuple[str, ...]
    left: tuple[str, ...]
    unmet: tuple[Problem, ...]


def make_part(context: Context, task: Task, members: Members, scratch: Path) -> Made | Unfit:
    """Choose, close and prove a part.

    Args:
        context: the outside world.
        task: what is to be made.
        members: the hosts of the class.
        scratch: an empty directory, as long as the result is used.
    """
    chosen = choose_part(
        task.held, task.source, task.wanted, class_=task.to, compare=Versions().compare
    )
    if isinstance(chosen, Unfit):
        return chosen
    closing = _Closing(context, task, members)
    part = closing.close(chosen)
    for number in range(_ROUNDS):
        folder = scratch / str(number)
        folder.mkdir()
        snapshot = derive_part(context, task, part, scratch=folder)
        proof = prove(context, task.to, snapshot, task.held, members)
        more = [] if task.wanted.leaves_out else _lacked(context, task, part, proof, members)
        if not more:
            break
        part = closing.close(part.with_more(more))
    return Made(
        snapshot, proof, part, _added(chosen, part), _added(part, chosen), tuple(closing.unmet())
    )


def derive_part(
    context: Context, task: Task, part: Part, *, scratch: Path | None = None
) -> Snapshot:
    """Make a part a snapshot; without `scratch` it is kept in the depot."""
    # Whose repository settings rule: the newer ones when all but some of it goes on.
    parents = (task.source, task.held) if task.wanted.leaves_out else (task.held, task.source)
    return derive_snapshot(
        context.settings.depot,
        parents,
        packages=part.packages,
        advisories=advisories_of(task.held, task.source, part, task.wanted),
        how=task.wanted.how,
        now=context.clock(),
        scratch=scratch,
    )


def _added(before: Part, after: Part) -> tuple[str, ...]:
    known = {key(one) for one in before.comes}
    return tuple(sorted(one.nevra for one in after.comes if key(one) not in known))


# ---- on a bare host ------------------------------------------------------------------------


class _Closing:
    """Closes choices over what their packages need; what was looked at is not looked at again."""

    def __init__(self, context: Context, task: Task, members: Members) -> None:
        self._context, self._task = context, task
        self._arch = _arch(context, members, task.source.channel)
        self._seen = seen_by(task.source, task.to)
        self._by_row = {_row(one): one for one in self._seen.packages}
        self._excluded = tuple(_row(o) for o in self._seen.packages if task.wanted.excludes(o))
        self._unmet: dict[Row, tuple[str, ...]] = {}
        self._closure: Closure | None = None

    def close(self, part: Part) -> Part:
        """Return the choice with all that it needs, or without what can't do without the rest."""
        return self._leave(part) if self._task.wanted.leaves_out else self._take(part)

    def unmet(self) -> Iterator[Problem]:
        """Yield what can't be installed from the choice."""
        for (_, nevra), causes in sorted(self._unmet.items()):
            yield Problem(nevra, f"can't be had so: {'; '.join(causes)}", "take more, or less")

    def _take(self, part: Part) -> Part:
        done: set[Row] = set()
        while rows := [r for r in self._new(part) if r not in done]:
            done.update(rows)
            dropped = {key(o) for o in self._task.held.packages} - {key(o) for o in part.stays}
            needs = self._looked(
                rows,
                old=Side(whole=True, rows=tuple(sorted((r, n) for r, n, _ in dropped))),
                new=Side(whole=False, rows=tuple(_row(one) for one in part.comes)),
                more=Side(whole=True, rows=self._excluded),
            )
            self._unmet.update({one.package: one.causes for one in needs if one.causes})
            part = part.with_more(self._by_row[row] for one in needs for row in one.needs)
        return part

    def _leave(self, part: Part) -> Part:
        out = set(self._excluded)
        while needs := self._looked(
            self._new(part),
            old=Side(whole=False, rows=tuple(_row(one) for one in part.stays)),
            new=Side(whole=True, rows=tuple(sorted(out))),
        ):
            names = {self._by_row[one.package].name for one in needs}
            out |= {_row(one) for one in self._seen.packages if one.name in names}
            back = [one for one in self._task.held.packages if one.name in names]
            part = Part(
                (*part.stays, *back), tuple(one for one in part.comes if one.name not in names)
            )
        return part

    def _new(self, part: Part) -> list[Row]:
        return [_row(one) for one in new_in(self._task.held, part.comes)]

    def _looked(self, rows: Sequence[Row], **sides: Side) -> list[Need]:
        if not rows:
            return []
        if self._closure is None:
            held = seen_by(self._task.held, self._task.to)
            cache = self._context.settings.cache_dir / "solver"
            self._closure = Closure(
                sources_of(held), sources_of(self._seen), arch=self._arch, cache=cache
            )
        return self._closure.look(rows, **sides)


def _row(package: Package) -> Row:
    return package.repository, package.nevra


def _arch(context: Context, members: Members, channel: str) -> str:
    """Return the architecture of a channel: that of most of its hosts."""
    inventories = context.store.inventories(sorted(members.of(channel))[:50]).values()
    common = Counter(arch_of(one) for one in inventories).most_common(1)
    said = context.settings.channels[channel].match.arch
    return common[0][0] if common else (*said, "x86_64")[0]


# ---- on the hosts --------------------------------------------------------------------------


def _lacked(
    context: Context, task: Task, part: Part, proof: Proof, members: Members
) -> list[Package]:
    """Return what hosts need besides, to get what was chosen: found by planning from the whole."""
    channel = task.source.channel
    have = {key(one) for one in part.packages}
    offered = {_row(one): one for one in seen_by(task.source, task.to).packages}
    found: dict[Row, Package] = {}
    for words, hosts in _stuck(context, task, part, proof).items():
        mine = {name: members.of(channel)[name] for name in hosts}
        plan = make_plan(
            context, task.to, mine, Request(upgrade=tuple(sorted(words))),
            fleet=Fleet({name: members.fleet.placements[name] for name in mine}),
            instead={channel: task.source},
        )  # fmt: skip
        for action in (a for t in plan.transactions.values() for a in t.actions if a.sha256):
            package = offered.get((action.repository or "", action.nevra))
            if package and key(package) not in have and not task.wanted.excludes(package):
                found[_row(package)] = package
    return list(found.values())


def _stuck(
    context: Context, task: Task, part: Part, proof: Proof
) -> Mapping[frozenset[str], list[str]]:
    """Return names that came -> the hosts that have them and don't get them."""
    came = {one.nevra: one.name for one in new_in(task.held, part.comes)}
    by_host: dict[str, set[str]] = {
        host: {came[one.candidate] for one in proof.plan.transactions[number].held
               if one.candidate in came and one.reason in _LACKING}
        for host, number in proof.plan.hosts.items()
    }  # fmt: skip
    names = set(came.values())
    for host, inventory in context.store.inventories(sorted(proof.failed)).items():
        by_host[host] = {p.name for p in inventory.packages} & names
    return _grouped((frozenset(words), host) for host, words in by_host.items() if words)


def _grouped(rows: Iterable[tuple[frozenset[str], str]]) -> dict[frozenset[str], list[str]]:
    found: dict[frozenset[str], list[str]] = {}
    for words, host in rows:
        found.setdefault(words, []).append(host)
    return found
