"""Which process carries a rollout out, and whether it still does.

Invariant: a process that took the number of a dead one is not taken for it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path


def owner_of(pid: int) -> str:
    """Return who a process is, so that another one with the same number is not taken for it."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return f"{socket.gethostname()}:{pid}:{fields[19]}"


def is_alive(owner: str) -> bool:
    """Return whether that process runs; one of another machine counts as running, nobody not."""
    if not owner:
        return False
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname():
        return True
    with suppress(OSError, ValueError):
        return owner_of(int(rest)) == owner
    return False
