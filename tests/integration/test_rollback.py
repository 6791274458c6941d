"""Taking rollouts back, on a real master and real hosts."""

from __future__ import annotations

import shutil

import pytest

from lab import Lab, rpms
from tests.integration.fleet import Fleet
from tests.integration.test_recovery import is_clean, kill_worker
from tests.integration.test_thread import SLEEP, UPDATED, in_scriptlet, installed, let_go, wait


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A fleet whose depot knows the old versions, from a snapshot before the updates came."""
    found = Fleet(clean_lab)
    built = rpms.build()
    new = [path for path in found.mirror.glob("*.rpm") if path.name[:-4] not in rpms.OLD]
    kept = {path.name: path.read_bytes() for path in new}
    for path in new:
        path.unlink()
    for nevra in rpms.OLD:
        shutil.copy(built[nevra], found.mirror / f"{nevra}.rpm")
    rpms.write_metadata(found.mirror, {})
    found.ready()
    for name, data in kept.items():
        (found.mirror / name).write_bytes(data)
    rpms.write_metadata(found.mirror, {})
    assert found.run("snapshot").code == 0
    return found


def test_there_and_back(fleet: Fleet) -> None:
    """A rollout and its way back: shown first, then the very packages from before."""
    before = installed(fleet, "web1")
    rollout = fleet.run("deploy", plan=fleet.plan(tgt="web1")["plan_id"])
    assert rollout.outcomes() == {"web1": ("applied", None)}
    assert installed(fleet, "web1") > UPDATED
    shown = fleet.run("rollback", rollout=rollout["rollout"]["id"])
    assert shown.code == 0 and installed(fleet, "web1") > UPDATED, "showing changes nothing"
    kinds = {(a["action"], a["name"]) for t in shown["plan"]["transactions"].values()
             for a in t["actions"]}  # fmt: skip
    assert {("downgrade", "webapp"), ("remove", "libwebapp"), ("install", "oldtool")} <= kinds
    back = fleet.run("deploy", plan=shown["plan"]["plan_id"])
    assert back.outcomes() == {"web1": ("applied", None)}, back.text
    assert installed(fleet, "web1") == before and is_clean(fleet.lab.host("web1"))
    again = fleet.run("rollback", rollout=rollout["rollout"]["id"])
    assert again.code == 1 and "since" in again.problems()


def test_missing_material_is_named_and_nothing_starts(fleet: Fleet) -> None:
    """A package that the depot lost: refused before the start, by its name."""
    number = fleet.plan(tgt="web1")["plan_id"]
    fleet.run("deploy", plan=number)
    old = next(p for p in fleet.mirror.glob("webapp-1.0-*.rpm"))
    data = old.read_bytes()
    lost = [p for p in fleet.lab.path("state", "depot", "files").rglob("*")
            if p.is_file() and p.read_bytes() == data]  # fmt: skip
    for path in lost:
        path.unlink()
    answer = fleet.run("rollback", host="web1", now=True)
    assert answer.code == 1 and "is in no snapshot" in answer.problems()
    assert "webapp-1.0-1.noarch (" in answer.problems()
    assert installed(fleet, "web1") > UPDATED


def test_cut_off_without_its_files_is_taken_back(fleet: Fleet) -> None:
    """Runner and worker die and the host's cache is lost: recover brings it back by itself."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", SLEEP)
    before = installed(fleet, "web1")
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        running.kill()
        kill_worker(host)
    host.run(["sh", "-c", "rm -f /var/cache/cpacman/*"]).check()
    let_go(host)
    wait(lambda: not in_scriptlet(host))
    # The first ones may only find that it can't go on; whoever looks next takes it back.
    answer = wait(lambda: (a := fleet.run("recover", "web1"))["recover"]["hosts"] and a)
    assert answer["recover"]["hosts"]["web1"]["back"] == "applied", answer.text
    assert answer.code == 0
    assert installed(fleet, "web1") == before and is_clean(host)
    assert fleet.run("deploy", plan=fleet.plan(tgt="web1")["plan_id"]).code == 0
