"""Where the time of a fleet's plan goes: `python -m tests.bench.phases 480`.

One process plans that many different hosts and stores the plan, with a watch on each part of the
work. Milliseconds are of the processor, a host; a part that stands deeper is within the one above.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import solv

from cpacman.model import Request
from cpacman.planner import fleet as lots
from cpacman.planner import held, plan, resolve
from cpacman.planner.host import Host
from cpacman.planner.solver import HostView, Universe
from cpacman.store import Store
from tests.bench.bench_fleet import _channel, _keep, _warm, bases, fleet
from tests.bench.fleet import Variants

PARTS: tuple[tuple[int, Any, str, str], ...] = (
    (0, Store, "inventories", "reading inventories"),
    (0, plan.Book, "look_up", "telling which hosts are equal"),
    (0, Universe, "__init__", "loading the metadata, once a process"),
    (0, Universe, "admit", "making a lot's packages known"),
    (0, plan, "_solve", "planning a host"),
    (1, Host, "judged", "what is offered, and hidden by our rules"),
    (1, resolve, "_settle_all", "settling"),
    (2, HostView, "_unwanted", "weak dependencies refused before"),
    (2, HostView, "_steps", "reading the solution"),
    (1, resolve, "find_held", "what is held"),
    (2, held, "_ask", "asking the solver why"),
    (1, plan, "make_actions", "actions"),
    (1, plan, "make_transaction", "the transaction"),
    (0, solv.Solver, "solve", "libsolv, in settling and asking"),
    (0, plan, "_number", "its id"),
    (0, lots, "_encode", "the way between processes"),
    (0, Store, "put_plan", "storing the plan"),
)
"""How deep it stands, whose method or function it is, and what it is for."""


class Watch:
    """How long parts of the work take, and how often they are done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.times: dict[str, int] = {}

    def put_on(self, owner: Any, name: str, what: str) -> None:
        """Watch one function, method, cached property or iterator from now on."""
        known = vars(owner).get(name) or getattr(owner, name)
        if isinstance(known, functools.cached_property):
            watched: Any = functools.cached_property(self._watched(known.func, what))
            watched.__set_name__(owner, name)
        else:
            watched = self._watched(known, what)
        setattr(owner, name, watched)

    def _watched(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **keywords: Any) -> Any:
            start = time.process_time()
            try:
                found = function(*args, **keywords)
                # What a generator does is done when it is asked for.
                return iter(list(found)) if _is_generator(found) else found
            finally:
                self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - start
                self.times[what] = self.times.get(what, 0) + 1

        return watched


def _is_generator(value: object) -> bool:
    return hasattr(value, "gi_frame")


def main() -> int:
    """Print what the parts take."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made = [Variants(base) for base in bases(scratch)]
        names = _keep(scratch / "fleet.db", fleet(made, count, count))
        _warm(made, scratch)
        watch = Watch()
        for _, owner, name, what in PARTS:
            watch.put_on(owner, name, what)
        whole = _plan(scratch, names)
    rows = [(depth, what, watch.seconds.get(what, 0.0)) for depth, _, _, what in PARTS]
    sys.stdout.write(
        f"{'a host of ' + str(count) + ' different ones':46} {1000 * whole / count:6.2f} ms\n"
    )
    for depth, what, seconds in rows:
        label = "  " * (depth + 1) + what
        sys.stdout.write(
            f"{label:46} {1000 * seconds / count:6.2f} ms {watch.times.get(what, 0):8}\n"
        )
    return 0


def _plan(scratch: Path, names: list[str]) -> float:
    """Plan and store in this one process; return the seconds of the processor."""
    start = time.process_time()
    with Store.open(f"sqlite:///{scratch / 'fleet.db'}") as store:
        found = list(store.inventories(names).values())
        cache = scratch / "solver"
        document = plan.plan_hosts([_channel(found)], request=Request(), cache=cache, workers=1)
        store.put_plan(document, class_="all", at=1.0, who="bench")
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
