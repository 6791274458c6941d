"""How far a rollout is, from the database alone: what the board, `watch` and live progress show.

Invariants: nothing is asked of a host or a process, so that it can be told at any time, by anybody
who may read the database; what is not known (how long a soak's gate takes, what later levels
need) is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cpacman.rollout.machine import LevelState, RolloutState
from cpacman.rollout.owner import lives
from cpacman.store import RolloutLevel, Store

_FAILURES = ("failed", "silent", "refused")
_UNREACHABLE = "unreachable"
WRONG = 5
"""Hosts that failed which are named while a rollout goes on."""
_SHOWN = ("id", "plan", "class", "state", "why", "until", "who", "ticket", "created", "ended")


def view_of(store: Store, row: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return how far a rollout is.

    Args:
        store: the database.
        row: its header.
        now: seconds since the epoch.

    Returns:
        its header; `levels`, each with `counts` (outcome or state -> hosts), `done` of `total`,
        `budget`; `at`: the level at which it stands, None when it is over; `done` of `total`;
        `left`: seconds until this level's hosts have ended, as far as that can be told; `push`:
        `done` of `total` bytes, `rate` and `at`, of the last one; `wrong`: who failed last.
    """
    tally = store.tally(str(row["id"]))
    levels = [_level(one, tally.get(one.level, {})) for one in store.rollout_levels(row["id"])]
    over = {LevelState.PASSED.value}
    at = (
        next((one for one in levels if one["state"] not in over), None)
        if not row["ended"]
        else None
    )
    return {
        **{name: row[name] for name in _SHOWN},
        "alive": lives(row, now),
        "levels": levels,
        "at": at["name"] if at else None,
        "done": sum(one["done"] for one in levels),
        "total": sum(one["total"] for one in levels),
        "left": _left(at, now) if row["state"] == RolloutState.RUNNING.value else None,
        "push": _push(row["progress"]),
        "wrong": [
            {"host": one.host, "outcome": one.outcome, "code": one.code, "detail": one.detail}
            for one in store.wrong_hosts(row["id"], most=WRONG)
        ],
        "now": now,
    }


def _push(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    noted: dict[str, Any] = msgspec.json.decode(text)
    took = noted["at"] - noted["since"]
    return {**noted, "rate": noted["done"] / took if took > 0 else None}


def _level(level: RolloutLevel, tally: Mapping[tuple[str, str | None], int]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    lost = 0
    for (word, code), number in tally.items():
        lost += number if code == _UNREACHABLE else 0
        shown = _UNREACHABLE if code == _UNREACHABLE else word
        counts[shown] = counts.get(shown, 0) + number
    limits = level.limits
    soaks = limits.get("soak") or 0
    begun = level.soaking if level.state == LevelState.SOAKING.value else None
    return {
        "name": level.level,
        "state": level.state,
        "since": level.since,
        "gate": limits.get("gate") or "",
        "soak": soaks,
        "until": None if begun is None else begun + soaks,
        "counts": counts,
        "total": sum(counts.values()),
        "done": sum(number for word, number in counts.items() if word in _ENDED),
        "budget": {
            "failures": [sum(counts.get(one, 0) for one in _FAILURES), limits["max_failures"]],
            "unreachable": [lost, limits["max_unreachable"]],
        },
    }


_ENDED = frozenset({"applied", "unchanged", "skipped", _UNREACHABLE, *_FAILURES})


def _left(level: Mapping[str, Any] | None, now: float) -> float | None:
    """Return how long a level's hosts will still take, at the pace that they had so far."""
    if level is None or level["state"] != LevelState.RUNNING.value or not level["done"]:
        return None
    pace = (now - float(level["since"])) / int(level["done"])
    return pace * (int(level["total"]) - int(level["done"]))
