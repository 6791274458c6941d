"""The transaction on a real rpm database: what is done, and everything that must not be."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.agent import agenthost

ENGINES = [(), ("--no-bindings",)]


def check_refused(host, path, code, before, *options):
    """Apply; demand a refusal with this code, and that nothing changed."""
    report = host.apply(path, *options)
    assert (report["outcome"], report["code"]) == ("refused", code), report
    assert host.state() == before
    return report


@pytest.mark.parametrize("options", ENGINES)
def test_upgrades_and_installs(host, options):
    """Upgrades and a new package are one transaction, and the report says what is installed."""
    host.install("base-1", "app-1", "lib-1")
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"),
        host.action("upgrade", "app-2", "app-1"),
        host.action("upgrade", "lib-2", "lib-1"),
        host.action("install", "loud-1"),
        after=["base-2", "app-2", "lib-2", "loud-1"],
    )
    report = host.apply(path, *options)
    assert (report["state"], report["outcome"]) == ("done", "applied"), report
    assert host.installed() == [
        "app-2-1.noarch", "base-2-1.noarch", "lib-3:2-1.noarch", "loud-1-1.noarch"]  # fmt: skip
    assert {key: report[key] for key in ("cookie", "packages")} == host.state()
    assert report["packages"] == json.loads((path / "manifest.json").read_text())["after"]
    lines = (path / "journal.jsonl").read_text().splitlines()
    states = [json.loads(line).get("state") for line in lines]
    assert [s for s in states if s] == ["staged", "checking", "running", "verifying", "done"]


def test_scriptlets_write_to_the_log(host):
    """What a scriptlet prints is in the log, and not in the answer."""
    path = host.stage(host.action("install", "loud-1"), after=["loud-1"])
    report = host.apply(path)
    assert report["outcome"] == "applied"
    assert "a scriptlet speaks" in (path / "log").read_text()


def test_mixes_all_kinds_in_one_transaction(host):
    """Upgrade, obsolete, remove, downgrade and a parallel install go together."""
    host.install("base-1", "old-1", "lib-2", "needy-1", "kern-1")
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"),
        host.action("obsolete", "new-2", "old-1"),
        host.action("remove", "needy-1"),
        host.action("downgrade", "lib-1", "lib-2"),
        host.action("install", "kern-2"),
        after=["base-2", "new-2", "lib-1", "kern-1", "kern-2"],
    )
    assert host.apply(path)["outcome"] == "applied"
    assert len(host.installed()) == 5


@pytest.mark.parametrize("options", ENGINES)
@pytest.mark.parametrize(
    ("installed", "action", "after"),
    [
        (["old-1"], ("obsolete", "new-2", "old-1"), ["new-2"]),
        (["swap-1"], ("upgrade", "swap-2", "swap-1"), ["swap-2"]),
        (["lib-2"], ("downgrade", "lib-1", "lib-2"), ["lib-1"]),
        (["base-1"], ("reinstall", "base-1", None), ["base-1"]),
        (["kern-1"], ("install", "kern-2", None), ["kern-1", "kern-2"]),
        (["base-1", "lib-1"], ("remove", "lib-1", None), ["base-1"]),
    ],
)
def test_each_kind_alone(host, options, installed, action, after):
    """Each kind of action works by itself, with the bindings and with the command."""
    host.install(*installed)
    path = host.stage(host.action(*action), after=after)
    report = host.apply(path, *options)
    assert report["outcome"] == "applied", report


def test_command_does_not_split_a_plan(host):
    """Without bindings a plan of removals and upgrades is refused, not done in two."""
    host.install("base-1", "lib-1")
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"),
        host.action("remove", "lib-1"),
        after=["base-2"],
    )
    check_refused(host, path, "needs-bindings", host.state(), "--no-bindings")


@pytest.mark.parametrize("options", ENGINES)
def test_refuses_an_erase_that_is_not_in_the_plan(host, options):
    """A package whose Obsoletes would erase something unplanned is refused."""
    host.install("old-1")
    path = host.stage(host.action("install", "new-2"), after=["new-2"])
    report = check_refused(host, path, "plan", host.state(), *options)
    assert "also erase old-1-1.noarch" in report["detail"]


@pytest.mark.parametrize("options", ENGINES)
def test_refuses_when_a_planned_erase_would_not_happen(host, options):
    """A plan that counts on an obsolete rpm does not know is refused."""
    host.install("base-1", "lib-1")
    path = host.stage(host.action("obsolete", "base-2", "base-1"),
                      host.action("obsolete", "base-2", "lib-1"), after=["base-2"])  # fmt: skip
    report = check_refused(host, path, "plan", host.state(), *options)
    assert "would not erase lib-3:1-1.noarch" in report["detail"]


@pytest.mark.parametrize("options", ENGINES)
def test_refuses_what_rpm_refuses(host, options):
    """A missing dependency is `check`, a file conflict is `test`; nothing is touched."""
    host.install("base-1")
    path = host.stage(host.action("install", "needy-1"), after=["base-1", "needy-1"])
    report = check_refused(host, path, "check", host.state(), *options)
    assert "what-nobody-has" in report["detail"]
    path = host.stage(host.action("install", "clash-1"), after=["base-1", "clash-1"])
    report = check_refused(host, path, "test", host.state(), *options)
    assert "/usr/bin/base" in report["detail"]


def test_refuses_when_the_database_changed(host):
    """Anything installed since the plan refuses the whole transaction."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    host.install("lib-1")
    check_refused(host, path, "changed", host.state())


def test_already_there_is_unchanged(host):
    """A host that is already where the plan wants it is unchanged, whatever its cookie."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    host.rpm("-e", "base")
    host.install("base-2")
    report = host.apply(path)
    assert (report["state"], report["outcome"]) == ("done", "unchanged")


def test_an_expired_manifest_is_refused_at_the_last_moment(host):
    """A job that comes late does nothing, even if everything was staged in time."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    manifest = json.loads((path / "manifest.json").read_text())
    late = json.dumps({**manifest, "expires": int(time.time()) - 1})
    (path / "manifest.json").write_text(late)
    report = check_refused(host, path, "expired", host.state())
    assert "is the clock right?" in report["detail"]


def test_protected_names_stay(host):
    """A protected name is neither removed nor obsoleted, but may be upgraded."""
    host.install("base-1", "old-1")
    before = host.state()
    path = host.stage(host.action("remove", "old-1"), after=["base-1"], protected=["old"])
    check_refused(host, path, "protected", before)
    path = host.stage(
        host.action("obsolete", "new-2", "old-1"), after=["base-1", "new-2"], protected=["old"]
    )
    check_refused(host, path, "protected", before)
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"), after=["base-2", "old-1"], protected=["base"]
    )
    assert host.apply(path)["outcome"] == "applied"


@pytest.mark.parametrize("damage", ["flip", "truncate", "gone"])
def test_a_damaged_file_is_never_installed(host, damage):
    """A byte that changed after staging refuses the transaction and drops the file."""
    host.install("base-1")
    action = host.action("upgrade", "base-2", "base-1")
    path = host.stage(action, after=["base-2"])
    cached = Path(host.settings["cache_dir"]) / action["sha256"]
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    if damage == "gone":
        cached.unlink()
    else:
        cached.write_bytes(data if damage == "flip" else data[:-1])
    check_refused(host, path, "file", host.state())
    assert not cached.exists()


@pytest.mark.parametrize("options", ENGINES)
def test_a_file_must_be_the_package_it_is_planned_as(host, options):
    """A right hash of the wrong package is refused by its header."""
    host.install("base-1")
    wrong = host.action("install", "loud-1")
    action = {**host.action("upgrade", "base-2", "base-1")}
    action.update(sha256=wrong["sha256"], size=wrong["size"])
    path = host.stage(action, after=["base-2"])
    check_refused(host, path, "package", host.state(), *options)


@pytest.mark.parametrize("options", ENGINES)
def test_a_file_that_is_no_package_is_refused(host, options, tmp_path):
    """rpm would read other files as lists of addresses to fetch from; it never gets to."""
    host.install("base-1")
    bait = tmp_path / "bait"
    bait.write_text("http://127.0.0.1:9/evil.rpm\n" * 20)
    host.rpms = {**host.rpms, "loud-1": bait}
    path = host.stage(host.action("install", "loud-1"), after=["base-1", "loud-1"])
    check_refused(host, path, "package", host.state(), *options)


@pytest.mark.parametrize("options", ENGINES)
def test_a_failed_post_is_a_failure_that_says_so(host, options):
    """Packages as planned but a scriptlet failed: failed, code scriptlet, and it is named."""
    host.install("post-1")
    path = host.stage(host.action("upgrade", "post-2", "post-1"), after=["post-2"])
    report = host.apply(path, *options)
    assert (report["state"], report["outcome"], report["code"]) == (
        "failed", "failed", "scriptlet")  # fmt: skip
    assert "post" in report["detail"]
    assert host.installed() == ["post-2-1.noarch"]


@pytest.mark.parametrize("options", ENGINES)
def test_a_failed_pre_leaves_the_old_package(host, options):
    """A %pre that fails skips its package: nothing changed when it was alone."""
    host.install("pre-1", "lib-1")
    before = host.state()
    path = host.stage(host.action("upgrade", "pre-2", "pre-1"), after=["pre-2", "lib-1"])
    check_refused(host, path, "run", before, *options)
    path = host.stage(
        host.action("upgrade", "pre-2", "pre-1"),
        host.action("upgrade", "lib-2", "lib-1"),
        after=["pre-2", "lib-2"],
    )
    report = host.apply(path, *options)
    assert (report["outcome"], report["code"]) == ("failed", "different")
    assert "not installed: pre-2-1.noarch" in report["detail"]


def test_applying_again_answers_the_old_report(host):
    """A second start of a finished session changes nothing and says the same."""
    path = host.stage(host.action("install", "base-1"), after=["base-1"])
    first = host.apply(path)
    journal = (path / "journal.jsonl").read_text()
    host.rpm("-e", "base")
    assert host.apply(path) == first
    assert (path / "journal.jsonl").read_text() == journal
    assert host.installed() == []


def start(path, *options):
    """Start applying in the background, in a session of its own."""
    command = [agenthost.SYSTEM_PYTHON, str(agenthost.AGENT), "apply", str(path), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, env=agenthost.ENVIRONMENT, start_new_session=True
    )


def test_one_transaction_at_a_time(host):
    """While one session runs, another is refused as busy and a second start of it is not."""
    path = host.stage(host.action("install", "slow-1"), after=["slow-1"])
    other = host.stage(host.action("install", "base-1"), after=["base-1"])
    host.hold()
    process = start(path)
    host.wait_for_scriptlet()
    assert host.apply(other)["code"] == "busy"
    assert host.agent.running_session(host.settings) == path.name
    assert host.apply(path)["state"] == "running"
    host.let_go()
    assert json.loads(process.communicate()[0])["outcome"] == "applied"


def test_a_kill_in_the_middle_is_found_out(host):
    """After kill -9 the status says where it was cut off, and applying again ends it."""
    path = host.stage(host.action("install", "slow-1"), after=["slow-1"])
    host.hold()
    process = start(path)
    host.wait_for_scriptlet()
    os.killpg(process.pid, 9)
    process.wait()
    host.let_go()
    status = host.cut_off(path)
    assert (status["state"], status["outcome"], status["code"]) == (
        "failed", "failed", "interrupted")  # fmt: skip
    assert status["detail"] == "cut off while running %post of slow-1-1.noarch"
    report = host.apply(path)
    assert (report["outcome"], report["code"]) == ("applied", ""), report
    assert "the whole of it ran again" in report["detail"]
    assert host.installed() == ["slow-1-1.noarch"]


def test_a_kill_before_anything_changed_can_be_repeated(host):
    """A session that died while checking, or running without effect, is simply run again."""
    path = host.stage(host.action("install", "base-1"), after=["base-1"])
    host.agent.append_journal(str(path), {"state": "checking"})
    assert host.agent.session_status(str(path))["outcome"] == "refused"
    host.agent.append_journal(str(path), {"state": "running"})
    assert host.agent.session_status(str(path))["outcome"] == "failed"
    assert host.apply(path)["outcome"] == "applied"


def test_a_kill_while_verifying_is_judged_by_what_ran(host):
    """A death between the run and the report loses neither its result nor a failed scriptlet."""
    path = host.stage(host.action("install", "base-1"), after=["base-1"])
    host.install("base-1")
    host.agent.append_journal(str(path), {"state": "running"})
    host.agent.append_journal(
        str(path), {"state": "verifying", "problems": None, "scriptlets": ["%post of base failed"]}
    )
    report = host.apply(path)
    assert (report["outcome"], report["code"]) == ("failed", "scriptlet")


def test_waits_for_rpm_a_bounded_time_and_names_the_holder(host):
    """Somebody else's rpm lock is waited for, then named."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    with (host.root / "var/lib/rpm/.rpm.lock").open("r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        report = check_refused(host, path, "lock", host.state())
    assert f"(pid {os.getpid()})" in report["detail"]


def test_signatures_when_they_are_demanded(host):
    """An unsigned package is refused when the manifest demands signatures, else noted."""
    before = host.state()
    path = host.stage(host.action("install", "base-1"), after=["base-1"], signatures="require")
    assert "not signed" in check_refused(host, path, "signature", before)["detail"]
    path = host.stage(host.action("install", "base-1"), after=["base-1"], signatures="warn")
    assert host.apply(path)["outcome"] == "applied"
    assert '"warning":"signature"' in (path / "journal.jsonl").read_text()


def test_survives_its_starter(host):
    """Detached, it answers at once, and a kill of the starter's whole group comes too late."""
    path = host.stage(host.action("install", "slow-1"), after=["slow-1"])
    host.hold()
    process = start(path, "--detach")
    assert process.wait() == 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    host.wait_for_scriptlet()
    assert not (path / "report.json").exists(), "it answered before the end"
    host.let_go()
    agenthost.wait_until((path / "report.json").exists)
    assert json.loads((path / "report.json").read_text())["outcome"] == "applied"


def test_a_database_that_breaks_is_refused(host):
    """Garbage in the database is a refusal with that name, not an empty host."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    for name in ("rpmdb.sqlite-wal", "rpmdb.sqlite-shm"):
        (host.root / "var/lib/rpm" / name).unlink(missing_ok=True)
    (host.root / "var/lib/rpm/rpmdb.sqlite").write_bytes(b"garbage" * 1000)
    report = host.apply(path)
    assert (report["outcome"], report["code"]) == ("refused", "database")


@pytest.mark.parametrize("python", agenthost.old_and_new_pythons(), ids=lambda path: path.parts[-3])
def test_every_python_applies_by_the_command(host, python):
    """Without bindings every supported Python applies a plan, to the same report."""
    host.install("base-1", "lib-1")
    path = host.stage(
        host.action("upgrade", "base-2", "base-1"),
        host.action("upgrade", "lib-2", "lib-1"),
        after=["base-2", "lib-2"],
    )
    report = host.apply(path, python=python)
    assert report["outcome"] == "applied", report
    assert {key: report[key] for key in ("cookie", "packages")} == host.state()


def test_a_signed_package_passes_with_its_key_only(host):
    """With signatures demanded, a signed package needs its key in the host's own keyring."""
    folder = agenthost.REPO.parent / "shared" / "data" / "rpms" / "centos-release"
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{folder} is not here")
    host.rpms = {**host.rpms, "loud-1": folder / "epel-release-7-5.noarch.rpm"}
    action = host.action("install", "loud-1")
    action.update(name="epel-release", version="7", release="5", nevra="epel-release-7-5.noarch")
    path = host.stage(action, after=["base-1"], signatures="require")
    report = check_refused(host, path, "signature", host.state())
    assert "NOT OK" in report["detail"]
    host.rpm("--import", folder / "RPM-GPG-KEY-CentOS-7")
    path = host.stage(action, after=["base-1"], signatures="require")
    report = check_refused(host, path, "check", host.state())
    assert "redhat-release" in report["detail"]


def test_a_passing_signal_does_not_end_a_transaction(host):
    """SIGTERM and SIGHUP, as from a service that stops, are not the end of it."""
    path = host.stage(host.action("install", "slow-1"), after=["slow-1"])
    host.hold()
    process = start(path)
    host.wait_for_scriptlet()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None
    host.let_go()
    assert json.loads(process.communicate()[0])["outcome"] == "applied"
