"""Lines of policy: what holds, what is over, what names nothing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cpacman.config import PolicyLine, parse_match
from cpacman.model import FailedError, InstalledPackage, Inventory, Request
from cpacman.planner.lines import Limits, Placed, expired, holding, naming_nothing, not_for
from cpacman.planner.plan import plan_hosts
from cpacman.planner.reported import check_inventory
from cpacman.planner.ruling import Line
from cpacman.planner.solver import universe
from tests.unit.planner.test_plan import channel, plan

TODAY = datetime.date(2026, 11, 22)
LINES = [
    Placed("policy[0]", PolicyLine(lock="a", until="2026-11-22", reason="why")),
    Placed("policy[1]", PolicyLine(exclude=["b", "c"], until="2026-11-21")),
    Placed("policy[2]", PolicyLine(together=["d", "e"], scope="role:web")),
]


def test_what_holds() -> None:
    """A line holds up to its last day and for the hosts of its scope."""
    found = holding(LINES, {"role": "web"}, TODAY)
    assert [line.where for line in found] == ["policy[0]", "policy[2]"]
    assert found[0] == Line(
        kind="lock", packages=("a",), where="policy[0]", reason="why", until="2026-11-22"
    )
    assert [line.where for line in holding(LINES, {}, TODAY)] == ["policy[0]"]


def test_what_is_over() -> None:
    """A line whose last day is over is said with its path."""
    assert list(expired(LINES, TODAY)) == ["policy[1]: expired on 2026-11-21 and holds no more"]


def test_pins_are_lines_of_their_own() -> None:
    """Each name of a pin has its own repository."""
    found = holding([Placed("policy[0]", PolicyLine(pin={"a": "x", "b": "y"}))], {}, TODAY)
    assert [(line.kind, line.packages, line.to) for line in found] == [
        ("pin", ("a",), "x"),
        ("pin", ("b",), "y"),
    ]


def test_repositories_for_some_hosts() -> None:
    """A repository may be for classes, for hosts with some metadata, or for both together."""
    limits = [
        Limits("one", ("production",), None),
        Limits("two", (), parse_match(["agent:edr", "role:db"])),
        Limits("three", ("production",), parse_match("role:db")),
    ]
    assert not_for(limits, "production", {"role": "db"}) == ()
    assert not_for(limits, "production", {"agent": "edr"}) == ("three",)
    assert not_for(limits, "testing", {"role": "web"}) == ("one", "two", "three")


class Offering:
    """Repositories that offer some packages, and remember what they were asked."""

    def __init__(self, names: set[str]) -> None:
        self.asked: list[set[str]] = []
        self._names = names

    def packages(self, words: set[str]) -> dict[str, list[InstalledPackage]]:
        """Return a package for each word that is among the names."""
        self.asked.append(words)
        return {word: [InstalledPackage(name=word, version="1")] for word in words & self._names}

    def advisories(self) -> set[str]:
        """Return one advisory."""
        return {"RHSA-2026:1"}

    def vendors(self) -> set[str]:
        """Return one vendor."""
        return {"Red Hat, Inc."}

    def repositories(self) -> set[str]:
        """Return one repository."""
        return {"base"}


def test_what_names_no_vendor_and_no_repository() -> None:
    """Vendors that nothing is of, and pins to what is no repository, are said with their place."""
    package = InstalledPackage(name="a", version="1", vendor="CentOS")
    lines = [
        Line(kind="vendors", packages=("*",), vendors=("CentOS", "Red Hat*", "Suse"), where="p[0]"),
        Line(kind="pin", packages=("a",), to="base", where="p[1]"),
        Line(kind="pin", packages=("a",), to="bse", where="p[2]"),
    ]
    assert list(naming_nothing(lines, [(package,)], Offering(set()))) == [
        "p[0]: Suse is the vendor of nothing that is installed or offered",
        "p[2]: pin a to bse, which is no repository",
    ]


def test_what_names_nothing() -> None:
    """Words in each of their forms are found in repositories or on hosts."""
    package = InstalledPackage(name="httpd", version="2.4", release="5", arch="x86_64", epoch=1)
    words = (
        "httpd", "htt*", "httpd-2.4", "httpd-2.4-5", "httpd-1:2.4-5.x86_64", "1:httpd-2.4-5",
        "httpd < 3", "httpd-2.5", "nginx", "nosuch",
    )  # fmt: skip
    offered = Offering({"nginx"})
    line = Line(kind="lock", packages=words, where="policy[7]")
    found = list(naming_nothing([line], [(), (package,)], offered))
    assert offered.asked == [{*words, "httpd"} - {"httpd < 3"}]
    assert found == [
        "policy[7]: lock httpd-2.5 names nothing that is installed or offered",
        "policy[7]: lock nosuch names nothing that is installed or offered",
    ]


@pytest.mark.parametrize(
    ("kind", "word", "wants"),
    [
        ("lock", "a.x86_64<2", "a range"),
        ("lock", "a-1-1<2", "a range"),
        ("lock", "thing", "the name of a package"),
        ("lock", "thing<2", "the name of a package"),
        ("free", "thing", "names or versions"),
        ("protect", "a.x86_64", "without version"),
        ("protect", "a-1-1.x86_64", "without version"),
        ("protect", "thing", "without version"),
        ("arch_change", "a-1", "without version"),
        ("vendor_change", "a.x86_64", "without version"),
        ("origin_change", "thing", "without version"),
        ("allow_removal", "a-1-1", "without version"),
        ("allow_downgrade", "a-1", "without version"),
    ],
)
def test_words_without_effect_are_said(tmp_path: Path, kind: str, word: str, wants: str) -> None:
    """What such a line can't take for a package is never silently without effect."""
    text = (
        "repo base\n  a-1-2.x86_64\n    provides: thing = 1\n"
        f"installed web1\n  a-1-1.x86_64\n    provides: thing = 1\npolicy\n  {kind}: {word}\n"
    )
    (told,) = plan(tmp_path, text).warnings
    assert told.startswith(f"policy[0]: {kind} {word} has no effect: it wants ") and wants in told


@pytest.mark.parametrize(
    "line",
    ["lock: a", "lock: a.x86_64", "lock: a<2", "lock: a-1-1", "lock: a=1", "lock: a*",
     "protect: a", "protect: a*", "free: a-1", "free: a", "exclude: thing", "exclude: a.x86_64",
     "block: thing", "exclude: gone.noarch", "lock: gone.noarch", "lock: gone<2"],
)  # fmt: skip
def test_words_with_an_effect_are_not_warned_of(tmp_path: Path, line: str) -> None:
    """Each way to write what a line is about."""
    text = (
        "repo base\n  a-1-2.x86_64\n    provides: thing = 1\n"
        f"installed web1\n  a-1-1.x86_64\n  gone-1-1.noarch\npolicy\n  {line}\n"
    )
    assert plan(tmp_path, text).warnings == ()


def test_an_advisory_is_something_to_block_only() -> None:
    """An exclude or a lock of an advisory has no effect, and so it is said."""
    lines = [Line(kind=kind, packages=("RHSA-2026:1",), where=kind) for kind in ("block", "lock")]
    assert list(naming_nothing(lines, [()], Offering(set()))) == [
        "lock: lock RHSA-2026:1 names nothing that is installed or offered",
    ]


def test_a_plan_warns(tmp_path: Path) -> None:
    """A plan carries the warnings; what a repository offers or provides is something."""
    text = (
        "repo base\n  a-1-2.x86_64\n    provides: thing\n  b-1-1.noarch\n"
        "installed web1\n  a-1-1.x86_64\npolicy\n  exclude: thing b a-1-2 nosuch\n"
    )
    made = plan(tmp_path, text)
    assert made.warnings == (
        "policy[0]: exclude nosuch names nothing that is installed or offered",
    )


@pytest.mark.parametrize(
    "hold", ["exclude: a\0b", "exclude: \x1b[2J", "versionlock: " + "a" * 10_000_000, "exclude: \n"]
)
def test_hostile_holds(hold: str) -> None:
    """A hold that is no line fails the host, and only a short, clean part of it is shown."""
    failure = check_inventory(Inventory(host="h", holds=(hold,)), "rpm")
    assert failure is not None and failure.error is FailedError.INVENTORY
    assert failure.causes[0].isprintable() and len(failure.causes[0]) < 100


@pytest.mark.parametrize(
    "hold", ["exclude: [", "versionlock: ***[!", "exclude: (", "versionlock: !"]
)
def test_odd_holds(tmp_path: Path, hold: str) -> None:
    """Patterns that mean nothing hold nothing back, and nothing breaks."""
    given = channel(tmp_path)
    hosts = tuple(msgspec.structs.replace(one, holds=(hold,)) for one in given.inventories)
    made = plan_hosts([msgspec.structs.replace(given, inventories=hosts)], request=Request())
    assert not made.failed
    assert made.transactions[made.hosts["web1"]].actions


def test_hostile_modules(tmp_path: Path) -> None:
    """Streams that no repository defines, whatever they are called, change nothing."""
    given = channel(tmp_path)
    names = ("a:\x1b[2J", "nosuch", ":", "a" * 100_000)
    hosts = tuple(msgspec.structs.replace(one, modules=names) for one in given.inventories)
    made = plan_hosts([msgspec.structs.replace(given, inventories=hosts)], request=Request())
    assert made.transactions[made.hosts["web1"]].actions


def test_warnings_load_no_repository_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plan has loaded is asked which words name nothing."""
    text = "repo base\n  a-1-2.x86_64\ninstalled web1\n  a-1-1.x86_64\npolicy\n  exclude: nosuch\n"
    loaded = []
    load = universe.load_source

    def counting(*values: Any) -> Any:
        loaded.append(values)
        return load(*values)

    monkeypatch.setattr(universe, "load_source", counting)
    made = plan(tmp_path, text)
    assert len(made.warnings) == len(loaded) == 1
