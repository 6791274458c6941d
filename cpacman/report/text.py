"""Words for a terminal: clean lines, columns, ages and moments.

Invariant: what came from a host or a repository can't steer the terminal or add a line of its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

NAMED = 12
"""Hosts that a screen names before it only counts them."""


def clean(text: str) -> str:
    """Return text without anything that could steer a terminal; newlines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def line(text: str) -> str:
    """Return text as one clean line: what a host says can't add one of its own."""
    return clean(text.replace("\n", " "))


def table(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Return rows as columns that line up; the last column is as wide as it likes."""
    cells = [[line(str(cell)) for cell in row] for row in rows]
    widths = [
        max((len(row[i]) for row in cells if len(row) > i + 1), default=0)
        for i in range(max(map(len, cells), default=0))
    ]
    return "\n".join(
        (indent + "  ".join(c.ljust(widths[i]) for i, c in enumerate(row))).rstrip()
        for row in cells
    )


def some(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return " ".join(names[:most]) + more


def age(seconds: float) -> str:
    """Return a time span as one number and its unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def when(moment: float | None) -> str:
    """Return a moment in the local time zone."""
    if moment is None:
        return "-"
    return datetime.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def day(moment: float | None) -> str:
    """Return the day of a moment, nothing where it is not known; advisories name it in UTC."""
    if not moment:
        return ""
    found = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return found.date().isoformat()


def size(count: float) -> str:
    """Return a number of bytes in its unit, in powers of 1000."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{int(count)} B"


def asked(seconds: int | None) -> str:
    """Return how long ago a host was asked."""
    return "never asked" if seconds is None else f"asked {age(seconds)} ago"
