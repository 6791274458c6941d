"""The console: options, exit codes, errors, and what it prints."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cpacman import __version__
from cpacman.cli import main
from cpacman.model import Inventory, Plan
from tests.unit.planner.casefile import (
    Pkg,
    filelists_xml,
    installed_package,
    primary_xml,
)

UPDATEINFO = """<?xml version="1.0"?>
<updates><update from="x" status="final" type="security" version="1"><id>ADV-1</id>
<title>t</title><issued date="2026-01-01 00:00:00"/><severity>Important</severity>
<description>d</description><references/>
<pkglist><collection short="c"><name>c</name>
<package name="bash" version="5.1" release="2" epoch="0" arch="x86_64" src="x">
<filename>x</filename></package></collection></pkglist></update></updates>
"""


def make_repository(directory: Path, *nevras: str, updateinfo: str = "") -> Path:
    """Write a repository of packages without dependencies, metadata only."""
    rows = [Pkg(nevra, {}) for nevra in nevras]
    repodata = directory / "repodata"
    repodata.mkdir(parents=True)
    texts = {
        "primary": primary_xml(directory.name, rows),
        "filelists": filelists_xml(directory.name, rows),
    }
    if updateinfo:
        texts["updateinfo"] = updateinfo
    entries = []
    for kind, text in texts.items():
        packed = gzip.compress(text.encode(), mtime=0)
        (repodata / f"{kind}.xml.gz").write_bytes(packed)
        entries.append(
            f'<data type="{kind}"><checksum type="sha256">{_sha256(packed)}</checksum>'
            f'<open-checksum type="sha256">{_sha256(text.encode())}</open-checksum>'
            f'<location href="repodata/{kind}.xml.gz"/><timestamp>1</timestamp>'
            f"<size>{len(packed)}</size><open-size>{len(text.encode())}</open-size></data>"
        )
    head = '<?xml version="1.0"?><repomd xmlns="http://linux.duke.edu/metadata/repo">'
    (repodata / "repomd.xml").write_text(f"{head}<revision>1</revision>{''.join(entries)}</repomd>")
    return directory


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_inventory(path: Path, *nevras: str, host: str = "") -> Path:
    """Write an inventory of packages without dependencies."""
    packages = tuple(installed_package(Pkg(nevra, {})) for nevra in nevras)
    inventory = Inventory(host=host or path.stem, arch="x86_64", cookie="c", packages=packages)
    path.write_bytes(msgspec.json.encode(inventory))
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a newer bash, and an advisory for it."""
    return make_repository(tmp_path / "base", "bash-5.1-2.x86_64", updateinfo=UPDATEINFO)


@pytest.fixture
def web1(tmp_path: Path) -> Path:
    """The inventory of a host with the older bash."""
    return make_inventory(tmp_path / "web1.json", "bash-5.1-1.x86_64")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version and ends with 0."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cpacman {__version__}\n"


def test_help_is_quick() -> None:
    """`--help` needs none of the heavy libraries, so it answers at once."""
    command = [sys.executable, "-X", "importtime", "-m", "cpacman", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: cpacman" in run.stdout
    heavy = ("solv", "sqlalchemy", "pydantic", "createrepo_c", "msgspec", "salt", "yaml")
    loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert not loaded & set(heavy)
    # Processor time: what else runs on this machine is not what this is about.
    before = os.times()
    subprocess.run(command[:1] + command[3:], capture_output=True, check=True)
    after = os.times()
    assert after.children_user + after.children_system < (
        before.children_user + before.children_system + 3)  # fmt: skip


def test_table(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table shows the group, the action with its versions, and the advisory."""
    assert main(["plan", "--repo", f"base={repo}", "--inventory", str(web1)]) == 0
    told = capsys.readouterr()
    assert "1 host: 1 changes in 1 group, 0 unchanged" in told.out
    assert "  upgrade bash.x86_64  5.1-1 -> 5.1-2  ADV-1 Important\n" in told.out
    assert told.err == ""


def test_json(repo: Path, web1: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """`--format json` prints one document: the plan, with the keys of the format."""
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(web1), "--format", "json"]
    assert main(words) == 0
    told = capsysbinary.readouterr()
    document = json.loads(told.out)
    plan = msgspec.json.decode(told.out, type=Plan)
    assert plan.plan_id.startswith("p-")
    (number,) = document["transactions"]
    action = document["transactions"][number]["actions"][0]
    assert action["nevra"] == "bash-5.1-2.x86_64"
    assert action["from"] == "bash-5.1-1.x86_64"
    assert action["epoch"] == 0
    assert action["advisories"] == ["ADV-1"]
    assert document["hosts"] == {"web1": number}
    assert document["snapshots"]["offline"].startswith("s-")
    assert told.err == b""


def test_same_inputs_same_bytes(
    tmp_path: Path, web1: Path, repo: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The order of repositories and inventories, and the cache, do not matter."""
    other = make_repository(tmp_path / "extra", "zsh-5-1.x86_64")
    db1 = make_inventory(tmp_path / "db1.json", "zsh-4-1.x86_64")
    words = ["plan", "--format", "json"]
    one = [*words, "--repo", f"base={repo}", f"extra={other}", "--inventory", str(web1), str(db1)]
    two = [*words, "--repo", f"extra={other}", "--repo", f"base={repo}"]
    two += ["--inventory", str(db1), "--inventory", str(web1)]
    assert main(one) == 0
    first = capsysbinary.readouterr().out
    assert main(two) == 0
    assert capsysbinary.readouterr().out == first


def test_inventory_directory(
    tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory of inventories is a host for each `.json` file in it."""
    folder = tmp_path / "hosts"
    folder.mkdir()
    make_inventory(folder / "a.json", "bash-5.1-1.x86_64")
    make_inventory(folder / "b.json", "bash-5.1-1.x86_64")
    assert main(["plan", "--repo", f"base={repo}", "--inventory", str(folder)]) == 0
    assert "A  2 hosts, 1.0 kB each: a b" in capsys.readouterr().out


def test_every_problem_is_told(
    tmp_path: Path, web1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two bad inventories and a bad repository are three lines, each with its path."""
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text('{"schema": 1, "packages": [{"name": 7}]}')
    words = ["plan", "--repo", f"base={tmp_path}/nowhere", "--inventory"]
    words += [str(web1), str(tmp_path / "x.json"), str(tmp_path / "y.json")]
    assert main(words) == 2
    told = capsys.readouterr()
    lines = told.err.splitlines()
    for name in ("nowhere", "x.json", "y.json"):
        assert any(name in line for line in lines), lines
    assert told.out == ""


def test_host_twice(tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two inventories of one host are an error that names both files."""
    one = make_inventory(tmp_path / "one.json", "bash-5.1-1.x86_64", host="web")
    two = make_inventory(tmp_path / "two.json", "bash-5.1-1.x86_64", host="web")
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(one), str(two)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "one.json" in told
    assert "two.json" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "--upgarde", "x"], "did you mean --upgrade?"),
        (["plan", "--repo", "x", "--inventory", os.devnull], "--repo x: is not NAME=DIR"),
        (["plan"], "required"),
        ([], "required"),
        (["paln"], "paln"),
        (["inventory", "--platform", "deb"], "--platform deb: is not supported yet"),
        (["inventory", "--root", "/nonexistent"], "/nonexistent"),
    ],
)
def test_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with 2 and one line that helps."""
    if "--upgarde" in words:
        words = [*words, "--repo", "a=b", "--inventory", "c"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == (2 if "--repo" in told else 1)


def test_noautoupdate_unknown(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A repository that is left out of autoupdate has to be there."""
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(web1), "--noautoupdate", "bsae"]
    assert main(words) == 2
    assert "did you mean base?" in capsys.readouterr().err


def test_noautoupdate(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Update-all leaves such a repository alone and says so."""
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(web1), "--noautoupdate", "base"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "held  bash-5.1-1.x86_64 -> bash-5.1-2.x86_64  noautoupdate" in told
    assert "1 unchanged" in told


def test_not_planned(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that can't be planned makes the exit code 3 and stands in the table."""
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(web1), "--upgrade", "nosuch"]
    assert main(words) == 3
    assert "NOT PLANNED web1: unknown-package: no package matches nosuch" in capsys.readouterr().out


def test_config(tmp_path: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration's policy and its repositories' flags apply."""
    noarch = make_repository(tmp_path / "base", "bash-5.1-2.noarch")
    extra = make_repository(tmp_path / "extra", "bash-5.1-3.x86_64")
    config = tmp_path / "cpacman.yaml"
    config.write_text(
        "cpacman:\n"
        "  channels:\n"
        "    el9:\n"
        "      match: {arch: x86_64}\n"
        "      repositories:\n"
        f"        base: {{path: {noarch}}}\n"
        f"        extra: {{path: {extra}, autoupdate: false}}\n"
        "  policy:\n"
        "    - {arch_change: bash, reason: moved}\n"
        "    - {arch_change: zsh, until: 2001-01-01}\n"
    )
    words = ["plan", "--repo", f"base={noarch}", f"extra={extra}", "--inventory", str(web1)]
    assert main([*words, "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert "upgrade bash.noarch  bash-5.1-1.x86_64 -> 5.1-2" in told
    assert "architecture changed 1" in told
    assert "noautoupdate" in told
    assert "warning  policy[1]: expired on 2001-01-01" in told
    assert "names nothing" not in told
    assert main([*words, "--arch-change", "bash", "--noautoupdate", "extra"]) == 0
    assert "architecture changed 1" in capsys.readouterr().out


def test_scope_and_host_files(
    tmp_path: Path, web1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scope sees what host files say; a host's own lines hold; what fits nobody is said."""
    newer = make_repository(tmp_path / "base", "bash-5.1-2.x86_64")
    edr = make_repository(tmp_path / "edr", "bash-5.1-3.x86_64")
    (tmp_path / "hosts.d").mkdir()
    (tmp_path / "hosts.d" / "a.yaml").write_text(
        "web1: {meta: {role: web}, policy: [{exclude: nosuch}]}\n"
    )
    config = tmp_path / "cpacman.yaml"
    config.write_text(
        "membership: {hosts_d: hosts.d}\n"
        "channels: {c: {repositories: {base: {path: /x}, edr: {path: /x, only: 'a:b'}}}}\n"
        "policy:\n"
        '  - {lock: bash, scope: "role:web", reason: note}\n'
        '  - {lock: bash, scope: "role:db"}\n'
    )
    words = ["plan", "--repo", f"base={newer}", f"edr={edr}", "--inventory", str(web1)]
    words += ["--config", str(config)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "5.1-3" not in told
    assert "locked by policy[0], note" in told
    assert "warning  policy[1]: its scope role:db fits none of these hosts" in told
    assert "web1.policy[0]: exclude nosuch names nothing" in told


def test_cache_that_cannot_be_written(
    repo: Path, web1: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a cache the plan is the same, only slower."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert main(["plan", "--repo", f"base={repo}", "--inventory", str(web1)]) == 0
    assert "upgrade bash.x86_64" in capsys.readouterr().out


def test_cache_is_private(tmp_path: Path, repo: Path, web1: Path) -> None:
    """The cache is the user's own."""
    main(["plan", "--repo", f"base={repo}", "--inventory", str(web1)])
    assert (tmp_path / "cache" / "cpacman").stat().st_mode & 0o777 == 0o700


def test_damaged_cache(
    tmp_path: Path, repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged solver files in the cache are made anew."""
    words = ["plan", "--repo", f"base={repo}", "--inventory", str(web1)]
    main(words)
    first = capsys.readouterr().out
    files = list((tmp_path / "cache" / "cpacman" / "solver").iterdir())
    assert files
    for file in files:
        file.write_bytes(b"rubbish")
    assert main(words) == 0
    assert capsys.readouterr().out == first


def test_broken_pipe(repo: Path, web1: Path) -> None:
    """A reader that goes away causes no traceback."""
    command = [sys.executable, "-m", "cpacman", "plan", "--repo", f"base={repo}"]
    command += ["--inventory", str(web1), "--format", "json"]
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert run.stderr == ""


def test_bug_is_one_line(
    repo: Path, web1: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What we did not foresee is one line that asks for a report, and exit code 1."""
    from cpacman.offline import planning

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("boom\nbang")

    monkeypatch.setattr(planning, "make_plan", fail)
    assert main(["plan", "--repo", f"base={repo}", "--inventory", str(web1)]) == 1
    error = capsys.readouterr().err
    assert "bug in cpacman" in error
    assert len(error.splitlines()) == 1


def test_why(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package is explained: what is installed, what is offered, what is taken."""
    assert main(["why", "--repo", f"base={repo}", "--inventory", str(web1), "bash"]) == 0
    told = capsys.readouterr()
    assert "installed  bash-5.1-1.x86_64" in told.out
    assert "bash-5.1-2.x86_64  base  TAKEN: upgrade (update) ADV-1" in told.out
    assert told.err == ""


def test_why_with_the_name_after_repositories(
    repo: Path, web1: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The name may come last wherever the options stand; JSON is one document."""
    words = ["why", "--format", "json", "--inventory", str(web1), "--repo", f"base={repo}", "bash"]
    assert main(words) == 0
    document = json.loads(capsysbinary.readouterr().out)
    assert (document["host"], document["package"]) == ("web1", "bash")
    assert [c["fate"] for c in document["candidates"]] == ["taken"]


def test_why_without_a_name(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten name is wrong usage."""
    assert main(["why", "--repo", f"base={repo}", "--inventory", str(web1)]) == 2
    assert "name the package" in capsys.readouterr().err


def test_why_of_an_unknown_name(repo: Path, web1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nobody has is told, with the nearest one."""
    assert main(["why", "--repo", f"base={repo}", "--inventory", str(web1), "bsah"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err


def test_why_of_a_host_that_cannot_be_planned(
    tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends as the plan would, with 3."""
    odd = tmp_path / "odd.json"
    odd.write_text('{"schema": 1, "arch": "z80", "packages": []}')
    assert main(["why", "--repo", f"base={repo}", "--inventory", str(odd), "bash"]) == 3
    assert "NOT PLANNED (platform)" in capsys.readouterr().out


def test_why_of_several_hosts(
    tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One host is explained at a time."""
    folder = tmp_path / "hosts"
    folder.mkdir()
    make_inventory(folder / "a.json", "bash-5.1-1.x86_64")
    make_inventory(folder / "b.json", "bash-5.1-1.x86_64")
    assert main(["why", "--repo", f"base={repo}", "--inventory", str(folder), "bash"]) == 2
    assert "there are 2 hosts" in capsys.readouterr().err
