"""The process of a transaction is killed at hundreds of points; each time the host gets there.

`CPACMAN_CHAOS=1` (`make chaos`) runs all of it; otherwise a seeded part is run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.chaos import tree
from tests.unit.agent import agenthost

WHOLE = os.environ.get("CPACMAN_CHAOS") == "1"
PARTS = 20 if WHOLE else 1
KILLS, LEAST = (8, 1) if WHOLE else (6, 3)
LEAST_IN_ALL = 100
SEED = int(os.environ.get("CPACMAN_CHAOS_SEED", "20261122"))
COUNTS: Counter[str] = Counter()
"""Where the workers of all parts died."""
PHASES = {"unpacking": "unpack", "running": "scriptlets", "erasing": "erase"}


class Kill(NamedTuple):
    """Where a worker is killed, and what became of the host."""

    number: int
    phase: str
    at: int
    delay: float
    group: bool
    twice: bool


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tree.Template:
    """The host before, built once."""
    if not agenthost.is_root():
        pytest.skip("rpm --root needs root")
    rpms = tree.build(tmp_path_factory.mktemp("rpmbuild"))
    return tree.Template(tmp_path_factory.mktemp("template"), rpms)


@pytest.fixture(scope="module")
def reference(template: tree.Template, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files after the transaction when nobody kills it."""
    victim = tree.Victim(template, tmp_path_factory.mktemp("reference") / "host")
    report = victim.apply()
    assert report["outcome"] == "applied", report
    return victim.files()


def kills(seed: int, each: int) -> list[Kill]:
    """Return the points of a run: the same ones for the same seed.

    Some of each phase die right there; when the others die is for the machine to decide.
    """
    dice = random.Random(seed)
    most = {"unpack": 440, "scriptlets": 26, "erase": 240, "between": 80}
    found: list[Kill] = []
    for phase in most:
        for number in range(each):
            late = phase == "scriptlets" or (phase != "between" and dice.random() < 0.3)
            late = late and number >= LEAST
            delay = dice.uniform(0.001, 0.03 if phase == "scriptlets" else 0.004) if late else 0.0
            found.append(Kill(
                len(found), phase, dice.randint(1, most[phase]), delay,
                dice.random() < 0.5, dice.random() < 0.2,
            ))  # fmt: skip
    return found


def where_cut(victim: tree.Victim) -> str:
    """Return the phase in which the worker died, by the journal's last words."""
    for entry in reversed(victim.journal()):
        if "phase" in entry:
            return PHASES.get(entry["phase"], "between")
        if "installed" in entry or "erased" in entry or entry.get("state") == "running":
            return "between"
        if "state" in entry:
            return str(entry["state"])
    return "staged"


class Survivor(NamedTuple):
    """A host that was killed and recovered."""

    kill: Kill
    cut: str
    told: dict[str, Any]
    half_done: bool
    report: dict[str, Any]
    installed: list[str]
    files: dict[str, str]


def survive(template: tree.Template, folder: Path, kill: Kill) -> Survivor:
    """Kill a worker, perhaps the one that recovers as well, and start it until it reports."""
    victim = tree.Victim(template, folder)
    victim.die(kill.phase, kill.at, kill.delay, group=kill.group)
    cut, told = where_cut(victim), victim.status()
    half_done = victim.installed() not in (sorted(tree.BEFORE), sorted(tree.AFTER))
    if kill.twice:
        victim.die(kill.phase, kill.at // 2 + 1, kill.delay, group=kill.group)
    report = victim.apply()
    found = Survivor(kill, cut, told, half_done, report, victim.installed(), victim.files())
    shutil.rmtree(folder)
    return found


def faults(one: Survivor, reference: dict[str, str]) -> list[Any]:
    """Return what is wrong with a host that was recovered."""
    found: list[Any] = []
    if one.cut in PHASES.values() and (one.told["outcome"], one.told["code"]) != (
        "failed", "interrupted"):  # fmt: skip
        found.append(("told as", one.told))
    if one.report["outcome"] != "applied" or one.installed != sorted(tree.AFTER):
        found.append((one.report, one.installed))
    names = sorted(one.files.keys() | reference.keys())
    found += [(n, one.files.get(n), reference.get(n)) for n in names
              if one.files.get(n) != reference.get(n)]  # fmt: skip
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_kills(
    template: tree.Template, reference: dict[str, str], tmp_path: Path, part: int
) -> None:
    """Killed anywhere, the next start brings the host to its plan: packages and files, all."""
    points = kills(SEED + part, KILLS)
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda k: survive(template, tmp_path / str(k.number), k), points))
    counts = Counter(one.cut for one in ended)
    COUNTS.update(counts)
    wrong = [(one.kill, one.cut, found[:4]) for one in ended if (found := faults(one, reference))]
    half = sum(one.half_done for one in ended)
    print(f"\n{len(ended)} kills: {dict(counts)}; {half} half done; {len(wrong)} not mended")
    assert not wrong, wrong[:5]
    assert half > len(ended) // 3, "kills that do no harm show nothing"
    assert all(counts[phase] >= LEAST for phase in ("unpack", "scriptlets", "erase", "between"))


def test_kills_were_everywhere() -> None:
    """All parts together cut enough transactions off in each phase to say something of it."""
    if COUNTS.total() < PARTS * 4 * KILLS:
        pytest.skip("not all parts ran")
    print(f"\n{COUNTS.total()} kills: {dict(COUNTS)}")
    least = LEAST_IN_ALL if WHOLE else LEAST
    assert all(COUNTS[phase] >= least for phase in ("unpack", "scriptlets", "erase", "between"))


def restore(template: tree.Template, folder: Path, kill: Kill) -> tuple[list[str], str, list[Any]]:
    """Kill a worker, lose a package file, and take the transaction back with another one."""
    victim = tree.Victim(template, folder)
    victim.die(kill.phase, kill.at, kill.delay, group=kill.group)
    first = victim.session
    if victim.status()["code"] != "interrupted":
        return [], "not cut off", []
    lost = victim.action("upgrade", "data-2", "data-1")["sha256"]
    (Path(victim.settings["cache_dir"]) / lost).unlink()
    stuck = victim.apply()
    other = victim.stage(victim.state()["cookie"], tree.BACK, tree.BEFORE)
    blocked = victim.apply_session(other)
    back = victim.stage(victim.state()["cookie"], tree.BACK, tree.BEFORE, recovers=first.name)
    report = victim.apply_session(back)
    said = [stuck["code"], blocked["code"], report["outcome"], victim.status()["code"]]
    said += [report["detail"]] if report["outcome"] != "applied" else []
    installed, damage = victim.installed(), victim.damage()
    shutil.rmtree(folder)
    return installed, " ".join(said), damage


def test_taking_back(template: tree.Template, tmp_path: Path) -> None:
    """What can't be brought to its plan is brought back, and nothing else starts before that."""
    points = [k for k in kills(SEED + 99, 12 if WHOLE else 4) if k.phase != "between"]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda k: restore(template, tmp_path / str(k.number), k), points))
    tried = [one for one in ended if one[1] != "not cut off"]
    assert len(tried) > len(points) // 2
    for installed, said, damage in tried:
        assert said == "interrupted interrupted applied taken-back"
        assert installed == sorted(tree.BEFORE)
        assert damage == []
