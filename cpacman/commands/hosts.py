"""A list of hosts: where each belongs, how it stands, and what about it nobody accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpacman.commands.board import standing_of
from cpacman.commands.context import Context
from cpacman.commands.drifting import DRIFTED, drift_of
from cpacman.commands.fleet import Selection, select
from cpacman.errors import Problem, UsageError

STATES = (
    "current", "behind", "ahead", "unknown", "new", "rebuilt", "moved", "unplaced", "retired",
    DRIFTED,
)  # fmt: skip
"""Exactly one of them is a host's state; `drifted` it may be besides."""


def hosts(context: Context, selection: Selection, *, states: Sequence[str] = ()) -> dict[str, Any]:
    """List the selected hosts; with `states` those that stand so, or have drifted.

    Raises:
        UsageError: no such state.
    """
    wrong = [name for name in states if name not in STATES]
    if wrong:
        mend = f"known are: {', '.join(STATES)}"
        raise UsageError([Problem("state", f"there is no state {n!r}", mend) for n in wrong])
    rows = _retired(context) if "retired" in states else {}
    if set(states) != {"retired"}:
        rows |= _present(context, selection)
    drifted = _note_drift(context, rows) if DRIFTED in states else set()
    found = {
        host: row
        for host, row in sorted(rows.items())
        if not states or row["state"] in states or host in drifted
    }
    return {"hosts": {"hosts": found, "states": list(states)}}


def _note_drift(context: Context, rows: Mapping[str, dict[str, Any]]) -> set[str]:
    """Return the hosts that have drifted, by what they last said; their rows are told how."""
    there = [host for host, row in rows.items() if row["state"] != "retired"]
    found = {h: one for h, one in drift_of(context, there).items() if one["state"] == DRIFTED}
    for host, one in found.items():
        words = f"drifted: +{len(one['added'])} -{len(one['removed'])}"
        rows[host]["note"] = "; ".join(filter(None, [rows[host]["note"], words]))
    return set(found)


def _present(context: Context, selection: Selection) -> dict[str, dict[str, Any]]:
    fleet = select(context, selection)
    standing = standing_of(context, fleet)
    now = context.clock()
    ages = {h: int(now - taken) for h, (_, taken) in context.store.inventory_heads().items()}
    held = fleet.held
    rows = {}
    for name, placement in fleet.placements.items():
        place, member = placement.host, fleet.members.get(name)
        notes = [str(p._replace(path="")) for p in placement.problems]
        notes += [held[name].words] if name in held and name in fleet.hosts else []
        rows[name] = {
            "class": place.class_, "level": place.level, "channel": place.channel,
            "state": "unplaced" if placement.problems else standing.get(name, "unknown"),
            "age": ages.get(name), "since": member.since if member else None,
            "note": "; ".join(notes),
        }  # fmt: skip
    return rows


def _retired(context: Context) -> dict[str, dict[str, Any]]:
    return {
        name: {"class": one.class_, "level": "", "channel": "", "state": "retired", "age": None,
               "since": one.since, "note": f"by {one.who}"}
        for name, one in context.store.members().items()
        if one.state == "retired"
    }  # fmt: skip
