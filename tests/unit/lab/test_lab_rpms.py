"""The lab's packages: the same bytes at every build, and repositories made of them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import createrepo_c as cr
import pytest

from lab import rpms
from lab.errors import LabError


def header(path: Path, form: str) -> str:
    """A query of a package file."""
    command = ["rpm", "-qp", "--nosignature", "--dbpath", "/nonexistent", "--qf", form, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_package_is_what_its_nevra_says() -> None:
    """File, name, version and architecture agree for all of them."""
    built = rpms.build()
    assert set(built) == {*rpms.OLD, *rpms.NEW}
    for nevra, path in built.items():
        assert header(path, "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}") == nevra


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Plans, snapshots and their ids in tests may name digests."""
    chosen = [rpms.Build("webapp", "1.1"), rpms.Build("bigdata", "1.0", size=4096, spec="payload")]
    rpms.build_into(tmp_path / "again", chosen, rpms.SPECS)
    built = rpms.build()
    for one in chosen:
        again = (tmp_path / "again" / f"{one.nevra}.rpm").read_bytes()
        assert (
            hashlib.sha256(again).digest() == hashlib.sha256(built[one.nevra].read_bytes()).digest()
        )


def test_build_is_looked_up_not_repeated() -> None:
    """The second call touches no file."""
    first = {path: path.stat().st_mtime_ns for path in rpms.build().values()}
    rpms.build_once.cache_clear()
    assert {path: path.stat().st_mtime_ns for path in rpms.build().values()} == first


def test_payload_does_not_compress() -> None:
    """What is to be pushed is as large as it says."""
    assert rpms.build()["bigdata-1.1-1.noarch"].stat().st_size > 8 * rpms.MIB


@pytest.mark.parametrize(
    ("nevra", "tag", "expected"),
    [
        ("webapp-1.1-1.noarch", "REQUIRES", "libwebapp"),
        ("newtool-2.0-1.noarch", "OBSOLETES", "oldtool"),
        ("lab-base-9-1.noarch", "PROVIDES", "/bin/sh"),
        ("fickle-1.1-1.noarch", "POSTIN", "/etc/fickle.fail"),
        ("confapp-1.1-1.noarch", "FILEFLAGS:fflags", "cn"),
        ("jlib-2.0-1.x86_64", "BUILDTIME", str(rpms.BUILD_TIME)),
    ],
)
def test_families_have_what_they_are_for(nevra: str, tag: str, expected: str) -> None:
    """Each special trait is in the header."""
    assert expected in header(rpms.build()[nevra], f"[%{{{tag}}} ]")


def test_repository_has_metadata_and_an_advisory(tmp_path: Path) -> None:
    """rpm-md as a mirror has it, with one security advisory that names webapp 1.1."""
    rpms.repository(tmp_path)
    repomd = cr.Repomd(str(tmp_path / "repodata" / "repomd.xml"))
    files = {record.type: tmp_path / record.location_href for record in repomd.records}
    found: list[str] = []
    cr.xml_parse_primary(
        str(files["primary"]), pkgcb=lambda package: found.append(package.nevra()), do_files=False
    )
    assert len(found) == len(rpms.NEW)
    update = cr.UpdateInfo(str(files["updateinfo"])).updates[0]
    assert (update.id, update.type, update.severity) == (rpms.ADVISORY, "security", "Important")
    assert [package.name for package in update.collections[0].packages] == ["webapp"]


def test_bare_folder_has_packages_only(tmp_path: Path) -> None:
    """A folder without metadata, its files independent of the build's."""
    rpms.repository(tmp_path, ["webapp-1.1-1.noarch"], metadata=False)
    only = tmp_path / "webapp-1.1-1.noarch.rpm"
    assert list(tmp_path.iterdir()) == [only]
    assert only.stat().st_ino != rpms.build()["webapp-1.1-1.noarch"].stat().st_ino


def test_unknown_packages_are_named_all_at_once(tmp_path: Path) -> None:
    """A misspelt NEVRA is an error before anything is copied."""
    with pytest.raises(LabError) as caught:
        rpms.repository(
            tmp_path / "r", ["nope-1-1.noarch", "webapp-1.1-1.noarch", "nay-2-1.noarch"]
        )
    assert [problem.path for problem in caught.value.problems] == [
        "nope-1-1.noarch",
        "nay-2-1.noarch",
    ]
    assert not (tmp_path / "r").exists()


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    """A broken spec is an error with rpmbuild's words, not half a directory."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "broken.spec").write_text("Name: broken\nVersion: 1\n%nonsense\n")
    target = tmp_path / "out" / "target"
    target.parent.mkdir()
    with pytest.raises(LabError, match="rpmbuild failed"):
        rpms.build_into(target, [rpms.Build("broken", "1")], tmp_path / "specs")
    assert list(target.parent.iterdir()) == []
