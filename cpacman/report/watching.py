"""How far a rollout is, as a person watches it: one line, or a block of lines on a terminal.

Invariants: every host is counted in exactly one place; nothing steers the terminal but who draws
the block; what is not known is left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import age, line, table, when

View = Mapping[str, Any]
_ORDER = (
    *("applied", "unchanged", "installed", "restarting", "rebooting", "applying", "staged"),
    *("staging", "failed", "silent", "refused", "skipped", "unreachable", "waiting"),
)
_FRESH = 15.0
"""Seconds after which a note about a push is of the past."""


def one_line(view: View) -> str:
    """Return how far a rollout is, in one line."""
    names = [one["name"] for one in view["levels"]]
    at = f"  [{names.index(view['at']) + 1}/{len(names)} {view['at']}]" if view["at"] else ""
    share = f"  {100 * view['done'] // view['total']} %" if view["total"] else ""
    words = [f"{short_id(view['id'])} {view['class']}{at} {view['done']}/{view['total']}{share}"]
    return line("  ".join([*words, *_pace(view), *_state(view)]))


def _pace(view: View) -> Iterable[str]:
    """Yield the time, the time left and the rate, as far as they are known."""
    clock = datetime.datetime.fromtimestamp(view["now"]).astimezone().strftime("%H:%M:%S")
    left = f", about {age(view['left'])} left" if view["left"] is not None else ""
    if not view["ended"]:
        yield f"{clock}{left}"
    push = view["push"]
    if push and view["state"] == "running" and view["now"] - push["at"] < _FRESH:
        yield f"{push['done'] / 1e6:.1f} of {push['total'] / 1e6:.1f} MB"
        if push["rate"]:
            rest = (push["total"] - push["done"]) / push["rate"]
            told = f", {age(rest)} left" if push["done"] < push["total"] else ""
            yield f"{push['rate'] / 1e6:.1f} MB/s{told}"


def _state(view: View) -> Iterable[str]:
    if view["state"] != "running":
        until = f", until {when(view['until'])}" if view["until"] else ""
        why = f" ({view['why']})" if view["why"] else ""
        yield f"{str(view['state']).upper()}{why}{until}"
    elif view["alive"] is False:
        yield "ITS PROCESS DIED"


def block(view: View) -> list[str]:
    """Return how far a rollout is, each level a line, and what failed."""
    rows = [_level(view, number) for number in range(len(view["levels"]))]
    return [one_line(view), *table(rows, indent="").splitlines(), *_wrong(view)]


def _level(view: View, number: int) -> tuple[str, str, str, str]:
    one = view["levels"][number]
    words = [f"{word} {count}" for word, count in sorted(one["counts"].items(), key=_place)]
    for name, (found, most) in one["budget"].items():
        words += [f"({name} {found} of {most})"] if found else []
    return one["name"], f"{one['total']}:", " ".join(words), _beyond(view, number)


def _place(pair: tuple[str, int]) -> tuple[int, str]:
    word = pair[0]
    return (_ORDER.index(word) if word in _ORDER else len(_ORDER), word)


def _beyond(view: View, number: int) -> str:
    """Say where a level is beyond its hosts."""
    one = view["levels"][number]
    gate = f"gate {one['gate']} " if one["gate"] else ""
    if one["state"] == "waiting" and number and not view["ended"]:
        return f"waiting for {view['levels'][number - 1]['name']}"
    if one["state"] == "checking":
        return f"at {gate}".rstrip()
    if one["state"] == "soaking":
        return f"{gate}passed, soaks until {when(one['until'])}".strip()
    if one["state"] == "passed" and (gate or one["soak"]):
        soaked = f", soaked {age(one['soak'])}" if one["soak"] else ""
        return f"{gate}passed{soaked}"
    return ""


def _wrong(view: View) -> Iterable[str]:
    """Yield the hosts that failed last, with why."""
    for one in view["wrong"]:
        yield line(
            f"{one['outcome'].upper():8} {one['host']}  {one['detail'] or one['code'] or ''}"
        )
