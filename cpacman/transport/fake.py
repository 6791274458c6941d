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
        tampers: whether it answers to begin with files that its plan does not name.
    """

    faults: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    polls: int = 0
    cuts: int = 0
    forged: bool = False
    tampers: bool = False
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
        }  # fmt: skip
        for name, arguments in requests.items():
            self.calls.append((function, name))
            host = self.hosts[name]
            code = host.faults.get(function, "")
            if code:
                yield Answer(name, {}, code, f"simulated {code}")
            else:
                yield Answer(name, doors[function](host, arguments))
                if function == "apply":
                    host.started_at = self._clock()

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """See `Transport.push`."""
        results = []
        for name, segments in needs.items():
            host = self.hosts[name]
            host.received += [segment for segment in segments if read(*segment) is not None]
            code = host.faults.get("push", "")
            results.append(Answer(name, {}, code, f"simulated {code}" if code else ""))
        return results


def _begin(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    host.manifest = json.loads(arguments["manifest"])
    missing = [[f["sha256"], 0, f["size"]] for f in host.manifest["files"]]
    if host.tampers:
        missing.append(["f" * 64, 0, 10])
    return {"session": host.manifest["session"], "missing": missing, "free": 1 << 40}


def _staged(host: FakeHost, _: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"complete": True, "missing": [], "bad": []}


def _apply(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    host.order = json.loads(arguments["order"])
    host.started += 1
    # A session is applied once, however often it is told to start.
    if arguments["session"] not in host.applied:
        host.applied.append(arguments["session"])
    return {"started": True}


def _result(host: FakeHost, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    done = host.started and host.polls <= 0
    host.polls -= 1
    report = {
        "host": host.manifest["host"], "plan": host.manifest["plan"],
        "session": host.manifest["session"], "nonce": arguments["nonce"],
        "state": ("done" if done else "running") if host.started else "staged",
        "outcome": "applied" if done else None,
        "code": None, "detail": "", "packages": host.manifest["after"],
    }  # fmt: skip
    if host.started and host.started <= host.cuts:
        report.update(state="failed", outcome="failed", code="interrupted", ended=None)
    elif done:
        report.update(host.report)
    return {"report": json.dumps(report), "signature": "forged" if host.forged else "good"}
