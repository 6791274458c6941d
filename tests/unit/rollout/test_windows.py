"""Maintenance windows and freezes, with time zones and clocks that are put forward and back."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest

from cpacman.rollout.windows import Freeze, judge, merged, openings, parse_weekly

BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime.datetime:
    """A wall time."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone)


def opening(window: str, now: datetime.datetime, *freezes: Freeze):
    """Judge one weekly window."""
    return judge(
        openings([parse_weekly(window)], BERLIN, now), freezes, class_="production", now=now,
        name="prod",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        ("Sat 22:00-04:00", "2026-11-21T21:59", False),
        ("Sat 22:00-04:00", "2026-11-21T22:00", True),
        ("Sat 22:00-04:00", "2026-11-22T03:59", True),
        ("Sat 22:00-04:00", "2026-11-22T04:00", False),
        ("Sat 22:00-04:00", "2026-11-22T22:30", False),
        ("Fri-Mon 00:00-24:00", "2026-11-22T12:00", True),
        ("Fri-Mon 00:00-24:00", "2026-11-24T00:00", False),
        ("daily 00:00-00:00", "2026-11-24T00:00", True),
        ("Mon,Wed 01:00-02:00", "2026-11-25T01:30", True),
        ("Mon,Wed 01:00-02:00", "2026-11-24T01:30", False),
    ],
)
def test_open_or_not(window: str, now: str, is_open: bool) -> None:
    """The start belongs to a window, the end does not; what goes past midnight goes on."""
    assert opening(window, at(now)).is_open is is_open


def test_other_time_zone() -> None:
    """The window is of its own zone, wherever the master stands."""
    now = at("2026-11-21T21:30", UTC)
    assert opening("Sat 22:00-04:00", now).is_open
    assert not opening("Sat 22:00-04:00", at("2026-11-21T20:30", UTC)).is_open


def test_says_when_it_opens_and_closes() -> None:
    """Who waits is told until when; who may start is told how long."""
    closed = opening("Sat 22:00-04:00", at("2026-11-22T12:00"))
    assert (closed.why, closed.until) == ("outside window prod", at("2026-11-28T22:00"))
    assert opening("Sat 22:00-04:00", at("2026-11-22T01:00")).until == at("2026-11-22T04:00")


def test_clocks_put_back() -> None:
    """In the night that has 2 o'clock twice, a window from 2 to 3 opens at the first one."""
    now = datetime.datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert opening("Sun 02:00-03:00", now).is_open
    after = datetime.datetime(2026, 10, 25, 2, 0, tzinfo=UTC)
    assert not opening("Sun 02:00-03:00", after).is_open


def test_freeze_beats_the_window() -> None:
    """In a freeze nothing starts, and freezes that follow on each other are one."""
    first = Freeze(at("2026-11-21T00:00"), at("2026-11-23T00:00"), (), "quarter end")
    second = Freeze(at("2026-11-22T12:00"), at("2026-11-25T00:00"), ("production",), "audit")
    found = opening("daily 00:00-24:00", at("2026-11-22T01:00"), second, first)
    assert (found.is_open, found.why) == (False, "frozen: quarter end")
    assert found.until == at("2026-11-25T00:00")


def test_freeze_of_another_class_does_not_matter() -> None:
    """A freeze for some classes leaves the others alone, and ends a window that it cuts."""
    other = Freeze(at("2026-11-21T00:00"), at("2026-11-23T00:00"), ("testing",), "x")
    cut = Freeze(at("2026-11-22T02:00"), at("2026-11-23T00:00"), (), "x")
    now = at("2026-11-22T01:00")
    assert opening("Sat 22:00-04:00", now, other).is_open
    assert opening("Sat 22:00-04:00", now, cut).until == at("2026-11-22T02:00")


def test_no_window_is_always_open() -> None:
    """Without a window only a freeze stops anything; a window without openings is never open."""
    now = at("2026-11-22T01:00")
    assert judge(None, (), class_="x", now=now).is_open
    never = judge([], (), class_="x", now=now, name="empty")
    assert (never.is_open, never.until) == (False, None)


@pytest.mark.parametrize(
    "text", ["", "Sat", "Sat 22-04", "Sat 25:00-26:00", "Sat 22:60-23:00", "Xyz 01:00-02:00",
             "Sat 24:00-02:00", "Mon- 01:00-02:00"]
)  # fmt: skip
def test_wrong_texts_are_refused(text: str) -> None:
    """What is no window says what one looks like."""
    with pytest.raises(ValueError, match=r"window|day|24:00"):
        parse_weekly(text)


def test_merged() -> None:
    """Openings that touch are one."""
    a, b, c = at("2026-01-01T00:00"), at("2026-01-02T00:00"), at("2026-01-03T00:00")
    assert merged([(b, c), (a, b)]) == [(a, c)]
