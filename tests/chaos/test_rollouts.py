"""A thousand simulated rollouts with faults from a seed, and one checker of what must always hold.

Drivers, engines and people of the real commands work on one database around simulated hosts and a
virtual clock (tests/simulated). `CPACMAN_CHAOS=1` (`make chaos`) runs all of them, otherwise some.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cpacman.model import Outcome
from cpacman.rollout import runner
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import Job
from cpacman.rollout.windows import Opening
from cpacman.store import rollouts
from tests.simulated.fleet import Result, Simulation, Template, simulate, template
from tests.simulated.hosts import Network
from tests.unit.commands.world import packages

WHOLE = os.environ.get("CPACMAN_CHAOS") == "1"
FIRST = int(os.environ.get("CPACMAN_CHAOS_FIRST", "0"))
PARTS, EACH = (20, 50) if WHOLE else (4, 12)
SIZES = (3, 6, 10)


@pytest.fixture(scope="module")
def templates() -> Iterator[dict[int, Template]]:
    """Planned fleets of three sizes, in memory: thousands of commits are to be checked."""
    if not shutil.which("rpmbuild"):
        pytest.skip("rpmbuild is not installed")
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as base:
        top = Path(base)
        (top / "rpms").mkdir()
        files = packages(top / "rpms")
        yield {size: template(top / f"fleet{size}", files, size) for size in SIZES}


def run(
    templates: dict[int, Template], seed: int, break_it: Callable[[Any], None] = lambda patch: None
) -> Result:
    """Run one seed; `break_it` is given what patches the library."""
    one = templates[SIZES[seed % len(SIZES)]]
    folder = one.world.base / f"seed{seed}"
    folder.mkdir()

    def sabotage(simulation: Simulation) -> None:
        break_it(patch)

    try:
        with pytest.MonkeyPatch.context() as patch:
            return simulate(one, folder, seed, patch, sabotage)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_that_must_hold_is_broken(templates: dict[int, Template], part: int) -> None:
    """Whatever dies, lies, vanishes or is typed: no violation, and everything comes to an end."""
    counts: Counter[str] = Counter()
    for seed in range(FIRST + part * EACH, FIRST + (part + 1) * EACH):
        result = run(templates, seed)
        assert not result.violations, "\n".join([f"seed {seed}", *result.log[-400:]])
        counts += result.counts
    print(f"\n{EACH} rollouts from seed {FIRST + part * EACH}, no violation")
    print("\n".join(f"  {name}: {count}" for name, count in sorted(counts.items())))
    for name in ("applied", "skipped", "rollout done", "rollout halted", "orders"):
        assert counts[name] > EACH // 4, f"{name} is hardly ever seen: {counts}"
    killed = sum(count for name, count in counts.items() if name.startswith("killed"))
    assert killed > EACH // 4, f"hardly anything is killed: {counts}"


def nothing(*_: Any, **__: Any) -> None:
    """What is left out."""


def ignore_wishes(patch: pytest.MonkeyPatch) -> None:
    """Orders go out whatever somebody wished."""
    real = rollouts._owned

    def owned(*given: Any) -> SimpleNamespace:
        return SimpleNamespace(**{**real(*given)._asdict(), "wish": None})

    patch.setattr(rollouts, "_owned", owned)


def one_more(patch: pytest.MonkeyPatch) -> None:
    """A driver takes the bound of its levels for one host more than it is."""
    real = runner._Rollout.__init__

    def begin(self: Any, job: Job, tools: Any) -> None:
        wider = tuple(one._replace(concurrency=one.concurrency + 1) for one in job.levels)
        real(self, job._replace(levels=wider), tools)

    patch.setattr(runner._Rollout, "__init__", begin)


def all_good(patch: pytest.MonkeyPatch) -> None:
    """Whatever a report says, its host has the plan."""
    good = (Outcome.APPLIED, None, "")
    patch.setattr("cpacman.rollout.applying.judge_report", lambda *_: good)


def all_verified(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at signatures."""
    patch.setattr(Network, "verify", lambda self, host, text, signature: json.loads(text))


SABOTAGE: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "a halt is not heeded": (ignore_wishes, "while it is running halt", 34),
    "a lost order is repeated after a halt": (
        lambda patch: (
            patch.setattr("cpacman.rollout.applying.Applier.tell_no_more", nothing),
            patch.setattr("cpacman.rollout.record.Record.is_stopped", lambda self: False),
        ),
        "after a wish to stop",
        4,
    ),
    "more start than may": (
        one_more,
        "are in flight at once",
        2,
    ),
    "budgets do not count": (
        lambda patch: patch.setattr("cpacman.rollout.gate.over_budget", lambda *_, **__: ""),
        "hosts start after",
        1,
    ),
    "gates always pass": (
        lambda patch: patch.setattr("cpacman.rollout.gate.combine", lambda *_: Verdict.PASS),
        "went on without its gate",
        28,
    ),
    "soaks are short": (
        lambda patch: patch.setattr("cpacman.rollout.runner._Rollout._soak", nothing),
        "soaked",
        1,
    ),
    "windows are always open": (
        lambda patch: patch.setattr(
            "cpacman.commands.gatekeeping.opening_of", lambda *_: Opening(True)
        ),
        "outside its window",
        26,
    ),
    "approvals are not asked for": (
        lambda patch: patch.setattr(
            "cpacman.commands.gatekeeping.Gates.approval", lambda self, level: ""
        ),
        "approved by",
        8,
    ),
    "hosts are not locked": (
        lambda patch: patch.setattr("cpacman.store.rollouts.lock_hosts", nothing),
        "are not those of open hosts",
        0,
    ),
    "every report is good": (
        all_good,
        "ended applied",
        1,
    ),
    "forged reports count": (
        all_verified,
        "ended applied",
        31,
    ),
    "what was done before is not undone": (
        lambda patch: patch.setattr("cpacman.rollout.around.undo", nothing),
        "stays drained",
        5,
    ),
}
"""What is broken -> how, what the checker must say of it, and a seed that shows it by now."""


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_checker_sees_what_is_broken(templates: dict[int, Template], name: str) -> None:
    """With a safeguard taken out of the library the same rollouts do violate."""
    break_it, words, first = SABOTAGE[name]
    for seed in range(first, first + 60):
        if any(words in one for one in run(templates, seed, break_it).violations):
            print(f"{name}: seen at seed {seed}")
            return
    pytest.fail(f"{name}: nobody noticed")
