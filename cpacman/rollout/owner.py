"""Which process carries a rollout out, and whether it still does.

Invariants: a process that took the number of a dead one is not taken for it; one of another
machine, which can't be looked at, is alive as long as it shows life.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LEASE = 600.0
"""Seconds without a sign of life after which an owner on another machine is dead: much longer than
any step of a rollout takes that shows none."""


def owner_of(pid: int) -> str:
    """Return who a process is, so that another one with the same number is not taken for it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return f"{socket.gethostname()}:{pid}:{fields[19]}"


def lives(row: Mapping[str, Any], now: float) -> bool | None:
    """Return whether the process of a rollout runs; None where there is none, or it is over."""
    if not row["owner"] or row["ended"]:
        return None
    return is_alive(row["owner"], row["beat"], now)


def is_alive(owner: str, beat: float | None, now: float) -> bool:
    """Return whether that process runs; nobody does not.

    Args:
        owner: as `owner_of` told it.
        beat: its last sign of life, in seconds since the epoch.
        now: the same of this moment.
    """
    if not owner:
        return False
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname():
        return now - (beat or 0.0) < LEASE
    with suppress(OSError, ValueError):
        return owner_of(int(rest)) == owner
    return False
