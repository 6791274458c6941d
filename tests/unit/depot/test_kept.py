"""What the depot can give back: builds of packages that some snapshot has brought into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpacman.depot.kept import Build, find_kept
from cpacman.depot.pool import Pool
from cpacman.depot.taking import take_snapshot
from cpacman.errors import SafetyError
from tests.unit.depot.conftest import settings


def test_what_an_older_snapshot_brought_is_there(zoo: Path, tmp_path: Path) -> None:
    """Every snapshot counts, as long as the file is there and it is the very build."""
    depot, cache = tmp_path / "depot", tmp_path / "cache"
    old = take_snapshot("el9", {"zoo": settings(zoo)}, depot=depot, cache=cache, now=1.0)
    gone = old.packages[0]
    (zoo / gone.location).unlink()
    new = take_snapshot("el9", {"zoo": settings(zoo)}, depot=depot, cache=cache, now=2.0)
    assert gone.nevra not in {one.nevra for one in new.packages}
    build = Build(gone.nevra, gone.vendor, gone.buildtime)
    unknown = Build(gone.nevra)
    others = {
        Build(gone.nevra, gone.vendor, gone.buildtime + 1),
        Build("nobody-1-1.noarch"),
    }
    assert gone.buildtime
    assert find_kept(depot, {build, unknown, *others}) == {build, unknown}
    Pool(depot).path_of(gone.sha256).unlink()
    assert find_kept(depot, {build}) == set()


def test_an_empty_depot_keeps_nothing(tmp_path: Path) -> None:
    """Before the first snapshot nothing can be had back, and that is no error."""
    assert find_kept(tmp_path / "none", {Build("a-1-1.noarch")}) == set()


def test_each_manifest_is_read_once(zoo: Path, tmp_path: Path) -> None:
    """What was read is remembered; a snapshot that comes later is read, and no other one."""
    depot, cache = tmp_path / "depot", tmp_path / "cache"
    old = take_snapshot("el9", {"zoo": settings(zoo)}, depot=depot, cache=cache, now=1.0)
    first, second = (Build(one.nevra) for one in old.packages[:2])
    assert find_kept(depot, {first}, tmp_path / "kept") == {first}
    manifest = depot / "snapshots" / old.id / "manifest.msgpack"
    manifest.write_bytes(b"damaged")
    assert find_kept(depot, {second}, tmp_path / "kept") == {second}
    with pytest.raises(SafetyError, match="can't be read"):
        find_kept(depot, {second})
    (zoo / old.packages[0].location).unlink()
    new = take_snapshot("el9", {"zoo": settings(zoo)}, depot=depot, cache=cache, now=2.0)
    assert new.id != old.id
    assert find_kept(depot, {second}, tmp_path / "kept") == {second}


def test_an_index_that_cannot_be_used_only_costs_time(zoo: Path, tmp_path: Path) -> None:
    """A damaged file is made anew; where there can't be one, every manifest is read."""
    depot, cache, kept = tmp_path / "depot", tmp_path / "cache", tmp_path / "kept"
    taken = take_snapshot("el9", {"zoo": settings(zoo)}, depot=depot, cache=cache, now=1.0)
    build = Build(taken.packages[0].nevra)
    assert find_kept(depot, {build}, kept) == {build}
    (index,) = kept.iterdir()
    index.write_bytes(b"no database " * 100)
    assert find_kept(depot, {build}, kept) == {build} and not index.exists()
    assert find_kept(depot, {build}, kept) == {build} and index.exists()
    assert find_kept(depot, {build}, index / "below a file") == {build}


def test_what_makes_a_build() -> None:
    """Vendor and time of building tell builds of one version apart, as far as they are known."""
    fits = {build: build.is_of("V", 5) for build in (
        Build("a-1-1.noarch"), Build("a-1-1.noarch", "V", 5), Build("a-1-1.noarch", "V"),
        Build("a-1-1.noarch", "W", 5), Build("a-1-1.noarch", "V", 6),
    )}  # fmt: skip
    assert list(fits.values()) == [True, True, True, False, False]
