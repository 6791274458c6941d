"""Which snapshots must stay, and why: pure rules.

Invariants: what a class points at, held lately, or held among the last ones stays; so does what a
rollout that has not ended was planned from, what is pinned, and what is so young that somebody may
be about to rely on it. Every snapshot that stays has a reason; what has none may go.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

GRACE = 3600.0
"""Seconds for which nothing new, and nothing that a class just left, is removed."""


class Held(NamedTuple):
    """A class pointed at a snapshot, from a moment on."""

    class_: str
    channel: str
    snapshot: str
    at: float


class Rules(NamedTuple):
    """How many snapshots each class keeps (the one it holds included), and for how long."""

    keep: int
    seconds: float
    pins: tuple[str, ...] = ()


def reasons_to_stay(
    known: Mapping[str, float],
    moves: Iterable[Held],
    *,
    rules: Rules,
    rollouts: Mapping[str, Sequence[str]],
    now: float,
) -> dict[str, tuple[str, ...]]:
    """Return for each snapshot why it stays; nothing means that it may go.

    Args:
        known: id -> when it was made, seconds since the epoch.
        moves: every move of every pointer, in their order.
        rules: what is configured.
        rollouts: id of a rollout that is under way -> the snapshots of its plan.
        now: seconds since the epoch.
    """
    reasons: dict[str, list[str]] = {one: [] for one in known}
    for snapshot, why in (*_held(moves, rules, now), *_asked(known, rules, rollouts, now)):
        if snapshot in reasons and why not in reasons[snapshot]:
            reasons[snapshot].append(why)
    return {snapshot: tuple(said) for snapshot, said in reasons.items()}


def _asked(
    known: Mapping[str, float],
    rules: Rules,
    rollouts: Mapping[str, Sequence[str]],
    now: float,
) -> Iterable[tuple[str, str]]:
    for rollout, snapshots in rollouts.items():
        yield from ((one, f"rollout {rollout[:14]}") for one in snapshots)
    for one, made in known.items():
        if any(one.startswith(pin) for pin in rules.pins):
            yield one, "pinned"
        if made > now - GRACE:  # a clock that went back keeps it, too
            yield one, "new"


def _held(moves: Iterable[Held], rules: Rules, now: float) -> Iterable[tuple[str, str]]:
    """Yield what classes hold, held lately, and held among the last ones."""
    rows: dict[tuple[str, str], list[Held]] = {}
    for move in moves:
        rows.setdefault((move.class_, move.channel), []).append(move)
    since = now - max(rules.seconds, GRACE)
    for (class_, _), held in rows.items():
        yield held[-1].snapshot, class_
        last = list(dict.fromkeys(one.snapshot for one in reversed(held)))[: rules.keep]
        yield from ((one, f"{class_} before") for one in last if one != held[-1].snapshot)
        for one, following in itertools.pairwise(held):
            if following.at > since and one.snapshot != held[-1].snapshot:
                yield one.snapshot, f"{class_} before"
