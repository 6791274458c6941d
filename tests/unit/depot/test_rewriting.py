"""Mirrors that are rewritten while a snapshot is taken, as reposync and createrepo_c do it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpacman.depot import taking
from cpacman.depot.snapshot import Snapshot, check_snapshot, list_snapshots, load_snapshot
from cpacman.errors import CpacmanError, RepositoryError
from tests.unit.depot.conftest import settings

Createrepo = Callable[..., None]
Step = Callable[[], None]
FILE = "walrus-5.21-1.noarch.rpm"


class Mirror:
    """A mirror that somebody rewrites once, at a named moment of taking the snapshot."""

    def __init__(self, path: Path, base: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self.base, self.patch = path, base, patch
        patch.setattr(taking, "PAUSES", (0, 0))

    def at(self, moment: str, step: Step, *, times: int = 1) -> None:
        """Run a step just before a function of the taking runs."""
        real = getattr(taking, moment)
        left = [step] * times

        def hooked(*arguments: Any, **options: Any) -> Any:
            if left:
                left.pop()()
            return real(*arguments, **options)

        self.patch.setattr(taking, moment, hooked)

    def take(self, **options: Any) -> Snapshot:
        """Take a snapshot of it."""
        return taking.take_snapshot(
            "el9",
            {"zoo": settings(self.path)},
            depot=self.base / "depot",
            cache=self.base / "cache",
            **options,
        )

    def taken(self) -> list[str]:
        """Return what the depot lists, each checked to be whole."""
        depot = self.base / "depot"
        ids = [one.id for one in list_snapshots(depot)]
        for one in ids:
            assert check_snapshot(depot, load_snapshot(depot, one)) == []
        return ids


@pytest.fixture
def mirror(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """The zoo, indexed."""
    return Mirror(indexed, tmp_path / "base", monkeypatch)


def replace_file(path: Path, *, in_place: bool) -> None:
    """Give a file other bytes of the same size and an older time: by name, or into its inode."""
    state = path.stat()
    data = bytes(reversed(path.read_bytes()))
    if not in_place:
        path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns - 10**9))


MOMENTS = ("check_touched", "stage_files", "check_unmoved")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "by-rename"])
def test_a_package_replaced_meanwhile_is_noticed(
    mirror: Mirror, moment: str, in_place: bool
) -> None:
    """Neither size nor metadata tells; the inodes do. A mirror that goes on so is refused."""
    mirror.at(moment, lambda: replace_file(mirror.path / FILE, in_place=in_place), times=9)
    with pytest.raises(RepositoryError, match="being rewritten"):
        mirror.take()
    assert mirror.taken() == []


@pytest.mark.parametrize("moment", ["read_repository", "check_touched", "check_unmoved"])
def test_repodata_replaced_by_rename(mirror: Mirror, createrepo: Createrepo, moment: str) -> None:
    """createrepo_c runs in the middle: the second attempt takes what it made, whole."""

    def index() -> None:
        (mirror.path / FILE).unlink()
        createrepo(mirror.path)

    mirror.at(moment, index)
    taken = mirror.take()
    assert FILE not in {one.location for one in taken.packages}
    assert mirror.taken() == [taken.id]


def test_the_moment_without_repodata_is_no_bare_folder(
    mirror: Mirror, createrepo: Createrepo
) -> None:
    """Between createrepo_c's two renames there is .repodata only: waited for, then taken."""
    hidden, shown = mirror.path / ".repodata", mirror.path / "repodata"
    real = taking.fingerprint_of

    def renamed(name: str, path: Path) -> str:
        if hidden.exists():
            hidden.rename(shown)
        else:
            shown.rename(hidden)
        return real(name, path)

    mirror.patch.setattr(taking, "fingerprint_of", renamed)
    with pytest.raises(RepositoryError, match=r"(?s)rewritten|being indexed"):
        mirror.take()
    mirror.patch.undo()
    if hidden.exists():
        hidden.rename(shown)
    assert mirror.take().repositories[0].kind == "rpm-md"


def test_there_and_back_is_noticed(mirror: Mirror, tmp_path: Path, createrepo: Createrepo) -> None:
    """A mirror that was another one while it was read, and is the old one again, is read again."""
    other = Path(shutil.copytree(mirror.path, tmp_path / "other"))
    (other / FILE).unlink()
    createrepo(other)
    aside = tmp_path / "aside"

    def swap() -> None:
        (mirror.path / "repodata").rename(aside)
        shutil.copytree(other / "repodata", mirror.path / "repodata")

    def back() -> None:
        shutil.rmtree(mirror.path / "repodata")
        aside.rename(mirror.path / "repodata")

    real = taking._read_draft
    left = [1]

    def read(job: Any) -> Any:
        if not left:
            return real(job)
        left.pop()
        swap()
        draft = real(job)
        back()
        return draft

    mirror.patch.setattr(taking, "_read_draft", read)
    taken = mirror.take()
    assert FILE in {one.location for one in taken.packages}
    assert mirror.taken() == [taken.id]


def test_metadata_rewritten_in_place(mirror: Mirror) -> None:
    """Half of a new primary in the old one's inode: refused with the file, nothing is taken."""
    (primary,) = (mirror.path / "repodata").glob("*primary.xml.gz")
    data = primary.read_bytes()
    mirror.at("with_kept_metadata", lambda: primary.write_bytes(data[: len(data) // 2]))
    with pytest.raises(RepositoryError, match="altered while the snapshot was taken"):
        mirror.take()
    assert mirror.taken() == []
    primary.write_bytes(data)
    assert mirror.take().id in mirror.taken()


@pytest.mark.parametrize("moment", ["stage_files", "check_touched"])
def test_a_package_deleted_between(mirror: Mirror, moment: str) -> None:
    """reposync --delete in the middle: refused, naming the file, and nothing is taken."""
    mirror.at(moment, (mirror.path / FILE).unlink)
    with pytest.raises(RepositoryError, match="walrus-5"):
        mirror.take()
    assert mirror.taken() == []


def test_what_was_kept_outlives_the_mirror(mirror: Mirror) -> None:
    """Deleted or replaced by name after the snapshot: the depot has the bytes that were taken."""
    taken = mirror.take()
    for file in mirror.path.glob("*.rpm"):
        replace_file(file, in_place=False)
        file.unlink()
    assert mirror.taken() == [taken.id]
    for one in taken.packages:
        taking.Pool(mirror.base / "depot").check(one.sha256, one.size)


def test_copies_are_said_before_and_refused_without_room(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing links, the first copy tells how much comes; a disk too small stops there."""
    from cpacman.depot import keeping, pool
    from cpacman.report.progress import Silent

    lines: list[str] = []

    class Told(Silent):
        def line(self, text: str) -> None:
            lines.append(text)

    monkeypatch.setattr(pool, "_hard_link", lambda *_: False)
    monkeypatch.setattr(pool.Pool, "_reflink", lambda *_: False)
    mirror.take(reporter=Told())
    assert len(lines) == 1 and lines[0].startswith("zoo: 35 files are copied, 0.0 GB")
    shutil.rmtree(mirror.base / "depot")
    full = os.statvfs(mirror.path)
    none = os.statvfs_result((*tuple(full)[:4], 0, *tuple(full)[5:]))
    monkeypatch.setattr(keeping.os, "statvfs", lambda _: none)
    with pytest.raises(CpacmanError, match=r"are to be copied there, 0\.0 GB are free"):
        mirror.take()
    assert mirror.taken() == []
