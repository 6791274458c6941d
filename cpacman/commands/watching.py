"""Watching rollouts and chains from the database: nothing is asked, nothing is changed.

Invariants: no Salt is needed, and no right but to read the database; what has ended is told once
more in full, with what failed first; a rollout of which hosts are not where they should be is told
by the exit code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec

from cpacman.commands.answers import rollout_body
from cpacman.commands.chains import chain_body, is_chain
from cpacman.config import Settings, load_settings, read_settings
from cpacman.errors import EXIT_NOT_THERE, EXIT_OK
from cpacman.report import chains as chain_screen
from cpacman.report import watching as drawn
from cpacman.report.screens import render
from cpacman.report.terminal import Block
from cpacman.rollout.machine import OPEN, THERE, RolloutState
from cpacman.rollout.view import view_of
from cpacman.store import Store

USUAL = Path("/etc/salt/cpacman.yaml")
_QUIET = ("now", "left", "push")
"""What changes all the time: without a terminal it is no reason for another line."""


def open_to_look(config: Path | None, database: str | None) -> Store:
    """Open the database of a master, by its URL or by what a configuration says.

    Raises:
        CpacmanError: it is not there, or of another version.
    """
    if database:
        return Store.look(database)
    if config is None and USUAL.is_file():
        config = USUAL
    settings = _settings(config)
    return Store.look(settings.database or f"sqlite:///{settings.state_dir / 'cpacman.db'}")


def _settings(config: Path | None) -> Settings:
    if config is None:
        return load_settings({}, source="defaults", base=Path("/"))
    return read_settings(config)


class Watch:
    """What one person watches.

    Args:
        store: the database.
        number: a rollout or a chain; without one all that are open now.
        clock: tells the time in seconds since the epoch.
    """

    def __init__(
        self, store: Store, number: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._clock = clock
        self._chains: list[str] = []
        self._rollouts: list[str] = []
        if is_chain(number):
            self._chains = [store.chain(str(number)).id]
        elif number is not None:
            self._rollouts = [str(store.rollout_row(number)["id"])]
        else:
            self._chains = [one.id for one in store.chains(active=True)]
            begun = {step.rollout for one in self._chains for step in store.chain(one).steps}
            rows = store.rollouts(active=True)
            self._rollouts = [str(row["id"]) for row in rows if row["id"] not in begun]

    def look(self) -> dict[str, Any]:
        """Return how all of it stands now: `chains` and `rollouts`, those of chains included."""
        now = self._clock()
        chains = [chain_body(self._store, self._store.chain(one), now) for one in self._chains]
        numbers = [*self._rollouts, *(str(one["rollout"]) for one in chains if one["rollout"])]
        rows = [self._store.rollout_row(number) for number in numbers]
        return {"chains": chains, "rollouts": [view_of(self._store, row, now) for row in rows]}

    def is_over(self, seen: Mapping[str, Any]) -> bool:
        """Whether nothing of it goes on any more."""
        own = [one for one in seen["rollouts"] if one["id"] in self._rollouts]
        return not any(one["state"] in OPEN for one in [*seen["chains"], *own])

    def summary(self) -> tuple[str, int]:
        """Return the screens of what has ended, and the exit code."""
        parts, code = [], EXIT_OK
        seen = self.look()
        for chain in seen["chains"]:
            parts.append(render({"chain": chain}))
        for view in seen["rollouts"]:
            row, hosts = self._store.rollout(view["id"])
            failed = msgspec.to_builtins(self._store.plan(row["plan"]).plan.failed)
            body = rollout_body(row, hosts, self._store.rollout_levels(row["id"]))
            parts.append(render({"rollout": {**body, "failed": failed}}))
            missed = any(host.outcome not in THERE for host in hosts)
            code = EXIT_NOT_THERE if view["ended"] and missed else code
        states = {one["state"] for one in seen["chains"]}
        bad = bool(states - OPEN - {RolloutState.DONE})
        return "\n".join(parts), EXIT_NOT_THERE if bad else code


def watch(
    found: Watch, out: TextIO, *, interval: float, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Show how it goes until it is over, and return the exit code.

    On a terminal a block of lines is drawn over and over; elsewhere a line is written whenever
    something has changed.
    """
    block, last = Block(out), ""
    seen = found.look()
    if not seen["chains"] and not seen["rollouts"]:
        out.write("no rollout is open\n")
        return EXIT_OK
    while not found.is_over(seen):
        if block.is_drawn:
            block.draw(_lines(seen))
        elif (told := _changing(seen)) != last:
            last = told
            out.writelines(f"{drawn.one_line(one)}\n" for one in seen["rollouts"])
            out.writelines(f"{chain_screen.head(one)}\n" for one in seen["chains"])
            out.flush()
        sleep(interval)
        seen = found.look()
    block.clear()
    text, code = found.summary()
    out.write(f"{text}\n")
    return code


def _lines(seen: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for chain in seen["chains"]:
        lines += chain_screen.chain(chain).splitlines()[:-1]
    for view in seen["rollouts"]:
        lines += drawn.block(view)
    return lines


def _changing(seen: Mapping[str, Any]) -> str:
    """Return what is worth a line when it changes."""
    rollouts = [{k: v for k, v in one.items() if k not in _QUIET} for one in seen["rollouts"]]
    heads = [chain_screen.head(one) for one in seen["chains"]]
    return msgspec.json.encode([rollouts, heads]).decode()
