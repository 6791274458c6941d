"""How long a fleet takes: reading inventories, planning in all processes, keeping the plan.

`CPACMAN_BENCH_DISTINCT=10000` plans that many different hosts for real (some minutes) where
otherwise 400 are planned and the rest is reckoned, which the row's name says. The fleet is made
once and kept in `build/`: real metadata, 24 separately made inventories of 700 packages, a third
to a half outdated, and of each as many variants as it takes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cpacman.model import Inventory, Plan, Request
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.workers import cpus, run_lots
from cpacman.store import Store
from tests.bench.bench_plan import Row, _dnf_command, _row, _run, _wall
from tests.bench.fleet import Maker, Variants, sources

HOSTS = 10_000
DISTINCT = 200
BASES = 24
SEED = 1
FEW = 400
CACHE = Path(__file__).resolve().parents[2] / "build"


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as scratch:
        made = [Variants(base) for base in bases(Path(scratch))]
        return [
            *_store(made, Path(scratch)),
            *_equal(made, Path(scratch)),
            *_different(made, Path(scratch)),
        ]


def bases(scratch: Path) -> list[Inventory]:
    """Return separately made inventories, from `build/` when they are there."""
    file = CACHE / f"bench-fleet-{SEED}-{BASES}.msgpack"
    if not file.exists():
        maker = Maker(scratch / "solver")
        encode = msgspec.msgpack.encode
        lots = run_lots(BASES, lambda n: encode(maker.make(SEED + n)), workers=cpus())
        found = [text for _, text in sorted(lots)]
        CACHE.mkdir(exist_ok=True)
        file.write_bytes(encode(found))
    texts = msgspec.msgpack.decode(file.read_bytes(), type=list[bytes])
    return _shared(msgspec.msgpack.decode(text, type=Inventory) for text in texts)


def _shared(inventories: Iterator[Inventory]) -> list[Inventory]:
    """Return inventories in which equal packages are one object, as the store gives them."""
    seen: dict[str, object] = {}
    return [
        msgspec.structs.replace(
            one, packages=tuple(seen.setdefault(p.nevra, p) for p in one.packages)
        )
        for one in inventories
    ]


def fleet(made: Sequence[Variants], hosts: int, distinct: int) -> Iterator[Inventory]:
    """Yield so many hosts with so many different inventories."""
    known: dict[int, Inventory] = {}
    for number in range(hosts):
        which = number % distinct
        if which not in known:
            known[which] = made[which % len(made)].make(which, "")
        yield msgspec.structs.replace(known[which], host=f"host{number:05}", cookie=str(which))
        if distinct == hosts:
            known.clear()


def _keep(file: Path, inventories: Iterator[Inventory]) -> list[str]:
    """Write inventories into a new store and return the hosts' names."""
    names: list[str] = []
    with Store.open(f"sqlite:///{file}") as store:
        while lot := [one for one, _ in zip(inventories, range(500), strict=False)]:
            store.put_inventories(lot, at=1.0)
            names += [one.host for one in lot]
    return names


def _megabytes(file: Path) -> float:
    return sum(f.stat().st_size for f in file.parent.glob(f"{file.name}*")) / 1e6


def _store(made: Sequence[Variants], scratch: Path) -> list[Row]:
    """Ten thousand different hosts in the state database, and half of them for the growth."""
    sizes, seconds = {}, {}
    for hosts in (HOSTS // 2, HOSTS):
        file = scratch / f"store{hosts}.db"
        names = _keep(file, fleet(made, hosts, hosts))
        sizes[hosts] = _megabytes(file)
        with Store.open(f"sqlite:///{file}") as store:
            seconds[hosts] = _wall(lambda: store.inventories(names))  # noqa: B023
    what = "Store.inventories of 10,000 different hosts"
    return [
        _row("store.10000.mb", sizes[HOSTS], "MB", 200, "10,000 different hosts of 700 packages"),
        _row("store.10000.read.seconds", seconds[HOSTS], "s", 3, what),
        _row("store.10000.read.over.5000", seconds[HOSTS] / seconds[HOSTS // 2], "ratio", 2, what),
    ]


def _equal(made: Sequence[Variants], scratch: Path) -> list[Row]:
    """Ten thousand hosts, two hundred different ones: read, planned, and the plan kept."""
    file = scratch / "equal.db"
    names = _keep(file, fleet(made, HOSTS, DISTINCT))
    with Store.open(f"sqlite:///{file}") as store:
        _warm(made, scratch)
        with watched() as peak:
            seconds = _wall(lambda: _plan(store, names, scratch))
        again = _wall(lambda: _plan(store, names, scratch))
    what = "Store.inventories, plan_hosts, Store.put_plan"
    return [
        _row("plan.fleet.10000x200.seconds", seconds, "s", 8, what),
        _row("plan.fleet.10000x200.pss.mb", peak[0], "MB", 1500, what),
        _row("plan.fleet.10000x200.again.seconds", again, "s", seconds, what),
    ]


def _different(made: Sequence[Variants], scratch: Path) -> list[Row]:
    """Hosts that are all different, with the reasons of all that is held; beside one dnf."""
    count = int(os.environ.get("CPACMAN_BENCH_DISTINCT", FEW))
    file = scratch / "different.db"
    names = _keep(file, fleet(made, count, count))
    with Store.open(f"sqlite:///{file}") as store, watched() as peak:
        shutil.rmtree(scratch / "solver" / "solved", ignore_errors=True)
        seconds = _wall(lambda: _plan(store, names, scratch))
    dnf = _dnf_command(made[0].base, scratch)
    home = str(scratch)  # dnf makes an rpm database in the caller's home
    _run(dnf, HOME=home)
    alone = statistics.median(_wall(lambda: _run(dnf, HOME=home)) for _ in range(3))
    what = "Store.inventories, plan_hosts, Store.put_plan; baseline: dnf for one host"
    reckoned = "" if count == HOSTS else f".reckoned.from.{count}"
    name = f"plan.fleet.10000x10000.seconds{reckoned}"
    return [
        _row(name, seconds / count * HOSTS, "s", 250, what),
        _row(f"plan.fleet.{count}x{count}.pss.mb", peak[0], "MB", 1500, what),
        _row("plan.fleet.host.seconds", seconds / count, "s", alone, what),
        _row("plan.fleet.host.over.dnf", seconds / count / alone, "ratio", 1.0, what),
    ]


def _channel(inventories: Sequence[Inventory]) -> ChannelInput:
    return ChannelInput(
        channel="cs9", snapshot="s-bench", sources=sources(), inventories=tuple(inventories)
    )


def _warm(made: Sequence[Variants], scratch: Path) -> None:
    """Let the solver's files be there, as they are after the first plan from a snapshot."""
    plan_hosts([_channel([made[0].base])], request=Request(), cache=scratch / "solver")


def _plan(store: Store, names: Sequence[str], scratch: Path) -> Plan:
    found = list(store.inventories(names).values())
    made = plan_hosts([_channel(found)], request=Request(), cache=scratch / "solver")
    store.put_plan(made, class_="all", at=time.time(), who="bench")
    return made


@contextmanager
def watched() -> Iterator[list[float]]:
    """Keep the most memory (PSS, in MB) that this process and its children have in the end."""
    peak, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _pss(os.getpid()) / 1e6)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    mine = next(int(x.split()[1]) * 1024 for x in text.splitlines() if x.startswith("Pss:"))
    return mine + sum(_pss(int(child)) for child in children)


if __name__ == "__main__":
    import sys

    for row in rows():
        sys.stdout.write(f"{row['name']:42} {row['value']:9} {row['unit']:5} {row['baseline']}\n")
