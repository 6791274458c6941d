"""What will follow a plan's transactions, as far as that can be told before: restarts, reboots.

Invariant: this only foretells; each host's own findings after its transaction decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.fleet import place_all
from cpacman.config import RestartChanges, RestartSettings, restarts_of
from cpacman.model import Plan


def foretold(context: Context, class_: str, plan: Plan) -> list[dict[str, Any]]:
    """Return a row for each way in which hosts will be restarted or rebooted, or stay as they are.

    A row has `what` (`reboot`, `restart`, or `stays`: a reboot is wanted, and none is configured),
    `policy`, `names` of services, and `hosts`.
    """
    busy = sorted(host for host, number in plan.hosts.items() if plan.transactions[number].actions)
    rows: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for host, policy in _policies(context, class_, busy):
        wanted = plan.transactions[plan.hosts[host]].reboot
        for key in _kinds(policy, wanted):
            rows.setdefault(key, []).append(host)
    return [
        {"what": what, "policy": policy, "names": list(names), "hosts": hosts}
        for (what, policy, names), hosts in sorted(rows.items())
    ]


def _kinds(policy: RestartSettings, wanted: bool) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    if policy.reboot == "always" or (policy.reboot == "needed" and wanted):
        return [("reboot", policy.reboot, ())]
    found: list[tuple[str, str, tuple[str, ...]]] = []
    if wanted:
        found.append(("stays", policy.reboot, ()))
    if policy.services != "never":
        names = policy.names if policy.services == "listed" else ()
        found.append(("restart", policy.services, names))
    return found


def _policies(
    context: Context, class_: str, hosts: list[str]
) -> Iterable[tuple[str, RestartSettings]]:
    """Yield what holds for each host; where only the fleet says something, nobody is placed."""
    settings = context.settings
    given = [one.restarts for one in settings.classes] + [one.restarts for one in settings.levels]
    if all(one == RestartChanges() for one in given):
        yield from ((host, settings.restarts) for host in hosts)
        return
    placements = place_all(context, hosts).placements
    known = settings.level_names
    by_level = {level: restarts_of(settings, class_, level) for level in known}
    for host in hosts:
        level = placements[host].host.level
        yield host, by_level[level if level in by_level else known[-1]]
