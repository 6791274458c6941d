"""Screens of what is about reaching hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import table

Answer = Mapping[str, Any]
_NOTES = {
    "new": "not accepted yet",
    "changed": "ANOTHER KEY THAN BEFORE: rebuilt, or somebody in between?",
    "silent": "shows no key: is its sshd up?",
}


def stage(body: Answer) -> str:
    """How each host stands, and the command that installs what it has."""
    hosts: Mapping[str, Answer] = body["hosts"]
    there = [name for name, one in hosts.items() if one["state"] in ("staged", "would")]
    words = "would be staged, nothing was sent" if body["test"] else "have all they need"
    text = f"{len(there)} of {len(hosts)} hosts {words}, {body['bytes'] / 1e6:.1f} MB were lacking"
    rows = [(n, o["state"], o["code"] or "", o["detail"]) for n, o in hosts.items()]
    text = "\n".join([text, table(row for row in rows if row[0] not in there)]).rstrip()
    if body["test"]:
        return text
    return f"{text}\nnext: salt-run cpacman.deploy plan={short_id(body['plan'])}"


def hostkeys(body: Answer) -> str:
    """What each host shows, and the command that accepts it."""
    hosts: Mapping[str, Answer] = body["hosts"]
    rows = []
    for name, one in hosts.items():
        lines = [str(key) for key in one["keys"]] + [_NOTES.get(one["state"], "")]
        rows.append((name, one["address"], one["state"], lines[0]))
        rows += [("", "", "", line) for line in lines[1:] if line]
    text = table(rows)
    new = [name for name, one in hosts.items() if one["state"] == "new"]
    if new:
        text += f"\nnext: compare, then salt-run cpacman.hostkeys {','.join(new)} tgt_type=list"
        text += " accept=True"
    return text
