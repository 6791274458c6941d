"""The outer namespaces: the lab's first process, the bridge, and where the master runs.

Invariants: the first process dies with the process *and thread* that started it (parent-death
signal), and the kernel then ends all others in its pid namespace and drops their mounts; it holds
the lab's lock as its standard input, so the lock is free only when all of that has happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from cpacman.errors import Problem
from lab.directory import Directory
from lab.errors import LabError
from lab.namespace import PATIENCE, Namespace, children, inner_environ, wait_for
from lab.requirements import SYSTEM_PATH

CHECKOUT = Path(__file__).resolve().parents[1]
INIT = Path(__file__).resolve().parent / "hub-init.sh"
KINDS = ("-m", "-n", "-p")
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=SIGKILL")


class Hub(Namespace):
    """The namespaces of a lab's master.

    Args:
        first: the process that waits for the namespaces' first process.
        directory: the lab's directory.
    """

    def __init__(self, first: subprocess.Popen[bytes], directory: Path) -> None:
        self.first = first
        super().__init__(children(first.pid)[0], KINDS, hub_environ(directory))

    def kill(self) -> None:
        """End every process in it; returns when the last one is gone."""
        end(self.first)

    def wait(self) -> None:
        """Wait until somebody else ended it."""
        self.first.wait()


def start_hub(directory: Directory, address: str, keep: Iterable[Path]) -> Hub:
    """Start the outer namespaces.

    Args:
        directory: taken, that is locked.
        address: of the bridge, with its bits.
        keep: directories that stay the real ones inside.

    Raises:
        LabError: they did not come up; with what was said.
    """
    path = directory.path
    log = path / "hub.log"
    command = ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "--mount-proc", "sh", str(INIT)]
    with log.open("wb") as output:
        first = subprocess.Popen(
            [*command, str(path), address, *map(str, keep)],
            stdin=directory.lock,
            stdout=output,
            stderr=output,
            env=inner_environ(),
            start_new_session=True,
        )

    def ready() -> bool:
        if first.poll() is not None:
            said = log.read_text(encoding="utf-8").strip()
            raise LabError(Problem("", f"the lab's namespaces did not come up: {said[-500:]}"))
        return (path / "hub.ready").exists()

    try:
        wait_for("the lab's namespaces", ready, PATIENCE)
        return Hub(first, path)
    except BaseException:
        end(first)
        raise


def end(first: subprocess.Popen[bytes]) -> None:
    """Kill the namespaces' first process, whose end is the end of all, and wait for it."""
    for pid in children(first.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    first.kill()
    first.wait()


def hub_environ(directory: Path) -> dict[str, str]:
    """What the master and the commands beside it see: this Python first, its configuration."""
    return {
        **inner_environ(),
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "SALT_CONFIG_DIR": str(directory / "master" / "conf"),
        "PYTHONPATH": str(CHECKOUT),
        "TMPDIR": str(directory / "tmp"),
    }
