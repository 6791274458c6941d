"""How long a fleet takes: reading inventories, planning in all processes, keeping the plan.

`CPACMAN_BENCH_DISTINCT=400,3000,10000` plans that many different hosts for real (some minutes),
otherwise it is 400 and 1,000 and the rest is reckoned, which the row's name says. Seconds of
processors stand beside those of the clock, which say little where others work: their baseline is
that of the clock times two processors. The fleet is made
once and kept in `build/`: real metadata, 24 separately made inventories of 700 packages, a third
to a half outdated, and of each as many variants as it takes.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
FEW = "400,1000"
WHAT = "Store.inventories, plan_hosts, Store.put_plan"
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
            seconds, cpu = _spent(lambda: _plan(store, names, scratch))
        again = _wall(lambda: _plan(store, names, scratch))
    return [
        _row("plan.fleet.10000x200.seconds", seconds, "s", 8, WHAT),
        _row("plan.fleet.10000x200.cpu.seconds", cpu, "s", 16, WHAT),
        _row("plan.fleet.10000x200.pss.mb", peak[0], "MB", 1500, WHAT),
        _row("plan.fleet.10000x200.again.seconds", again, "s", seconds, WHAT),
    ]


def _different(made: Sequence[Variants], scratch: Path) -> list[Row]:
    """Hosts that are all different, more and more of them; the most beside one dnf."""
    counts = sorted({int(n) for n in os.environ.get("CPACMAN_BENCH_DISTINCT", FEW).split(",")})
    found: list[Row] = []
    spent: dict[str, float] = {}
    for count in counts:
        file = scratch / f"different{count}.db"
        names = _keep(file, fleet(made, count, count))
        for mode, most in (("", 250), ("no-reasons.", 150)):
            with Store.open(f"sqlite:///{file}") as store, watched() as peak:
                shutil.rmtree(scratch / "solver" / "solved", ignore_errors=True)
                request = Request(reasons=not mode)
                wall, cpu = _spent(functools.partial(_plan, store, names, scratch, request))
            spent[mode] = wall / count
            found += _fleet_rows(f"plan.fleet.{count}x{count}.{mode}", count, wall, cpu, peak[0])
            if count == counts[-1]:
                reckoned = "" if count == HOSTS else f".reckoned.from.{count}"
                name = f"plan.fleet.{HOSTS}x{HOSTS}.{mode}"
                whole = HOSTS / count
                found += [
                    _row(f"{name}seconds{reckoned}", wall * whole, "s", most, WHAT),
                    _row(f"{name}cpu.seconds{reckoned}", cpu * whole, "s", 2 * most, WHAT),
                ]
    return [*found, *_beside_dnf(made[0].base, spent[""], scratch)]


def _fleet_rows(name: str, count: int, wall: float, cpu: float, peak: float) -> list[Row]:
    """Growth shows in what one host takes."""
    return [
        _row(f"{name}host.ms", wall / count * 1000, "ms", None, WHAT),
        _row(f"{name}host.cpu.ms", cpu / count * 1000, "ms", None, WHAT),
        _row(f"{name}pss.mb", peak, "MB", 1500, WHAT),
    ]


def _beside_dnf(base: Inventory, seconds: float, scratch: Path) -> list[Row]:
    dnf = _dnf_command(base, scratch)
    home = str(scratch)  # dnf makes an rpm database in the caller's home
    _run(dnf, HOME=home)
    alone = statistics.median(_wall(lambda: _run(dnf, HOME=home)) for _ in range(3))
    what = f"{WHAT}; baseline: dnf for one host"
    return [
        _row("plan.fleet.host.seconds", seconds, "s", alone, what),
        _row("plan.fleet.host.over.dnf", seconds / alone, "ratio", 1.0, what),
    ]


def _spent(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a function takes: on the clock, and of all processors in all."""
    before = _cpu()
    wall = _wall(function)
    return wall, _cpu() - before


def _cpu() -> float:
    """Return the seconds of processors that this process and its ended children had."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _channel(inventories: Sequence[Inventory]) -> ChannelInput:
    return ChannelInput(
        channel="cs9", snapshot="s-bench", sources=sources(), inventories=tuple(inventories)
    )


def _warm(made: Sequence[Variants], scratch: Path) -> None:
    """Let the solver's files be there, as they are after the first plan from a snapshot."""
    plan_hosts([_channel([made[0].base])], request=Request(), cache=scratch / "solver")


def _plan(
    store: Store, names: Sequence[str], scratch: Path, request: Request | None = None
) -> Plan:
    found = list(store.inventories(names).values())
    made = plan_hosts([_channel(found)], request=request or Request(), cache=scratch / "solver")
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
