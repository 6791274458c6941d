"""How long the proof of a promotion takes: 1,000 hosts of 50 inventories, two snapshots.

The newer snapshot is the real metadata, the one that the class holds has a third of its names
without their newest version. Everything is as in a promotion: members, inventories from the state
database, policies of each host, both plans, what would be held newly. The solver's own files of
both snapshots are there, as they are once a plan was made from them; its answers are not.
"""

from __future__ import annotations

import functools
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cpacman.commands.context import Context
from cpacman.commands.offering import sources_of
from cpacman.commands.proving import members_of, prove
from cpacman.config import load_settings
from cpacman.depot.derive import derive_snapshot
from cpacman.depot.repository import read_repository
from cpacman.depot.snapshot import Snapshot, SnapshotRepository, snapshot_id
from cpacman.model import Package
from cpacman.planner.solver import Universe, Versions
from cpacman.planner.workers import cpus
from cpacman.rollout.proof import Proof
from cpacman.store import Store
from tests.bench.bench_fleet import BASES, bases, fleet
from tests.bench.bench_plan import Row, _row
from tests.bench.fleet import DATA, NAMES, Variants
from tests.unit.commands.world import Directory

HOSTS, DISTINCT = 1000, 50
SEED = 1
RUNS = 3
GOAL = 5.0
NOW = 2_000_000_000.0


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as folder, _World(Path(folder)) as world:
        found = [world.measure() for _ in range(RUNS)]
        proofs = {(one.hosts, len(one.change), len(one.newly)) for one, _, _ in found}
        if len(proofs) != 1:
            raise RuntimeError(f"one proof, several answers: {proofs}")
        wall = statistics.median(one[1] for one in found)
        cpu = statistics.median(one[2] for one in found)
    what = f"members_of, prove: {HOSTS} hosts of {DISTINCT} inventories, {cpus()} processors"
    return [
        _row("proof.1000x50.seconds", wall, "s", GOAL, what),
        _row("proof.1000x50.cpu.seconds", cpu, "s", None, what),
    ]


class _World:
    """A class with its fleet, what it holds, and what is to come."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.hosts: set[str] = set()
        self.keys: dict[str, str] = {}
        (base / "hosts.d").mkdir()
        (base / "hosts.d" / "all.yaml").write_text("'*': {class: production}\n")
        self.newer = _whole(base / "cache")
        self.held = _older(self.newer, base)
        made = [Variants(one) for one in bases(base)[:BASES]]
        inventories = list(fleet(made, HOSTS, DISTINCT))
        self.store = Store.open(f"sqlite:///{base}/cpacman.db")
        self.store.put_inventories(inventories, at=NOW)
        self.hosts = {one.host for one in inventories}
        self.context = self._context()
        for snapshot in (self.newer, self.held):
            Universe(sources_of(snapshot), arch="x86_64", cache=self._solver).admit(())

    def __enter__(self) -> _World:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @property
    def _solver(self) -> Path:
        return self.base / "cache" / "solver"

    def _context(self) -> Context:
        match = {"arch": "x86_64"}
        repositories = {name: {"path": str(DATA / name)} for name in NAMES}
        settings = load_settings(
            {
                "channels": {"el9": {"match": match, "repositories": repositories}},
                "classes": ["testing", "production"],
                "membership": {
                    "hosts_d": str(self.base / "hosts.d"),
                    "sources": ["files"],
                    "on_new": "accept",
                },
                "state_dir": str(self.base),
            },
            source="bench",
            base=self.base,
        )
        return Context(
            settings=settings, store=self.store, pool=None, key=None,  # type: ignore[arg-type]
            directory=Directory(self), transport=None, who="bench",  # type: ignore[arg-type]
            clock=lambda: NOW,
        )  # fmt: skip

    def measure(self) -> tuple[Proof, float, float]:
        """Return a proof, and the seconds of wall time and of all processors it took."""
        shutil.rmtree(self._solver / "solved", ignore_errors=True)
        self.store.close()
        wall, cpu = time.perf_counter(), _cpu()
        members = members_of(self.context, "production", ["el9"])
        proof = prove(self.context, "production", self.newer, self.held, members)
        return proof, time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    import resource

    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)


def _whole(cache: Path) -> Snapshot:
    """Return the real repositories as a snapshot whose metadata lies where it is."""
    read = [read_repository(name, DATA / name, cache) for name in NAMES]
    entries = tuple(
        SnapshotRepository(
            name=one.name, path=str(one.path), kind=one.kind, fingerprint=one.fingerprint,
            metadata=one.metadata, checksums=one.checksums,
        )
        for one in read
    )  # fmt: skip
    packages = tuple(package for one in read for package in one.packages)
    number = snapshot_id("el9", entries, packages, ())
    return Snapshot(id=number, channel="el9", created=1, repositories=entries, packages=packages)


def _older(newer: Snapshot, base: Path) -> Snapshot:
    """Return what a class held before: a third of the names lack their newest version."""
    rng = random.Random(SEED)
    order = functools.cmp_to_key(Versions().compare)
    by_name: dict[str, list[Package]] = {}
    for one in newer.packages:
        by_name.setdefault(one.name, []).append(one)
    kept: list[Package] = []
    for found in by_name.values():
        newest = max((one.evr for one in found), key=order)
        late = len({one.evr for one in found}) > 1 and rng.random() < 1 / 3
        kept += [one for one in found if not late or one.evr != newest]
    scratch = base / "held"
    scratch.mkdir()
    return derive_snapshot(
        base / "depot", [newer], packages=kept, advisories=(), how="older", scratch=scratch
    )


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(f"{row['name']:26} {row['value']:8} {row['unit']:5} {row['baseline']}\n")
