"""When something may start: maintenance windows, and times in which everything is frozen. Pure.

Invariants: times are aware; a window is open from its start up to, and not including, its end; a
freeze beats every window; no window at all means always open, a window that can't be read means
never.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

Span = tuple[datetime.datetime, datetime.datetime]
"""Start and end of one opening, both aware."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_AHEAD = 8
_WEEKLY = re.compile(r"(?P<days>[A-Za-z,-]+) +(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)")


class Weekly(NamedTuple):
    """An opening that comes back every week: days (0 is Monday), minutes after midnight."""

    days: frozenset[int]
    start: int
    end: int


class Freeze(NamedTuple):
    """A time in which nothing starts, for some classes or, without any, for all."""

    start: datetime.datetime
    end: datetime.datetime
    classes: tuple[str, ...]
    reason: str


class Opening(NamedTuple):
    """Whether something may start now; if not, why, and when it next may (None: not in sight)."""

    is_open: bool
    why: str = ""
    until: datetime.datetime | None = None
    """The end of what holds now: of the window that is open, or of the wait."""


def parse_weekly(text: str) -> Weekly:
    """Return what `Sat,Sun 22:00-04:00`, `Mon-Thu 20:00-24:00` or `daily 01:00-05:00` says.

    An end that is not after the start is of the next day.

    Raises:
        ValueError: it is no such text.
    """
    found = _WEEKLY.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no window; write Mon-Thu 22:00-04:00 or daily 01:00-05:00")
    start, end = _minutes(found["start"]), _minutes(found["end"])
    if start == 24 * 60:
        raise ValueError(f"{text!r} starts at 24:00; write 00:00 of the next day")
    return Weekly(frozenset(_days(found["days"].lower())), start, end)


def _minutes(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > 24 * 60:
        raise ValueError(f"{text!r} is no time of day")
    return hours * 60 + minutes


def _days(text: str) -> Iterator[int]:
    if text == "daily":
        yield from range(7)
        return
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{part!r} is no day; write Mon, Tue, ... Sun, Mon-Fri, or daily")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        yield from ((begin + n) % 7 for n in range((end - begin) % 7 + 1))


def openings(weekly: Iterable[Weekly], zone: ZoneInfo, now: datetime.datetime) -> list[Span]:
    """Return the openings around `now`: those that may still be open, and those of a week."""
    today = now.astimezone(zone).date()
    spans = []
    for offset in range(-1, _AHEAD):
        day = today + datetime.timedelta(days=offset)
        spans += [_span(one, day, zone) for one in weekly if day.weekday() in one.days]
    return sorted(spans)


def _span(one: Weekly, day: datetime.date, zone: ZoneInfo) -> Span:
    overnight = 0 if one.end > one.start else 1
    return _at(day, one.start, zone), _at(day + datetime.timedelta(days=overnight), one.end, zone)


def _at(day: datetime.date, minutes: int, zone: ZoneInfo) -> datetime.datetime:
    """Return a wall time of a day: clocks that are put forward or back move it with them.

    In UTC, since two times of one zone compare by what the clock on the wall shows.
    """
    day += datetime.timedelta(days=minutes // (24 * 60))
    hours, rest = divmod(minutes % (24 * 60), 60)
    local = datetime.datetime(day.year, day.month, day.day, hours, rest, tzinfo=zone)
    return local.astimezone(datetime.timezone.utc)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Join openings that touch or overlap."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif start < end:
            found.append((start, end))
    return found


def judge(
    spans: Sequence[Span] | None,
    freezes: Iterable[Freeze],
    *,
    class_: str,
    now: datetime.datetime,
    name: str = "",
) -> Opening:
    """Say whether something may start for a class.

    Args:
        spans: the openings of its window, or None when it has no window.
        freezes: all that are configured.
        class_: the class.
        now: aware.
        name: the window's name, for the message.
    """
    frozen = [f for f in freezes if not f.classes or class_ in f.classes]
    standing = [f for f in frozen if f.start <= now < f.end]
    if standing:
        last = max(standing, key=lambda f: f.end)
        return Opening(False, f"frozen: {last.reason}", _thaw(frozen, last.end))
    if spans is None:
        return Opening(True)
    joined = merged(spans)
    for start, end in joined:
        if start <= now < end:
            return Opening(True, "", min([end, *(f.start for f in frozen if f.start > now)]))
    ahead = [start for start, _ in joined if start > now]
    return Opening(False, f"outside window {name}".rstrip(), min(ahead, default=None))


def _thaw(frozen: Iterable[Freeze], end: datetime.datetime) -> datetime.datetime:
    """Return when no freeze stands any more, of those that follow on each other."""
    for one in sorted(frozen, key=lambda f: f.start):
        if one.start <= end < one.end:
            end = one.end
    return end
