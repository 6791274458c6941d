"""The lab's state directory and the lock that says whether somebody lives in it.

Invariants: the lock is held by the owner and by the lab's first process (its pid 1 has the open
file as its standard input), so a free lock means that not one process of that lab is left, and
so no mount either: what remains is a directory, and it is removed by whoever finds it next.
Only directories that have the lock's file are ever removed, below a base of the caller's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpacman.errors import Problem
from lab.errors import LabError

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
LOCK = ".cpacman-lab.lock"
STATE = "lab.json"
# A unix socket's path has 107 bytes; Salt's longest below a lab is about 60.
LONGEST_BASE = 45
# Seconds for a lab whose owner died to be gone (it takes milliseconds).
LONGEST_DEATH = 30.0


def base_directory() -> Path:
    """Where labs live: `CPACMAN_LAB_DIR`, or one fixed place, so that every shell finds them."""
    return Path(os.environ.get("CPACMAN_LAB_DIR") or "/tmp/cpacman-lab").absolute()


def make_base(base: Path) -> None:
    """Make `base`, and refuse one that others could write to.

    Raises:
        LabError: it is too long, a link, somebody else's, or open to others.
    """
    if len(str(base)) > LONGEST_BASE or re.search(r"[,:\\\s]", str(base)):
        mend = "set CPACMAN_LAB_DIR to a short path without , : \\ and blanks"
        raise LabError(Problem(str(base), f"longer than {LONGEST_BASE} or unusual", mend))
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise LabError(Problem(str(base), "not a directory that only you can write to"))


class Directory:
    """One lab's directory, locked while this object holds it.

    Args:
        path: the directory.
        lock: the open lock file.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def take(cls, base: Path, name: str) -> Directory:
        """Make (or empty, when stale) the directory `name` and lock it.

        Raises:
            LabError: the name is not one, or the lab is up.
        """
        if not NAME.fullmatch(name):
            raise LabError(Problem(name, "a lab's name has small letters, digits, - and . only"))
        make_base(base)
        path = base / name
        until = time.monotonic() + LONGEST_DEATH
        while not has_owner(path) and time.monotonic() < until:
            path.mkdir(mode=0o700, exist_ok=True)
            if is_foreign(path):
                raise LabError(Problem(str(path), "is not empty, and no lab's directory"))
            lock = lock_directory(path)
            if lock is not None:
                empty(path)
                taken = cls(path, lock)
                taken.write_state({"owner": os.getpid()})
                return taken
            time.sleep(0.02)
        mend = f"python -m lab down --name {name}"
        raise LabError(Problem(name, "this lab is up already", mend))

    def write_state(self, state: dict[str, Any]) -> None:
        """Say who lives here, for `status`, `shell`, `run` and `down`."""
        write_atomically(self.path / STATE, json.dumps(state, indent=1))

    def remove(self) -> None:
        """Remove everything and let go of the lock, in this order."""
        empty(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def is_foreign(path: Path) -> bool:
    """Whether something lies in `path` that no lab put there."""
    with contextlib.suppress(FileNotFoundError):  # whoever sweeps may remove it just now
        return not (path / LOCK).exists() and any(path.iterdir())
    return False


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old or the new one, whole."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def lock_directory(path: Path) -> int | None:
    """Lock `path` and return the open file, or None if somebody holds it or it went away."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Removed between open and flock: a lock on a file that is no longer there protects nothing.
        if os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def is_locked(path: Path) -> bool:
    """Whether a lab lives in `path`."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def empty(path: Path) -> None:
    """Remove all that is in `path` except the lock."""
    for entry in path.iterdir():
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def labs(base: Path) -> Iterator[Path]:
    """The directories of labs in `base`, alive or stale."""
    if base.is_dir():
        yield from sorted(lock.parent for lock in base.glob(f"*/{LOCK}"))


def sweep(base: Path) -> list[str]:
    """Remove what dead labs left in `base`; returns their names."""
    removed = []
    for path in labs(base):
        settle(path)
        if is_ownerless(path):
            kill_holders(path)
            settle(path)
        lock = lock_directory(path)
        if lock is not None:
            Directory(path, lock).remove()
            removed.append(path.name)
    return removed


def settle(path: Path) -> None:
    """Wait until it is plain whether somebody lives in `path`, for as long as a death may take.

    A lab that is just being made has no owner for an instant, as one that is just being killed.
    """
    until = time.monotonic() + LONGEST_DEATH
    while is_ownerless(path) and time.monotonic() < until:
        time.sleep(0.02)


def is_ownerless(path: Path) -> bool:
    """Whether somebody holds the lock of `path`, but no living owner is known."""
    return is_locked(path) and not has_owner(path)


def read_state(path: Path) -> dict[str, Any]:
    """What the owner wrote about the lab in `path`; empty when there is none."""
    with contextlib.suppress(OSError, ValueError):
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        return state
    return {}


def has_owner(path: Path) -> bool:
    """Whether the lab in `path` is locked and its owner alive (not just its last processes)."""
    owner = read_state(path).get("owner")
    return owner is not None and is_locked(path) and Path(f"/proc/{owner}").exists()


def kill_holders(path: Path) -> None:
    """Kill the first process of a lab whose owner died before it could say "die with me".

    It is known by its standard input: the lock's file, which no other process has there.
    """
    wanted = (path / LOCK).stat()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samestat((entry / "fd" / "0").stat(), wanted) and not has_owner(path):
                os.kill(int(entry.name), signal.SIGKILL)


def wait_until_free(path: Path, seconds: float) -> bool:
    """Wait until nobody holds the lock of `path`; False when `seconds` did not suffice."""
    until = time.monotonic() + seconds
    while is_locked(path):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
