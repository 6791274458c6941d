"""How long promotions of 20,000 packages take: whole, and one package with what it needs.

`python -m tests.bench.bench_promote` prints the rows. A third of the packages is new in what is
promoted; the proof has no hosts here (`bench_proof` is about those), so what is left is the
depot's and the state database's work. The solver's own files of both snapshots are not there yet.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.depot.partial import Wanted
from tests.bench.bench_plan import Row, _row
from tests.bench.mirror import COUNT, list_only, make_mirror
from tests.unit.commands.world import World

SHARE = 3
GOAL = 20.0
"""Seconds: as long as a first snapshot may take."""


def rows() -> list[Row]:
    """Return the measurements."""
    with tempfile.TemporaryDirectory() as folder:
        world = _world(Path(folder))
        name = _newer(world)
        whole = _promoted(world, "testing")
        part = _promoted(world, "production", wanted=Wanted(packages=(name,)))
        world.store.close()
    what = f"cpacman.promote testing of {COUNT} packages, a third of them new, no hosts"
    named = f"cpacman.promote production packages={name}, of {COUNT}, no hosts"
    return [
        _row(f"promote.{COUNT}.whole.seconds", whole, "s", GOAL, what),
        _row(f"promote.{COUNT}.part.seconds", part, "s", GOAL, named),
    ]


def _world(base: Path) -> World:
    """Three classes that hold a mirror's packages but a third of them."""
    world = World(base, {})
    make_mirror(base / "base", COUNT)
    world.repositories(base={"signatures": "off"})
    return world


def _newer(world: World) -> str:
    """Let all classes hold two thirds, then the first one all; return the name of one that came."""
    mirror = world.base / "base"
    came = list_only(mirror, SHARE)
    snapshot(world.context())
    for class_ in ("testing", "production"):
        promote(world.context(), class_, force=True, reason="to begin with")
    list_only(mirror, 0)
    world.later(60)
    snapshot(world.context())
    return min(came)


def _promoted(world: World, class_: str, **how: Any) -> float:
    """Return the seconds that a promotion takes, which must have moved the class."""
    before = world.held(class_)
    start = time.perf_counter()
    promote(world.context(), class_, force=True, reason="no host is there", **how)
    seconds = time.perf_counter() - start
    if world.held(class_) == before:
        raise RuntimeError(f"{class_} was not promoted")
    return seconds


if __name__ == "__main__":
    for row in rows():
        sys.stdout.write(f"{row['name']:32} {row['value']:8} {row['unit']:5} {row['baseline']}\n")
