"""Values of the configuration that have a unit or a grammar: amounts, matches, times, sizes.

Invariants: each `parse_` function takes what YAML may make of the text and returns one type;
whatever else it gets is refused with what it looks like when it is right.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*):([^\s()]+)")
_DURATION = re.compile(r"([0-9]+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"([0-9]+)([KMGT]?)(?:i?B)?")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")


def nearest(word: str, known: Iterable[str], verb: str = "did you mean") -> str:
    """Return the mend for a misspelt word: the nearest known one, or all that are known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"{verb} {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else ""


def wrong(message: str, mend: str = "") -> PydanticCustomError:
    """Return the error of one value; braces are pydantic's own templates, hence the context."""
    return PydanticCustomError("cpacman", "{text}", {"text": message, "mend": mend})


class Amount(NamedTuple):
    """A number of hosts, or a share of them in per cent."""

    value: float
    percent: bool = False

    def of(self, total: int, *, least: int = 0) -> int:
        """Return how many of `total` hosts this is, rounded down, but never under `least`."""
        count = int(total * self.value / 100) if self.percent else int(self.value)
        return max(count, least)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else str(int(self.value))


@dataclass(frozen=True)
class Match:
    """A match over metadata fields: any of the alternatives, each of terms that all must fit.

    Written `field:glob`, several joined by ` and `, or a list of such texts.
    """

    texts: tuple[str, ...]
    alternatives: tuple[tuple[tuple[str, str], ...], ...] = field(compare=False)

    def fits(self, meta: Mapping[str, Any]) -> bool:
        """Whether a host with this metadata is meant."""
        return self.rank(meta) is not None

    def rank(self, meta: Mapping[str, Any]) -> int | None:
        """Return 0 when it fits by exact values, 1 when only by a glob, None when not at all."""
        ranks = [
            int(any(is_glob(glob) for _, glob in terms))
            for terms in self.alternatives
            if all(_term_fits(meta.get(name), glob) for name, glob in terms)
        ]
        return min(ranks, default=None)

    def __str__(self) -> str:
        return " or ".join(self.texts)


def is_glob(text: str) -> bool:
    """Whether a text is a pattern and not an exact value."""
    return any(char in text for char in "*?[")


def plain_text(value: Any) -> str:
    """Return a metadata value as it is written in a match: booleans as YAML has them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _term_fits(value: Any, glob: str) -> bool:
    if value is None:
        return False
    values = value if isinstance(value, list | tuple) else (value,)
    return any(fnmatchcase(plain_text(one), glob) for one in values)


def parse_match(value: Any) -> Match:
    """Return the match that a text or a list of texts says.

    Raises:
        PydanticCustomError: it is no match; the text says what one looks like.
    """
    if isinstance(value, Match):
        return value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts:
        raise wrong(f"{value!r} is no match", 'write "field:glob", for example "ring:0"')
    return Match(tuple(map(str, texts)), tuple(_parse_terms(text) for text in texts))


def _parse_terms(text: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(text, str):
        raise wrong(f"{text!r} is no match", 'write "field:glob" in quotes')
    terms = []
    for part in text.split(" and "):
        found = _TERM.fullmatch(part.strip())
        if not found:
            raise wrong(
                f"{part.strip()!r} in {text!r} is not field:glob",
                'write "role:web", join terms by " and ", or give a list, any of which may fit',
            )
        terms.append((found[1], found[2]))
    return tuple(terms)


def parse_duration(value: Any) -> int:
    """Return a time such as `48h` or `30m` in seconds."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found:
        return int(found[1]) * _SECONDS[found[2]]
    if value == 0 and value is not False:
        return 0
    raise wrong(f"{value!r} is no duration", "write 30m, 48h or 7d, with its unit (s m h d w)")


LEAST_RATE = 16 * 1024
"""Bytes in a second: less than a whole small package in a minute is a slip of the pen."""


def parse_size(value: Any) -> int:
    """Return a size such as `50M` in bytes; units are powers of 1024, a bare number is bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise wrong(f"{value!r} is no size", "write 50M or 2G (K M G T, powers of 1024)")
    return int(found[1]) * _BYTES[found[2]]


def parse_rate(value: Any) -> int:
    """Return bytes in a second, 0 for no cap; a cap that nothing would get through is none."""
    rate = parse_size(value)
    if 0 < rate < LEAST_RATE:
        raise wrong(f"{value!r} is {rate} bytes a second", f"write {rate}M, or 0 for no cap")
    return rate


def parse_amount(value: Any) -> Amount:
    """Return `10%` or `3` as an amount of hosts."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Amount(value)
    text = value.strip() if isinstance(value, str) else ""
    if text.isdecimal():
        return Amount(int(text))
    found = _PERCENT.fullmatch(text)
    if found and float(found[1]) <= 100:
        return Amount(float(found[1]), percent=True)
    raise wrong(f"{value!r} is no number of hosts", "write a number or a share such as 10%")


def parse_share(value: Any) -> Amount:
    """Return `80%` as a share."""
    found = value if isinstance(value, Amount) else parse_amount(value)
    if not found.percent:
        raise wrong(f"{value!r} is no share", "write one such as 80%")
    return found


def parse_date(value: Any) -> datetime.date:
    """Return `2027-03-31` as a date; whatever else YAML makes of it is refused."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise wrong(f"{value!r} is no date", "write it as 2027-03-31") from None
