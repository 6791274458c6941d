"""Screens about how hosts ended: what is left to do on them, and who did not end where it should.

Invariant: who is still not at its plan stands at the end, with the next command to type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import clean, line, some, table
from cpacman.words import many

Answer = Mapping[str, Any]
THERE = ("applied", "unchanged")
MOST = 10


def recover(body: Answer) -> str:
    """What became of hosts that fell silent or were cut off."""
    hosts: Mapping[str, Answer] = body["hosts"]
    if not hosts:
        return "no host is silent or cut off"
    rows = [
        (host, short_id(one["rollout"]), f"{one['before']} ->", str(one["outcome"]),
         line(one["detail"] or one["code"] or ""))
        for host, one in hosts.items()
    ]  # fmt: skip
    if body["test"]:
        rows = [
            (host, number, before, "TEST, nothing done", "") for host, number, before, *_ in rows
        ]
    wrong = [h for h, one in hosts.items() if not {one["outcome"], one["back"]} & set(THERE)]
    words = [table(rows, indent="")]
    words += [f"{h}: the way back: {line(one['back'])}" for h, one in hosts.items() if one["back"]]
    if wrong and not body["test"]:
        words.append(f"NOT AT THEIR PLAN: {some(wrong)}")
        # Who still says nothing can't be taken back, either.
        silent = [host for host in wrong if hosts[host]["outcome"] == "silent"]
        if silent:
            words.append(f"when it answers again: salt-run cpacman.recover {silent[0]}")
        told = [host for host in wrong if host not in silent]
        if told:
            words.append(f"next: salt-run cpacman.rollback host={told[0]}")
    return clean("\n".join(words))


def compliance(body: Answer) -> str:
    """How each host stands that is not as it was left, and how many are."""
    hosts: Mapping[str, Answer] = body["hosts"]
    rows = [
        (host, one["state"], short_id(one["plan"]), line(one["code"] and one["error"]))
        for host, one in hosts.items()
        if one["state"] != "equal"
    ]
    words = f"{len(hosts) - len(rows)} of {len(hosts)} hosts have the packages that were left there"
    return clean("\n".join([words, table(rows)]).rstrip())


def drift(body: Answer) -> str:
    """How each host differs from what was left there, and how many do not."""
    hosts: Mapping[str, Answer] = body["hosts"]
    equal = sum(one["state"] == "equal" for one in hosts.values())
    lines = [f"{equal} of {len(hosts)} hosts have what CPacMan left there"]
    for host, one in hosts.items():
        if one["state"] != "equal":
            lines.append(f"  {host}  {one['state']}  {line(one['note'])}".rstrip())
            for word, nevras in (("added", one["added"]), ("removed", one["removed"])):
                lines += [f"    {word}  {some(nevras)}"] if nevras else []
    return clean("\n".join(lines))


LEFT = (
    ("scriptlets", "scriptlet failed"), ("broken", "broken requirement"),
    ("services", "restart"), ("reboot", "REBOOT for"), ("configs", "merge"),
    ("verify", "not as packed"),
)  # fmt: skip


def findings(hosts: Mapping[str, Answer]) -> list[str]:
    """Say what transactions left to do, once for all hosts that found the same."""
    lines = []
    for name, words in LEFT:
        found: dict[str, list[str]] = {}
        for host, one in sorted(hosts.items()):
            for text in (one.get("findings") or {}).get(name, ()):
                found.setdefault(
                    line(text.split(" (")[0] if name == "services" else text), []
                ).append(host)
        lines += [f"{words} {text}: {some(names)}" for text, names in sorted(found.items())[:MOST]]
        if len(found) > MOST:
            lines.append(
                f"{words}: {len(found) - MOST} more, see: salt-run cpacman.show r-... host="
            )
    return lines


def key(body: Answer) -> str:
    """The plan key, and which hosts still know an older one."""
    words = ["TEST, nothing done"] if body["test"] else []
    words += ["rotated: hosts learn the new key when they are asked the next time"] if (
        body["rotated"]) else []  # fmt: skip
    now, hosts = body["fingerprint"], body["hosts"]
    words.append(f"plan key {now}")
    words.append(f"{many(len(hosts.get(now, ())), 'host')} with it")
    for old in body["previous"]:
        behind = hosts.get(old["fingerprint"], ())
        words.append(f"before {old['fingerprint']}: {some(behind) if behind else 'no host'}")
    if any(name != now for name in hosts):
        words.append("next: salt-run cpacman.refresh '*'")
    return clean("\n".join(words))
