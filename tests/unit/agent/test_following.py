"""What follows a transaction on a host: services restarted, and the reboot, by signed orders."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.agent import agenthost

PROGRAM = agenthost.AGENT.read_text(encoding="utf-8")


def python() -> str:
    """The Python that the agent's process is started with."""
    return agenthost.SYSTEM_PYTHON


@pytest.fixture
def path(host) -> Path:
    """A session that was applied, its directory."""
    staged = host.stage(host.action("install", "base-1"), after=["base-1"])
    assert host.apply(staged)["outcome"] == "applied"
    return staged


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    """A service that runs a program which was replaced, with an init script; its name."""
    name = f"cpd{os.getpid()}"
    program, script = Path("/usr/local/bin") / name, tmp_path / "init.d" / name
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    script.parent.mkdir()
    script.write_text("")
    process = subprocess.Popen([program, "600"])
    agenthost.wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == name)
    program.unlink()
    yield name
    process.kill()
    process.wait()


@pytest.fixture
def tools(host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for programs that the agent finds first, and no systemd."""
    folder = tmp_path / "sbin"
    folder.mkdir()
    monkeypatch.setattr(host.agent, "SYSTEM_PATH", f"{folder}:{host.agent.SYSTEM_PATH}")
    monkeypatch.setattr(host.agent, "SYSTEMD", "/nowhere")
    monkeypatch.setattr(host.agent, "INIT_SCRIPTS", str(tmp_path / "init.d"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def put(folder: Path, name: str, text: str) -> None:
    """Write a program."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def order(kind: str, session: str, **more: object) -> str:
    """An order of this minute for the host of these tests."""
    body = {"kind": kind, "session": session, "host": "web1", "expires": time.time() + 600, **more}
    return json.dumps(body)


def restart(session: str, *names: str, number: str = "1", timeout: int = 60) -> str:
    """An order to restart services."""
    return order(
        "restart", session, number=number, names=list(names), timeout=timeout, within=300
    )  # fmt: skip


def has_line(path: Path) -> bool:
    """Whether a file is there with a whole line in it."""
    return path.exists() and path.read_text().endswith("\n")


def is_done(path: Path, number: str) -> bool:
    """Whether the services of an order are restarted."""
    found = said(path, "restart.json")
    return (found["number"], found["state"]) == (number, "done")


def end_sleepers(pids: Path) -> None:
    """Kill the processes whose ids are in a file, each of which must be there still."""
    for pid in pids.read_text().split():
        os.kill(int(pid), 9)


def said(path: Path, name: str) -> dict:
    """What a process left behind."""
    return json.loads((path / name).read_text()) if (path / name).exists() else {}


def test_services_that_need_it_are_restarted(host, path, tools, daemon, tmp_path) -> None:
    """Once for an order, however often it comes; what they say does not hold anybody up."""
    put(tools, "service", f'echo "$@" >>{tmp_path}/calls; sleep 600 & echo $! >>{tmp_path}/slept;'
        " echo fine")  # fmt: skip
    agent = host.agent
    agent.write_atomically(str(path / "restart.order"), restart(path.name, "*"))
    agent.run_restart(str(path))
    found = said(path, "restart.json")
    end_sleepers(tmp_path / "slept")
    assert {"unit": daemon, "ok": True, "output": "fine"} in found["units"]
    assert found["state"] == "done" and found["number"] == "1"
    assert any(line.startswith(daemon) for line in found["left"]), "it was not really restarted"
    agent.run_restart(str(path))
    done = agent.order_restart(host.settings, path.name, restart(path.name, "*"), PROGRAM, python)
    assert done == {"ordered": True} and not (path / "agent.py").exists()
    assert (tmp_path / "calls").read_text().count(daemon) == 1
    again = restart(path.name, daemon, number="2")
    agent.order_restart(host.settings, path.name, again, PROGRAM, python)
    agenthost.wait_until(lambda: is_done(path, "2"))


def test_only_what_is_named_is_restarted(host, path, tools, daemon, tmp_path) -> None:
    """A name or a glob, with or without its ending; and never what must be left alone."""
    put(tools, "service", f'echo "$@" >>{tmp_path}/calls')
    agent = host.agent
    for names in (["other"], [daemon], [f"{daemon}.serv*"], [f"{daemon[:3]}*"]):
        assert agent.is_meant(daemon, names) == (names != ["other"])
    for name in ("dbus-broker", "salt-minion", "gdm", "systemd-logind", "sshd@x"):
        (tmp_path / "init.d" / name).write_text("")
    assert not any(
        agent.is_meant(name, ["*"])
        for name in ("dbus-broker", "salt-minion", "gdm", "systemd-logind", "no-script")
    )
    agent.write_atomically(str(path / "restart.order"), restart(path.name, "other"))
    agent.run_restart(str(path))
    assert said(path, "restart.json")["units"] == [] and not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("script", "words"), [("echo no >&2; exit 3", "no"), ("sleep 20", "not done in 1 s")]
)
def test_a_service_that_does_not_come_back_is_told(host, path, tools, script, words) -> None:
    """It fails, or it takes too long: both are no."""
    put(tools, "service", script)
    found = host.agent.restart_service(str(path), "httpd", 1)
    assert found == {"unit": "httpd", "ok": False, "output": words}


def test_systemd_is_asked_whether_it_failed(host, path, tools, monkeypatch, tmp_path) -> None:
    """A service that was started and fell over at once is no success."""
    monkeypatch.setattr(host.agent, "SYSTEMD", str(tmp_path))
    put(tools, "systemctl", "[ $1 = try-restart ] || [ $3 = bad.service ]")
    assert host.agent.restart_service(str(path), "good.service", 5)["ok"]
    bad = host.agent.restart_service(str(path), "bad.service", 5)
    assert (bad["ok"], bad["output"]) == (False, "it was started again, and failed")
    assert host.agent.is_meant("good.service", ["*"]) and not host.agent.is_meant("bash", ["*"])
    assert host.agent.is_meant("good.service", ["good"])
    assert not host.agent.is_meant("good.service", ["goo"])


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/httpd.service\n", "httpd.service"),
        ("12:cpu:/\n1:name=systemd:/system.slice/sshd.service\n", "sshd.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n", "prog"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "prog"),
    ],
)
def test_services_of_people_are_not_the_system_s(agent, tmp_path, cgroup, unit) -> None:
    """What runs below a login is named by its program."""
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "comm").write_text("prog\n")
    assert agent.unit_of(str(tmp_path)) == unit


def test_a_killed_restart_keeps_what_it_did(host, path, tools, daemon, tmp_path) -> None:
    """The next process goes on; what was restarted stays in the report."""
    put(tools, "service", "exit 0")
    agent = host.agent
    before = {"number": "1", "state": "running", "left": [],
              "units": [{"unit": "first", "ok": True, "output": ""}]}  # fmt: skip
    agent.write_atomically(str(path / "restart.json"), json.dumps(before))
    agent.write_atomically(str(path / "restart.order"), restart(path.name, daemon))
    agent.run_restart(str(path))
    found = said(path, "restart.json")
    assert [one["unit"] for one in found["units"]] == ["first", daemon]


def test_what_did_not_come_back_is_looked_at_again(host, path, tools, tmp_path) -> None:
    """It uses no file any more, so only its state tells whether somebody mended it."""
    agent = host.agent
    for number, code, units in (("2", 3, ["httpd"]), ("3", 0, [])):
        put(tools, "service", f"exit {code}")
        before = {"number": "1", "state": "done", "left": [],
                  "units": [{"unit": "httpd", "ok": False, "output": "no"}]}  # fmt: skip
        agent.write_atomically(str(path / "restart.json"), json.dumps(before))
        agent.write_atomically(
            str(path / "restart.order"), restart(path.name, "none", number=number)
        )
        agent.run_restart(str(path))
        found = said(path, "restart.json")
        assert (found["number"], [one["unit"] for one in found["units"]]) == (number, units)


@pytest.mark.parametrize("verb", ["apply", "restart"])
def test_systemd_starts_each_verb_as_a_service(host, path, tools, monkeypatch, tmp_path, verb):
    """A unit of its own for each, which no stop of the minion ends."""
    monkeypatch.setattr(host.agent, "SYSTEMD", str(tmp_path))
    put(tools, "systemd-run", f'echo "$@" >{tmp_path}/run')
    put(tools, "systemctl", "exit 0")
    host.agent.start_program(verb, str(path), PROGRAM, python)
    words = (tmp_path / "run").read_text().split()
    suffix = "" if verb == "apply" else f"-{verb}"
    assert f"--unit=cpacman-{path.name}{suffix}" in words
    assert words[-2:] == [verb, str(path)] and "--detach" not in words


@pytest.mark.parametrize("verb", ["order_restart", "order_reboot"])
@pytest.mark.parametrize(
    "wrong",
    [{"kind": "order"}, {"session": "r-2"}, {"host": "web2"}, {"expires": 1}, {"number": 7}],
)
def test_orders_for_others_are_refused(host, path, verb, wrong) -> None:
    """Another kind, session or host, another time, or no sound order at all."""
    body = {"number": "1", "names": ["*"], "timeout": 5, "within": 5}
    body["boot_id"] = 7 if "number" in wrong else host.agent.boot_id()
    host.settings["reboot"] = ["/bin/false"]
    kind = verb.partition("_")[2]
    text = json.dumps({**json.loads(order(kind, path.name, **body)), **wrong})
    with pytest.raises(host.agent.Refused) as no:
        getattr(host.agent, verb)(host.settings, path.name, text, PROGRAM, python)
    assert no.value.code == ("expired" if "expires" in wrong else "order")
    assert not (path / "reboot.json").exists() and not (path / "restart.order").exists()


@pytest.mark.parametrize("verb", ["order_restart", "order_reboot"])
def test_nothing_follows_what_was_not_applied(host, verb) -> None:
    """A session that was staged only is followed by nothing."""
    staged = host.stage(host.action("install", "base-1"), after=["base-1"])
    more = {"number": "1", "names": [], "timeout": 5, "within": 5, "boot_id": host.agent.boot_id()}
    text = order(verb.partition("_")[2], staged.name, **more)
    with pytest.raises(host.agent.Refused) as no:
        getattr(host.agent, verb)(host.settings, staged.name, text, PROGRAM, python)
    assert no.value.code == "order"


def test_a_tree_is_never_rebooted(host, path) -> None:
    """Whoever works below a root has no host to reboot."""
    text = order("reboot", path.name, boot_id=host.agent.boot_id())
    with pytest.raises(host.agent.Refused, match="tree"):
        host.agent.order_reboot(host.settings, path.name, text, PROGRAM, python)


def reboot(
    host, path, command: list[str], program: str = PROGRAM, number: str = "1"
) -> dict:  # fmt: skip
    """Order a reboot that is a command of ours."""
    settings = json.loads((path / "session.json").read_text())
    host.settings["reboot"] = settings["reboot"] = command
    text = order("reboot", path.name, boot_id=host.agent.boot_id(), number=number)
    return host.agent.order_reboot(host.settings, path.name, text, program, python)


def test_the_reboot_comes_after_the_answer(host, path, tools, tmp_path) -> None:
    """From a process of its own, once, holding the lock of transactions until the end."""
    command = ["/bin/sh", "-c", f"echo $PPID >>{tmp_path}/reboots"]
    # A busy machine may take its time until we look.
    pause = f"REBOOT_PAUSE = {host.agent.REBOOT_PAUSE}"
    patient = PROGRAM.replace(pause, "REBOOT_PAUSE = 4.0")
    assert patient != PROGRAM and reboot(host, path, command, patient) == {"ordered": True}
    assert not (tmp_path / "reboots").exists(), "the answer is given first"
    agenthost.wait_until(lambda: has_line(tmp_path / "reboots"))
    assert reboot(host, path, command) == {"ordered": True}
    worker = int((tmp_path / "reboots").read_text())
    try:
        assert host.agent.running_session(host.settings), "nothing else may start"
        time.sleep(1.2)
        assert (tmp_path / "reboots").read_text().count("\n") == 1
    finally:
        os.kill(worker, 9)


def test_another_boot_is_the_answer(host, path) -> None:
    """An order for a boot that is over is done already."""
    host.settings["reboot"] = ["/bin/false"]
    text = order("reboot", path.name, boot_id="the one before")
    found = host.agent.order_reboot(host.settings, path.name, text, PROGRAM, python)
    assert found == {"rebooted": True} and not (path / "reboot.json").exists()


def test_a_reboot_that_does_not_come_is_told(host, path, tools) -> None:
    """What the command said stands in the report."""
    reboot(host, path, ["/bin/sh", "-c", "echo inhibited >&2; exit 1"])
    agenthost.wait_until(lambda: said(path, "reboot.json")["error"])
    report = host.agent.report_of(host.settings, path.name, "n", dict)
    assert report["reboot"]["error"] == "inhibited"
    assert report["reboot"]["boot_id"] == report["boot_id"] == report["ended_boot_id"]


def test_an_order_that_was_given_up_reboots_nobody_later(host, path, tools, tmp_path) -> None:
    """A copy of it that comes late changes nothing; a new order is tried."""
    reboot(host, path, ["/bin/sh", "-c", "echo inhibited >&2; exit 1"])
    agenthost.wait_until(lambda: said(path, "reboot.json")["error"])
    command = ["/bin/sh", "-c", f"echo again >>{tmp_path}/reboots; exit 1"]
    settings = json.loads((path / "session.json").read_text())
    (path / "session.json").write_text(json.dumps({**settings, "reboot": command}))
    assert reboot(host, path, command) == {"ordered": True}
    assert said(path, "reboot.json")["error"] == "inhibited" and not is_at_work(host, path)
    assert reboot(host, path, command, number="2") == {"ordered": True}
    agenthost.wait_until(lambda: has_line(tmp_path / "reboots"))
    agenthost.wait_until(lambda: said(path, "reboot.json")["error"])
    assert said(path, "reboot.json")["number"] == "2"


def is_at_work(host, path: Path) -> bool:
    """Whether a process carries a reboot out."""
    return host.agent.is_held(str(path / "reboot.lock"))


def test_the_agent_names_what_only_the_next_boot_uses(agent) -> None:
    """Files of the kernel, its modules, its firmware, and process 1."""
    contents = {
        "kernel-core-2": [("/lib/modules/2/vmlinuz", 1, 0)], "grub-2": [("/boot/grub/x", 1, 0)],
        "kmod-2": [("/usr/lib/modules/2/extra/x.ko", 1, 0)], "app-2": [("/usr/bin/app", 1, 0)],
        "systemd-2": [("/usr/lib/systemd/systemd", 1, 0)],
        "units-2": [("/usr/lib/systemd/system/x.service", 1, 0)],
    }  # fmt: skip
    assert agent.boots_with(contents) == ["grub-2", "kernel-core-2", "kmod-2", "systemd-2"]


def test_an_advisory_may_suggest_a_reboot(host) -> None:
    """Only the master knows; the host's findings have it where nothing else says so."""
    path = host.stage(host.action("install", "base-1"), after=["base-1"], reboot=True)
    assert host.apply(path)["findings"]["reboot"] == ["an advisory suggests it"]


@pytest.mark.parametrize("other", agenthost.old_and_new_pythons(), ids=str)
def test_every_python_restarts(host, path, other: Path) -> None:
    """The programs run on all Pythons that hosts have."""
    host.agent.write_atomically(str(path / "restart.order"), restart(path.name, "nothing-at-all"))
    agenthost.run(other, agenthost.AGENT, "restart", path)
    assert said(path, "restart.json")["state"] == "done"
