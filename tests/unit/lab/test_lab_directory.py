"""The lab's state directory: one owner, and what dead ones left is found and removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.directory import (
    LOCK,
    STATE,
    Directory,
    base_directory,
    has_owner,
    is_locked,
    make_base,
    read_state,
    sweep,
)
from lab.errors import LabError

CHECKOUT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys
from pathlib import Path
from lab import directory
from lab.directory import Directory
directory.LONGEST_BASE = 500
taken = Directory.take(Path(sys.argv[1]), "held")
(taken.path / "layers").mkdir()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base directory; its length is not what these tests are about."""
    monkeypatch.setattr("lab.directory.LONGEST_BASE", 500)
    return tmp_path_factory.mktemp("base")


@pytest.fixture
def holder(base: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lab `held`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(base)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_taken_directory_is_locked_and_says_who(base: Path) -> None:
    """The owner's id is there from the first moment."""
    taken = Directory.take(base, "one")
    assert read_state(taken.path) == {"owner": os.getpid()}
    assert is_locked(taken.path)
    assert has_owner(taken.path)
    taken.remove()
    assert list(base.iterdir()) == []


def test_second_taker_is_refused(base: Path, holder: subprocess.Popen[str]) -> None:
    """A living lab keeps its name, and the message says how to end it."""
    with pytest.raises(LabError, match="is up already; python -m lab down --name held"):
        Directory.take(base, "held")


def test_sweep_leaves_the_living(base: Path, holder: subprocess.Popen[str]) -> None:
    """Only what nobody holds is removed."""
    (base / "stale" / "layers").mkdir(parents=True)
    (base / "stale" / LOCK).touch()
    assert sweep(base) == ["stale"]
    assert (base / "held" / "layers").is_dir()


def test_killed_owner_is_stale(base: Path, holder: subprocess.Popen[str]) -> None:
    """After kill -9 the lock is free, and the directory goes at the next sweep."""
    holder.kill()
    holder.wait()
    assert not has_owner(base / "held")
    assert sweep(base) == ["held"]
    assert list(base.iterdir()) == []


def test_stale_directory_is_emptied_when_taken(base: Path) -> None:
    """A new lab starts from nothing."""
    (base / "one").mkdir()
    (base / "one" / LOCK).touch()
    (base / "one" / "rubbish").write_text("old")
    taken = Directory.take(base, "one")
    assert sorted(path.name for path in taken.path.iterdir()) == [LOCK, "lab.json"]
    taken.remove()


def test_foreign_directories_are_not_touched(base: Path) -> None:
    """A base that was set to a place with other things in it loses none of them."""
    (base / "mirror").mkdir()
    (base / "mirror" / "package.rpm").write_text("precious")
    assert sweep(base) == []
    with pytest.raises(LabError, match="no lab's directory"):
        Directory.take(base, "mirror")
    assert [path.name for path in (base / "mirror").iterdir()] == ["package.rpm"]


def test_survivor_without_owner_is_ended(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner killed in the instant before its lab could bind its life to it leaves nothing."""
    monkeypatch.setattr("lab.directory.LONGEST_DEATH", 0.2)
    taken = Directory.take(base, "one")
    taken.write_state({"owner": 2**22 + 1})
    with subprocess.Popen(["sleep", "100"], stdin=taken.lock) as survivor:
        os.close(taken.lock)
        assert is_locked(taken.path)
        reaper = threading.Thread(target=survivor.wait)
        reaper.start()
        assert sweep(base) == ["one"]
        reaper.join()
    assert survivor.returncode == -9


def test_lab_that_is_just_being_made_is_left_alone(base: Path) -> None:
    """Between its lock and its owner's id a sweep waits, and then leaves its processes alone."""
    taken = Directory.take(base, "one")
    (taken.path / STATE).unlink()
    said = threading.Timer(0.2, taken.write_state, [{"owner": os.getpid()}])
    with subprocess.Popen(["sleep", "100"], stdin=taken.lock) as hub:
        said.start()
        assert sweep(base) == []
        assert hub.poll() is None and has_owner(taken.path)
        hub.kill()
    said.join()
    taken.remove()


def test_links_in_a_lab_are_not_followed(base: Path, tmp_path: Path) -> None:
    """Removing a lab removes a link in it, never what it points to."""
    (tmp_path / "precious").write_text("stays")
    taken = Directory.take(base, "one")
    (taken.path / "link").symlink_to(tmp_path)
    taken.remove()
    assert (tmp_path / "precious").read_text() == "stays"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "Big", "a" * 41])
def test_names_are_checked(base: Path, name: str) -> None:
    """A name can't lead out of the base."""
    with pytest.raises(LabError, match="small letters"):
        Directory.take(base, name)


def test_base_of_others_is_refused(base: Path) -> None:
    """A base where others can write is no place for root to remove things."""
    base.chmod(0o777)
    with pytest.raises(LabError, match="only you can write"):
        make_base(base)


def test_linked_base_is_refused(base: Path) -> None:
    """A link is somebody's trick."""
    (base / "link").symlink_to(base, target_is_directory=True)
    with pytest.raises(LabError, match="only you can write"):
        make_base(base / "link")


@pytest.mark.parametrize("path", [f"/tmp/{'x' * 60}", "/tmp/a,b", "/tmp/a b"])
def test_unusual_bases_are_refused(path: str) -> None:
    """Sockets need a short path, overlay options one without commas."""
    with pytest.raises(LabError, match="set CPACMAN_LAB_DIR"):
        make_base(Path(path))


def test_base_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPACMAN_LAB_DIR wins; without it the place is the same for every shell."""
    monkeypatch.setenv("CPACMAN_LAB_DIR", "/srv/labs")
    assert base_directory() == Path("/srv/labs")
    monkeypatch.delenv("CPACMAN_LAB_DIR")
    assert base_directory() == Path("/tmp/cpacman-lab")
