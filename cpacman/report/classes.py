"""Screens about classes: the block list, promotion with its proof, the way back.

Invariant: what refuses, and the way out, stand at the end, where the eye is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import clean, line, some

Answer = Mapping[str, Any]

TEST = "TEST, nothing done"


def block(body: Answer) -> str:
    """What was blocked just now, and who has it."""
    words = [TEST] if body["test"] else []
    words += [_entry(one) for one in body["blocks"]] or ["nothing is blocked"]
    having = sorted({host for one in body["blocks"] for host in one["hosts"]})
    if having and not body["test"]:
        words.append("plans and deploys leave it from now on; hosts that have it keep it until a"
                     " plan changes them")  # fmt: skip
    return clean("\n".join(words))


def blocks(body: Answer) -> str:
    """The whole list."""
    rows = [_entry(one) for one in body["blocks"]]
    return clean("\n".join(rows)) or "nothing is blocked"


def unblock(body: Answer) -> str:
    """What was taken off the list."""
    rows = [f"unblocked {_named(one)}  it was: {line(one['reason'])}" for one in body["blocks"]]
    return clean("\n".join([*([TEST] if body["test"] else []), *rows]))


def _named(one: Answer) -> str:
    return short_id(one["spec"]) if one["kind"] == "snapshot" else line(one["spec"])


def _entry(one: Answer) -> str:
    until = f", to {one['until']}" if one["until"] else ""
    state = "blocked" if one["holds"] else "EXPIRED"
    head = f"{state} {_named(one)}  {line(one['reason'])}{until} ({line(one['who'])})"
    if not one["known"]:
        return f"{head}\n  no snapshot that a class points at knows this advisory"
    if not one["hosts"]:
        return f"{head}\n  no host has it"
    return f"{head}\n  {len(one['hosts'])} hosts have it: {some(list(one['hosts']))}"
