"""A transport without a network: simulated hosts that behave, or misbehave, as told.

For tests of the rollout at speed and for faults that real hosts don't show on demand. It answers
as a door does; it installs nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cpacman.errors import Problem
from cpacman.transport.port import Answer, PushProgress, ReadSegment, Segment


@dataclass
class FakeHost:
    """One simulated host.

    Attributes:
        faults: function of the door -> error code that it answers; `unreachable` is silence.
        report: overrides of the report it gives once it was told to start.
        polls: how often it answers "running" before it reports.
        cuts: how many of its starts end with the transaction cut off.
        forged: whether its reports carry a wrong signature.
        tampers: whether it asks for a file that its plan does not name, and for all others twice.
        keeps: whether it keeps what it was sent, and does not ask for that again.
        findings: what it found after its transaction.
        spoils: how often a file is found damaged on it once all bytes are there.
        away: how often it is asked in vain once it reboots; below 0 it does not come back.
        broken: services that do not come back when they are restarted.
        stuck: why it does not reboot.
    """

    faults: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    polls: int = 0
    cuts: int = 0
    forged: bool = False
    tampers: bool = False
    keeps: bool = False
    findings: dict[str, list[str]] = field(default_factory=dict)
    spoils: int = 0
    away: int = 0
    broken: tuple[str, ...] = ()
    stuck: str = ""
    boots: int = 1
    ended: int = 1
    asked_away: int = 0
    rebooted_at: float = 0.0
    restarts: dict[str, list[str]] = field(default_factory=dict)
    told_to_reboot: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)
    order: dict[str, Any] = field(default_factory=dict)
    started: int = 0
    started_at: float = 0.0
    applied: list[str] = field(default_factory=list)
    received: list[Segment] = field(default_factory=list)


class FakeTransport:
    """Simulated hosts behind the port."""

    name = "fake"

    def __init__(
        self, hosts: Mapping[str, FakeHost], clock: Callable[[], float] = time.time
    ) -> None:
        self.hosts = dict(hosts)
        self._clock = clock
        self.calls: list[tuple[str, str]] = []

    def close(self) -> None:
        """Nothing is open."""

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Never object."""
        return []

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`."""
        doors: dict[str, Callable[[FakeHost, Mapping[str, Any]], Mapping[str, Any]]] = {
            "begin": _begin, "staged": _staged, "apply": _apply, "result": _result,
            "restart": _restart, "reboot": _reboot,
        }  # fmt: skip
        for name, arguments in requests.items():
            self.calls.append((function, name))
            host = self.hosts[name]
            code = host.faults.get(function, "") or _absence(host)
            if code:
                yield Answer(name, {}, code, f"simulated {code}")
            else:
                yield Answer(name, doors[function](host, arguments))
                if function == "apply":
                    host.started_at = self._clock()
                if function == "reboot":
                    host.rebooted_at = self._clock()

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """See `Transport.push`."""
        results = []
        total = sum(length for segments in needs.values() for _, _, length in segments)
        for name, segments in needs.items():
            host = self.hosts[name]
            host.received += [segment for segment in segments if read(*segment) is not None]
            code = host.faults.get("push", "")
            results.append(Answer(name, {}, code, f"simulated {code}" if code else ""))
        progress(PushProgress(total, total))
        return results


def _begin(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    host.manifest = json.loads(arguments["manifest"])
    missing = [[f["sha256"], 0, f["size"]] for f in host.manifest["files"]]
    if host.keeps:
        missing = [segment for segment in missing if tuple(segment) not in host.received]
    if host.tampers:
        missing = [*missing, ["f" * 64, 0, 10], *missing]
    return {"session": host.manifest["session"], "missing": missing, "free": 1 << 40}


def _staged(host: FakeHost, _: Mapping[str, Any]) -> Mapping[str, Any]:
    if host.spoils:
        host.spoils -= 1
        spoilt = host.manifest["files"][0]
        missing = [[spoilt["sha256"], 0, spoilt["size"]]]
        return {"complete": False, "missing": missing, "bad": [spoilt["sha256"]]}
    return {"complete": True, "missing": [], "bad": []}


def _apply(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    host.order = json.loads(arguments["order"])
    host.started += 1
    # A session is applied once, however often it is told to start.
    if arguments["session"] not in host.applied:
        host.applied.append(arguments["session"])
    return {"started": True}


def _absence(host: FakeHost) -> str:
    """Return what a host answers while it is away: nothing."""
    if not host.asked_away:
        return ""
    host.asked_away -= 1
    return "unreachable"


def _restart(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    order = json.loads(arguments["order"])
    # What a number stands for is done once, however often it comes.
    host.restarts.setdefault(order["number"], order["names"])
    return {"ordered": True}


def _reboot(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    host.told_to_reboot += 1
    if json.loads(arguments["order"])["boot_id"] != f"boot-{host.boots}":
        return {"rebooted": True}
    if not host.stuck:
        host.boots += 1
        host.asked_away = host.away if host.away >= 0 else 2**31
    return {"ordered": True}


def _followed(host: FakeHost) -> Mapping[str, Any]:
    """Return what a report says of what followed."""
    boot = f"boot-{host.boots}"
    found: dict[str, Any] = {"boot_id": boot, "ended_boot_id": f"boot-{host.ended}"}
    if host.restarts:
        lines = [line.split(" (")[0] for line in host.findings.get("services", ())]
        units = [{"unit": u, "ok": u not in host.broken, "output": ""} for u in lines]
        number = list(host.restarts)[-1]
        found["restart"] = {"number": number, "state": "done", "units": units, "left": []}
    if host.stuck and host.told_to_reboot:
        found["reboot"] = {"boot_id": boot, "error": host.stuck}
    return found


def _result(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    done = host.started and host.polls <= 0
    host.polls -= 1
    report = {
        "host": host.manifest["host"], "plan": host.manifest["plan"],
        "session": host.manifest["session"], "nonce": arguments["nonce"],
        "state": ("done" if done else "running") if host.started else "staged",
        "outcome": "applied" if done else None,
        "code": None, "detail": "", "packages": host.manifest["after"],
        "findings": host.findings, **_followed(host),
    }  # fmt: skip
    if host.started and host.started <= host.cuts:
        report.update(state="failed", outcome="failed", code="interrupted", ended=None)
    elif done:
        report.update(host.report)
    return {"report": json.dumps(report), "signature": "forged" if host.forged else "good"}
