"""Newer than what is offered: told by names and architectures that are offered at all."""

from __future__ import annotations

import pytest

from cpacman.model import InstalledPackage, Package
from cpacman.planner.ahead import Newest
from cpacman.planner.solver import Versions


def offered(name: str, version: str, arch: str = "x86_64") -> Package:
    """A package of a snapshot."""
    return Package(name=name, epoch=0, version=version, release="1", arch=arch, sha256="", size=1,
                   repository="base", location="x")  # fmt: skip


SNAPSHOT = [offered("a", "1.9"), offered("a", "1.10"), offered("b", "2"),
            offered("a", "3", "i686")]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "version", "arch", "ahead"),
    [
        ("a", "1.10", "x86_64", False), ("a", "1.9", "x86_64", False),
        ("a", "1.11", "x86_64", True), ("a", "2", "i686", False), ("b", "2.1", "x86_64", True),
        ("c", "9", "x86_64", False), ("b", "9", "noarch", False),
    ],
)  # fmt: skip
def test_newer_than_the_newest(name: str, version: str, arch: str, ahead: bool) -> None:
    """By rpm's order; what the snapshot does not have in that architecture tells nothing."""
    newest = Newest(SNAPSHOT, Versions().compare)
    package = InstalledPackage(name=name, version=version, release="1", arch=arch)
    current = InstalledPackage(name="b", version="2", release="1", arch="x86_64")
    for _ in range(2):
        assert newest.is_behind([current, package]) is ahead
