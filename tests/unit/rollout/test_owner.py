"""Whether the process of a rollout still runs: never mistaken for another one."""

from __future__ import annotations

import os
import subprocess
import sys

from cpacman.rollout.owner import is_alive, owner_of


def test_owner_lives_and_dies() -> None:
    """A running process is alive; after its end it is not, and nobody with its number is."""
    assert is_alive(owner_of(os.getpid()))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    assert is_alive(owner)
    child.communicate()
    assert not is_alive(owner)
    host, pid, started = owner_of(os.getpid()).split(":")
    assert not is_alive(f"{host}:{pid}:{int(started) - 1}")


def test_owner_of_another_machine_counts_as_alive() -> None:
    """What can't be looked at is not declared dead."""
    assert is_alive("elsewhere:1:1")
