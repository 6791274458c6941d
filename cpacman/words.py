"""Numbers and their nouns, as people write them."""

from __future__ import annotations


def many(number: int, noun: str) -> str:
    """Return a number with its noun: `1 host`, `2 hosts`, `3 advisories`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"
