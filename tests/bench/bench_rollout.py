"""What a rollout costs by itself: 10,000 simulated hosts, a real machine, store and journal.

`rollout.10000.cpu-ms-per-transition` counts four transitions a host (staging, staged, applying,
ended); `rollout.halt.ms` is the time from the commit of a wish to the answer that no host starts.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from cpacman.rollout.machine import RolloutState
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.world import World, level

HOSTS = int(os.environ.get("CPACMAN_BENCH_ROLLOUT", "10000"))
TRANSITIONS = 4


COMMAND = "make bench ONLY=rollout"


def rows() -> list[dict[str, Any]]:
    """Roll out one package to all hosts, in three levels."""
    names = [f"host{n:05d}" for n in range(HOSTS)]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), {name: FakeHost(polls=n % 3) for n, name in enumerate(names)})
        world.clock = time.time  # type: ignore[method-assign]
        world.sleep = lambda seconds: None  # type: ignore[method-assign]
        few, many = names[:10], HOSTS // 10
        made = world.begin(
            level("canary", *few, concurrency=10),
            level("early", *names[10:many], concurrency=200),
            level("rest", *names[many:], concurrency=200),
        )
        started = time.process_time()
        end = world.go_on(made)
        spent = time.process_time() - started
        if end.state is not RolloutState.DONE or set(world.outcomes.values()) != {
            ("applied", None)
        }:
            raise RuntimeError(f"the rollout went wrong: {end}")
        halted = _halt(world)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = 1000 * spent / (HOSTS * TRANSITIONS)
    return [
        _row(f"rollout.{HOSTS}.cpu-ms-per-transition", each, "ms", 2.0),
        _row(f"rollout.{HOSTS}.mb", most, "MB", 300.0),
        _row("rollout.halt.ms", 1000 * halted, "ms", 1000.0),
    ]


def _row(name: str, value: float, unit: str, baseline: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "command": COMMAND}


def _halt(world: World) -> float:
    """Return how long it takes until an order to start a thousand hosts is refused."""
    names = [f"other{n:04d}" for n in range(1000)]
    header = {"id": "r-2", "plan": "p-1", "class": "all", "state": "running", "who": "me",
              "owner": "here"}  # fmt: skip
    world.store.start_rollout(header, [(name, "all", "t-1") for name in names], at=1.0)
    for source, target in (("waiting", "staging"), ("staging", "staged")):
        for name in names:
            world.store.move_host("r-2", name, expected=source, state=target, at=1.0)
    started = time.perf_counter()
    world.store.wish_rollout("r-2", "halt", at=1.0, who="me")
    if world.store.order_hosts("r-2", names, owner="here", at=1.0):
        raise RuntimeError("hosts were started after a halt")
    return time.perf_counter() - started
