"""A host whose first process is a real systemd: its transactions, and what follows them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from lab import Lab, rpms
from lab.rpms import Build
from lab.systemd import UNIT, SystemdHost, hierarchies
from tests.integration.fleet import Fleet
from tests.integration.test_thread import UPDATED, installed, wait

RESTART = f"""#!/bin/sh
cat /proc/self/cgroup >/run/where
systemctl show --property=MainPID --value {UNIT} >/run/old-minion
systemctl restart {UNIT}
"""
SERVICE = """\
[Service]
ExecStartPre=/bin/cp /bin/sleep /usr/local/bin/labd
ExecStart=/usr/local/bin/labd 900
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab with one host that has a systemd."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    if not hierarchies():
        pytest.skip("a systemd needs cgroups that may be written")
    with Lab([], systemd_hosts=["web1"]) as started:
        yield started


@pytest.fixture(scope="module")
def host(lab: Lab) -> SystemdHost:
    """That host, with a service whose program is replaced."""
    found = lab.host("web1")
    assert isinstance(found, SystemdHost)
    found.write("/run/systemd/system/labd.service", SERVICE)
    found.run(["systemctl", "daemon-reload"]).check()
    found.run(["systemctl", "start", "labd"]).check()
    found.remove("/usr/local/bin/labd")
    return found


@pytest.fixture(scope="module")
def fleet(lab: Lab, host: SystemdHost) -> Fleet:
    """Its configuration, and an update of Salt beside the others."""
    fleet = Fleet(lab)
    restarts = {"services": "listed", "list": "labd"}
    fleet.configure(levels=[{"canary": {"match": "ring:0", "restarts": restarts}}, "rest"])
    built = rpms.build([Build("salt-minion", "1"), Build("salt-minion", "2")])
    host.install_rpms([built["salt-minion-1-1.noarch"]])
    shutil.copy(built["salt-minion-2-1.noarch"], fleet.mirror)
    rpms.write_metadata(fleet.mirror, {})
    host.write("/usr/local/sbin/restart-minion", RESTART, 0o755)
    return fleet.ready()


def test_salt_updates_itself(fleet: Fleet, host: SystemdHost) -> None:
    """The minion's service is restarted in mid-transaction, with all below it but not with this."""
    assert fleet.lab.salt("web1", "cmd.run_bg", "setsid sleep 901").returncode == 0
    below = ["pgrep", "-f", "^sleep 901"]
    wait(lambda: host.run(below).returncode == 0)
    labd = host.main_pid("labd")
    done = fleet.run("deploy", **{"class": "development", "now": True})
    assert done.outcomes() == {"web1": ("applied", None)}, done.text
    assert installed(fleet, "web1") > {*UPDATED, "salt-minion-2-1.noarch"}
    assert host.run(below).returncode == 1, "a session of its own does not save a minion's child"
    assert int(host.read("/run/old-minion")) not in (0, host.main_pid())
    assert f"/system.slice/cpacman-{done['rollout']['id']}" in host.read("/run/where")
    found = done["rollout"]["hosts"]["web1"]
    assert found["findings"]["salt"][0] == "salt-minion-2-1.noarch"
    assert found["detail"] == "restarted labd.service", found
    assert host.main_pid("labd") not in (0, labd)
    units = host.run(["systemctl", "list-units", "--all", "--plain", "cpacman-*"]).stdout
    assert "cpacman-r-" not in units, "nothing stays of it"


def test_a_reboot_is_a_real_one(fleet: Fleet, host: SystemdHost) -> None:
    """Ordered by a service of systemd, which dies of it; the host proves itself when it is back."""
    always = {"reboot": "always", "within": "120s"}
    fleet.configure(levels=[{"canary": {"match": "ring:0", "restarts": always}}, "rest"])
    shutil.copy(rpms.build([Build("newtool", "9")])["newtool-9-1.noarch"], fleet.mirror)
    rpms.write_metadata(fleet.mirror, {})
    assert fleet.run("snapshot").code == 0
    before = host.boot_id()
    with host.coming_back(after=1.0):
        done = fleet.run(
            "deploy", **{"class": "development", "install": "newtool", "tgt": "web1", "now": True}
        )
        assert done.outcomes() == {"web1": ("applied", None)}, done.text
        assert done["rollout"]["hosts"]["web1"]["detail"] == "rebooted"
        assert host.boot_id() not in ("", before)
        assert "newtool-9-1.noarch" in host.packages()
