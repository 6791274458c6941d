"""Numbers and their nouns."""

from __future__ import annotations

import pytest

from cpacman.words import many


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "host", "1 host"), (0, "host", "0 hosts"), (2, "CVE", "2 CVEs"),
     (1, "advisory", "1 advisory"), (3, "advisory", "3 advisories")],
)  # fmt: skip
def test_many(number: int, noun: str, text: str) -> None:
    """One is one, and nouns end as they should."""
    assert many(number, noun) == text
