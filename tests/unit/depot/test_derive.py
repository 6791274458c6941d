"""Snapshots made from parts of others: nothing in them that was not chosen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import createrepo_c
import pytest

from cpacman.commands.offering import sources_of
from cpacman.depot.derive import derive_snapshot
from cpacman.depot.rpmmd import read_primary
from cpacman.depot.snapshot import Snapshot, check_metadata, list_snapshots, load_snapshot
from cpacman.depot.taking import take_snapshot
from cpacman.errors import SafetyError
from cpacman.model import Package
from cpacman.planner.modules import read_modules
from cpacman.planner.solver import Universe
from tests.unit.depot.conftest import settings

Createrepo = Callable[..., None]
OLD = ("walrus-0.71-1.noarch.rpm", "duck-0.6-1.noarch.rpm", "kangaroo-0.2-1.noarch.rpm")
NEW = ("walrus-5.21-1.noarch.rpm", "duck-0.8-1.noarch.rpm", "kangaroo-0.3-1.noarch.rpm")


class Pair:
    """A depot with an older and a newer snapshot of one channel."""

    def __init__(self, base: Path, zoo: Path, createrepo: Createrepo) -> None:
        self.base, self.zoo, self.createrepo = base, zoo, createrepo
        self.depot = base / "depot"
        self.old = self.take("old", OLD, 1)
        self.new = self.take("new", NEW, 2)

    def take(self, name: str, files: tuple[str, ...], now: float, modules: str = "") -> Snapshot:
        """Take a snapshot of a mirror with these files of the zoo."""
        mirror = self.base / name
        mirror.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(self.zoo / file, mirror)
        self.createrepo(mirror)
        if modules:
            (self.base / "modules.yaml").write_text(modules)
            add_metadata(mirror, self.base / "modules.yaml")
        cache = self.base / "cache"
        return take_snapshot(
            "el9", {"zoo": settings(mirror)}, depot=self.depot, cache=cache, now=now
        )

    def derive(self, *packages: Package, advisories: tuple[str, ...] = ()) -> Snapshot:
        """Derive a snapshot of the old and the new one."""
        return derive_snapshot(
            self.depot,
            [self.old, self.new],
            packages=packages,
            advisories=advisories,
            how="packages: duck",
            now=3,
        )


def add_metadata(mirror: Path, modules: Path) -> None:
    """Name module metadata in a mirror's repomd, as modifyrepo_c does."""
    path = mirror / "repodata" / "repomd.xml"
    repomd = createrepo_c.Repomd(str(path))
    target = mirror / "repodata" / "modules.yaml"
    shutil.copy(modules, target)
    record = createrepo_c.RepomdRecord("modules", str(target))
    record.fill(createrepo_c.SHA256)
    record.rename_file()
    repomd.set_record(record)
    path.write_text(repomd.xml_dump())


@pytest.fixture
def pair(zoo: Path, tmp_path: Path, createrepo: Createrepo) -> Pair:
    """Two snapshots: walrus, duck and kangaroo, each in an older and a newer version."""
    base = tmp_path / "pair"
    base.mkdir()
    return Pair(base, zoo, createrepo)


def of(snapshot: Snapshot, name: str) -> Package:
    """Return a snapshot's package by its name."""
    return next(one for one in snapshot.packages if one.name == name)


def test_only_what_was_chosen_can_be_chosen(pair: Pair) -> None:
    """The solver's own pool is offered the chosen packages of both parents and no other one."""
    chosen = [of(pair.old, "walrus"), of(pair.new, "duck"), of(pair.old, "kangaroo")]
    derived = pair.derive(*chosen)
    everything = {one.nevra for one in (*pair.old.packages, *pair.new.packages)}
    found = set(Universe(sources_of(derived), arch="x86_64").offered(everything))
    assert found == {one.nevra for one in chosen} == {one.nevra for one in derived.packages}
    assert derived.lineage is not None
    assert derived.lineage.parents == (pair.old.id, pair.new.id)


def test_it_is_a_snapshot_like_any(pair: Pair) -> None:
    """It is listed with its lineage, loads by its id, and deriving it again gives the same."""
    chosen = [of(pair.old, "walrus"), of(pair.new, "duck")]
    derived = pair.derive(*chosen)
    assert load_snapshot(pair.depot, derived.id) == derived
    check_metadata(derived)
    assert pair.derive(*reversed(chosen)) == derived
    head = next(one for one in list_snapshots(pair.depot) if one.id == derived.id)
    assert head.lineage == derived.lineage
    assert list((pair.depot / "tmp").iterdir()) == []


def test_the_whole_is_the_parent(pair: Pair) -> None:
    """All packages of a parent are that parent, with no lineage of its own."""
    assert pair.derive(*pair.old.packages) == pair.old
    assert pair.derive(*pair.new.packages) == pair.new


def test_metadata_is_whole(pair: Pair) -> None:
    """What the solver reads of a package is what its parent said: dependencies, files, the rest."""
    derived = pair.derive(of(pair.new, "duck"))
    kept: dict[Path, list[str]] = {}
    for snapshot in (pair.new, derived):
        path = snapshot.repositories[0].metadata.primary
        texts = kept.setdefault(path, [])
        createrepo_c.xml_parse_primary(
            str(path), pkgcb=lambda raw, to=texts: to.append(createrepo_c.xml_dump_primary(raw))
        )
    whole, part = kept.values()
    assert len(part) == 1 and part[0] in whole
    lists = derived.repositories[0].metadata.filelists
    assert lists is not None
    names: list[str] = []
    createrepo_c.xml_parse_filelists(str(lists), pkgcb=lambda raw: names.append(raw.name))
    assert names == ["duck"]


def test_what_is_of_no_parent_is_refused(pair: Pair) -> None:
    """A package with other bytes, or an advisory that nobody knows, is named and nothing made."""
    strange = of(pair.new, "duck")
    strange = type(strange)(**{**_fields(strange), "sha256": "0" * 64})
    with pytest.raises(SafetyError, match=r"duck-0\.8-1\.noarch.*\n?.*none of the parents"):
        pair.derive(strange)
    with pytest.raises(SafetyError, match="RHSA-1"):
        pair.derive(of(pair.new, "duck"), advisories=("RHSA-1",))
    assert len(list_snapshots(pair.depot)) == 2


def _fields(package: Package) -> dict[str, object]:
    return {name: getattr(package, name) for name in package.__struct_fields__}


def test_a_file_that_is_gone_is_refused(pair: Pair) -> None:
    """A package whose kept file is missing can't be promoted in part."""
    duck = of(pair.new, "duck")
    (pair.depot / "files" / duck.sha256[:2] / duck.sha256).unlink()
    with pytest.raises(SafetyError, match=r"duck-0\.8"):
        pair.derive(duck)


def test_a_scratch_snapshot_leaves_the_depot_alone(pair: Pair, tmp_path: Path) -> None:
    """For a proof the metadata is written elsewhere, and the id is the one it would have."""
    before = sorted(str(one) for one in pair.depot.rglob("*"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    draft = derive_snapshot(
        pair.depot,
        [pair.old, pair.new],
        packages=[of(pair.new, "duck")],
        advisories=(),
        how="proof",
        scratch=scratch,
    )
    assert sorted(str(one) for one in pair.depot.rglob("*")) == before
    assert draft.repositories[0].metadata.primary.is_relative_to(scratch)
    assert [one.name for one in read_primary("zoo", draft.repositories[0].metadata.primary)[0]] == [
        "duck"
    ]
    assert pair.derive(of(pair.new, "duck")).id == draft.id


STREAM = """\
---
document: modulemd
version: 2
data:
  name: {name}
  stream: "{stream}"
  version: {version}
  context: c0ffee
  arch: noarch
  summary: test
  description: test
  license: {{module: [MIT]}}
  artifacts:
    rpms: [{rpm}]
...
"""
DEFAULTS = """\
---
document: modulemd-defaults
version: 1
data:
  module: {name}
  stream: "{stream}"
...
"""


def test_module_streams_follow_their_packages(pair: Pair) -> None:
    """A build of a stream is in when a package of it is; defaults are the first parent's."""
    build = STREAM.format
    old = build(name="duck", stream="1", version="1", rpm="duck-0:0.6-1.noarch") + build(
        name="walrus", stream="1", version="1", rpm="walrus-0:0.71-1.noarch"
    )
    old += DEFAULTS.format(name="duck", stream="1")
    new = build(name="duck", stream="2", version="2", rpm="duck-0:0.8-1.noarch") + build(
        name="walrus", stream="2", version="2", rpm="walrus-0:5.21-1.noarch"
    )
    new += DEFAULTS.format(name="duck", stream="2") + DEFAULTS.format(name="fox", stream="9")
    pair.old = pair.take("old-modules", OLD, 4, old)
    pair.new = pair.take("new-modules", NEW, 5, new)
    derived = pair.derive(of(pair.old, "walrus"), of(pair.new, "duck"), of(pair.old, "kangaroo"))
    path = derived.repositories[0].metadata.modules
    assert path is not None
    found = read_modules("zoo", path, None)
    assert sorted(one.name for one in found.streams) == ["duck:2", "walrus:1"]
    assert found.defaults == (("duck", "1"), ("fox", "9"))
    assert pair.derive(*pair.old.packages).id == pair.old.id
