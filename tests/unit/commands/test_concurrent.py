"""Processes that take, promote, prune and read one depot at the same time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cpacman.commands.context import Context
from cpacman.commands.promoting import promote
from cpacman.commands.retention import prune
from cpacman.commands.snapshots import snapshot
from cpacman.depot import retention
from cpacman.depot.locks import using
from cpacman.depot.snapshot import load_snapshot, snapshot_ids
from cpacman.errors import ConflictError
from cpacman.store import Store
from tests.unit.commands.world import World

LEAST, MOST = 3.0, 90.0
"""Seconds for which it goes on, and those after which enough must have happened."""
MIRRORS = (["lib-1-1.noarch"], ["lib-2-1.noarch"], ["lib-3-1.noarch", "tool-1-1.noarch"],
           ["tool-2-1.noarch"], ["agent-1-1.noarch", "tool-3-1.noarch"])  # fmt: skip


def beside(world: World, step: Callable[[World, int], object]) -> int:
    """Repeat a step in a process of its own until told to stop; return the process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
        turn = 0
        while not stopped(world).exists():
            turn += 1
            try:
                step(world, turn)
            except ConflictError:
                time.sleep(0.01)
        code = 0
    finally:
        os._exit(code)


def stopped(world: World) -> Path:
    """The file that tells all processes to stop."""
    return world.base / "stopped"


def move(world: World, turn: int) -> None:
    """Let the mirror change, take it, and promote what there is."""
    world.mirror(*MIRRORS[turn % len(MIRRORS)])
    snapshot(world.context())
    for class_ in ("testing", "production"):
        if turn % 3:
            promote(world.context(), class_, force=True, reason="no host is there")


def sweep(world: World, turn: int) -> None:
    """Prune, with no grace at all: only the locks are between it and the others."""
    retention.GRACE = -1e9
    world.configure(retention={"days": 0})
    prune(world.context())


def look(context: Context) -> set[str]:
    """Read each snapshot that a class points at, with its packages; return their ids."""
    depot, found = context.settings.depot, set()
    with using(depot):
        for pointer in context.store.pointers().values():
            for one in load_snapshot(depot, pointer["snapshot"]).packages:
                context.pool.check(one.sha256, one.size)
            found.add(pointer["snapshot"])
    return found


def prunes(world: World) -> int:
    """How often something was pruned."""
    return sum(action == "prune" for action, _ in world.journal())


def test_nothing_that_a_class_points_at_is_ever_missing(world: World) -> None:
    """Whoever looks at the classes finds each snapshot whole, with every byte of its packages."""
    move(world, 1)
    world.store.close()
    children = [beside(world, move), beside(world, sweep)]
    world.store = Store.open(f"sqlite:///{world.base}/state/cpacman.db")
    context, looks, seen = world.context(), 0, set[str]()
    begun, passed = time.monotonic(), 0.0
    while passed < LEAST or (passed < MOST and not (looks > 5 and len(seen) > 2
                             and prunes(world) > 1)):  # fmt: skip
        seen |= look(context)
        looks += 1
        time.sleep(0.02)  # a lock that is always shared would never be free for a removal
        passed = time.monotonic() - begun
    stopped(world).touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert looks > 5 and len(seen) > 2 and prunes(world) > 1
    prune(world.context())
    assert len(snapshot_ids(context.settings.depot)) <= 6
