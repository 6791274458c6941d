"""The screen of a chain: how it stands, each class, and the next command to type.

Invariant: the class at which it stands, and what that waits for, is in the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import clean, line, table, when

Answer = Mapping[str, Any]


def chain(body: Answer) -> str:
    """Return a chain: head, a line for each class, what to type next."""
    if body["id"] is None:
        return _preview(body)
    lines = [head(body), table([_class(body, n) for n in range(len(body["classes"]))], indent="")]
    return clean("\n".join([*lines, f"next: {' | '.join(_next(body))}"]))


def _preview(body: Answer) -> str:
    levels = f", levels {' '.join(body['levels'])}" if body["levels"] else ""
    way = " -> ".join(body["classes"])
    done = "TEST, nothing done" if body["test"] else "nothing was started"
    return clean(
        f"chain {way}{levels}: {done}; each promotion is proved when its turn comes"
        "\nnext: the same command with now=True, and background=True to leave it to the engine"
    )


def head(body: Answer) -> str:
    """Return how a chain stands, in one line."""
    why = f" ({line(body['why'])})" if body["why"] else ""
    until = f", until {when(body['until'])}" if body["until"] else ""
    died = "  ITS PROCESS DIED" if body["alive"] is False and not body["ended"] else ""
    return (
        f"{short_id(body['id'])} {str(body['state']).upper()}{why}{until}{died}  "
        f"{' -> '.join(body['classes'])}  by {body['who']} {body['ticket'] or ''}"
    ).rstrip()


def _class(body: Answer, number: int) -> tuple[str, str, str, str]:
    name, steps = body["classes"][number], body["steps"]
    if number >= len(steps):
        next_ = number == len(steps) and (not steps or steps[-1].get("state", "done") == "done")
        word = f"after {body['classes'][number - 1]}" if number else "not begun"
        return name, "", "to be promoted to" if number and next_ else word, ""
    step = steps[number]
    if step["rollout"] is None:
        return name, "", "has no host", ""
    sums = ", ".join(f"{count} {word}" for word, count in sorted(step["hosts"].items()))
    return name, short_id(step["rollout"]), step["state"], sums


def _goes_on(body: Answer) -> bool:
    """Whether its rollout is still carried out."""
    return bool(body["steps"]) and body["steps"][-1].get("state") == "running"


def _next(body: Answer) -> list[str]:
    number, state = short_id(body["id"]), body["state"]
    look = [f"salt-run cpacman.rollout {short_id(body['rollout'])}"] if body["rollout"] else []
    if state == "done":
        return ["salt-run cpacman.status"]
    if state == "cancelled":
        return look or ["salt-run cpacman.status"]
    if state == "running" and (body["alive"] or body["background"] or _goes_on(body)):
        return [*look, f"salt-run cpacman.halt {number}"]
    missing = "approve" if "approved by" in str(body["why"]) else "resume"
    force = " force=True reason='...'" if "shows nothing" in str(body["why"]) else ""
    return [
        *look,
        f"salt-run cpacman.{missing} {number}{force}",
        f"salt-run cpacman.cancel {number}",
    ]
