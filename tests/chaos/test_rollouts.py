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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from cpacman.commands import chaining
from cpacman.commands.gatekeeping import Gates
from cpacman.model import Outcome
from cpacman.rollout import runner
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import Doing, Job
from cpacman.rollout.machine import RolloutState
from cpacman.rollout.restarts import Ending, Need
from cpacman.rollout.windows import Opening
from cpacman.store import Store, chains, rollouts
from cpacman.transport.fake import FakeHost
from cpacman.transport.port import Answer
from tests.simulated.fleet import Result, Simulation, Template, simulate, template
from tests.simulated.network import Network
from tests.unit.commands.world import packages
from tests.unit.rollout.world import World, level

WHOLE = os.environ.get("CPACMAN_CHAOS") == "1"
FIRST = int(os.environ.get("CPACMAN_CHAOS_FIRST", "0"))
PARTS, EACH = (20, 50) if WHOLE else (2, 16)
FLEETS = ((3, 0), (6, 0), (10, 0), (5, 2))
"""Hosts, and how many of them are of a second class: these are carried through both by a chain."""


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
        yield {number: template(top / f"fleet{number}", files, *one)
               for number, one in enumerate(FLEETS)}  # fmt: skip


def run(
    templates: dict[int, Template],
    seed: int,
    break_it: Callable[[Any], None] = lambda patch: None,
    restless: bool = False,
) -> Result:
    """Run one seed; `break_it` is given what patches the library."""
    one = templates[seed % len(FLEETS)]
    folder = one.world.base / f"seed{seed}"
    folder.mkdir()

    def sabotage(simulation: Simulation) -> None:
        simulation.restless = restless
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


def test_no_host_starts_after_a_halt(tmp_path: Path) -> None:
    """Another process commits the wish while a group is being told: that group is the last one.

    How long that takes is a row of `make bench ONLY=rollout`.
    """
    names = [f"web{n:04d}" for n in range(1000 if WHOLE else 100)]
    world = World(tmp_path, {name: FakeHost(polls=n % 3) for n, name in enumerate(names)})
    world.clock = lambda: 1000.0 + world.slept  # type: ignore[method-assign]
    told: list[str] = []
    call = world.transport.call

    def watch(function: str, requests: Mapping[str, Any], *, timeout: float) -> Iterator[Answer]:
        if function == "apply":
            told.extend(requests)
            if len(told) > len(names) // 5 and "halt" not in told:
                with Store.open(f"sqlite:///{tmp_path}/state.db") as other:
                    other.wish_rollout("r-1", "halt", at=1.0, who="alice")
                told.append("halt")
        return call(function, requests, timeout=timeout)

    world.transport.call = watch  # type: ignore[method-assign]
    end = world.run(level("all", *names, concurrency=len(names) // 20))
    assert end.state is RolloutState.HALTED and told[-1] == "halt"
    started = set(told[:-1])
    assert len(names) // 5 < len(started) <= len(names) // 4
    assert {name for name, host in world.transport.hosts.items() if host.started} == started
    assert world.outcomes == {
        name: ("applied", None) if name in started else ("skipped", "halted") for name in names
    }


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


def never_mind_reports(patch: pytest.MonkeyPatch) -> None:
    """Who was told to reboot, or to restart services, is taken to have done so."""
    done = Ending(Outcome.APPLIED, None, "", {})
    patch.setattr("cpacman.rollout.settling.ending_of", lambda *_, **__: done)


def bytes_at_any_time(patch: pytest.MonkeyPatch) -> None:
    """What a change needs is sent whenever it is lacking."""
    real = Gates.openings

    def openings(self: Gates, hosts: Sequence[str], what: Doing = "apply") -> Any:
        return dict.fromkeys(hosts, Opening(True)) if what == "stage" else real(self, hosts, what)

    patch.setattr(Gates, "openings", openings)


def two_drivers(patch: pytest.MonkeyPatch) -> None:
    """Whoever lives is taken for dead, and who lost a rollout goes on with it."""

    def anybody(connection: Any, rollout: str, owner: str) -> Any:
        r = rollouts.rollouts_table.c
        query = sa.select(r.owner, r.wish, r.state).where(r.id == rollout)
        return connection.execute(query).first()

    for module in ("controlling", "collecting"):
        patch.setattr(f"cpacman.commands.{module}.is_alive", lambda *_: False)
    patch.setattr(rollouts, "_owned", anybody)


def chains_run_on(patch: pytest.MonkeyPatch) -> None:
    """A class counts as done as soon as its rollout has begun."""
    real = chaining.rollout_of

    def rollout_of(*given: Any) -> Any:
        row = real(*given)
        return None if row is None else {**row, "state": "done"}

    patch.setattr(chaining, "rollout_of", rollout_of)
    patch.setattr(chains, "_check_last", nothing)


def chains_are_deaf(patch: pytest.MonkeyPatch) -> None:
    """A chain goes on whatever somebody wished."""

    def look(self: Any) -> None:
        self._chain = self._store.chain(self._id)

    def guard(chain: str, owner: str, step: Any = None) -> Any:
        def check(connection: Any) -> None:
            if step is not None:
                table = chains.chains_table
                mine = table.c.id == chain
                steps = connection.execute(sa.select(table.c.steps).where(mine)).scalar()
                known = [*json.loads(steps), msgspec.to_builtins(step)]
                values = {"steps": json.dumps(known)}
                connection.execute(table.update().where(mine).values(values))

        return check

    patch.setattr(chaining._Carrier, "_look", look)
    patch.setattr(chaining, "chain_guard", guard)


SABOTAGE: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "a halt is not heeded": (ignore_wishes, "while it is running halt", 34),
    "a lost order is repeated after a halt": (
        lambda patch: (
            patch.setattr("cpacman.rollout.applying.Applier.tell_no_more", nothing),
            patch.setattr("cpacman.rollout.record.Record.is_stopped", lambda self: False),
        ),
        "after a wish to stop",
        11,
    ),
    "more start than may": (
        one_more,
        "are in flight at once",
        1,
    ),
    "budgets do not count": (
        lambda patch: patch.setattr("cpacman.rollout.gate.over_budget", lambda *_, **__: ""),
        "hosts start after",
        5,
    ),
    "gates always pass": (
        lambda patch: patch.setattr("cpacman.rollout.gate.combine", lambda *_: Verdict.PASS),
        "went on without its gate",
        3,
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
        "outside their window",
        3,
    ),
    "approvals are not asked for": (
        lambda patch: patch.setattr(
            "cpacman.commands.gatekeeping.Gates.approval", lambda self, level: ""
        ),
        "approved by",
        1,
    ),
    "hosts are not locked": (
        lambda patch: patch.setattr("cpacman.store.rollouts.lock_hosts", nothing),
        "are not those of open hosts",
        0,
    ),
    "every report is good": (
        all_good,
        "ended applied",
        18,
    ),
    "forged reports count": (
        all_verified,
        "ended applied",
        18,
    ),
    "what was done before is not undone": (
        lambda patch: patch.setattr("cpacman.rollout.around.undo", nothing),
        "stays drained",
        3,
    ),
    "a reboot is done when it is ordered": (
        never_mind_reports,
        "ended applied",
        2,
    ),
    "nothing follows a transaction": (
        lambda patch: patch.setattr("cpacman.rollout.settling.need_of", lambda *_: Need.NOTHING),
        "ended applied",
        2,
    ),
    "who is late joins unasked": (
        lambda patch: patch.setattr("cpacman.commands.gatekeeping.Gates.late", lambda self: True),
        "joins though nobody may",
        3,
    ),
    "a profile holds for everybody": (
        lambda patch: patch.setattr(
            "cpacman.commands.jobs.profile_of", lambda c, name: c.settings.profiles["emergency"]
        ),
        "begins with",
        0,
    ),
    "hosts have no windows of their own": (
        lambda patch: patch.setattr("cpacman.commands.gatekeeping.own_window", lambda *_: None),
        "outside their window",
        26,
    ),
    "bytes know no window": (
        bytes_at_any_time,
        "outside its window",
        3,
    ),
    "every engine acts": (
        lambda patch: patch.setattr("cpacman.commands.ticking.is_acting", lambda *_: True),
        "works without the lease",
        0,
    ),
    "two drivers carry one rollout out": (
        two_drivers,
        "starts hosts of",
        4,
    ),
    "chains do not wait for a class": (
        chains_run_on,
        "before",
        35,
    ),
    "chains are deaf": (
        chains_are_deaf,
        "begins r-",
        3,
    ),
}
"""What is broken -> how, what the checker must say of it, and a seed that shows it by now."""


CHAINS = frozenset(name for name in SABOTAGE if name.startswith("chains"))
"""What only fleets of two classes show."""
RESTLESS = frozenset({"a lost order is repeated after a halt", "chains are deaf"})
"""What shows where people halt and resume all the time."""


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_checker_sees_what_is_broken(templates: dict[int, Template], name: str) -> None:
    """With a safeguard taken out of the library the same rollouts do violate."""
    break_it, words, first = SABOTAGE[name]
    step = len(FLEETS) if name in CHAINS else 1
    for seed in range(first, first + 60 * step, step):
        result = run(templates, seed, break_it, name in RESTLESS)
        if any(words in one for one in result.violations):
            print(f"{name}: seen at seed {seed}")
            return
    pytest.fail(f"{name}: nobody noticed")
