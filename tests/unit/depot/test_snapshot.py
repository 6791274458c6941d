"""Snapshots: immutable, deterministic, whole or not there at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import createrepo_c
import msgspec
import pytest

from cpacman.config import RepositorySettings
from cpacman.depot import taking as module
from cpacman.depot import writing as writing_module
from cpacman.depot.compare import diff_snapshots
from cpacman.depot.locks import writing
from cpacman.depot.pool import Pool
from cpacman.depot.snapshot import (
    Snapshot,
    check_snapshot,
    list_snapshots,
    load_snapshot,
)
from cpacman.depot.taking import take_snapshot
from cpacman.errors import (
    ConflictError,
    CpacmanError,
    InputError,
    RepositoryError,
    SafetyError,
)
from cpacman.report.progress import Silent
from tests.unit.depot.conftest import Build, settings

Createrepo = Callable[..., None]


class Depot:
    """A depot below a test's directory, and how snapshots are taken into it."""

    def __init__(self, base: Path) -> None:
        self.path = base / "depot"
        self.cache = base / "cache"

    def take(self, now: float = 1000, **repositories: Any) -> Snapshot:
        """Take a snapshot of repositories, given as paths or settings."""
        sources = {
            name: one if isinstance(one, RepositorySettings) else settings(one)
            for name, one in repositories.items()
        }
        return take_snapshot("el9", sources, depot=self.path, cache=self.cache, now=now)

    def tree(self) -> set[str]:
        """Return what lies in the depot."""
        return {str(one.relative_to(self.path)) for one in self.path.rglob("*")}


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    """An empty depot."""
    return Depot(tmp_path)


def test_twice_the_same(depot: Depot, indexed: Path) -> None:
    """With nothing changed the second snapshot is the first, and the depot is as it was."""
    first = depot.take(zoo=indexed, now=1)
    before = depot.tree()
    again = depot.take(zoo=indexed, now=2)
    assert again == first and again.created == 1
    assert depot.tree() == before
    assert first.id.startswith("s-") and len(first.id) == 66
    assert (len(first.packages), len(first.advisories)) == (35, 0)


def test_the_same_content_elsewhere_is_the_same_snapshot(
    depot: Depot, zoo: Path, tmp_path: Path, createrepo: Createrepo
) -> None:
    """Where a mirror lies, when it was indexed and by whom is not what a snapshot is."""
    (zoo / "updateinfo.xml").unlink()
    bare = depot.take(zoo=zoo)
    moved = Path(shutil.copytree(zoo, tmp_path / "moved" / "deeper"))
    os.utime(moved / "bear-4.1-1.noarch.rpm", (1, 1))
    createrepo(moved)
    assert Depot(tmp_path / "other").take(zoo=moved).id == bare.id
    assert depot.take(zoo=moved) == bare


def test_what_decides_a_plan_decides_the_id(depot: Depot, zoo: Path) -> None:
    """Packages, advisories, the repository's name and flags: each moves the id."""
    ids = [depot.take(zoo=zoo).id, depot.take(other=zoo).id]
    ids.append(depot.take(zoo=settings(zoo, autoupdate=False)).id)
    ids.append(depot.take(zoo=settings(zoo, only="role:x")).id)
    ids.append(take_snapshot("el8", {"zoo": settings(zoo)}, depot=depot.path, cache=depot.cache).id)
    text = (zoo / "updateinfo.xml").read_text()
    (zoo / "updateinfo.xml").write_text(text.replace("Sea_Erratum", "Lake_Erratum"))
    ids.append(depot.take(zoo=zoo).id)
    (zoo / "bear-4.1-1.noarch.rpm").unlink()
    ids.append(depot.take(zoo=zoo).id)
    assert len(set(ids)) == 7


def test_dates_of_advisories_are_no_content(depot: Depot, zoo: Path) -> None:
    """A mirror that dates an advisory anew has the same snapshot, which keeps its dates."""
    first = depot.take(zoo=zoo)
    text = (zoo / "updateinfo.xml").read_text()
    dated = re.sub("<issued[^>]*>", "", text)
    dated = dated.replace("<title>", '<issued date="2026-01-02"/><title>')
    (zoo / "updateinfo.xml").write_text(dated)
    assert depot.take(zoo=zoo).id == first.id
    other = Depot(depot.path / "other").take(zoo=zoo)
    assert (other.id, other.advisories[0].issued) == (first.id, 1767312000)
    assert load_snapshot(depot.path / "other" / "depot", other.id) == other


def test_module_definitions_are_content(
    depot: Depot, indexed: Path, tmp_path: Path, createrepo: Createrepo
) -> None:
    """Another modules.yaml allows other packages, so it is another snapshot."""
    ids = [depot.take(zoo=indexed).id]
    for stream in ("1", "2"):
        document = (
            f"document: modulemd-defaults\nversion: 1\ndata: {{module: m, stream: {stream}}}\n"
        )
        file = tmp_path / "modules.yaml"
        file.write_text(document)
        program = Path(sys.executable).parent / "modifyrepo_c"
        command = [program if program.exists() else "modifyrepo_c", "--mdtype=modules"]
        subprocess.run([*command, file, indexed / "repodata"], check=True, timeout=600)
        taken = depot.take(zoo=indexed)
        ids.append(taken.id)
        assert taken.repositories[0].metadata.modules is not None
    assert len(set(ids)) == 3


def test_nothing_is_read_from_the_mirror_again(depot: Depot, indexed: Path) -> None:
    """When the mirror is gone, packages and metadata are there."""
    taken = depot.take(zoo=indexed)
    shutil.rmtree(indexed)
    shutil.rmtree(depot.cache)
    loaded = load_snapshot(depot.path, taken.id)
    assert loaded == taken and check_snapshot(depot.path, loaded) == []
    pool = Pool(depot.path)
    for package in loaded.packages:
        pool.check(package.sha256, package.size)
    (repository,) = loaded.repositories
    assert {kind for kind, _ in repository.metadata.items()} == {"primary", "filelists"}
    for _, path in repository.metadata.items():
        assert path.is_relative_to(depot.path / "metadata")
    found: list[str] = []
    createrepo_c.xml_parse_primary(
        str(repository.metadata.primary), pkgcb=lambda one: found.append(one.name), do_files=False
    )
    assert len(found) == 35


def test_a_depot_can_be_moved(depot: Depot, indexed: Path, tmp_path: Path) -> None:
    """Paths in a manifest are relative to the depot it lies in."""
    taken = depot.take(zoo=indexed)
    moved = depot.path.rename(tmp_path / "elsewhere")
    primary = load_snapshot(moved, taken.id).repositories[0].metadata.primary
    assert primary.is_relative_to(moved) and primary.is_file()


def test_the_depot_is_private(depot: Depot, indexed: Path) -> None:
    """Directories and metadata are the owner's; hard-linked packages keep the mirror's mode."""
    depot.take(zoo=indexed)
    for path in [depot.path, *depot.path.rglob("*")]:
        if "files" not in path.parts or path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path


def test_faults_are_all_named_and_nothing_is_taken(depot: Depot, indexed: Path) -> None:
    """Absent files and other sizes refuse the snapshot as a whole."""
    (indexed / "bear-4.1-1.noarch.rpm").unlink()
    with (indexed / "cat-1.0-1.noarch.rpm").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(RepositoryError) as caught:
        depot.take(zoo=indexed)
    assert "bear-4.1" in str(caught.value) and "cat-1.0" in str(caught.value)
    assert list_snapshots(depot.path) == ()


def test_faults_of_all_repositories_at_once(depot: Depot, zoo: Path, tmp_path: Path) -> None:
    """Two repositories that can't be read are two problems of one error."""
    with pytest.raises(RepositoryError) as caught:
        depot.take(zoo=zoo, a=tmp_path / "missing", b=tmp_path / "gone")
    assert [one.path.split(":")[0] for one in caught.value.problems] == ["a", "b"]


def test_verify_finds_other_bytes(depot: Depot, indexed: Path) -> None:
    """A file of the right size with other bytes is found by hashing, before anything is kept."""
    bear = indexed / "bear-4.1-1.noarch.rpm"
    bear.write_bytes(bytes(bear.stat().st_size))
    with pytest.raises(RepositoryError, match=r"bear-4\.1"):
        take_snapshot(
            "el9", {"zoo": settings(indexed)}, depot=depot.path, cache=depot.cache, verify=True
        )
    assert list_snapshots(depot.path) == ()


def test_a_rewrite_while_taking_is_retried(
    depot: Depot, indexed: Path, createrepo: Createrepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that changes once under our feet is read again, and the new state is taken."""
    calls = []
    real = module.check_files

    monkeypatch.setattr(module, "PAUSES", (0, 0))

    def rewrite(repository: Any, **options: Any) -> Any:
        found = real(repository, **options)
        if not calls:
            (indexed / "bear-4.1-1.noarch.rpm").unlink()
            createrepo(indexed)
        calls.append(1)
        return found

    monkeypatch.setattr(module, "check_files", rewrite)
    taken = depot.take(zoo=indexed)
    assert len(calls) == 2
    assert "bear" not in {one.name for one in taken.packages}
    assert list_snapshots(depot.path)[0].id == taken.id


def test_a_mirror_that_never_rests_is_refused(
    depot: Depot, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second time the mirror is named and nothing is taken."""
    real = module.check_files

    def touch(repository: Any, **options: Any) -> Any:
        (zoo / "bear-4.1-1.noarch.rpm").touch()
        return real(repository, **options)

    monkeypatch.setattr(module, "check_files", touch)
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    with pytest.raises(RepositoryError, match="being rewritten"):
        depot.take(zoo=zoo)
    assert list_snapshots(depot.path) == ()


def test_two_at_once(depot: Depot, indexed: Path) -> None:
    """One takes it, the other is told."""
    with writing(depot.path), pytest.raises(ConflictError):
        depot.take(zoo=indexed)
    assert depot.take(zoo=indexed)


def test_a_full_disk_leaves_no_snapshot(
    depot: Depot, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space is said with the place; the next attempt starts clean."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(depot.path / "tmp"))

    with monkeypatch.context() as patch:
        patch.setattr(writing_module, "encoded", full)
        with pytest.raises(CpacmanError, match="make room"):
            depot.take(zoo=indexed)
    assert list_snapshots(depot.path) == ()
    assert depot.take(zoo=indexed)
    assert list((depot.path / "tmp").iterdir()) == []


def test_prefixes(depot: Depot, zoo: Path) -> None:
    """A unique prefix is enough; unknown and ambiguous ones name what there is."""
    first = depot.take(now=1, zoo=zoo)
    (zoo / "bear-4.1-1.noarch.rpm").unlink()
    second = depot.take(now=2, zoo=zoo)
    assert load_snapshot(depot.path, first.id[:12]).id == first.id
    wrong = first.id[:13] + ("0" if first.id[13] != "0" else "1")
    for prefix in ("s-", "p-1234", "s-XYZ", "../s-1", "s-", wrong):
        with pytest.raises(InputError):
            load_snapshot(depot.path, prefix)
    with pytest.raises(InputError, match=first.id[:14]):
        load_snapshot(depot.path, wrong)
    assert [one.id for one in list_snapshots(depot.path)] == [second.id, first.id]
    assert list_snapshots(depot.path, "el8") == ()


def test_no_snapshot_yet(tmp_path: Path) -> None:
    """A depot that is not there holds nothing, and is not made by looking."""
    with pytest.raises(InputError, match="take one"):
        load_snapshot(tmp_path / "none", "s-12")
    assert list_snapshots(tmp_path / "none") == () and not (tmp_path / "none").exists()


def test_an_altered_manifest_is_refused(depot: Depot, indexed: Path) -> None:
    """A manifest that says other packages than its id, or nothing sensible, is not believed."""
    taken = depot.take(zoo=indexed)
    manifest = depot.path / "snapshots" / taken.id / "manifest.msgpack"
    data = manifest.read_bytes()
    body = msgspec.msgpack.decode(data)
    body["packages"] = body["packages"][1:]
    for bad in (
        msgspec.msgpack.encode(body),
        data[:-9],
        b"",
        data.replace(b"metadata/", b"../../../"),
    ):
        manifest.write_bytes(bad)
        with pytest.raises(SafetyError):
            load_snapshot(depot.path, taken.id)
    manifest.write_bytes(data)
    load_snapshot(depot.path, taken.id).repositories[0].metadata.primary.unlink()
    with pytest.raises(SafetyError, match="primary"):
        load_snapshot(depot.path, taken.id)


def test_lost_files_are_named_and_kept_again(depot: Depot, indexed: Path) -> None:
    """A file that left the depot is found, and the next snapshot brings it back."""
    taken = depot.take(zoo=indexed)
    bear = next(one for one in taken.packages if one.name == "bear")
    Pool(depot.path).path_of(bear.sha256).unlink()
    (problem,) = check_snapshot(depot.path, taken)
    assert "bear" in problem.message
    assert depot.take(zoo=indexed) == taken and check_snapshot(depot.path, taken) == []


def test_diff(depot: Depot, tmp_path: Path, build: Build) -> None:
    """What came, went and changed between two snapshots, by name and arch."""
    folder = tmp_path / "r"
    folder.mkdir()
    shutil.copy(build("alpha", "1"), folder)
    shutil.copy(build("beta", "1"), folder)
    before = depot.take(r=folder)
    (folder / "beta-1-1.noarch.rpm").unlink()
    shutil.copy(build("alpha", "2"), folder)
    shutil.copy(build("gamma", "1"), folder)
    after = depot.take(r=folder)
    found = diff_snapshots(before, after)
    assert [(one.name, one.after) for one in found.added] == [("gamma", ("1-1",))]
    assert [(one.name, one.before) for one in found.removed] == [("beta", ("1-1",))]
    assert [(one.name, one.before, one.after) for one in found.updated] == [("alpha", (), ("2-1",))]
    assert diff_snapshots(after, after) == ((), (), (), ())


def test_progress_is_told(depot: Depot, indexed: Path) -> None:
    """Whoever waits sees how far it is, and how files are kept."""
    told: list[tuple[str, int, int]] = []

    class Told(Silent):
        def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
            told.append((what, done, total))

    take_snapshot(
        "el9", {"zoo": settings(indexed)}, depot=depot.path, cache=depot.cache, reporter=Told()
    )
    assert told[0][1:] == (1, 35) and told[-1][1:] == (35, 35)
    assert told[-1][0].split(" ", 1)[0] == "35"
    told.clear()
    take_snapshot(
        "el9",
        {"zoo": settings(indexed)},
        depot=depot.path,
        cache=depot.cache,
        verify=True,
        reporter=Told(),
    )
    assert told[0] == ("hashing", 1, 35) and told[-1] == ("hashing", 35, 35)
