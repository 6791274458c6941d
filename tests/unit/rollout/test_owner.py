"""Whether the process of a rollout still runs: never mistaken for another one."""

from __future__ import annotations

import os
import subprocess
import sys

from cpacman.rollout.owner import LEASE, is_alive, owner_of


def test_owner_lives_and_dies() -> None:
    """A running process is alive; after its end it is not, and nobody with its number is."""
    assert is_alive(owner_of(os.getpid()), None, 1e9)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    assert is_alive(owner, 1e9, 1e9)
    child.communicate()
    assert not is_alive(owner, 1e9, 1e9)
    host, pid, started = owner_of(os.getpid()).split(":")
    assert not is_alive(f"{host}:{pid}:{int(started) - 1}", 1e9, 1e9)


def test_owner_of_another_machine_lives_by_its_signs() -> None:
    """What can't be looked at is dead when it has shown no life for long, and not before."""
    assert is_alive("elsewhere:1:1", 1000.0, 1000.0 + LEASE - 1)
    assert not is_alive("elsewhere:1:1", 1000.0, 1000.0 + LEASE)
    assert not is_alive("elsewhere:1:1", None, 1e9)
    assert not is_alive("", 1000.0, 1000.0)
