"""Signatures as commands show them, and that nothing unverified is deployed where it must be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpacman.commands import deploying, looking
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.errors import RepositoryError, SafetyError
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.world import World
from tests.unit.depot.signing import Signer


@pytest.fixture
def key(tmp_path: Path) -> Iterator[str]:
    """A public key that signed nothing."""
    signer = Signer(Path(tempfile.mkdtemp(prefix="gpg-")) / "home")
    yield str(signer.export(signer.key("some"), tmp_path / "some-key"))
    signer.end()
    shutil.rmtree(signer.home.parent, ignore_errors=True)


def use_keys(world: World, key: str, **flags: str) -> None:
    """Give the channel a key, and its repository these flags."""
    world.repositories(base=flags)
    world.section["channels"]["el9"]["keys"] = [key]


def plan_all(world: World) -> dict[str, object]:
    """Plan the class as a command does."""
    answer = plan(world.context(), Selection(class_="development"), request=Request())
    return {**answer["plan"], "screen": render(answer)}


def test_keys_that_come_later_stop_the_deploy(world: World, key: str) -> None:
    """What entered before there were keys was never verified: shown, and not deployed."""
    world.mirror("lib-2-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch")
    answer = render(snapshot(world.context()))
    assert "good" not in answer and "signatures" not in plan_all(world)["screen"]
    use_keys(world, key)
    made = plan_all(world)
    assert made["signatures"]["counts"] == {"unchecked": 1}
    assert "NOT VERIFIED  lib-2-1.noarch (base): was never checked by these keys" in made["screen"]
    transport = type("Silent", (), {"check": lambda *_: [], "name": "fake"})()
    with pytest.raises(SafetyError, match=r"lib-2-1\.noarch of base: was never checked"):
        deploying.deploy(world.context(transport=transport), Selection(), plan=str(made["plan_id"]))
    with pytest.raises(RepositoryError, match="not signed"):
        snapshot(world.context())
    with pytest.raises(RepositoryError, match="not signed"):
        snapshot(world.context(), test=True)


def test_warn_is_shown_and_deployed(world: World, key: str) -> None:
    """An unsigned package of a repository that only warns is named in the plan, and no problem."""
    use_keys(world, key, signatures="warn")
    world.mirror("lib-2-1.noarch", "tool-2-1.noarch")
    world.host("dev1", "development", "lib-1-1.noarch")
    assert "2 unsigned" in render(snapshot(world.context()))
    made = plan_all(world)
    assert "signatures  1 unsigned" in made["screen"]
    shown = looking.show(world.context(), world.held("development"))
    assert shown["snapshot"]["signatures"]["counts"] == {"unsigned": 2}
    stored = world.store.plan(str(made["plan_id"]))
    assert list(deploying.signature_problems(world.context(), stored.plan)) == []
