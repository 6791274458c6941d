"""Promotion in part: what is chosen of a newer snapshot, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpacman.depot.partial import Part, Unfit, Wanted, advisories_of, choose_part, new_in
from cpacman.depot.rpmmd import Metadata
from cpacman.depot.snapshot import Snapshot, SnapshotRepository
from cpacman.model import Advisory, Package
from cpacman.planner.solver import Versions


def package(text: str) -> Package:
    """Return a package from `repository/name-version`, `#` and other bytes after that."""
    text, _, other = text.partition("#")
    repository, _, rest = text.partition("/")
    name, _, version = rest.rpartition("-")
    return Package(
        name=name, epoch=0, version=version, release="1", arch="noarch", sha256=f"{rest}{other}",
        size=1, repository=repository, location=f"{rest}.rpm",
    )  # fmt: skip


def snapshot(
    number: str, *packages: str, advisories: tuple[Advisory, ...] = (), **classes: tuple[str, ...]
) -> Snapshot:
    """Return a snapshot; `repository=("class",)` limits one."""
    rows = tuple(package(one) for one in packages)
    repositories = tuple(
        SnapshotRepository(
            name=name, path="/", kind="rpm-md", fingerprint="", checksums={},
            metadata=Metadata(primary=Path("x")), classes=classes.get(name, ()),
        )
        for name in sorted({one.repository for one in rows} | set(classes))
    )  # fmt: skip
    return Snapshot(
        id=number, channel="el9", created=1, repositories=repositories, packages=rows,
        advisories=advisories,
    )  # fmt: skip


FIX = Advisory(id="A-1", cves=("CVE-1",), packages=("lib-2-1.noarch", "gone-1-1.noarch"))
OLD = Advisory(id="A-0", packages=("lib-1-1.noarch",))
BASE = snapshot("s-base", "base/app-1", "base/lib-1", "base/tool-1", "agent/agent-1",
                advisories=(OLD,))  # fmt: skip
NEWER = snapshot(
    "s-newer", "base/app-2", "base/lib-2", "base/lib-3", "base/tool-1#rebuilt", "agent/agent-2",
    "agent/helper-1", "edr/edr-1", advisories=(OLD, FIX), edr=("testing",),
)  # fmt: skip


def chosen(wanted: Wanted, base: Snapshot = BASE, newer: Snapshot = NEWER) -> set[str]:
    """Return `repository/name-version` of the packages of a choice."""
    part = choose_part(base, newer, wanted, class_="production", compare=Versions().compare)
    assert isinstance(part, Part), part
    return {f"{one.repository}/{one.sha256}" for one in part.packages}


HELD = {"base/app-1", "base/lib-1", "base/tool-1", "agent/agent-1"}


@pytest.mark.parametrize(
    ("wanted", "comes", "goes"),
    [
        (Wanted(packages=("app",)), {"base/app-2"}, set()),
        (Wanted(packages=("lib-2",)), {"base/lib-2"}, set()),
        (Wanted(packages=("lib*",)), {"base/lib-2", "base/lib-3"}, set()),
        # Other bytes under the same NEVRA take the place of what was there.
        (Wanted(packages=("tool",)), {"base/tool-1rebuilt"}, {"base/tool-1"}),
        (Wanted(advisories=("A-1",)), {"base/lib-2"}, set()),
        (Wanted(cves=("CVE-1",)), {"base/lib-2"}, set()),
        (Wanted(repositories=("agent",)), {"agent/agent-2", "agent/helper-1"}, {"agent/agent-1"}),
        (Wanted(repositories=("agent",), exclude=("agent",)), {"agent/helper-1"}, set()),
        (Wanted(packages=("app", "lib"), exclude=("lib-3*",)), {"base/app-2", "base/lib-2"}, set()),
        (Wanted(exclude=("lib",)),
         {"base/app-2", "base/tool-1rebuilt", "agent/agent-2", "agent/helper-1", "edr/edr-1"},
         {"base/app-1", "base/tool-1", "agent/agent-1"}),
    ],
)  # fmt: skip
def test_choices(wanted: Wanted, comes: set[str], goes: set[str]) -> None:
    """Named packages are added, a repository is replaced, all but some is the newer one."""
    assert chosen(wanted) == HELD - goes | comes


def test_advisory_whose_version_the_mirror_has_dropped() -> None:
    """The next newer version fixes it, too; of several the oldest is enough."""
    newer = snapshot("s-n", "base/lib-4", "base/lib-3", "base/lib-1", advisories=(FIX,))
    assert chosen(Wanted(advisories=("A-1",)), newer=newer) - HELD == {"base/lib-3"}


@pytest.mark.parametrize(
    ("wanted", "place", "words"),
    [
        (Wanted(packages=("nowhere",)), "packages nowhere", "names nothing"),
        (Wanted(packages=("edr",)), "packages edr", "for this class"),
        (Wanted(repositories=("edr",)), "repository edr", "is for testing only"),
        (Wanted(repositories=("x",)), "repository x", "is not in s-newer"),
        (Wanted(advisories=("A-9",)), "advisory A-9", "is unknown"),
        (Wanted(cves=("CVE-9",)), "cve CVE-9", "is unknown"),
        (Wanted(exclude=("nowhere",)), "exclude nowhere", "names nothing in either"),
    ],
)
def test_what_can_not_be_chosen(wanted: Wanted, place: str, words: str) -> None:
    """Whatever names nothing, or what is not for the class, is a problem."""
    found = choose_part(BASE, NEWER, wanted, class_="production", compare=Versions().compare)
    assert isinstance(found, Unfit) and found.nothing
    assert [one.path for one in found.problems] == [place] and words in found.problems[0].message


@pytest.mark.parametrize(
    ("wanted", "place", "words"),
    [
        (Wanted(packages=("lib",), exclude=("lib",)), "packages lib", "named and excluded"),
        (Wanted(packages=("app", "lib"), exclude=("lib",)), "packages lib", "named and excluded"),
        (Wanted(packages=("lib",), exclude=("lbi",)), "exclude lbi", "names nothing in either"),
        (
            Wanted(repositories=("base",), exclude=("lbi",)),
            "exclude lbi",
            "names nothing in either",
        ),
        (Wanted(advisories=("A-1",), exclude=("lib",)), "advisory A-1", "only what is excluded"),
    ],
)
def test_what_contradicts_itself(wanted: Wanted, place: str, words: str) -> None:
    """A choice that leaves out what was named, or leaves out nothing by a slip, is a problem."""
    newer = snapshot("s-n", "base/lib-3", "base/app-3", advisories=(FIX,))
    found = choose_part(BASE, newer, wanted, class_="production", compare=Versions().compare)
    assert isinstance(found, Unfit) and not found.nothing
    assert [one.path for one in found.problems] == [place] and words in found.problems[0].message


def test_repository_whose_rules_changed_goes_on_whole_only() -> None:
    """In part its packages would come under the old rules, for hosts that they are not for."""
    newer = snapshot("s-n", "base/lib-2", base=("production",))
    found = choose_part(
        BASE, newer, Wanted(packages=("lib",)), class_="production", compare=Versions().compare
    )
    assert isinstance(found, Unfit) and found.problems[0].mend == "promote the whole snapshot"
    assert chosen(Wanted(exclude=("app",)), newer=newer) >= {"base/lib-2", "base/app-1"}


def test_advisories_follow_their_packages() -> None:
    """Those of the past stay; one comes with any of its packages, and stays with all of them."""

    def ids(wanted: Wanted) -> set[str]:
        part = choose_part(BASE, NEWER, wanted, class_="production", compare=Versions().compare)
        assert isinstance(part, Part)
        return advisories_of(BASE, NEWER, part, wanted)

    assert ids(Wanted(packages=("app",))) == {"A-0"}
    assert ids(Wanted(packages=("lib",))) == {"A-0", "A-1"}
    assert ids(Wanted(exclude=("lib",))) == {"A-0"}
    assert ids(Wanted(exclude=("app",))) == {"A-0", "A-1"}


def test_words_for_the_lineage() -> None:
    """What was named, in one line; nothing named is the whole."""
    assert Wanted().is_whole and not Wanted().leaves_out
    assert Wanted(packages=("a", "b"), exclude=("c",)).how == "packages: a, b; exclude: c"
    assert [one.nevra for one in new_in(BASE, NEWER.packages)][:2] == [
        "app-2-1.noarch", "lib-2-1.noarch"
    ]  # fmt: skip
