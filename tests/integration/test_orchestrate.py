"""The examples that a user copies, carried out by `salt-run state.orchestrate` as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from tests.integration.fleet import Fleet

CHECKOUT = Path(__file__).parents[2]
NEW = {"webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64", "newtool-2.0-1.noarch"}


def root_of(lab: Lab, option: str) -> Path:
    """The directory that the master serves states, or pillar, from."""
    found = lab.run([*lab.salt_run_argv("config.get", option), "--out=json"])
    return Path(json.loads(found.stdout)["base"][0])


@pytest.fixture
def fleet(clean_lab: Lab) -> Iterator[Fleet]:
    """A fleet whose members are named by pillar.example, and that accepts nobody by itself."""
    fleet = Fleet(clean_lab)
    (clean_lab.path("hosts.d") / "all.yaml").unlink()
    fleet.configure(membership={"sources": ["pillar"]})
    states, pillar = root_of(clean_lab, "file_roots"), root_of(clean_lab, "pillar_roots")
    shutil.copytree(CHECKOUT / "orch.example", states / "orch")
    shutil.copytree(CHECKOUT / "pillar.example", pillar, dirs_exist_ok=True)
    assert fleet.run("refresh", "*").code == 0
    yield fleet
    for left in (states / "orch", pillar / "cpacman"):
        shutil.rmtree(left)
    (pillar / "top.sls").unlink()


def orchestrate(fleet: Fleet, name: str, **options: Any) -> dict[str, dict[str, Any]]:
    """Run a file of orch.example; return the states by the names that they have in it."""
    argv = fleet.lab.salt_run_argv("state.orchestrate", f"orch.{name}", **options)
    done = fleet.lab.run([*argv, "--out=json"])
    assert done.stdout, done.stderr
    (states,) = json.loads(done.stdout)["data"].values()
    assert isinstance(states, dict), states
    return {one["__id__"]: one for one in states.values()}


def results(states: dict[str, dict[str, Any]]) -> dict[str, bool | None]:
    """Name -> result."""
    return {name: one["result"] for name, one in states.items()}


def test_a_release(fleet: Fleet) -> None:
    """Looked at, refused while nobody is accepted, carried out, and the second time nothing."""
    web, db = fleet.lab.host("web1"), fleet.lab.host("db1")
    looked = orchestrate(fleet, "release", test=True)
    assert looked["freeze the mirrors"]["result"] is None
    assert fleet.run("snapshots")["snapshots"]["snapshots"] == []

    waiting = orchestrate(fleet, "release")
    assert "salt-run cpacman.accept hosts=web1" in waiting["development"]["comment"]
    assert not waiting["development"]["changes"] and "webapp-1.0-1.noarch" in web.packages()

    assert fleet.run("adopt", "*", now=True)["adopt"]["accepted"] == ["db1", "web1", "web2"]
    looked = orchestrate(fleet, "release", test=True)
    assert looked["development"]["result"] is None
    assert "upgrade webapp-1.0-1.noarch -> webapp-1.1-1.noarch" in str(
        looked["development"]["changes"]["web1"]
    )
    assert "webapp-1.0-1.noarch" in web.packages(), "a test changes nothing"

    done = orchestrate(fleet, "release")
    assert set(results(done).values()) == {True}, done
    changed = done["development"]["changes"]
    assert set(changed) == {"web1", "web2"} and changed["web1"]["outcome"] == "applied"
    assert set(done["production"]["changes"]) == {"db1"}
    for host in (web, db):
        assert set(host.packages()) > NEW

    again = orchestrate(fleet, "release")
    assert set(results(again).values()) == {True}
    assert not [name for name, one in again.items() if one["changes"]]
    (entry,) = [e for e in fleet.run("history")["history"]["entries"] if e["action"] == "promote"]
    assert entry["ticket"] == "CHG0012345"


def test_the_block_list(fleet: Fleet) -> None:
    """Kept in a file: there once, and not again; `test=True` only tells."""
    for test, result, changes in ((True, None, 1), (False, True, 1), (False, True, 0)):
        (state,) = orchestrate(fleet, "blocked", test=test).values()
        assert (state["result"], len(state["changes"])) == (result, changes), state
    assert [b["spec"] for b in fleet.run("blocks")["blocks"]["blocks"]] == ["httpd-2.4.57-11"]
