"""From repository to signed report, on a real master and real hosts."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import Host, Lab, rpms
from tests.integration.fleet import CHANNEL, Fleet

UPDATED = {
    "webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64", "newtool-2.0-1.noarch", "jlib-1.0-1.noarch",
}  # fmt: skip
SLEEP = "300.125"
"""Far longer than a test takes: `let_go` ends it."""


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A configured fleet with inventories and a first snapshot."""
    return Fleet(clean_lab).ready()


def wait(check: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.1)
    return found


def installed(fleet: Fleet, host: str) -> set[str]:
    """What the host's own database says."""
    return set(fleet.lab.host(host).packages())


def in_scriptlet(host: Host) -> bool:
    """Whether the host's transaction is in the scriptlet that sleeps."""
    return host.run(["pgrep", "-fx", f"sleep {SLEEP}"]).returncode == 0


def let_go(host: Host) -> None:
    """End the scriptlet that sleeps; no further one does."""
    host.remove("/etc/fickle.sleep")
    host.run(["pkill", "-fx", f"sleep {SLEEP}"])


def test_the_thread(fleet: Fleet) -> None:
    """Plan, deploy to the canary, then the rest; production gets nothing until the promotion."""
    plan = fleet.plan()
    assert plan["hosts"]["web1"] == plan["hosts"]["web2"], "equal hosts share a transaction"
    number = plan["plan_id"]

    canary = fleet.run("deploy", plan=number, levels="canary", ticket="CHG1", reason="patch day")
    assert (canary.code, canary.outcomes()) == (0, {"web1": ("applied", None)})
    assert installed(fleet, "web1") > UPDATED
    assert "oldtool-1.0-1.noarch" not in installed(fleet, "web1")
    assert "webapp-1.0-1.noarch" in installed(fleet, "web2")

    rest = fleet.run("deploy", plan=number[:9], levels="rest")
    assert (rest.code, rest.outcomes()) == (0, {"web2": ("applied", None)})

    refused = fleet.run("plan", **{"class": "production"})
    assert refused.code == 3
    assert refused["plan"]["failed"]["db1"]["error"] == "no-snapshot"
    assert "webapp-1.0-1.noarch" in installed(fleet, "db1")

    assert fleet.run("promote", to="production", test=True)["promote"]["test"] is True
    assert fleet.run("plan", **{"class": "production"}).code == 3, "a test promotes nothing"
    assert fleet.run("promote", to="production").code == 0
    last = fleet.run("deploy", **{"class": "production", "now": True})
    assert (last.code, last.outcomes()) == (0, {"db1": ("applied", None)})
    assert installed(fleet, "db1") > UPDATED

    again = fleet.run("deploy", **{"class": "production", "now": True})
    assert (again.code, again.outcomes()) == (0, {"db1": ("unchanged", None)})
    board = fleet.run("status")["status"]
    assert {row["state"] for row in board["hosts"].values()} == {"current"}
    entries = fleet.run("history", host="web1", package="webapp")["history"]["entries"]
    assert [(e["ticket"], e["reason"], e["action"]) for e in entries] == [
        ("CHG1", "patch day", "applied")
    ]


def test_deploy_of_hosts_only_shows(fleet: Fleet) -> None:
    """Without `now=True` a deploy of hosts plans, shows, and stops."""
    before = installed(fleet, "web1")
    answer = fleet.run("deploy", "web1")
    assert answer.code == 0 and "plan" in answer.data
    assert installed(fleet, "web1") == before


def test_rehearsal_changes_nothing(fleet: Fleet) -> None:
    """`test=True` runs the checks and says what would happen to each host."""
    before = installed(fleet, "web1")
    answer = fleet.run("deploy", plan=fleet.plan()["plan_id"], test=True)
    assert answer["plan"]["would"] == {"web1": "apply", "web2": "apply"}
    assert installed(fleet, "web1") == before


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "absent", "altered", "rewritten", "truncated"]
)
def test_damaged_mirrors_give_no_snapshot(fleet: Fleet, damage: str) -> None:
    """A mirror that is not what it says is refused whole, naming what is wrong."""
    victim = fleet.mirror / "webapp-1.1-1.noarch.rpm"
    words = {
        "missing": str(fleet.mirror), "empty": str(fleet.mirror), "absent": victim.name,
        "altered": victim.name, "rewritten": victim.name, "truncated": victim.name,
    }  # fmt: skip
    if damage == "missing":
        fleet.mirror.rename(fleet.mirror.with_name("away"))
    elif damage == "empty":
        for path in sorted(fleet.mirror.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    elif damage == "absent":
        victim.unlink()
    elif damage == "rewritten":
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(data)
        shutil.rmtree(fleet.lab.path("state", "depot", "files"))
    elif damage == "altered":
        victim.write_bytes(victim.read_bytes() + b"more")
    else:
        for path in sorted((fleet.mirror / "repodata").iterdir()):
            path.unlink()
        (fleet.mirror / "repodata").rmdir()
        victim.write_bytes(victim.read_bytes()[:-100])
    before = fleet.run("status")["status"]["board"]
    answer = fleet.run("snapshot")
    assert answer.code == 2
    assert words[damage] in answer.problems()
    after = fleet.run("status")["status"]["board"]
    assert before[CHANNEL]["development"]["snapshot"] == after[CHANNEL]["development"]["snapshot"]


def test_file_altered_in_the_depot_is_not_sent(fleet: Fleet) -> None:
    """A package that was altered after the snapshot stops the deploy, which names it."""
    plan = fleet.plan()
    (transaction,) = plan["transactions"].values()
    victim = next(a for a in transaction["actions"] if a["name"] == "webapp")
    path = fleet.depot_file(victim["sha256"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    answer = fleet.run("deploy", plan=plan["plan_id"])
    assert answer.code == 1
    assert victim["sha256"] in answer.problems()
    assert not fleet.lab.host("web1").exists(f"/var/cache/cpacman/{victim['sha256']}")
    assert fleet.run("status")["status"]["rollouts"] == []


def test_silent_host_is_skipped(fleet: Fleet) -> None:
    """A host that does not answer is skipped as unreachable; the code says not all are there."""
    number = fleet.plan()["plan_id"]
    fleet.lab.host("web1").pause()
    answer = fleet.run("deploy", plan=number)
    fleet.lab.host("web1").resume()
    assert answer.code == 4
    assert answer.outcomes() == {
        "web1": ("skipped", "unreachable"),
        "web2": ("skipped", "halted"),
    }, "no canary ran, so nobody else starts"
    fleet.lab.host("web2").pause()
    fleet.configure(levels=["all"])
    answer = fleet.run("deploy", **{"class": "development", "now": True})
    fleet.lab.host("web2").resume()
    assert answer.code == 4
    assert answer.outcomes() == {"web1": ("applied", None), "web2": ("skipped", "unreachable")}


def test_unreadable_database_is_told(fleet: Fleet) -> None:
    """A damaged rpm database is an error of that host, never an empty inventory."""
    number = fleet.plan()["plan_id"]
    host = fleet.lab.host("web1")
    host.run(["cp", "-a", "/var/lib/rpm", "/var/lib/rpm.good"]).check()
    try:
        host.run(["sh", "-c", "for f in /var/lib/rpm/rpmdb.sqlite*; do echo junk >$f; done"])
        answer = fleet.run("refresh", "*")
        assert answer.code == 1
        hosts = answer["refresh"]["hosts"]
        assert "/var/lib/rpm" in hosts["web1"]["error"] and not hosts["web2"]["error"]
        planned = fleet.run("plan", "web*", refresh="all")
        assert planned.code == 3
        assert "/var/lib/rpm" in planned["plan"]["failed"]["web1"]["causes"][0]
        deployed = fleet.run("deploy", plan=number, levels="canary")
        assert deployed.code == 4 and deployed.outcomes()["web1"][0] == "skipped"
    finally:
        host.run(["sh", "-c", "rm -rf /var/lib/rpm; mv /var/lib/rpm.good /var/lib/rpm"]).check()


def test_host_that_changed_since_the_plan(fleet: Fleet) -> None:
    """Other actions now: skipped. The very same actions: it goes on, and the journal says so."""
    number = fleet.plan()["plan_id"]
    fleet.lab.host("web1").install_rpms(["scripted-1.1-1.noarch"])
    fleet.lab.host("web2").install_rpms(["hugedata-1.0-1.noarch"])
    fleet.configure(levels=["all"])
    answer = fleet.run("deploy", plan=number)
    assert answer.outcomes() == {"web1": ("skipped", "changed"), "web2": ("applied", None)}
    assert "webapp-1.0-1.noarch" in installed(fleet, "web1")
    actions = [e["action"] for e in fleet.run("history", host="web2")["history"]["entries"]]
    assert "replanned" in actions


def test_plan_of_a_past_snapshot_is_refused(fleet: Fleet) -> None:
    """When the class points elsewhere, a plan made before is not carried out any more."""
    number = fleet.plan()["plan_id"]
    (fleet.mirror / "hugedata-1.0-1.noarch.rpm").unlink()
    rpms.write_metadata(fleet.mirror, {})
    assert fleet.run("snapshot").code == 0
    answer = fleet.run("deploy", plan=number)
    assert answer.code == 1 and "plan again" in answer.problems()


def test_gate_that_is_described_nowhere_stops(fleet: Fleet) -> None:
    """A gate that is named and can't be asked is a refusal, never a pass."""
    number = fleet.plan()["plan_id"]
    fleet.configure(levels=[{"canary": {"match": "ring:0", "gate": "web"}}, "rest"])
    answer = fleet.run("deploy", plan=number)
    assert answer.code == 1 and "levels[0].gate" in answer.problems()


def test_places_that_salt_serves_are_refused(fleet: Fleet) -> None:
    """A depot below file_roots would let hosts pull from it: it is a configuration error."""
    roots = json.loads(fleet.lab.run(
        [*fleet.lab.salt_run_argv("config.get", "file_roots"), "--out=json"]
    ).stdout)  # fmt: skip
    (root, *_) = roots["base"]
    fleet.configure(depot=f"{root}/depot")
    answer = fleet.run("snapshot")
    assert answer.code == 2 and "is served to every host" in answer.problems()


def test_altered_metadata_in_the_depot_is_not_planned_from(fleet: Fleet) -> None:
    """One snapshot id, one plan: metadata that is not what was kept stops the planning."""
    (victim, *_) = fleet.lab.path("state", "depot", "metadata").rglob("primary*")
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes() + b"x")
    answer = fleet.run("plan", **{"class": "development"})
    assert answer.code == 1 and str(victim) in answer.problems()


def test_no_host_can_pull_a_package(fleet: Fleet) -> None:
    """Nothing of repositories or depot is on Salt's file server."""
    fleet.run("deploy", **{"class": "development", "now": True})
    listed = fleet.lab.salt("web1", "cp.list_master").data
    assert listed and not [name for name in listed if name.endswith(".rpm")]
    for path in (fleet.mirror / "webapp-1.1-1.noarch.rpm", fleet.lab.path("state", "cpacman.db")):
        for url in (f"salt://{path}", f"salt://../../{path}", f"salt://..{path}"):
            got = fleet.lab.salt("web1", "cp.get_file", url, "/tmp/got").data
            assert not got or not fleet.lab.host("web1").exists("/tmp/got")


def received(fleet: Fleet, host: str) -> int:
    """Bytes that came in through the host's network card."""
    return int(fleet.lab.host(host).read("/sys/class/net/eth0/statistics/rx_bytes"))


def test_bytes_reach_targets_only(fleet: Fleet) -> None:
    """20 MB for one host: the other two receive next to nothing."""
    number = fleet.plan(tgt="web1", install="hugedata")["plan_id"]
    before = {host: received(fleet, host) for host in ("web1", "web2", "db1")}
    assert fleet.run("deploy", plan=number).code == 0
    got = {host: received(fleet, host) - before[host] for host in before}
    assert got["web1"] > 20_000_000
    assert got["web2"] < 100_000 and got["db1"] < 100_000


def test_second_push_sends_no_package(fleet: Fleet) -> None:
    """What a host has in its cache is not sent again."""
    fleet.run("deploy", plan=fleet.plan(tgt="web1", install="hugedata")["plan_id"])
    fleet.lab.host("web1").run(["rpm", "-e", "hugedata"]).check()
    fleet.run("refresh", "web1")
    number = fleet.plan(tgt="web1", install="hugedata")["plan_id"]
    before = received(fleet, "web1")
    assert fleet.run("deploy", plan=number).outcomes() == {"web1": ("applied", None)}
    assert received(fleet, "web1") - before < 500_000


def test_transaction_outlives_the_minion(fleet: Fleet) -> None:
    """The minion dies in mid-transaction; the transaction ends, and its report is collected."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", SLEEP)
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        host.kill_minion()
        host.start_minion()
        let_go(host)
        result = running.wait()
    assert result.returncode == 0, result.stdout
    assert installed(fleet, "web1") > UPDATED


def test_ctrl_c_starts_no_more_hosts(fleet: Fleet) -> None:
    """Ctrl-C in the first level: that host is collected, those of the next never start."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", SLEEP)
    number = fleet.plan()["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        running.signal(signal.SIGINT)
        let_go(host)
        result = running.wait()
    assert result.returncode == 4, result.stdout
    assert "HALTED" in result.stdout
    assert installed(fleet, "web1") > UPDATED
    assert "webapp-1.0-1.noarch" in installed(fleet, "web2")


def test_two_deploys_never_touch_one_host(fleet: Fleet) -> None:
    """While one has the host, another is refused and names who has it."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", SLEEP)
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        second = fleet.run("deploy", plan=number)
        let_go(host)
        result = running.wait()
    assert result.returncode == 0
    assert second.code == 1 and "is being changed by rollout r-" in second.problems()


def test_killed_runner_loses_nothing(fleet: Fleet) -> None:
    """kill -9 of the runner in mid-transaction: the next deploy collects what the host did."""
    host = fleet.lab.host("web1")
    host.write("/etc/fickle.sleep", SLEEP)
    number = fleet.plan(tgt="web1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        running.kill()
    let_go(host)
    wait(lambda: installed(fleet, "web1") > UPDATED)
    wait(lambda: host.run(["pgrep", "-f", "agent.py"]).returncode != 0)
    again = fleet.run("deploy", **{"class": "development", "now": True})
    assert again.code == 0, again.text
    entries = fleet.run("history", host="web1", package="webapp")["history"]["entries"]
    assert [entry["action"] for entry in entries] == ["applied"]


def test_failing_scriptlet_halts_before_the_next_level(fleet: Fleet) -> None:
    """A %pre that fails on the canary: told as it is, and the rest is left alone."""
    fleet.lab.host("web1").write("/etc/fickle.fail-pre", "")
    answer = fleet.run("deploy", plan=fleet.plan()["plan_id"])
    assert answer.code == 4
    outcomes = answer.outcomes()
    assert outcomes["web1"][0] in {"failed", "refused"}
    assert outcomes["web2"] == ("skipped", "halted")
    assert "webapp-1.0-1.noarch" in installed(fleet, "web2")


def test_two_machines_with_one_id(fleet: Fleet) -> None:
    """A clone that answers under another's id is noticed, and the id gets nothing."""
    number = fleet.plan()["plan_id"]
    key = {n: fleet.lab.host("web1").read(f"/etc/salt/pki/minion/{n}")
           for n in ("minion.pem", "minion.pub")}  # fmt: skip
    clone = fleet.lab.host("web2")
    own = {"pki_dir": "pki", "cachedir": "cache", "sock_dir": "sock", "pidfile": "pid",
           "log_file": "log"}  # fmt: skip
    config = {**yaml.safe_load(clone.read("/etc/salt/minion")), "id": "web1",
              **{name: f"/etc/clone/{path}" for name, path in own.items()}}  # fmt: skip
    clone.write("/etc/clone/minion", yaml.safe_dump(config))
    for name, text in key.items():
        clone.write(f"/etc/clone/pki/{name}", text, 0o600)
    minion = Path(sys.executable).with_name("salt-minion")
    with clone.start([sys.executable, str(minion), "-c", "/etc/clone"]):
        wait(lambda: "twins" in str(fleet.run("refresh", "web1").data))
        answer = fleet.run("deploy", plan=number, levels="canary")
    assert answer.outcomes() == {"web1": ("skipped", "twins")}
