"""What is checked before a transaction and looked for after it, on a real rpm database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.agent import agenthost

ENGINES = [(), ("--no-bindings",)]


@pytest.mark.parametrize("options", ENGINES)
def test_a_failed_pre_and_what_it_breaks(host, options):
    """rpm leaves out the package and installs what needs it: named, and never as good."""
    host.install("pre-1")
    path = host.stage(
        host.action("upgrade", "pre-2", "pre-1"), host.action("install", "onpre-1"),
        after=["pre-2", "onpre-1"],
    )  # fmt: skip
    report = host.apply(path, *options)
    assert (report["outcome"], report["code"]) == ("failed", "different")
    assert host.installed() == ["onpre-1-1.noarch", "pre-1-1.noarch"]
    assert "broken: pre >= 2 is needed by onpre-1-1.noarch" in report["detail"]
    assert report["findings"]["broken"] == ["pre >= 2 is needed by onpre-1-1.noarch"]


def test_a_failed_scriptlet_with_its_output(host):
    """What a failed scriptlet said stands beside its name."""
    path = host.stage(host.action("install", "angry-1"), after=["angry-1"])
    report = host.apply(path)
    assert report["code"] == "scriptlet"
    (line,) = report["findings"]["scriptlets"]
    assert line.startswith("%post of angry-1-1.noarch failed: ") and "boom" in line


@pytest.mark.parametrize("options", ENGINES)
def test_scriptlets_are_announced(host, options):
    """Which scriptlets will run is in the journal before the first one does."""
    host.install("post-1")
    path = host.stage(
        host.action("install", "loud-1"), host.action("install", "base-1"),
        after=["loud-1", "base-1", "post-1"],
    )  # fmt: skip
    report = host.apply(path, *options)
    assert report["findings"]["will_run"] == ["loud-1-1.noarch: %post"]
    text = (path / "journal.jsonl").read_text()
    assert text.index("scriptlets_to_run") < text.index('"running"')


@pytest.mark.parametrize("options", ENGINES)
def test_changed_configuration_is_kept_and_told(host, options):
    """A file that somebody edited is put aside by rpm; where is in the report."""
    host.install("conf-1")
    (host.root / "usr/share/conf-d/set").write_text("mine\n")
    path = host.stage(host.action("upgrade", "conf-2", "conf-1"), after=["conf-2"])
    report = host.apply(path, *options)
    assert report["findings"]["configs"] == ["/usr/share/conf-d/set.rpmsave"]
    assert (host.root / "usr/share/conf-d/set.rpmsave").read_text() == "mine\n"


def test_what_is_not_as_packed_is_told(host):
    """A file that a scriptlet of another package spoils is found by rpm -V, in the report."""
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    host.agent.append_journal(str(path), {"state": "running"})
    host.rpm("-U", "--nosignature", host.rpms["base-2"])
    (host.root / "usr/share/base").write_text("spoilt\n")
    host.agent.append_journal(str(path), {"state": "verifying", "problems": None, "scriptlets": []})
    report = host.apply(path)
    assert report["outcome"] == "applied"
    assert [line.split()[-1] for line in report["findings"]["verify"]] == ["/usr/share/base"]


@pytest.mark.parametrize("options", ENGINES)
def test_no_room_refuses_before_anything(host, options, tmp_path):
    """A file system without room for what comes is named with what it lacks; nothing changed."""
    share = host.root / "usr/share"
    share.mkdir(parents=True)
    agenthost.run("mount", "-t", "tmpfs", "-o", "size=44m", "tmpfs", share)
    try:
        before = host.state()
        path = host.stage(host.action("install", "big-1"), after=["big-1"])
        report = host.apply(path, *options)
        assert (report["outcome"], report["code"]) == ("refused", "space"), report
        assert "usr/share: 5 MB short: 46 MB are free" in report["detail"]
        assert host.state() == before
    finally:
        agenthost.run("umount", share)


def test_a_kernel_needs_more_of_boot_than_it_packs(agent, tmp_path):
    """An initramfs as large as the largest there is, and the copy of vmlinuz, are counted."""
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "initramfs-1.img").write_bytes(bytes(9_000_000))
    files = [("/lib/modules/2/vmlinuz", 5_000_000, 0), ("/etc/kernel", 10, agent.FILE_GHOST)]
    needs = agent.space_needs(str(tmp_path), {"kernel-core-2": files})
    (need,) = [bytes_ for _, bytes_ in needs.values()]
    assert 19_000_000 <= need < 19_100_000
    assert agent.space_needs(str(tmp_path), {"base-2": files[1:]}) == {}


def test_replaced_files_free_their_room(agent, tmp_path):
    """Growth counts, and once the largest package, whose old and new files are there together."""
    (tmp_path / "a").write_bytes(bytes(8_192))
    contents = {"one": [("/a", 8_192, 0)], "two": [("/b", 4_096, 0)]}
    (need,) = [bytes_ for _, bytes_ in agent.space_needs(str(tmp_path), contents).values()]
    assert need == 4_096 + 8_192


def test_lists_are_cut_short(agent):
    """A report has room for twenty lines of a kind, and says how many more there are."""
    assert agent.cut_short(["x"] * 25)[-1] == "+5" and len(agent.cut_short(["x"] * 25)) == 21


def test_programs_with_files_that_are_gone(agent, tmp_path):
    """A process that runs a program which was replaced is found by its memory."""
    program = Path("/usr/local/bin") / f"cpacman-test-{os.getpid()}"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    import subprocess

    with subprocess.Popen([program, "600"]) as process:
        try:
            comm = Path(f"/proc/{process.pid}/comm")
            agenthost.wait_until(lambda: comm.read_text().strip() == program.name[:15])
            assert not agent.uses_deleted(f"/proc/{process.pid}")
            program.unlink()
            assert agent.uses_deleted(f"/proc/{process.pid}")
        finally:
            program.unlink(missing_ok=True)
            process.kill()


@pytest.mark.parametrize("wanted", ["require", "warn", "off"])
def test_signatures_are_demanded_file_by_file(host, wanted):
    """What a repository demands holds for its files only."""
    action = host.action("install", "base-1")
    entry = {"sha256": action["sha256"], "size": action["size"], "name": "b", "signatures": wanted}
    path = host.stage(action, after=["base-1"], files=[entry])
    report = host.apply(path)
    expected = ("refused", "signature") if wanted == "require" else ("applied", "")
    assert (report["outcome"], report["code"]) == expected
    assert ('"warning":"signature"' in (path / "journal.jsonl").read_text()) == (wanted == "warn")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_minion_is_restarted_last(host, tmp_path, wanted):
    """When what Salt runs on was replaced: after rpm, before the report, and once."""
    host.settings["restart"] = ["/bin/sh", "-c", f"echo again >>{tmp_path}/restarts"]
    path = host.stage(
        host.action("install", "base-1"), after=["base-1"], restart_minion=wanted
    )  # fmt: skip
    report = host.apply(path)
    assert report["outcome"] == "applied"
    done = (tmp_path / "restarts").read_text() if (tmp_path / "restarts").exists() else ""
    assert done == ("again\n" if wanted else "")
    assert report["findings"].get("salt", []) == (["restarted"] if wanted else [])
    text = (path / "journal.jsonl").read_text()
    assert not wanted or text.index('"verifying"') < text.index("restarting") < text.index('"done"')


def test_dying_with_the_minion_loses_nothing(host, tmp_path):
    """The restart takes the agent with it: the next start judges, and restarts nothing again."""
    host.settings["restart"] = ["/bin/sh", "-c", f"echo again >>{tmp_path}/restarts; kill -9 $PPID"]
    path = host.stage(host.action("install", "base-1"), after=["base-1"], restart_minion=True)
    agenthost.run(agenthost.SYSTEM_PYTHON, agenthost.AGENT, "apply", path, check=False)
    assert host.cut_off(path)["code"] == "interrupted"
    report = host.apply(path)
    assert report["outcome"] == "applied"
    assert (tmp_path / "restarts").read_text() == "again\n"


def test_a_restart_that_fails_is_told(host):
    """The packages are there, so it is applied; that the minion runs old files is a finding."""
    host.settings["restart"] = ["/bin/sh", "-c", "echo masked >&2; exit 1"]
    path = host.stage(host.action("install", "base-1"), after=["base-1"], restart_minion=True)
    report = host.apply(path)
    assert (report["outcome"], report["findings"]["salt"]) == ("applied", ["not restarted: masked"])


def test_what_rpm_wrote_is_on_disk_before_the_report(agent, host, monkeypatch):
    """The database's files, and on a running system the file systems of what was installed."""
    synced = []
    monkeypatch.setattr(agent, "sync_file_system", lambda handle: synced.append("file system"))
    monkeypatch.setattr(agent.os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    host.install("base-1")
    path = host.stage(host.action("upgrade", "base-2", "base-1"), after=["base-2"])
    manifest = agent.parse_manifest((path / "manifest.json").read_text())
    session = agent.Session(str(path), host.settings, manifest)
    contents = {"base-2": [("/usr/share/base", 10, 0)]}
    agent.settle_disks(session, contents, None)
    database = host.root / "var/lib/rpm/rpmdb.sqlite"
    assert database.stat().st_ino in synced and "file system" not in synced
    monkeypatch.setattr(agent, "is_live", lambda root: True)
    agent.settle_disks(session, contents, None)
    assert "file system" in synced
