"""What random cases reach: a generator that stops making conflicts must not go unnoticed.

`python -m tests.property.kinds [FIRST COUNT]` prints how many cases reach each kind. What counts
is what comes of a case: a kind of dependency counts when a package with it is in the plan.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cpacman.model import Action, Plan, Transaction
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.plan import plan_hosts
from tests.property.families import make_case
from tests.property.invariants import Row, World
from tests.unit.planner.casefile import Case, channel_of, request_of

LEAST = {
    "something to do": 0.5, "failed": 0.03, "held": 0.2,
    "upgrade": 0.3, "install": 0.1, "obsolete": 0.06, "downgrade": 0.002, "remove": 0.02,
    "requested": 0.05, "dependency": 0.05, "weak": 0.004, "obsoletes": 0.05, "sync": 0.02,
    "limit": 0.005,
    "held: arch": 0.02, "held: vendor": 0.012, "held: origin": 0.02, "held: lock": 0.01,
    "held: exclude": 0.02, "held: blocked": 0.007, "held: together": 0.01, "held: requires": 0.03,
    "held: conflicts": 0.02, "held: protected": 0.002,
    "held: absent": 0.005,
    "failed: requires": 0.003, "failed: conflicts": 0.002, "failed: policy": 0.005,
    "failed: protected": 0.001, "failed: unknown-package": 0.001,
    "requires": 0.1, "conflicts": 0.025, "recommends": 0.02, "suggests": 0.01, "supplements": 0.02,
    "enhances": 0.01, "versioned provides": 0.03, "rich": 0.012, "file": 0.007,
    "file in filelists only": 0.005, "requires itself": 0.02, "obsoletes itself": 0.003,
    "circle of obsoletes": 0.005, "split": 0.003, "merge": 0.005, "epoch": 0.03, "tilde": 0.03,
    "caret": 0.015, "pair moves": 0.02, "32 bit": 0.03, "noarch": 0.02, "kernel": 0.03,
    "same NEVRA twice": 0.02, "priority": 0.05, "stream": 0.01, "advised": 0.03, "named": 0.1,
    "minimal": 0.01, "broken before": 0.03,
}  # fmt: skip
"""Each kind, and the share of cases that have to reach it."""


def plan_of(case: Case, directory: Path) -> Plan:
    """Return our plan of a case."""
    return plan_hosts([channel_of(case, directory)], request=request_of(case), workers=1)


def kinds_of(case: Case, plan: Plan) -> set[str]:
    """Return what a case reaches."""
    found = {f"failed: {failure.error.value}" for failure in plan.failed.values()}
    found |= {"failed"} if plan.failed else set()
    for transaction in plan.transactions.values():
        found |= set(_of_plan(transaction)) | set(_of_request(case, transaction))
        found |= set(_of_rows(World(case), transaction.actions))
    return found


def _of_plan(transaction: Transaction) -> Iterator[str]:
    if transaction.actions:
        yield "something to do"
    if transaction.held:
        yield "held"
    yield from (f"held: {held.reason.value}" for held in transaction.held)
    for action in transaction.actions:
        yield from (action.action.value, action.reason.value)
    moved = Counter((a.name, a.evr) for a in transaction.actions if a.action.value == "upgrade")
    if max(moved.values(), default=0) > 1:
        yield "pair moves"
    replaced = Counter(a.from_ for a in transaction.actions if a.from_)
    if max(replaced.values(), default=0) > 1:
        yield "split"
    merged = Counter(a.nevra for a in transaction.actions if a.action.value == "obsolete")
    if max(merged.values(), default=0) > 1:
        yield "merge"


def _of_request(case: Case, transaction: Transaction) -> Iterator[str]:
    request = request_of(case)
    if not transaction.actions:
        return
    if request.by_advisory:
        yield "advised"
    if request.minimal:
        yield "minimal"
    if not (request.upgrade_all or request.sync):
        yield "named"


def _of_rows(world: World, actions: Iterable[Action]) -> Iterator[str]:
    """Yield what is said of the packages that come."""
    taken = {(a.repository, a.nevra) for a in actions if a.repository}
    rows = [row for row in world.offered if (row.repository, row.package.nevra) in taken]
    twins = Counter(row.package.nevra for row in world.offered)
    streams = {n for s in world.case.of("modules") for _, d in s.lines for n in _artifacts(d)}
    ranked = {s.words[1] for s in world.case.of("repo") if any("priority" in w for w in s.words)}
    if taken and not world.is_closed():
        yield "broken before"
    for row in rows:
        yield from _of_row(world, row)
        if twins[row.package.nevra] > 1:
            yield "same NEVRA twice"
        if row.package.nevra in streams:
            yield "stream"
        if row.repository in ranked:
            yield "priority"


def _artifacts(said: dict[str, str]) -> list[str]:
    return said.get("artifacts", "").split(", ")


def _of_row(world: World, row: Row) -> Iterator[str]:
    for mark, kind in ((":", "epoch"), ("~", "tilde"), ("^", "caret")):
        if mark in row.evr:
            yield kind
    if row.arch != "x86_64":
        yield "noarch" if row.arch == "noarch" else "32 bit"
    if row.name.startswith("kernel"):
        yield "kernel"
    kinds = ("requires", "conflicts", "recommends", "suggests", "supplements", "enhances")
    yield from (kind for kind in kinds if row.package.deps(kind))
    if any(flags for _, flags, _ in row.package.deps("provides")):
        yield "versioned provides"
    yield from _of_needs(row)
    yield from _of_obsoletes(world, row)


def _of_needs(row: Row) -> Iterator[str]:
    for name, _, _ in (*row.package.deps("requires"), *row.package.deps("recommends")):
        if name.startswith("("):
            yield "rich"
        if name.startswith("/"):
            yield "file" if is_in_primary(name) else "file in filelists only"
        if name == row.name:
            yield "requires itself"


def _of_obsoletes(world: World, row: Row) -> Iterator[str]:
    olds = {name for name, _, _ in row.package.deps("obsoletes")}
    if row.name in olds:
        yield "obsoletes itself"
    others = [r for r in world.offered if r.name in olds - {row.name}]
    if any(row.name == name for r in others for name, _, _ in r.package.deps("obsoletes")):
        yield "circle of obsoletes"


def count(numbers: Iterable[int]) -> tuple[Counter[str], int]:
    """Return how many of some cases reach each kind, and how many cases there were."""
    numbers = list(numbers)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for one in numbers:
            case = make_case(one)
            found.update(kinds_of(case, plan_of(case, Path(scratch) / str(one))))
    return found, len(numbers)


def too_few(found: Counter[str], cases: int) -> dict[str, int]:
    """Return the kinds that too few cases reach."""
    return {kind: found[kind] for kind, least in LEAST.items() if found[kind] < least * cases}


def main(first: int = 0, many: int = 400) -> int:
    """Print the kinds, and how many cases reach each."""
    found, cases = count(range(first, first + many))
    for kind in sorted({*found, *LEAST}, key=lambda kind: -found[kind]):
        share = found[kind] / cases
        sys.stdout.write(f"{share:7.1%}  at least {LEAST.get(kind, 0):5.1%}  {kind}\n")
    return 1 if too_few(found, cases) else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
