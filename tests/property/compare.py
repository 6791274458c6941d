"""A case planned by us and by dnf, and what differs.

Invariant: dnf is told what our invariants leave out (`invariants.py`), and asked again when what
it answers breaks one; then there is no difference that is not a bug, but for the `NAMED` ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cpacman.model import (
    Action,
    ActionKind,
    FailedError,
    Failure,
    HeldReason,
    Plan,
    Reason,
    Transaction,
)
from cpacman.planner.actions import split_nevra
from cpacman.planner.plan import plan_hosts
from tests.property import oracle
from tests.property.invariants import PROTECTED, Row, World, wrong
from tests.property.soundness import compare
from tests.unit.planner.casefile import Case, channel_of, request_of

_ROUNDS = 20
_ARCHES = (".i686", ".x86_64", ".noarch")

NAMED = {
    "remove": "dnf removes what needs the removed, too; ours fails (remove-needed-fails)",
    "stays": "what is protected, locked or running is not removed (remove-protected-fails)",
    "nothing": "what is not there, or excluded, is no error (remove-not-installed)",
    "forbidden": "what is named and must not come fails the host (block-named-fails)",
    "best": "dnf fails where its best also wants a second thing (multilib-named-one)",
    "limit": "a kernel too many that is needed stays (kernel-limit-needed)",
    "sync": "dnf fails where something can't be synchronised; ours holds it (sync-held)",
    "order": "which of two that exclude each other is synchronised (sync-either)",
    "beside": "dnf's sync adds architectures and installs again (sync-adds-nothing)",
    "follows": "the other architecture follows what an advisory names (multilib-advisory-follows)",
    "absent": "a name in an architecture that is not installed (named-upgrade-not-installed)",
    "successor": "what is named comes, unless its newest is obsoleted (install-successor-of-old)",
    "arch": "name.arch is upgraded by its successor, too (upgrade-arch-obsoleted)",
    "narrow": "dnf takes no 32-bit fix beside another version in 64 bit (advisory-narrow)",
    "wide": "no second architecture comes to replace something (upgrade-other-arch-obsoletes)",
    "aside": "dnf sees no successor of what is excluded, even for others (exclude-obsoletes)",
    "stream": "a version that a stream shadows tells no origin (module-origin)",
    "rank": "an older version in a better repository hides no update (priority-older-installed)",
    "next": "what is named comes in its newest version or fails (named-next-fails)",
    "obsoleted": "an installed successor of an old version is not it (install-obsoleted-old-fails)",
    "there": "what something installed provides is there (install-provided-obsoleted)",
    "pairs": "who names a pair means both: dnf takes one, then neither (multilib-named-version)",
    "each": "each word is taken at its word, or fails (named-each-word-fails)",
    "pair": "nothing obsoletes one architecture of a pair (obsoletes-pair-fails)",
    "among": "an advisory's successor is one among several (advisory-one-of-successors)",
    "keeps": "what the snapshot has of a name is not dropped (sync-keeps-name)",
    "color": "what obsoletes nothing for its colour is an update (obsoletes-wrong-color-update)",
    "prefers": "dnf's libsolv prefers what is recommended, refused or not (obsoletes-recommended)",
    "kind": "a fix in the architecture that policy lets come (advisory-arch-change)",
}
"""The differences that are meant, and the case that shows each."""

_WHOLE = frozenset(NAMED) - {"limit", "beside"}
"""Those of which nothing more can be compared."""


class Compared(NamedTuple):
    """A plan, what differs from dnf, the invariants dnf was told of, the meant differences."""

    plan: Plan
    differences: tuple[str, ...]
    told: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


class Asking:
    """One case and a dnf that is asked about it."""

    def __init__(self, case: Case, dnf: oracle.Dnf, directory: Path) -> None:
        self.case, self.dnf, self.directory = case, dnf, directory
        self.channel = channel_of(case, directory / "m")
        self.request = request_of(case)
        self.world = World(case)
        self.told: set[str] = set()
        self._left_out: set[tuple[str, str]] = set()
        self._number = 0

    def plan(self) -> Plan:
        """Return our plan."""
        return plan_hosts([self.channel], request=self.request, workers=1)

    def answer(self, **more: Any) -> oracle.Answer:
        """Return what dnf does when it keeps to our invariants."""
        forbidden = self.world.forbidden()
        self.told |= set(forbidden.values())
        self._left_out |= set(forbidden)
        for _ in range(_ROUNDS):
            answer = self._ask(more)
            found = set(wrong(self.world, answer.steps, older=self.request.sync))
            fresh = {(repository, nevra) for repository, nevra, _ in found} - self._left_out
            if not fresh:
                return answer
            self.told |= {rule for _, _, rule in found}
            self._left_out |= fresh
        raise AssertionError("dnf can't be kept to the invariants")

    def leave_out(self, rows: set[tuple[str, str]]) -> None:
        """Leave repository and NEVRA of some more out of what dnf sees."""
        self._left_out |= rows

    @property
    def left_out(self) -> set[str]:
        """The NEVRAs that dnf was told to do without."""
        return {nevra for _, nevra in self._left_out}

    def _ask(self, more: dict[str, Any]) -> oracle.Answer:
        self._number += 1
        root = str(self.directory / f"root-{self._number}")
        rows = sorted(self._left_out)
        return self.dnf.ask({**self._question(), "root": root, "left_out": rows, **more})

    def _question(self) -> dict[str, Any]:
        directory, advisories = self.directory / "repos", self.channel.advisories
        repos = {
            s.name: (oracle.make_repository(s, directory, advisories), s.priority)
            for s in self.channel.sources
        }
        hot = [s.name for s in self.channel.sources if s.module_hotfixes]
        (host,) = self.channel.inventories
        # dnf takes a protected package that is obsoleted for a removal, and fails.
        protected = PROTECTED if self.request.remove else ()
        asked = oracle.question_of(repos, host, self.request, directory, hot)
        return {**asked, "limit": self.limit, "protected": protected,
                "weak": self.channel.policy.weak_deps}  # fmt: skip

    @property
    def limit(self) -> int:
        """How many kernels may stay; without a running one ours lets all be."""
        (host,) = self.channel.inventories
        return self.channel.policy.installonly_limit if host.kernel else 0


def compare_case(case: Case, dnf: oracle.Dnf, directory: Path) -> Compared:
    """Plan the one host of a case and ask dnf about it."""
    asking = Asking(case, dnf, directory)
    plan = asking.plan()
    transaction = next(iter(plan.transactions.values()), None)
    if asking.request.minimal and transaction:
        asking.leave_out(set(_twins(asking.world, transaction)))
    found, named = _judge(asking, plan, transaction, asking.answer())
    if found and asking.limit:
        found, named = _judge(asking, plan, _unlimited(transaction), asking.answer(limit=0))
        named |= {"limit"}
    return Compared(plan, found, frozenset(asking.told), named)


def _judge(
    asking: Asking, plan: Plan, transaction: Transaction | None, answer: oracle.Answer
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return what differs and is not meant, and the names of what is meant."""
    found = tuple(_differences(plan, transaction, answer))
    named = frozenset(_named(asking, plan, transaction, answer)) if found else frozenset()
    if named & _WHOLE:
        return (), named
    if "beside" in named:
        found = tuple(_differences(plan, transaction, _without_more(answer, transaction)))
    return found, named


def _unlimited(transaction: Transaction | None) -> Transaction | None:
    """Return a transaction without the kernels that leave because they are too many."""
    if transaction is None:
        return None
    kept = tuple(a for a in transaction.actions if a.reason is not Reason.LIMIT)
    return msgspec.structs.replace(transaction, actions=kept)


def _without_more(answer: oracle.Answer, transaction: Transaction | None) -> oracle.Answer:
    """Return an answer without what comes in place of nothing and that we don't take.

    Nor with what comes beside another architecture of it, for the same that leaves anyway.
    """
    ours = oracle.effects_of(transaction)
    names = {split_nevra(nevra)[0] for nevra in ours.come}

    def is_more(step: oracle.Step) -> bool:
        new, _, olds = step
        if not new or new in ours.come:
            return list(olds) == [new]
        return set(olds) <= {new} or (split_nevra(new)[0] in names and ours.leave >= set(olds))

    return answer._replace(steps=tuple(step for step in answer.steps if not is_more(step)))


def _twins(world: World, transaction: Transaction) -> Iterator[tuple[str, str]]:
    """Yield what shares a NEVRA with what we take: `minimal` of dnf looks at one of them only."""
    taken = {a.nevra_: a.repository for a in transaction.actions if a.repository}
    for row in world.offered:
        if taken.get(row.package.nevra, row.repository) != row.repository:
            yield row.repository, row.package.nevra


def _named(
    asking: Asking, plan: Plan, transaction: Transaction | None, answer: oracle.Answer
) -> Iterator[str]:
    """Yield the names of the meant differences that a case may show."""
    if transaction is None:
        yield from _of_failure(asking, answer)
        yield from _of_causes(asking, plan, answer)
        return
    yield from _of_error(asking.world, transaction, answer, asking.told)
    yield from _of_less(asking, transaction, answer)
    yield from _of_more(asking, transaction, answer)
    if asking.request.sync:
        yield from _of_sync(transaction, answer, asking.told)
        if _keeps_names(transaction, answer):
            yield "keeps"
    if asking.request.by_advisory:
        yield from (name for name in _of_sync(transaction, answer, ()) if name != "sync")


def _of_failure(asking: Asking, answer: oracle.Answer) -> Iterator[str]:
    """Yield why ours may fail where dnf does not."""
    request, world = asking.request, asking.world
    meant = world.meant(request.remove)
    if any(world.stays(row) for row in meant):
        yield "stays"
    if request.remove and answer.effects.leave - {row.package.nevra for row in meant}:
        yield "remove"
    if world.is_elsewhere(request.upgrade):
        yield "absent"
    if asking.told and not answer.steps and (request.install or request.upgrade):
        yield "forbidden"
    if any(word.endswith(_ARCHES) for word in request.upgrade) and not answer.steps:
        yield "arch"


def _of_causes(asking: Asking, plan: Plan, answer: oracle.Answer) -> Iterator[str]:
    """Yield why ours may fail where dnf does not, as the causes of it tell."""
    (failure,) = plan.failed.values()
    request, world = asking.request, asking.world
    about = {cause.partition(": ")[0] for cause in failure.causes}
    if failure.error is FailedError.POLICY and about <= asking.left_out:
        yield "next"
    if failure.error is FailedError.CONFLICTS and any(map(world.is_of_pair, _replaced(failure))):
        yield "pair"
    if failure.error is FailedError.POLICY and "is installed as" in " ".join(failure.causes):
        yield "pair"
    if _is_named_twice(world, [*request.upgrade, *request.install], failure):
        yield "each"
    if answer.steps:
        return
    heirs = {cause.partition(" obsoletes ")[0] for cause in failure.causes}
    if _obsoleted_by(world, heirs) & {row.name for row in world.meant(world.excluded)}:
        yield "aside"
    names = {name for r in world.installed for name, _, _ in r.package.deps("obsoletes")}
    if names & set(request.install):
        yield "obsoleted"


def _is_named_twice(world: World, words: Sequence[str], failure: Failure) -> bool:
    """Return whether of what fails something is named by several words, and its version is."""
    failing = {word for cause in failure.causes for word in cause.split(" ")}
    rows = [row for row in world.offered if row.package.nevra in failing]
    return any(
        world.is_version_named(row)
        and sum(any(r.name == row.name for r in world.named_by(word)) for word in words) > 1
        for row in rows
    )


def _replaced(failure: Failure) -> list[str]:
    """Return the NEVRAs that something would obsolete, as the causes tell."""
    causes = (cause for cause in failure.causes if " obsoletes " in cause)
    return [cause.rpartition("(")[2].rstrip(")") for cause in causes]


def _obsoleted_by(world: World, nevras: Collection[str]) -> set[str]:
    """Return the names that some of what is offered obsoletes."""
    rows = [row for row in world.offered if row.package.nevra in nevras]
    return {name for row in rows for name, _, _ in row.package.deps("obsoletes")}


def _is_among(world: World, transaction: Transaction, answer: oracle.Answer) -> bool:
    """Return whether ours takes one of several successors of something, and dnf takes none."""
    ours = [a for a in transaction.actions if a.nevra not in answer.effects.come]
    came = {a.nevra for a in transaction.actions}
    olds = {a.from_ and split_nevra(a.from_)[0] for a in ours if a.action is ActionKind.OBSOLETE}
    rows = [(r, name) for r in world.offered for name, _, _ in r.package.deps("obsoletes")]
    others = {name for row, name in rows if row.package.nevra not in came}
    return bool(olds) and olds <= others and answer.effects.come <= came


def _keeps_names(transaction: Transaction, answer: oracle.Answer) -> bool:
    """Return whether ours differs by updates of what dnf lets be obsoleted, and by those only."""
    heirs = {old: split_nevra(new)[0] for new, _, olds in answer.steps if new for old in olds}
    ours = [a for a in transaction.actions if a.nevra not in answer.effects.come]
    kept = {a.from_ for a in ours if a.from_ and heirs.get(a.from_, a.name) != a.name}
    come = {a.nevra for a in transaction.actions}
    theirs = {old for new, _, olds in answer.steps if new not in come for old in olds}
    return bool(ours) and kept == {a.from_ for a in ours} and theirs <= kept


def _of_error(
    world: World, transaction: Transaction, answer: oracle.Answer, told: Collection[str]
) -> Iterator[str]:
    """Yield why dnf may fail where ours does not."""
    idle = not transaction.actions
    none = ("No match for argument", "All matches were filtered out")
    if any(words in answer.error for words in none) and (
        idle or world.meant([answer.error.rpartition(": ")[2]])
    ):
        yield "nothing"
    if answer.error and "together" in told and _moves_pair(transaction):
        yield "pairs"
    if "cannot install the best" in answer.error and (idle or _takes_newest(world, transaction)):
        yield "best"


def _of_less(asking: Asking, transaction: Transaction, answer: oracle.Answer) -> Iterator[str]:
    """Yield why dnf may take less than ours."""
    request, world = asking.request, asking.world
    ours = [a for a in transaction.actions if a.nevra not in answer.effects.come]
    words = [(word, a) for a in ours for word in request.upgrade]
    if any("." in word and f".{action.arch}" in word for word, action in words):
        yield "arch"
    if ours and all(_is_above_rank(world, a) for a in ours if a.from_):
        yield "rank"
    if any(_is_of_no_color(world, action) for action in ours):
        yield "color"
    if world.meant(world.excluded) and answer.effects.come <= {
        a.nevra for a in transaction.actions
    }:
        yield "aside"
    if ours and "origin" in asking.told and asking.case.of("modules"):
        yield "stream"
    if request.by_advisory and _is_among(world, transaction, answer):
        yield "among"
    if request.by_advisory and ours and all(a.arch == "i686" for a in ours):
        yield "narrow"
    if request.by_advisory and ours and all(_changes_arch(world, a) for a in ours):
        yield "kind"
    if (request.by_advisory or "together" in asking.told) and _follows(transaction):
        yield "follows"


def _of_more(asking: Asking, transaction: Transaction, answer: oracle.Answer) -> Iterator[str]:
    """Yield why dnf may take more than ours, or something else."""
    request, world = asking.request, asking.world
    theirs = {new for new, _, _ in answer.steps} - {a.nevra for a in transaction.actions}
    rows = [row for row in world.offered if row.package.nevra in theirs]
    apart = [row for row in rows if row.arch not in {o.arch for o in world.of_name(row.name)}]
    olds = {name for row in rows for name, _, _ in row.package.deps("obsoletes")}
    again = request.upgrade and any(a.name in olds for a in transaction.actions)
    if again or (apart and (request.upgrade or request.install)):
        yield "wide"
    if request.install and _is_successor_of_old(world, transaction, answer):
        yield "successor"
    if any(_is_recommended_by_old(world, row) for row in rows):
        yield "prefers"
    if any(world.gives(word, rows) for word in request.install if world.is_provided(word)):
        yield "there"


def _is_recommended_by_old(world: World, row: Row) -> bool:
    """Return whether something obsoletes a name of which some version recommends it.

    libsolv 0.7.22 to 0.7.27 prefers that to the name's own newest version, or to what is
    installed, though the host does without it already; those before and after do not.
    """
    olds = {name for name, _, _ in row.package.deps("obsoletes")}
    own = {name for name, _, _ in row.package.provides}
    kin = (r for r in (*world.installed, *world.offered) if r.name in olds)
    wanted = (name for r in kin for name, _, _ in r.package.deps("recommends"))
    return any(own & set(re.split("[ ()]+", words)) for words in wanted)


def _changes_arch(world: World, action: Action) -> bool:
    """Return whether an action changes the architecture of a package, as policy allows."""
    old = split_nevra(action.from_)[2] if action.from_ else action.arch
    return old != action.arch and world.allows("arch_change", action.name)


def _takes_newest(world: World, transaction: Transaction) -> bool:
    """Return whether something that is named comes, and nothing newer of it was allowed."""
    shut = world.forbidden()
    meant = (Reason.REQUESTED, Reason.OBSOLETES)
    asked = [a for a in transaction.actions if a.reason in meant]
    return bool(asked) and not any(
        compare(row.evr, action.evr) > 0
        for action in asked
        for row in world.offered
        if (row.name, row.arch) == (action.name, action.arch)
        and (row.repository, row.package.nevra) not in shut
    )


def _is_above_rank(world: World, action: Action) -> bool:
    """Return whether a better repository has only older versions than the installed one."""
    rank = {r: int(o.partition("=")[2]) for r, o in world.priorities()}
    kin = [r for r in world.offered if r.name == action.name]
    better = [r for r in kin if rank.get(r.repository, 99) < rank.get(action.repository or "", 99)]
    old = next((r for r in world.installed if r.package.nevra == action.from_), None)
    return bool(better and old) and all(compare(r.evr, old.evr) < 0 for r in better if old)


def _is_of_no_color(world: World, action: Action) -> bool:
    """Return whether what comes obsoletes the name of something in another architecture."""
    row = next((r for r in world.offered if r.package.nevra == action.nevra), None)
    olds = {name for name, _, _ in row.package.deps("obsoletes")} if row else set()
    return any(r.name in olds and r.arch != action.arch for r in world.installed)


def _of_sync(
    transaction: Transaction, answer: oracle.Answer, told: Collection[str]
) -> Iterator[str]:
    apart = (HeldReason.CONFLICTS, HeldReason.REQUIRES, HeldReason.TOGETHER)
    if answer.error:
        yield "sync"
    elif "together" in told or any(held.reason in apart for held in transaction.held):
        yield "order"
    else:
        yield "beside"


def _moves_pair(transaction: Transaction) -> bool:
    """Return whether two architectures of a name move."""
    rows = [a.name for a in transaction.actions if a.action is ActionKind.UPGRADE]
    return len(set(rows)) < len(rows)


def _follows(transaction: Transaction) -> bool:
    """Return whether another architecture comes along with one."""
    rows = [a for a in transaction.actions if a.action is ActionKind.UPGRADE]
    first = {a.name for a in transaction.actions if a.reason is not Reason.DEPENDENCY}
    weak = [a for a in rows if a.reason is Reason.DEPENDENCY]
    return any(a.name in first or a.arch != "x86_64" for a in weak)


def _is_successor_of_old(world: World, transaction: Transaction, answer: oracle.Answer) -> bool:
    """Return whether dnf takes, for what is named, what obsoletes only old versions of it."""
    asked = {a.name for a in transaction.actions if a.reason is Reason.REQUESTED}
    theirs = {new for new, _, _ in answer.steps}
    rows = [row for row in world.offered if row.package.nevra in theirs]
    return any(name in asked for row in rows for name, _, _ in row.package.deps("obsoletes"))


def _differences(
    plan: Plan, transaction: Transaction | None, answer: oracle.Answer
) -> Iterator[str]:
    if bool(answer.error) != (transaction is None):
        yield f"dnf fails with {answer.error!r}, ours with {plan.failed}"
        return
    ours = oracle.effects_of(transaction)
    for what, them, us in zip(("come", "leave"), answer.effects, ours, strict=True):
        if them != us:
            yield f"{what}: only dnf {sorted(them - us)}, only ours {sorted(us - them)}"
