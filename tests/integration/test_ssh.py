"""A fleet that mixes a minion and a host with nothing but an sshd: the same commands for both."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import Host, Lab
from tests.bench.card import Rates
from tests.integration.fleet import TIMES, Fleet
from tests.integration.test_thread import (
    SLEEP,
    UPDATED,
    in_scriptlet,
    installed,
    let_go,
    received,
    wait,
)

MEMBERS = {"*": {"class": "development", "meta": {"ring": 1}}, "web1": {"meta": {"ring": 0}}}


@pytest.fixture(scope="module")
def mixed_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One host with a minion, two with an sshd."""
    with Lab(["web1"], ssh_hosts=["old1", "old2"]) as started:
        yield started


@pytest.fixture
def fleet(mixed_lab: Lab) -> Iterator[Fleet]:
    """The mixed fleet, configured, with its inventories and a snapshot."""
    if not mixed_lab.host("old2").exists("/usr/bin/python3"):
        mixed_lab.rebuild_host("old2")
    fleet = Fleet(mixed_lab)
    fleet.members(MEMBERS)
    before = mixed_lab.master.roster.read_text(encoding="utf-8")
    yield fleet.ready()
    mixed_lab.master.roster.write_text(before, encoding="utf-8")
    mixed_lab.reset()


def roster(lab: Lab, **changes: dict[str, object]) -> None:
    """Change entries of the lab's roster."""
    entries = yaml.safe_load(lab.master.roster.read_text(encoding="utf-8"))
    for name, change in changes.items():
        entries[name] = {**entries[name], **change}
    lab.master.roster.write_text(yaml.safe_dump(entries), encoding="utf-8")


def test_a_mixed_fleet_is_served_by_one_deploy(fleet: Fleet) -> None:
    """Refresh, plan and deploy; every host ends with the plan's packages and its outcome."""
    plan = fleet.plan()
    assert set(plan["hosts"]) == {"web1", "old1", "old2"}, plan["failed"]
    hosts = fleet.run("status")["status"]["hosts"]
    done = fleet.run("deploy", plan=plan["plan_id"])
    assert (done.code, done.outcomes()) == (
        0, {"web1": ("applied", None), "old1": ("applied", None), "old2": ("applied", None)},
    ), done.text  # fmt: skip
    for host in ("web1", "old1", "old2"):
        assert installed(fleet, host) > UPDATED
    assert hosts is not None
    again = fleet.run("deploy", **{"class": "development", "now": True})
    assert {one[0] for one in again.outcomes().values()} == {"unchanged"}
    fleet.lab.host("old2").run(["rpm", "-e", "--nodeps", "jlib"]).check()
    left = fleet.run("compliance", "*")
    states = {host: one["state"] for host, one in left["compliance"]["hosts"].items()}
    assert (left.code, states) == (1, {"web1": "equal", "old1": "equal", "old2": "differs"})


def test_nothing_is_left_where_others_can_write(fleet: Fleet) -> None:
    """Neither the agent nor packages ever lie in /tmp; state and cache are root's alone."""
    host = fleet.lab.host("old1")
    before = host.run(["find", "/tmp", "/var/tmp", "/dev/shm", "/root"]).stdout
    assert fleet.run("deploy", plan=fleet.plan(tgt="old1")["plan_id"]).code == 0
    assert host.run(["find", "/tmp", "/var/tmp", "/dev/shm", "/root"]).stdout == before
    for path in ("/var/lib/cpacman", "/var/cache/cpacman"):
        assert host.run(["stat", "-c", "%a %U", path]).stdout == "700 root\n"


def test_host_keys_are_accepted_by_an_act_only(fleet: Fleet) -> None:
    """An unknown or another key stops everything; looking accepts nothing."""
    lab = fleet.lab
    roster(lab, old1={"ssh_options": ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]})
    assert fleet.run("refresh", "old1")["refresh"]["hosts"]["old1"]["code"] == "host-key"
    shown = fleet.run("hostkeys", "old1")
    assert (shown.code, shown["hostkeys"]["hosts"]["old1"]["state"]) == (1, "new")
    public = (lab.directory / "hosts/old1.key.pub").read_text(encoding="utf-8")
    told = subprocess.run(["ssh-keygen", "-lf", "-"], input=public, capture_output=True, text=True)
    assert told.stdout.split()[1] in shown["hostkeys"]["hosts"]["old1"]["keys"][0]
    assert fleet.run("refresh", "old1").code == 1, "looking accepted nothing"
    assert fleet.run("hostkeys", "old1", accept=True).code == 0
    assert fleet.run("refresh", "old1").code == 0

    host = lab.host("old1")
    host.run(["sh", "-c", "cp /etc/ssh/lab_host_key /etc/ssh/old; rm /etc/ssh/lab_host_key;"
              " ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/lab_host_key"]).check()  # fmt: skip
    host.kill_minion()
    host.start_minion()
    changed = fleet.run("hostkeys", "old1", accept=True)
    assert (changed.code, changed["hostkeys"]["hosts"]["old1"]["state"]) == (1, "changed")
    refused = fleet.run("refresh", "old1")["refresh"]["hosts"]["old1"]
    assert refused["code"] == "host-key" and "cpacman.hostkeys old1" in refused["error"]
    assert fleet.run("hostkeys", "old1", accept=True, replace=True).code == 0
    assert fleet.run("refresh", "old1").code == 0
    actions = fleet.run("history", host="old1")["history"]["entries"]
    assert [one["action"] for one in actions].count("hostkey") == 2
    host.run(["mv", "/etc/ssh/old", "/etc/ssh/lab_host_key"]).check()


def give_python(host: Host, version: str) -> None:
    """Bring a Python to a host where the system has none any more."""
    home = Path("/root/.pyenv/versions") / version
    if not home.exists():
        pytest.skip(f"there is no Python {version} here")
    short = ".".join(version.split(".")[:2])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(home / "bin" / f"python{short}", f"bin/python{short[0]}")
        library = home / "lib" / f"python{short}"
        tar.add(library, f"lib/python{short}", filter=lambda entry: None if any(
            part in ("test", "site-packages", "__pycache__", "config", "idlelib", "lib-tk")
            or part.startswith("config-")
            for part in entry.name.split("/")
        ) else entry)  # fmt: skip
    for shared in (home / "lib").glob(f"libpython{short}.so.*"):
        host.write(f"/usr/lib/{shared.name}", shared.read_bytes())
    host.run(["mkdir", "-p", "/opt/python"]).check()
    host.run(["tar", "-xf", "-", "-C", "/opt/python"], stdin=buffer.getvalue()).check()
    host.run(["sh", "-c", "rm -f /usr/bin/python3 /usr/bin/python3.*"]).check()


def test_a_login_with_sudo_and_python_2(fleet: Fleet) -> None:
    """A host as stock EL7: Python 2.7 alone, where Salt's thin does not start, behind sudo."""
    host = fleet.lab.host("old2")
    give_python(host, "2.7.18")
    host.run(["sh", "-c", "useradd -m ops && mkdir -p /home/ops/.ssh"
              " && cp /root/.ssh/authorized_keys /home/ops/.ssh/ && chown -R ops /home/ops/.ssh"
              " && sed -i '/AuthorizedKeysFile/d' /etc/ssh/sshd_config"
              " && echo 'echo noise; echo more of it' > /home/ops/.bashrc"
              " && usermod -s /bin/bash -p '*' ops"]).check()  # fmt: skip
    host.kill_minion()
    host.start_minion()
    roster(fleet.lab, old2={"user": "ops", "sudo": True, "set_path": "/opt/python/bin"})
    locked = fleet.run("refresh", "old2")["refresh"]["hosts"]["old2"]
    assert locked["code"] == "login" and "password is required" in locked["error"], locked
    host.write("/etc/sudoers.d/ops", "ops ALL=(root) NOPASSWD: ALL\n", 0o440)
    refreshed = fleet.run("refresh", "old2")
    assert refreshed.code == 0, refreshed.text
    number = fleet.plan(tgt="old2", upgrade="webapp")["plan_id"]
    done = fleet.run("deploy", plan=number)
    assert done.outcomes() == {"old2": ("applied", None)}, done.text
    assert "webapp-1.1-1.noarch" in installed(fleet, "old2")


def test_a_broken_push_goes_on_where_it_was(fleet: Fleet) -> None:
    """The connection dies in the middle of 20 MB: connected anew, what was acknowledged stays."""
    host = fleet.lab.host("old1")
    fleet.configure(transport={**TIMES, "bandwidth": "4M", "chunk": "1M"})
    number = fleet.plan(tgt="old1", install="hugedata")["plan_id"]
    before = received(fleet, "old1")
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: received(fleet, "old1") - before > 8_000_000)
        host.run(["pkill", "-9", "-f", "cpacman-ssh"]).check()
        result = running.wait()
    assert result.returncode == 0, result.stdout
    assert 20_000_000 < received(fleet, "old1") - before < 27_000_000


def test_a_transaction_outlives_the_connection(fleet: Fleet) -> None:
    """sshd and all its sessions die in mid-transaction; it ends, and its report is collected."""
    host = fleet.lab.host("old1")
    host.write("/etc/fickle.sleep", SLEEP)
    number = fleet.plan(tgt="old1")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: in_scriptlet(host))
        host.kill_minion()
        host.run(["pkill", "-9", "-f", "cpacman-ssh"])
        host.start_minion()
        let_go(host)
        result = running.wait()
    assert result.returncode == 0, result.stdout
    assert installed(fleet, "old1") > UPDATED


def test_a_driver_that_dies_in_a_reboot_reboots_nobody_twice(fleet: Fleet) -> None:
    """It is killed while the host is away; who goes on finds the other boot, and is content."""
    host = fleet.lab.host("old1")
    fleet.configure(restarts={"reboot": "always", "within": "120s"})
    before = host.boot_id()
    number = fleet.plan(tgt="old1", upgrade="webapp")["plan_id"]
    with fleet.lab.start(fleet.lab.salt_run_argv("cpacman.deploy", plan=number)) as running:
        wait(lambda: host.boot_id() not in ("", before))
        running.kill()
    after = host.boot_id()
    host.start_minion()
    (row,) = fleet.run("rollouts", active=True)["rollouts"]["rollouts"]
    done = fleet.run("resume", row["id"])
    assert done.outcomes() == {"old1": ("applied", None)}, done.text
    assert done["rollout"]["hosts"]["old1"]["detail"] == "rebooted"
    assert host.boot_id() == after


def test_a_transport_that_leads_nowhere_is_told(fleet: Fleet) -> None:
    """A minion configured for ssh, and the other way round, are skipped with the mend."""
    fleet.members({**MEMBERS, "web1": {"transport": "ssh"}, "old1": {"transport": "publish"}})
    hosts = fleet.run("refresh", "*")["refresh"]["hosts"]
    assert (hosts["web1"]["code"], hosts["old1"]["code"]) == ("transport", "transport")
    assert "roster" in hosts["web1"]["error"] and "no key" in hosts["old1"]["error"]
    assert not hosts["old2"]["error"]


def test_a_broken_roster_is_an_error(fleet: Fleet) -> None:
    """What can't be read is never taken for an empty roster."""
    text = fleet.lab.master.roster.read_text(encoding="utf-8")
    fleet.lab.master.roster.write_text("old1: [\n", encoding="utf-8")
    try:
        answer = fleet.run("status")
        assert answer.code == 2 and "roster" in answer.problems()
    finally:
        fleet.lab.master.roster.write_text(text, encoding="utf-8")


def test_staged_bytes_are_not_sent_again(fleet: Fleet) -> None:
    """Stage sends all, as slowly as it must, changes nothing; the deploy sends no package bytes."""
    number = fleet.plan(install="hugedata")["plan_id"]
    hosts = ("web1", "old1")
    before = {host: received(fleet, host) for host in hosts}
    with Rates([fleet.lab.host(host) for host in hosts]) as rates:
        staged = fleet.run("stage", plan=number, bandwidth_per_host="4M")
    for host in hosts:
        # A busy machine may be slower than the cap, never faster.
        assert 0 < rates.found[host] / 4e6 < 1.15, rates.found
    assert staged.code == 0, staged.text
    assert {row["state"] for row in staged["stage"]["hosts"].values()} == {"staged"}
    middle = {host: received(fleet, host) for host in hosts}
    assert all(middle[host] - before[host] > 20_000_000 for host in hosts)
    assert all("hugedata-1.0-1.x86_64" not in installed(fleet, host) for host in hosts)
    assert fleet.run("deploy", plan=number).code == 0
    assert all(received(fleet, host) - middle[host] < 600_000 for host in hosts)
