"""What follows a transaction on its host: services restarted, or the host rebooted. Pure rules.

Invariants: only what a host proved to have applied is followed by anything, and what it found
decides, whatever the plan foresaw; a reboot is over when the boot id is another one and the host
still proves its packages; nothing is known until a verified report says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from cpacman.model import Outcome
from cpacman.rollout.machine import HostState
from cpacman.rollout.reports import Findings, findings_of, judge_report, was_rebooted

RESTART = "restart"
REBOOT = "reboot"
REBOOT_TIMEOUT = "reboot-timeout"
OWED = "owed"
"""Code of a host that is applied and was stopped before what was to follow."""
TRIED_AGAIN = frozenset({RESTART, REBOOT, REBOOT_TIMEOUT, OWED})
"""Codes of hosts that have their packages; what is tried again is what follows."""


class Restarts(NamedTuple):
    """What follows a transaction, as the configuration has it.

    Attributes:
        services: `never`, `listed` or `needed`.
        names: of services, or globs, for `listed`.
        reboot: `never`, `needed` or `always`.
        within: seconds in which a host must be back, or must have restarted its services.
        timeout: seconds for one service.
    """

    services: str = "never"
    names: tuple[str, ...] = ()
    reboot: str = "never"
    within: float = 900.0
    timeout: float = 90.0


def read_restarts(raw: Mapping[str, Any]) -> Restarts:
    """Return restarts from what was kept of them as plain values."""
    return Restarts(**{**raw, "names": tuple(raw.get("names", ()))})


class Need(str, Enum):
    """What has to follow on a host."""

    NOTHING = "nothing"
    SERVICES = "services"
    REBOOT = "reboot"


class Ending(NamedTuple):
    """How a host ends after what followed, as `Record.end` takes it."""

    outcome: Outcome
    code: str | None
    detail: str
    findings: Findings


def need_of(policy: Restarts, findings: Findings) -> Need:
    """Return what has to follow a transaction that was applied."""
    if policy.reboot == "always" or (policy.reboot == "needed" and findings.get("reboot")):
        return Need.REBOOT
    users = [line.split(" (")[0] for line in findings.get("services", ())]
    if policy.services == "needed" and users:
        return Need.SERVICES
    # A list that was cut short ends with how many more there are: any of them may be meant.
    if policy.services == "listed" and any(_is_listed(one, policy.names) for one in users):
        return Need.SERVICES
    return Need.NOTHING


def _is_listed(name: str, globs: Iterable[str]) -> bool:
    """Whether a service is meant by one of the names, each with or without `.service`."""
    unit = f"{name.removesuffix('.service')}.service"
    names = (unit, unit.removesuffix(".service"))
    return name.startswith("+") or any(fnmatchcase(one, glob) for glob in globs for one in names)


def boot_of(report: Mapping[str, Any]) -> str:
    """Return the boot id of a report, "" for none."""
    return str(report.get("boot_id") or "")[:64]


def ending_of(
    state: HostState, report: Mapping[str, Any], *, boot: str, since: float, after: str
) -> Ending | None:
    """Return how a host ends that was told to reboot or to restart services, None while unknown.

    Args:
        state: `restarting` or `rebooting`.
        report: what it said, verified; empty when it said nothing.
        boot: its boot id before.
        since: when the order was written down.
        after: the digest of the packages that it must have.
    """
    if not report.get("outcome") or not boot_of(report):
        return None
    if state is HostState.REBOOTING:
        return _ending_of_reboot(report, boot, number_of(since), after)
    return _ending_of_restart(report, number_of(since), after)


def number_of(since: float) -> str:
    """Return the number of an order: the moment when it was written down."""
    return repr(since)


def is_aware(state: HostState, report: Mapping[str, Any], *, boot: str, since: float) -> bool:
    """Whether a host that has not ended yet knows of its order."""
    said = report.get(REBOOT if state is HostState.REBOOTING else RESTART)
    if not isinstance(said, Mapping):
        return False
    if state is HostState.REBOOTING:
        return _is_about(said, boot, number_of(since))
    return bool(said.get("number") == number_of(since))


def ending_of_late(state: HostState, within: float, findings: Findings) -> Ending:
    """Return how a host ends that said nothing in time."""
    if state is HostState.REBOOTING:
        words = f"told to reboot, and not back in {int(within)} s"
        return Ending(Outcome.FAILED, REBOOT_TIMEOUT, words, findings)
    return Ending(Outcome.FAILED, RESTART, f"no word of its services in {int(within)} s", findings)


def _is_about(said: Mapping[str, Any], boot: str, number: str) -> bool:
    """Whether what a host says of a reboot is about this order; an older agent keeps no number."""
    return said.get("boot_id") == boot and said.get("number", number) == number


def _ending_of_reboot(
    report: Mapping[str, Any], boot: str, number: str, after: str
) -> Ending | None:
    if boot_of(report) != boot:
        return _ending(report, after, {"services": [], "reboot": []}, "rebooted")
    said = report.get("reboot")
    if isinstance(said, Mapping) and _is_about(said, boot, number) and said.get("error"):
        words = f"did not reboot: {said['error']!s:.500}"
        return Ending(Outcome.FAILED, REBOOT, words, findings_of(report))
    return None


def _ending_of_restart(report: Mapping[str, Any], number: str, after: str) -> Ending | None:
    if was_rebooted(report):
        return _ending(report, after, {}, "rebooted meanwhile")
    said = report.get("restart")
    if not isinstance(said, Mapping) or (said.get("number"), said.get("state")) != (number, "done"):
        return None
    units = [one for one in _listed(said, "units") if isinstance(one, Mapping)]
    bad = [one for one in units if one.get("ok") is not True]
    left = [str(line) for line in _listed(said, "left")]
    if bad:
        words = "; ".join(f"{one.get('unit')}: {one.get('output')}"[:200] for one in bad)
        found = _lines({**findings_of(report), "services": left})
        return Ending(Outcome.FAILED, RESTART, f"did not restart: {words}"[:2000], found)
    names = " ".join(str(one.get("unit")) for one in units)[:500]
    return _ending(report, after, {"services": left}, f"restarted {names}" if names else "")


def _listed(said: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list that a host sent, an empty one where it sent anything else."""
    found = said.get(key)
    return found if isinstance(found, list) else []


def _ending(report: Mapping[str, Any], after: str, found: Findings, words: str) -> Ending:
    outcome, code, detail = judge_report(report, after)
    findings = _lines({**findings_of(report), **found})
    if outcome is not Outcome.APPLIED:
        return Ending(Outcome.FAILED, code, detail, findings)
    return Ending(outcome, code, words or detail, findings)


def _lines(found: Findings) -> dict[str, list[str]]:
    return findings_of({"findings": {name: list(lines) for name, lines in found.items()}})
