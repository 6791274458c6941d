"""The lab itself: real daemons, separate hosts, and nothing left of it in any case."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab, LabError, rpms
from lab.directory import has_owner, is_locked, read_state

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTS = ["web1", "web2", "db1"]
RUNNER = """
import sys
from lab import Lab
with Lab(["web1"]) as lab:
    host = lab.host("web1")
    host.run(["sh", "-c", "setsid sleep 500 >/dev/null 2>&1 </dev/null &"])
    print(lab.name, lab.hub.pid, host.pid, flush=True)
    sys.stdin.read()
"""


def command(*argv: str) -> list[str]:
    """A command line of the lab."""
    return [sys.executable, "-m", "lab", *argv]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the lab."""
    return subprocess.run(
        command(*argv), cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )


def eventually(check: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether `check` becomes true in time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def traces(base: Path) -> list[str]:
    """Processes and mounts that mention `base`."""
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if str(base) in line]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(base).encode() in word for word in words):
            found.append(b" ".join(words).decode())
    return found


# -- what a lab is


def test_three_hosts_answer(lab: Lab) -> None:
    """Every minion answers a ping."""
    assert lab.salt("*", "test.ping").data == dict.fromkeys(HOSTS, True)


def test_hosts_pose_as_el9(lab: Lab) -> None:
    """Salt and os-release agree on what a host is."""
    grains = lab.salt("web1", "grains.item", "os_family", "osmajorrelease", "osarch").data
    assert grains == {"os_family": "RedHat", "osmajorrelease": 9, "osarch": "x86_64"}
    assert 'ID_LIKE="rhel centos fedora"' in lab.host("web1").read("/etc/os-release")
    assert not lab.host("web1").exists("/etc/debian_version")


def test_keys_are_real_and_accepted(lab: Lab) -> None:
    """The master holds the key that the host holds, and takes no other."""
    accepted = lab.salt_key("--list=all").data
    assert sorted(accepted["minions"]) == sorted(HOSTS)
    assert accepted["minions_pre"] == []
    own = lab.host("db1").read("/etc/salt/pki/minion/minion.pub")
    assert (lab.directory / "master/pki/minions/db1").read_text() == own
    assert lab.master.factory.config["open_mode"] is False


def test_host_files_arrive_by_sync(lab: Lab) -> None:
    """The door and the agent are on the host as in the checkout; nothing else is served."""
    served = [f"_modules/{path.name}" for path in (CHECKOUT / "_modules").glob("cpacman*.py")]
    listed = lab.salt_run("fileserver.file_list", "--out=json")
    assert sorted(listed.data) == sorted(served)
    for name in served:
        synced = f"/var/cache/salt/minion/extmods/modules/{Path(name).name}"
        assert lab.host("web2").read(synced) == (CHECKOUT / name).read_text(encoding="utf-8")


def test_hosts_lack_the_library(lab: Lab) -> None:
    """A host has Salt, but neither the library nor the checkout."""
    done = lab.host("web1").run([sys.executable, "-c", "import salt, cpacman.model"])
    assert done.returncode == 1
    assert "No module named 'cpacman'" in done.stderr
    assert not lab.host("web1").exists(f"{CHECKOUT}/pyproject.toml")


def test_system_python_of_a_host_has_rpm(lab: Lab) -> None:
    """The agent's Python reads the host's own database."""
    script = "import rpm; print(len(list(rpm.TransactionSet().dbMatch())))"
    done = lab.host("web1").run(["/usr/bin/python3", "-c", script])
    assert done.stdout.strip() == str(len(rpms.OLD))


def test_paths_are_the_same_for_the_master(clean_lab: Lab) -> None:
    """What a test puts into the lab's directory is where the master looks for it."""
    clean_lab.path("mirror", "note").write_text("here")
    assert clean_lab.run(["cat", str(clean_lab.path("mirror", "note"))]).stdout == "here"


def test_settings_are_reread(clean_lab: Lab) -> None:
    """A new `cpacman:` section needs no restart: the master's configuration names the file."""
    clean_lab.write_master_config({"classes": ["all"]})
    named = clean_lab.run(["sh", "-c", "grep -h -A1 '^cpacman:' /etc/salt/master"]).check().stdout
    settings = Path(named.split("config:")[1].strip()).read_text(encoding="utf-8")
    assert "classes:" in settings
    assert "state_dir:" in settings


# -- packages


def test_each_host_has_its_own_database(clean_lab: Lab) -> None:
    """What is installed on one host is on no other, and nothing of it appears outside."""
    before = outside_databases()
    clean_lab.host("web1").install_rpms(["libwebapp-1.0-1.x86_64", "webapp-1.1-1.noarch"])
    assert "webapp-1.1-1.noarch" in clean_lab.host("web1").packages()
    assert clean_lab.host("web2").packages() == tuple(sorted(rpms.OLD))
    assert clean_lab.host("web1").read("/usr/share/webapp/version") == "webapp 1.1\n"
    assert not Path("/usr/share/webapp").exists()
    assert outside_databases() == before


def outside_databases() -> list[tuple[str, bool]]:
    """The real system's rpm databases, and whether one knows a package of the lab.

    Not their times: whatever else runs on this machine may open them.
    """
    places = [Path("/var/lib/rpm"), Path("/usr/lib/sysimage/rpm"), Path.home() / ".rpmdb"]
    return [(str(place), b"libwebapp" in read_all(place)) for place in places if place.is_dir()]


def read_all(directory: Path) -> bytes:
    """The bytes of all files in a directory; those that go away meanwhile are left out."""
    found = []
    for path in sorted(directory.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.read_bytes())
    return b"".join(found)


def test_upgrade_needs_its_new_dependency(clean_lab: Lab) -> None:
    """webapp 1.1 does not go in alone."""
    with pytest.raises(LabError, match="libwebapp"):
        clean_lab.host("web1").install_rpms(["webapp-1.1-1.noarch"])


def test_newtool_replaces_oldtool(clean_lab: Lab) -> None:
    """The obsoletes works for rpm itself."""
    clean_lab.host("web1").install_rpms(["newtool-2.0-1.noarch"])
    names = clean_lab.host("web1").packages()
    assert "newtool-2.0-1.noarch" in names
    assert "oldtool-1.0-1.noarch" not in names


def test_scriptlets_obey_the_host(clean_lab: Lab) -> None:
    """One leaves its mark; one fails when a file on the host says so, before or after."""
    host = clean_lab.host("web1")
    host.install_rpms(["scripted-1.1-1.noarch"])
    assert host.read("/var/lib/scripted/post-1.1") == "2\n"
    host.write("/etc/fickle.fail-pre", "")
    with pytest.raises(LabError, match="fail-pre"):
        host.install_rpms(["fickle-1.1-1.noarch"])
    assert "fickle-1.0-1.noarch" in host.packages()
    host.remove("/etc/fickle.fail-pre")
    host.write("/etc/fickle.fail", "")
    host.install_rpms(["fickle-1.1-1.noarch"])
    assert "fickle-1.1-1.noarch" in host.packages()


def test_configuration_file_is_kept(clean_lab: Lab) -> None:
    """An edited file stays, the new one lies beside it."""
    host = clean_lab.host("web1")
    host.write("/etc/confapp.conf", "mine\n")
    host.install_rpms(["confapp-1.1-1.noarch"])
    assert host.read("/etc/confapp.conf") == "mine\n"
    assert host.read("/etc/confapp.conf.rpmnew") == "setting = 1.1\n"


# -- faults, and back


def test_reset_brings_a_host_back(clean_lab: Lab) -> None:
    """Packages, directories, a dead minion and a pulled cable are mended."""
    host = clean_lab.host("db1")
    host.install_rpms(["newtool-2.0-1.noarch", "scripted-1.1-1.noarch"])
    host.write("/var/lib/cpacman/pin", "key", mode=0o600)
    clean_lab.path("mirror", "note").write_text("here")
    host.write("/usr/share/webapp/version", "changed")
    host.run(["sh", "-c", "setsid sleep 555 >/dev/null 2>&1 &"])
    host.kill_minion()
    host.link_down()
    clean_lab.reset()
    assert "sleep 555" not in host.run(["ps", "ax"]).stdout
    assert host.read("/usr/share/webapp/version") == "webapp 1.0\n"
    assert host.packages() == tuple(sorted(rpms.OLD))
    assert not host.exists("/var/lib/cpacman")
    assert not host.exists("/var/lib/scripted/post-1.1")
    assert not clean_lab.path("mirror", "note").exists()
    assert clean_lab.salt("db1", "test.ping").data is True


def test_paused_minion_answers_after_resume(clean_lab: Lab) -> None:
    """A stopped minion is silent, not gone."""
    clean_lab.host("web1").pause()
    assert clean_lab.salt("web1", "test.ping", "--timeout=1").data is not True
    clean_lab.host("web1").resume()
    assert clean_lab.salt("web1", "test.ping").data is True


def test_cable_can_be_pulled_and_plugged(clean_lab: Lab) -> None:
    """A host without a link is silent and comes back by itself."""
    clean_lab.host("web1").link_down()
    assert clean_lab.salt("web1", "test.ping", "--timeout=1").data is not True
    clean_lab.host("web1").link_up()
    answers = lambda: clean_lab.salt("web1", "test.ping", "--timeout=2").data is True  # noqa: E731
    assert eventually(answers)


def test_master_can_be_killed_and_started(clean_lab: Lab) -> None:
    """After a kill -9 the master comes back, and the minions with it."""
    clean_lab.kill_master()
    clean_lab.start_master()
    answers = lambda: clean_lab.salt("*", "test.ping").data == dict.fromkeys(HOSTS, True)  # noqa: E731
    assert eventually(answers)


def test_rebuilt_host_is_new_with_its_old_key(clean_lab: Lab) -> None:
    """A host can lose its disk and keep its name, key and address."""
    host = clean_lab.host("web2")
    host.write("/etc/mark", "old disk")
    address = host.address
    clean_lab.rebuild_host("web2")
    assert not host.exists("/etc/mark")
    assert host.address == address
    clean_lab.sync_modules()
    assert clean_lab.salt("web2", "test.ping").data is True


def test_command_in_the_background_can_be_killed(clean_lab: Lab) -> None:
    """kill -9 reaches the command itself, not only the nsenter before it."""
    with clean_lab.start(["sleep", "300"]) as running:
        pid = running.pid
        running.kill()
        assert running.wait().returncode == -signal.SIGKILL
    assert not Path(f"/proc/{pid}").exists()


def test_run_does_not_wait_for_what_stays_behind(clean_lab: Lab) -> None:
    """A background child that keeps the output open holds nobody up."""
    started = time.monotonic()
    done = clean_lab.host("web1").run(["sh", "-c", "echo done; sleep 600 & exit 7"])
    assert (done.returncode, done.stdout) == (7, "done\n")
    assert time.monotonic() - started < 120


# -- nothing is left


def test_killed_owner_leaves_a_directory_only(lab_base: Path) -> None:
    """kill -9 of whoever started the lab ends all of it; the next `down` removes the rest."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        name, *pids = runner.stdout.readline().split()
        assert traces(lab_base)
        runner.kill()
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert eventually(lambda: not is_locked(lab_base / name))
    assert traces(lab_base) == []
    assert run("status").stdout.startswith(f"{name}: stale")
    assert f"{name}: removed what was left" in run("down").stdout
    assert list(lab_base.iterdir()) == []


def test_down_does_not_guess(lab_base: Path) -> None:
    """Without a name `down` ends the default lab, never one that happens to be the only one."""
    with Lab([], packages=[], name="tests") as only:
        assert run("down").stdout == "lab: is not up\n"
        assert only.run(["true"]).returncode == 0


def test_interrupted_up_leaves_nothing(lab_base: Path) -> None:
    """Ctrl-C while it starts: exit 130, no process, no mount, no directory."""
    with subprocess.Popen(
        command("up", "--hosts", "2"),
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has it ignored, and so would the lab.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as up:
        # As early as can be: on a busy machine the lab may be up before the signal arrives.
        assert eventually(lambda: bool(read_state(lab_base / "lab").get("hub")))
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 130
    assert list(lab_base.iterdir()) == []
    assert traces(lab_base) == []


def test_up_that_died_takes_its_owner_along(lab_base: Path) -> None:
    """kill -9 of `up` before the lab is up: the owner notices and ends."""
    with subprocess.Popen(command("up", "--hosts", "1"), cwd=CHECKOUT) as up:
        assert eventually(lambda: bool(read_state(lab_base / "lab").get("hub")))
        up.kill()
    assert eventually(lambda: list(lab_base.iterdir()) == [])
    assert traces(lab_base) == []


def test_failed_start_leaves_nothing(lab_base: Path) -> None:
    """A lab that cannot come up says why, in one line, and is gone."""
    with pytest.raises(LabError, match="no such package"), Lab(["web1"], packages=["nothing-1-1"]):
        pass
    assert list(lab_base.iterdir()) == []
    assert traces(lab_base) == []


def test_command_line(lab_base: Path) -> None:
    """up, status, shell, run, a second up, down: what a person does."""
    assert run("status").returncode == 1
    up = run("up", "--hosts", "1", "--ssh-hosts", "1")
    assert up.returncode == 0, up.stderr
    assert "web1" in up.stdout
    status = run("status")
    assert status.returncode == 0
    assert "ssh1         10.203.1.2" in status.stdout
    assert "webapp-1.0-1.noarch" in run("shell", "web1", "--", "rpm", "-qa").stdout
    assert run("shell", "web1", "--", "sh", "-c", "exit 5").returncode == 5
    assert "there are: web1 ssh1" in run("shell", "nope").stderr
    assert run("run", "--", "salt-run", "manage.up").stdout == "- web1\n"
    assert run("run", "--", "pwd").stdout == f"{CHECKOUT}\n"
    hostname = run("run", "--", "salt-ssh", "-r", "--out=json", "ssh1", "hostname")
    assert json.loads(hostname.stdout)["ssh1"]["stdout"].strip() == "ssh1"
    assert "is up already" in run("up").stderr
    down = run("down")
    assert (down.returncode, down.stdout) == (0, "lab: down\n")
    assert list(lab_base.iterdir()) == []
    assert traces(lab_base) == []


def test_two_labs_side_by_side(lab: Lab, lab_base: Path) -> None:
    """Same names, same addresses, different hosts."""
    with Lab(["web1"], packages=["lab-base-9-1.noarch"]) as other:
        assert other.host("web1").address == lab.host("web1").address
        assert other.salt("*", "test.ping").data == {"web1": True}
        assert other.host("web1").packages() == ("lab-base-9-1.noarch",)
        assert lab.host("web1").packages() == tuple(sorted(rpms.OLD))
        assert has_owner(lab_base / other.name)
    assert lab.salt("*", "test.ping").data == dict.fromkeys(HOSTS, True)


def test_ssh_host_and_the_real_home(lab_base: Path) -> None:
    """salt-ssh reaches a host whose key it checks, and root's own ~/.ssh is as it was."""
    home = Path("~root/.ssh").expanduser()
    before = sorted(home.iterdir()) if home.exists() else None
    with Lab([], ssh_hosts=["old1"]) as lab:
        found = lab.salt_ssh("old1", "--raw", "cat /etc/hostname").data
        assert found["stdout"].strip() == "old1"
        lab.master.known_hosts.write_text("")
        refused = lab.salt_ssh("old1", "--raw", "cat /etc/hostname").data
        assert refused["retcode"] != 0
    assert (sorted(home.iterdir()) if home.exists() else None) == before
