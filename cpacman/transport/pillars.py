"""Compile the pillar of many hosts on the master, in all of its processors.

Invariants: each is compiled for its host's id, never taken from a cache that outlives this moment;
what does not render is an error, never an empty pillar. Salt takes some 70 ms a host, nearly all
of it for its loaders, which can't be shared: they know the host.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

KEPT = 60.0
"""Seconds for which a command that looks again, as most do, is not told anew."""

_ALONE = 8
"""So few hosts are not worth other processes."""

_KEY = "cpacman"

Compiled = tuple[Mapping[str, Any], str]
"""The part of a pillar that is ours, or why it does not render."""


class Pillars:
    """The pillars of a Salt master's hosts.

    Args:
        opts: the master's options.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        # A cached pillar was compiled with what the host said of itself at another time.
        self._opts = {**opts, "pillar_cache": False}
        self._known: dict[str, tuple[float, Any, Compiled]] = {}

    def compile(
        self, hosts: Sequence[str], grains: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Compiled]:
        """Return host -> the `cpacman` key of its pillar, or what is wrong with it."""
        if not self._is_any():
            return dict.fromkeys(hosts, ({}, ""))
        now = time.monotonic()
        fresh = {h: one for h, one in self._known.items() if now - one[0] < KEPT}
        asked = [h for h in hosts if h not in fresh or fresh[h][1] != grains.get(h, {})]
        made = self._compile([(host, {**grains.get(host, {}), "id": host}) for host in asked])
        fresh |= {h: (now, grains.get(h, {}), one) for h, one in zip(asked, made, strict=True)}
        self._known = fresh
        return {host: fresh[host][2] for host in hosts}

    def _is_any(self) -> bool:
        """Whether any host can have a pillar: there is a top file, or something external."""
        if self._opts.get("ext_pillar") or self._opts.get("on_demand_ext_pillar_top"):
            return True
        roots = self._opts.get("pillar_roots") or {}
        top = str(self._opts.get("state_top") or "top.sls").rpartition("/")[2]
        # Of an environment that is found by name only its caller knows the place.
        return "__env__" in roots or any(
            (Path(root) / top).exists() for listed in roots.values() for root in listed
        )

    def _compile(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[Compiled]:
        processes = min(len(os.sched_getaffinity(0)), len(asked) // _ALONE + 1)
        if processes < 2:
            return [_compile_one(self._opts, host, grains) for host, grains in asked]
        with ProcessPoolExecutor(
            processes, multiprocessing.get_context("fork"), _begin, (self._opts,)
        ) as pool:
            return list(pool.map(_compile_here, asked, chunksize=16))


_here: dict[str, Any] = {}


def _begin(opts: dict[str, Any]) -> None:
    # Whoever interrupts means the command, which then ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _here.update(opts)


def _compile_here(asked: tuple[str, dict[str, Any]]) -> Compiled:
    return _compile_one(_here, *asked)


def _compile_one(opts: dict[str, Any], host: str, grains: dict[str, Any]) -> Compiled:
    import salt.pillar

    compiled = salt.pillar.get_pillar(
        opts, grains, host, opts.get("saltenv") or "base"
    ).compile_pillar()
    if wrong := compiled.get("_errors"):
        return {}, "; ".join(map(str, wrong))
    return ({_KEY: compiled[_KEY]} if _KEY in compiled else {}), ""
