"""The wheel: what it carries, and that Salt and the console find all of it once it is installed."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.functional.pythons import CHECKOUT, BarePython, write_master

NOT_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "*.pyc", "requirements.lock"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built from a copy: the build leaves files in its source."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT, folder / "source", ignore=NOT_SOURCE)
    _pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source"))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel."""
    folder = tmp_path_factory.mktemp("target")
    _pip("install", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="module")
def python(target: Path, tmp_path_factory: pytest.TempPathFactory) -> BarePython:
    """A Python with Salt in which the wheel is installed, and no trace of the checkout."""
    return BarePython(tmp_path_factory.mktemp("bare") / "site", target)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", words[0]]
    done = subprocess.run(
        [*command, "--no-deps", "--no-index", *words[1:]],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_the_loader_folders(wheel: Path) -> None:
    """Runner, outputter and both host files travel with the library, and its types are marked."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "_runners/cpacman.py", "_output/cpacman.py", "_modules/cpacman.py",
        "_modules/cpacman_agent.py", "_runners/__init__.py", "_output/__init__.py",
        "_modules/__init__.py", "_states/cpacman.py", "_states/__init__.py",
        "_loader.py", "py.typed", "planner/solver/view.py",
    ):  # fmt: skip
        assert f"cpacman/{name}" in names


def test_the_wheel_carries_every_module_of_the_library(wheel: Path) -> None:
    """No folder of the library is left out."""
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {p.relative_to(CHECKOUT).as_posix() for p in (CHECKOUT / "cpacman").rglob("*.py")}
    assert sources <= names


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    """Tests, the lab and examples stay in the checkout; nothing lands beside the library."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"cpacman"}
    assert not [n for n in names if n.endswith(".pyc") or "/test" in n or "/lab/" in n]


def test_the_wheel_announces_itself(wheel: Path) -> None:
    """Salt's entry point, the console script and the pure tag are there."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(archive.read(name).decode())
    assert dict(points["salt.loader"]) == {"cpacman": "cpacman._loader:salt_dirs"}
    assert dict(points["console_scripts"]) == {"cpacman": "cpacman.cli:main"}
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_needs_no_salt_to_be_installed(wheel: Path) -> None:
    """Salt's own Python has Salt: the requirement is an extra, and lower bounds are not pins."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    needs = [
        line.partition(": ")[2]
        for line in archive.read(name).decode().splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    plain = {re.split("[<>=]", need)[0].lower() for need in needs if "extra ==" not in need}
    assert plain == {
        "createrepo_c", "cryptography", "msgpack", "msgspec", "pydantic", "pyyaml", "solv",
        "sqlalchemy",
    }  # fmt: skip
    assert any(need.startswith("salt") and "extra ==" in need for need in needs)


LOADERS = """
import json, sys
import salt.config, salt.loader
root = sys.argv[1]
master = salt.config.apply_master_config({"root_dir": root})
minion = salt.config.apply_minion_config({"root_dir": root, "id": "web1"})
minion["grains"] = {}
runners, hosts = salt.loader.runner(master), salt.loader.minion_mods(minion)
print(json.dumps({
    "runners": [n for n in runners if n.startswith("cpacman.")],
    "modules": [n for n in hosts if n.startswith("cpacman")],
    "states": [n for n in salt.loader.states(minion, hosts, {}, None) if n.startswith("cpacman")],
    "output": [n for n in salt.loader.outputters(master) if n == "cpacman"],
    "files": [runners.file_mapping["cpacman"][0], hosts.file_mapping["cpacman"][0]],
}))
"""


def test_salt_finds_an_installed_wheel(python: BarePython, target: Path, tmp_path: Path) -> None:
    """Runners, outputter and door are there without any copying, out of the wheel itself."""
    done = python.run("-c", LOADERS, str(tmp_path / "root"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"cpacman.plan", "cpacman.deploy", "cpacman.version"} <= set(found["runners"])
    assert "cpacman.inventory" in found["modules"]
    assert not [name for name in found["modules"] if name.startswith("cpacman_agent")]
    assert found["output"] == ["cpacman"]
    assert {"cpacman.deployed", "cpacman.compliant"} <= set(found["states"])
    for path in found["files"]:
        assert Path(path).is_relative_to(target / "cpacman")


def test_salt_run_shows_an_installed_wheel(python: BarePython, tmp_path: Path) -> None:
    """`pip install` alone makes `salt-run cpacman.version` appear, with our screen."""
    done = python.salt_run(write_master(tmp_path / "m"), "cpacman.version")
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    assert words[0][0] == "cpacman"
    assert [name for name, *_ in words][:3] == ["cpacman", "python", "salt"]


def test_the_console_runs_from_an_installed_wheel(
    python: BarePython, target: Path, tmp_path: Path
) -> None:
    """The agent is found beside the installed library, and it takes a tree's inventory."""
    database = tmp_path / "tree" / "var" / "lib" / "rpm"
    database.mkdir(parents=True)
    subprocess.run(["rpmdb", "--dbpath", str(database), "--initdb"], check=True, timeout=600)
    words = ("-m", "cpacman", "inventory", "--root", str(tmp_path / "tree"))
    done = python.run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["platform"], document["packages"]) == (
        "rpm", [],
    )  # fmt: skip
    where = "from cpacman.inventory import agent_path; print(agent_path())"
    path = python.run("-c", where, cwd=tmp_path).stdout.strip()
    assert path == str(target / "cpacman" / "_modules" / "cpacman_agent.py")
