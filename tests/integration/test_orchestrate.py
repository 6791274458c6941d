"""The examples that a user copies, carried out by `salt-run state.orchestrate` as they are."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpacman.report.text import when
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


def test_a_soak_across_two_runs(fleet: Fleet) -> None:
    """After its `wait` it says when the soak is met; run again it goes on, a third changes nothing.

    The example as it is, but for its `wait: 2h`: whoever runs tests has no such time.
    """
    hosts_d = fleet.lab.path("hosts.d")
    (hosts_d / "all.yaml").write_text("web1: {meta: {ring: 0}}\n")
    fleet.configure(
        membership={"sources": ["files", "pillar"], "hosts_d": str(hosts_d)},
        levels=[{"canary": {"match": "ring:0", "soak": "6s"}}, "rest"],
    )
    example = root_of(fleet.lab, "file_roots") / "orch" / "release.sls"
    example.write_text(example.read_text().replace("wait: 2h", "wait: 1s"))
    assert fleet.run("adopt", "*", now=True)["adopt"]["accepted"] == ["db1", "web1", "web2"]

    first = orchestrate(fleet, "release")
    (row,) = fleet.run("rollouts", active=True)["rollouts"]["rollouts"]
    assert (row["class"], row["state"]) == ("development", "waiting")
    met = f"level canary: soaking, met at {when(row['until'])}"
    assert first["development"]["result"] is False and met in first["development"]["comment"]
    assert set(first["development"]["changes"]) == {"web1"}
    for name in ("to production", "production"):
        assert first[name]["result"] is False and not first[name]["changes"], first[name]
    for host in ("web2", "db1"):
        assert "webapp-1.0-1.noarch" in fleet.lab.host(host).packages()

    time.sleep(max(0.0, row["until"] - time.time()))
    second = orchestrate(fleet, "release")
    assert set(results(second).values()) == {True}, second
    assert set(second["development"]["changes"]) == {"web2"}, "what soaked is not done again"
    assert set(second["production"]["changes"]) == {"db1"}
    for host in ("web1", "web2", "db1"):
        assert set(fleet.lab.host(host).packages()) > NEW

    third = orchestrate(fleet, "release")
    assert set(results(third).values()) == {True}
    assert not [name for name, one in third.items() if one["changes"]]
    rows = fleet.run("rollouts")["rollouts"]["rollouts"]
    assert [one["state"] for one in rows] == ["done", "done"], "none was begun twice"


def test_the_block_list(fleet: Fleet) -> None:
    """Kept in a file: there once, and not again; `test=True` only tells."""
    for test, result, changes in ((True, None, 1), (False, True, 1), (False, True, 0)):
        (state,) = orchestrate(fleet, "blocked", test=test).values()
        assert (state["result"], len(state["changes"])) == (result, changes), state
    assert [b["spec"] for b in fleet.run("blocks")["blocks"]["blocks"]] == ["httpd-2.4.57-11"]
