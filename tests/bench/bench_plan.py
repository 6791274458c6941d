"""How long the console and the planner take, beside dnf on the same metadata.

`python -m tests.bench.bench_plan` prints the rows. Wall times, medians; pairs of runs alternate,
so that whatever else the machine does hits both.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cpacman.model import Inventory
from cpacman.planner.solver import Universe
from tests.bench.fleet import DATA, NAMES, Maker, sources
from tests.property import dnf_oracle

RUNS = 7
SEED = 1
Row = dict[str, Any]


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as scratch:
        return [_help(), *_read(Path(scratch)), *_plan(Path(scratch))]


def _row(name: str, value: float, unit: str, baseline: float | None, command: str) -> Row:
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 4),
        "command": command,
    }


def _wall(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _run(command: list[str], **extra: str) -> None:
    """Run a command quietly; dnf ends with 1 when it is told not to go on."""
    done = subprocess.run(
        command, env={**os.environ, **extra}, capture_output=True, text=True, check=False
    )
    if done.returncode and "Operation aborted." not in done.stdout + done.stderr:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")


def _help() -> Row:
    """The help, beside an interpreter that does nothing."""
    command = [sys.executable, "-m", "cpacman", "--help"]
    ours = statistics.median(_wall(lambda: _run(command)) for _ in range(RUNS))
    bare = statistics.median(_wall(lambda: _run([sys.executable, "-c", ""])) for _ in range(RUNS))
    return _row("cli.help.seconds", ours, "s", bare, "cpacman --help")


def _read(scratch: Path) -> list[Row]:
    """The CentOS Stream 9 metadata into a solver, without and with its cache."""
    cache = scratch / "solver"

    def load() -> None:
        Universe(sources(), arch="x86_64", cache=cache).admit(())

    cold, warm = [], []
    for _ in range(3):
        shutil.rmtree(cache, ignore_errors=True)
        cold.append(_wall(load))
        warm.append(_wall(load))
    what = "Universe(...).admit(()) of 18,774 packages"
    return [
        _row("read.cs9.cold.seconds", statistics.median(cold), "s", None, what),
        _row("read.cs9.warm.seconds", statistics.median(warm), "s", None, what),
    ]


def _plan(scratch: Path) -> list[Row]:
    """One host by the console, beside dnf's own command with the same packages installed."""
    inventory = Maker(scratch / "solver").make(SEED)
    file = scratch / "host.json"
    file.write_bytes(msgspec.json.encode(inventory))
    ours, theirs = _our_command(file), _dnf_command(inventory, scratch)
    # rpm makes a database in the home of whoever calls it: let that be one that goes away.
    # What is installed has its byte code beside it, as dnf has, whatever is set here.
    environment = {
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "HOME": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(scratch / "code"),
    }
    _run(ours, **environment)
    _run(theirs, **environment)
    pairs = [
        (_wall(lambda: _run(ours, **environment)), _wall(lambda: _run(theirs, **environment)))
        for _ in range(RUNS)
    ]
    seconds = statistics.median(a for a, _ in pairs)
    dnf = statistics.median(b for _, b in pairs)
    ratio = statistics.median(a / b for a, b in pairs)
    command = "cpacman plan --repo ... --inventory host.json | dnf --installroot ... upgrade"
    return [
        _row("plan.one.seconds", seconds, "s", dnf, command),
        _row("plan.one.over.dnf", ratio, "ratio", 1.0, command),
    ]


def _our_command(file: Path) -> list[str]:
    repos = [f"{name}={DATA / name}" for name in NAMES]
    command = [sys.executable, "-m", "cpacman", "plan", "--inventory", str(file)]
    return [*command, "--repo", *repos]


def _dnf_command(inventory: Inventory, scratch: Path) -> list[str]:
    """Return dnf's command for an installroot with the inventory's packages in its database."""
    root = scratch / "root"
    home = {**os.environ, "HOME": str(scratch)}
    where = subprocess.run(
        ["rpm", "--eval", "%_dbpath"], env=home, capture_output=True, text=True, check=True
    ).stdout.strip()
    packages = msgspec.json.encode(inventory.packages).decode()
    script = "import json, sys; sys.path.insert(0, sys.argv[1]); import dnf_oracle;"
    script += "dnf_oracle.make_database(sys.argv[2], json.load(sys.stdin), sys.argv[3])"
    folder = str(Path(dnf_oracle.__file__).parent)
    subprocess.run(
        ["/usr/bin/python3", "-c", script, folder, str(root), where.lstrip("/")],
        env=home,
        input=packages,
        text=True,
        check=True,
    )
    (scratch / "all.repo").write_text("".join(_repo_file(name) for name in NAMES))
    options = [f"--setopt=reposdir={scratch}", f"--setopt=cachedir={scratch / 'dnf'}"]
    options += [f"--setopt=logdir={scratch}"]
    base = ["/usr/bin/dnf", f"--installroot={root}", "--releasever=9", "--disableplugin=*"]
    return [*base, *options, "--assumeno", "upgrade"]


def _repo_file(name: str) -> str:
    lines = [f"[{name}]", f"name={name}", f"baseurl=file://{DATA / name}", "gpgcheck=0"]
    return "\n".join([*lines, "module_hotfixes=1", "metadata_expire=never", "", ""])


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(f"{row['name']:26} {row['value']:8} {row['unit']:5} {row['baseline']}\n")
