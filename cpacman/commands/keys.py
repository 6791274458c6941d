"""The plan key: which it is, who has it, and the change to another one.

Invariants: hosts learn a new key by a message that the old one signed, when they are asked for
their inventory the next time; no key changes under a rollout that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.commands.context import Context
from cpacman.errors import Problem, SafetyError, UsageError
from cpacman.model import short_id
from cpacman.signing import fingerprint, load_plan_key, load_rotations, rotate_plan_key

DOES = ("show", "rotate")


def key(
    context: Context,
    do: str = "show",
    *,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Show the plan key and who has which, or make another one.

    Raises:
        UsageError: `do` is neither.
        SafetyError: a rollout runs.
    """
    if do not in DOES:
        raise UsageError(Problem("do", f"{do!r} is none of: {', '.join(DOES)}"))
    if do == "rotate":
        _check_idle(context)
    if do == "rotate" and not test:
        made = rotate_plan_key(context.settings.state_dir, now=context.clock())
        detail = {name: fingerprint(made.body[name]) for name in ("from", "to")}
        context.store.record(
            "rotate", detail["to"], at=context.clock(), who=context.who, reason=reason,
            ticket=ticket, detail=detail,
        )  # fmt: skip
    return {"key": {"test": test, "rotated": do == "rotate" and not test, **_standing(context)}}


def _check_idle(context: Context) -> None:
    running = [row for row in context.store.rollouts(active=True) if row["state"] == "running"]
    if running:
        words = "is running: it signs with the key of now"
        mend = "wait for it, or halt it"
        raise SafetyError([Problem(short_id(row["id"]), words, mend) for row in running])


def _standing(context: Context) -> Mapping[str, Any]:
    now = load_plan_key(context.settings.state_dir)
    pins = context.store.pins()
    previous = [
        {"fingerprint": fingerprint(one.body["from"]), "until": one.body["created"]}
        for one in load_rotations(context.settings.state_dir)
    ]
    hosts: dict[str, list[str]] = {}
    for host, pinned in sorted(pins.items()):
        hosts.setdefault(pinned, []).append(host)
    return {
        "fingerprint": now.fingerprint,
        "public": now.public_key_b64,
        "previous": previous,
        "hosts": hosts,
    }
