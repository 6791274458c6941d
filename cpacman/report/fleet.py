"""Screens of hosts as members of the fleet: lists, accepted, adopted and retired ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cpacman.report.text import NAMED, asked, clean, some, table
from cpacman.words import many

Answer = Mapping[str, Any]


def hosts(body: Answer) -> str:
    """Return the list of hosts."""
    found = body["hosts"]
    if not found:
        return "no hosts"
    rows = [
        (name, one["class"] or "-", one["level"] or "-", one["channel"] or "-", one["state"],
         asked(one["age"]), one["note"])
        for name, one in found.items()
    ]  # fmt: skip
    states = [one["state"] for one in found.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return clean(f"{table(rows, indent='')}\n{counts}")


def accept(body: Answer) -> str:
    """Return who was accepted."""
    done = "would accept" if body["test"] else "accepted"
    rows = [(done, name, one["class"], one["change"]) for name, one in body["hosts"].items()]
    if body["unchanged"]:
        rows.append(("as before", some(body["unchanged"]), "", ""))
    return clean(table(rows, indent=""))


def retire(body: Answer) -> str:
    """Return who was retired."""
    done = "would retire" if body["test"] else "retired"
    lines = [f"{done} {name}  {one['class'] or '-'}" for name, one in body["hosts"].items()]
    if body["unchanged"]:
        lines.append(f"retired before: {some(body['unchanged'])}")
    if keys := [name for name, one in body["hosts"].items() if one["key"]]:
        lines.append(f"the master still accepts their keys: salt-key -d {keys[0]}")
    return clean("\n".join(lines))


_FINDINGS = (
    ("not_planned", "can't be planned"),
    ("unknown", "in no snapshot"),
    ("broken", "broken"),
    ("irreversible", "no way back"),
)


def adopt(body: Answer) -> str:
    """Return what is to be known of hosts before they are managed."""
    lines = []
    for one in body["groups"]:
        found = [(words, one[name]) for name, words in _FINDINGS if one[name]]
        hosts = many(len(one["hosts"]), "host")
        lines.append(f"{hosts}: {some(one['hosts'])}{'' if found else '  nothing to mend'}")
        lines += [f"  {words} {len(rows)}: {'; '.join(rows[:NAMED])}"
                  + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
                  for words, rows in found]  # fmt: skip
    lines += [f"UNPLACED {host}: {'; '.join(found)}" for host, found in body["unplaced"].items()]
    if body["members"]:
        lines.append(f"accepted before: {some(body['members'])}")
    if body["accepted"]:
        done = "would accept" if body["test"] else "accepted"
        lines.append(f"{done} {len(body['accepted'])}: {some(body['accepted'])}")
    elif body["groups"]:
        lines.append("next: the same command with now=True accepts them")
    return clean("\n".join(lines) or "no hosts")


def waiting(states: Iterable[str]) -> str:
    """Return how many hosts wait to be accepted, and what to type; nothing when none does."""
    count = sum(state in ("new", "rebuilt", "moved") for state in states)
    hosts = "1 host waits" if count == 1 else f"{count} hosts wait"
    return f"{hosts} to be accepted: salt-run cpacman.hosts state=new,rebuilt,moved" * bool(count)
