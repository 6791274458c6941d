"""When a simulated fleet may be changed: windows and freezes as texts, and when nobody may start.

What is closed is reckoned from the dice alone: the library reads only the texts.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

START = 1_800_000_000.0
"""A Friday, 08:00 UTC."""
OPEN_UNTIL = START + 4 * 3600.0
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland")
SLACK = 15.0
"""Seconds that a push may begin late: what lacks is known before, session by session."""

Spans = Sequence[tuple[float, float]]


class Calendar(NamedTuple):
    """The texts of a configuration, and what they mean.

    Attributes:
        windows: below `windows`.
        named: the windows that a class names.
        own: host -> the window that its metadata names.
        freezes: below `freeze`, from the beginning.
        later: a freeze that is written down in the middle, and when; None for none.
        apply: host -> when it may not be changed.
        stage: host -> when it may not be sent anything.
    """

    windows: Mapping[str, Any] = {}
    named: Mapping[str, str] = {}
    own: Mapping[str, str] = {}
    freezes: Sequence[Mapping[str, str]] = ()
    later: tuple[float, Mapping[str, str]] | None = None
    apply: Mapping[str, Spans] = {}
    stage: Mapping[str, Spans] = {}

    def is_closed(self, host: str, now: float) -> bool:
        """Whether a host may not be told to start now."""
        return any(start <= now < end for start, end in self.apply.get(host, ()))

    def is_closed_for_bytes(self, host: str, now: float) -> bool:
        """Whether nothing may be sent to a host now."""
        return any(start + SLACK <= now < end for start, end in self.stage.get(host, ()))


def make_calendar(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    """Return no windows at all, or one of the ways in which they close."""
    kinds = [_none, _frozen, _frozen_later, _weekly, _of_hosts, _for_bytes]
    return dice.choices(kinds, [40, 15, 15, 12, 9, 9])[0](dice, hosts)


def _none(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    return Calendar()


def _frozen(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    start = START + 60 * dice.randint(0, 20)
    span = (start, start + 60 * dice.randint(1, 40))
    closed = dict.fromkeys(hosts, (span,))
    return Calendar(freezes=[_freeze(*span)], apply=closed, stage=closed)


def _frozen_later(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    at = START + dice.uniform(5, 900)
    until = START + 60 * (int((at - START) // 60) + dice.randint(2, 30))
    # Who looked at the calendar in that very moment may start yet.
    closed = dict.fromkeys(hosts, ((at + 1.0, until),))
    return Calendar(later=(at, _freeze(START, until)), apply=closed, stage=closed)


def _weekly(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    gaps = _gaps(dice)
    closed = dict.fromkeys(hosts, gaps)
    windows = {"changes": _window(dice, gaps)}
    return Calendar(windows, {"apply": "changes"}, apply=closed, stage=closed)


def _of_hosts(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    gaps = {name: _gaps(dice) for name in ("changes", "nights")}
    windows = {name: _window(dice, one) for name, one in gaps.items()}
    own = {host: "nights" for host in hosts if dice.random() < 0.5}
    closed = {host: gaps[own.get(host, "changes")] for host in hosts}
    named = {"apply": "changes", "by": "window"}
    return Calendar(windows, named, own, apply=closed, stage=closed)


def _for_bytes(dice: random.Random, hosts: Sequence[str]) -> Calendar:
    gaps = {name: _gaps(dice) for name in ("changes", "nights")}
    windows = {name: _window(dice, one) for name, one in gaps.items()}
    named = {"apply": "changes", "stage": "nights"}
    apply, stage = (dict.fromkeys(hosts, gaps[name]) for name in ("changes", "nights"))
    return Calendar(windows, named, apply=apply, stage=stage)


def _gaps(dice: random.Random) -> Spans:
    """Return one or two times in which a window is closed, in whole minutes."""
    first = START + 60 * dice.randint(0, 8)
    found = [(first, first + 60 * dice.randint(1, 15))]
    if dice.random() < 0.5:
        again = found[0][1] + 60 * dice.randint(1, 6)
        found.append((again, again + 60 * dice.randint(1, 15)))
    return found


def _window(dice: random.Random, gaps: Spans) -> dict[str, Any]:
    zone = dice.choice(ZONES)
    moments = [START, *(moment for gap in gaps for moment in gap), OPEN_UNTIL]
    spans = zip(moments[::2], moments[1::2], strict=True)
    return {"weekly": list(_openings(spans, ZoneInfo(zone))), "timezone": zone}


def _openings(spans: Iterable[tuple[float, float]], zone: ZoneInfo) -> Iterable[str]:
    for start, end in spans:
        if start < end:
            first, last = (datetime.datetime.fromtimestamp(one, zone) for one in (start, end))
            yield f"{first:%a %H:%M}-{last:%H:%M}"


def _freeze(start: float, end: float) -> dict[str, str]:
    first, last = (datetime.datetime.fromtimestamp(one, datetime.timezone.utc).isoformat()
                   for one in (start, end))  # fmt: skip
    return {"from": first, "until": last, "reason": "closing the books"}
