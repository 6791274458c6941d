"""A mirror that rewrites a file in place, under the hard link of the depot, before it is pushed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cpacman.depot.pool import Pool, Way
from cpacman.errors import SafetyError
from cpacman.transport.fake import FakeHost
from tests.unit.rollout import world as worlds
from tests.unit.rollout.world import World

CONTENT = b"a package" + b"x" * 991


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Path]:
    """A rollout of one file that a real depot shares with its mirror, and that file there."""
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    mirror = tmp_path / "a.rpm"
    mirror.write_bytes(CONTENT)
    pool = Pool(tmp_path / "depot")
    monkeypatch.setattr(pool, "_reflink", lambda *_: False)
    assert pool.keep(mirror, sha256, len(CONTENT)) is Way.LINK
    monkeypatch.setattr(worlds, "SHA", sha256)
    world = World(tmp_path, {"web1": FakeHost(), "web2": FakeHost()})
    world.depot = pool  # type: ignore[assignment]
    return world, mirror


def test_altered_bytes_never_leave(linked: tuple[World, Path]) -> None:
    """Same size, same times, same inode, one other byte: refused by name, no host hears of it."""
    world, mirror = linked
    state = mirror.stat()
    with mirror.open("r+b") as stream:
        stream.seek(500)
        stream.write(b"y")
    os.utime(mirror, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(SafetyError, match=r"a-2-1\.noarch: .*altered since the snapshot"):
        world.run()
    assert world.transport.calls == []
    assert all(host.received == [] for host in world.transport.hosts.values())


def test_the_right_bytes_do_leave(linked: tuple[World, Path]) -> None:
    """The same rollout, untouched: both hosts get it."""
    world, _ = linked
    world.run()
    assert set(world.outcomes.values()) == {("applied", None)}
    assert all(len(host.received) == 1 for host in world.transport.hosts.values())
