"""The openings of a maintenance window that an iCalendar file describes.

Invariants: recurrences, exceptions and time zones are the library's business; a file that can't be
read is an error, never "no window"; an event without a time opens for its whole days, one that was
cancelled does not open at all.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cpacman.errors import ConfigError, Problem
from cpacman.rollout.windows import Span

_BEHIND, _AHEAD = datetime.timedelta(days=2), datetime.timedelta(days=40)
_FAR = datetime.timedelta(days=400)


def read_openings(path: Path, zone: ZoneInfo, now: datetime.datetime) -> list[Span]:
    """Return the events of a calendar from two days ago to forty days ahead.

    Without any in these, those of a year: some windows open once a quarter.

    Args:
        path: the file.
        zone: of times that name none.
        now: aware.

    Raises:
        ConfigError: the file can't be read, or the libraries are missing.
    """
    try:
        import icalendar
        import recurring_ical_events  # type: ignore[import-untyped]
    except ImportError as error:
        mend = "salt-pip install 'cpacman[calendar]'"
        raise ConfigError(Problem(str(path), f"can't be read: {error}", mend)) from error
    try:
        calendar = icalendar.Calendar.from_ical(path.read_bytes())
        known = recurring_ical_events.of(calendar)
        spans = _held(known.between(now - _BEHIND, now + _AHEAD), zone)
        if not any(end > now for _, end in spans):
            spans += _held(known.between(now + _AHEAD, now + _FAR), zone)
    except Exception as error:
        # It is somebody else's file: whatever breaks in reading it, it can't be read.
        raise ConfigError(Problem(str(path), f"is no calendar: {error}")) from error
    return sorted(spans)


def _held(events: Iterable[Any], zone: ZoneInfo) -> list[Span]:
    held = [e for e in events if str(e.get("STATUS", "")).upper() != "CANCELLED"]
    return [(_aware(e.start, zone), _aware(e.end, zone)) for e in held]


def _aware(value: datetime.date | datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    local = value if value.tzinfo else value.replace(tzinfo=zone)
    return local.astimezone(datetime.timezone.utc)
