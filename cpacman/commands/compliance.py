"""Asking hosts whether they still have exactly what CPacMan left on them.

Invariants: what a host says is looked at before it is shown; a host that says nothing, or that
nothing was carried out on yet, is not one that is as it was left.
"""

from __future__ import annotations

from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, named_hosts
from cpacman.errors import EXIT_OTHER
from cpacman.transport.port import Answer

EQUAL, FAILED = "equal", "failed"
_STATES = frozenset({EQUAL, "differs", "unknown"})


def compliance(context: Context, selection: Selection) -> dict[str, Any]:
    """Ask the selected hosts, whatever way leads to them.

    Args:
        context: the outside world.
        selection: which hosts; they must be named.
    """
    requests: dict[str, dict[str, Any]] = {host: {} for host in named_hosts(context, selection)}
    timeout = context.settings.transport.answer
    answers = context.transport.call("compliance", requests, timeout=timeout)
    rows = {answer.host: _row(answer) for answer in answers}
    other = any(row["state"] != EQUAL for row in rows.values())
    body = {"hosts": dict(sorted(rows.items()))}
    return {"compliance": body, "retcode": EXIT_OTHER if other else 0}


def _row(answer: Answer) -> dict[str, str]:
    """Return what one host says, or why that is worth nothing."""
    said = {name: str(answer.value.get(name) or "") for name in ("state", "plan", "session")}
    if answer.code or said["state"] not in _STATES:
        code = answer.code or "garbled"
        error = answer.error or "no state that there is"
        return {"state": FAILED, "plan": "", "session": "", "code": code, "error": error}
    return {**said, "code": "", "error": ""}
