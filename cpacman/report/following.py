"""Screens about restarts and reboots: what is foretold, what is under way, what is still owed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cpacman.report.text import clean, line, some
from cpacman.words import many

Answer = Mapping[str, Any]
UNDER_WAY = {
    "installed": "INSTALLED",
    "restarting": "RESTARTING SERVICES",
    "rebooting": "REBOOTING",
}
OWED = "owed"


def foretold(rows: Iterable[Answer]) -> list[str]:
    """Say which hosts of a plan will be rebooted or have services restarted, and which need it."""
    return [clean(_foretold(row)) for row in rows]


def _foretold(row: Answer) -> str:
    hosts = f"{many(len(row['hosts']), 'host')}: {some(row['hosts'])}"
    if row["what"] == "reboot":
        return f"reboots ({row['policy']})  {hosts}"
    if row["what"] == "stays":
        return f"NO REBOOT, though one is wanted (restarts.reboot: {row['policy']})  {hosts}"
    names = f" of {' '.join(row['names'])}" if row["names"] else ""
    return f"restarts services{names} that use replaced files ({row['policy']})  {hosts}"


def under_way(hosts: Mapping[str, Answer]) -> list[str]:
    """Name the hosts of a rollout that are away, or wait for their order, or are owed it."""
    lines = [
        f"{words}  {some([host for host, one in sorted(hosts.items()) if one['state'] == state])}"
        for state, words in UNDER_WAY.items()
        if any(one["state"] == state for one in hosts.values())
    ]
    reasons: dict[str, list[str]] = {}
    for host in owed(hosts):
        reasons.setdefault(line(hosts[host]["detail"] or ""), []).append(host)
    lines += [
        f"OWED     {some(names)}  {why}: ITS PACKAGES ARE THERE" for why, names in reasons.items()
    ]
    return lines


def owed(hosts: Mapping[str, Answer]) -> list[str]:
    """Return the hosts that were stopped before their reboot or restarts."""
    return [host for host, one in sorted(hosts.items()) if one["code"] == OWED]
