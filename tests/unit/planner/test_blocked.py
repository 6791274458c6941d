"""The block list: what a word names, and how long it holds."""

from __future__ import annotations

import datetime

import pytest

from cpacman.model import Advisory, InstalledPackage
from cpacman.planner.blocked import delivered, finder, holds, kind_of, names

HTTPD = InstalledPackage(name="httpd", epoch=1, version="2.4", release="11", arch="x86_64")
BAD = Advisory(id="A-1", packages=("httpd-1:2.4-11.x86_64", "zlib-1-1.x86_64"))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("s-41b7c0", "snapshot"), ("RHSA-2026:1234", "advisory"), ("ELSA-2026-1", "advisory"),
        ("openSUSE-SU-2026:1234-1", "advisory"), ("FEDORA-2026-1", "nevra"), ("httpd", "nevra"),
        ("httpd-1:2.4-11.x86_64", "nevra"), ("tzdata-2026-1", "nevra"), ("java-11*", "nevra"),
        ("s-ystem", "nevra"), ("a b", None), ("", None), ("/usr/bin/x", None), ("-x", None),
    ],
)  # fmt: skip
def test_kinds(spec: str, kind: str | None) -> None:
    """A snapshot by its form, an advisory by its form or because it is known, else a package."""
    assert kind_of(spec, {"ELSA-2026-1"}) == kind


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("httpd", True), ("httpd.x86_64", True), ("httpd-2.4", True), ("httpd-2.4-11", True),
        ("httpd-1:2.4-11.x86_64", True), ("httpd-2.4-1*", True), ("httpd-2.4-1", False),
        ("httpd-2", False), ("http", False), ("httpd.i686", False),
    ],
)  # fmt: skip
def test_names_of_packages(word: str, named: bool) -> None:
    """All ways to write a version, and globs of them; never half a word."""
    assert names([word], HTTPD) is named


def test_finder_tells_which_word() -> None:
    """By its own name, or because a blocked advisory delivers it; a snapshot names no package."""
    zlib = InstalledPackage(name="zlib", version="1", release="1", arch="x86_64")
    find = finder({"A-1": "advisory", "httpd-2*": "nevra", "s-1": "snapshot"}, [BAD])
    assert [find(HTTPD), find(zlib)] == ["A-1", "A-1"]
    assert finder({"httpd-2*": "nevra"}, [BAD])(HTTPD) == "httpd-2*"
    assert finder({"A-2": "advisory"}, [BAD])(HTTPD) is None
    assert delivered("A-2", [BAD]) == set()


def test_last_day_is_included() -> None:
    """An entry holds on its last day, not on the next."""
    day = datetime.date(2026, 11, 22)
    assert holds(None, day) and holds("2026-11-22", day) and not holds("2026-11-21", day)
