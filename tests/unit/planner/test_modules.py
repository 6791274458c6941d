"""Module metadata: what is read, what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpacman.errors import RepositoryError
from cpacman.planner.modules import Modules, Stream, defaults_of, parse_modules, read_modules

TEXT = b"""
---
document: modulemd-defaults
version: 1
data: {module: perl, stream: 3.10}
---
document: modulemd
version: 2
data:
  name: perl
  stream: 3.10
  version: 820
  context: 9edba152
  dependencies:
  - requires: {platform: [el8], lib: [1, "-2"], any: []}
  artifacts:
    rpms: ["perl-0:3.10-1.el8.x86_64", "perl-4:3.10-1.el8.src"]
---
document: modulemd
version: 1
data: {name: old, stream: a, version: 1, dependencies: {requires: {platform: el8}}}
---
document: modulemd-obsoletes
version: 1
data: {module: perl}
"""


def test_parse() -> None:
    """Texts stay as they are written, an epoch of 0 is left out, other documents are nothing."""
    assert parse_modules(TEXT) == Modules(
        (
            Stream(
                "perl", "3.10", "820", "9edba152",
                (("any", ()), ("lib", ("1", "-2")), ("platform", ("el8",))),
                ("perl-3.10-1.el8.x86_64", "perl-4:3.10-1.el8.src"),
            ),
            Stream("old", "a", "1", "", (("platform", ("el8",)),), ()),
        ),
        (("perl", "3.10"),),
    )  # fmt: skip


def test_defaults_that_disagree() -> None:
    """Two repositories with different defaults for a module set none."""
    one = Modules((), (("a", "1"), ("b", "1")))
    two = Modules((), (("a", "2"), ("b", "1")))
    assert defaults_of([one, two]) == {"b": "1"}


@pytest.mark.parametrize(
    "text", [b"a: [", b"- 1", b"document: modulemd\ndata: {name: x}", b"document: modulemd"]
)
def test_damaged(tmp_path: Path, text: bytes) -> None:
    """What is no module metadata is an error with the file's path."""
    path = tmp_path / "modules.yaml"
    path.write_bytes(text)
    with pytest.raises(RepositoryError, match="base: is no module metadata") as caught:
        read_modules("base", path, None)
    assert caught.value.problems[0].path == str(path)


def test_missing_or_damaged_cache(tmp_path: Path) -> None:
    """A cache that can't be read only costs time."""
    path = tmp_path / "modules.yaml"
    path.write_bytes(TEXT)
    cache = tmp_path / "cache"
    assert len(read_modules("base", path, cache).streams) == 2
    cache.write_bytes(b"\xc1")
    assert len(read_modules("base", path, cache).streams) == 2
