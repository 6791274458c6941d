"""Simulated hosts behind the port of a transport: messages that are lost, late or doubled."""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cpacman.commands.refresh import seal_of
from cpacman.errors import HostError
from cpacman.inventory import cookie_of
from cpacman.model import InstalledPackage, Inventory
from cpacman.transport.port import UNREACHABLE, Answer
from tests.simulated.hosts import AFTER, Host, Session
from tests.simulated.schedule import Schedule

_ORDERS = ("apply", "restart", "reboot")


class Network:
    """Simulated hosts behind the port of a transport, and what verifies their reports.

    Args:
        hosts: by name.
        schedule: the clock.
        dice: what goes wrong on the way.
        trouble: chance that a message is lost, doubled or late.
        watch: is told of each start of a host, restart and reboot, before it begins.
    """

    name = "simulated"

    def __init__(
        self,
        hosts: Mapping[str, Host],
        schedule: Schedule,
        dice: random.Random,
        pinned: str,
        trouble: float,
        watch: Callable[[Host, str, str], None],
    ) -> None:
        self.hosts, self._schedule, self._dice = dict(hosts), schedule, dice
        self._pinned, self.trouble, self._watch = pinned, trouble, watch
        self.met: Counter[str] = Counter()
        self.asked: Callable[[str, str, Mapping[str, Any]], None] = lambda *_: None
        self.pushes: Callable[[str, Sequence[str]], None] = lambda *_: None
        self._doors: dict[str, Callable[[Host, Mapping[str, Any]], Mapping[str, Any]]] = {
            "inventory": self._inventory, "details": self._details, "begin": self._begin,
            "staged": self._staged, "apply": self._apply, "result": self._result,
            "restart": self._restart, "reboot": self._reboot, "pin": lambda host, arguments: {},
        }  # fmt: skip

    def close(self) -> None:
        """Nothing is open."""

    def check(self, targets: Sequence[str]) -> list[Any]:
        """Never object."""
        return []

    def verify(self, host: str, text: str, signature: str) -> Mapping[str, Any]:
        """Accept what the host itself signed."""
        if signature != f"signed by {host}":
            raise HostError("the report is not signed by the host's accepted key")
        return dict(json.loads(text))

    # ---- the port --------------------------------------------------------------------------

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`: all are asked at once, answers come in any order."""
        dice, now = self._dice, self._schedule.now
        self._schedule.sleep(dice.uniform(0.01, 0.3))
        answers, silent = [], []
        for name in requests:
            self.asked(function, name, requests[name])
            answer = self._carry(function, self.hosts[name], requests[name])
            (silent if answer is None else answers).append(answer or name)
        dice.shuffle(answers)
        yield from answers  # type: ignore[misc]
        if silent:
            self._schedule.sleep(now + timeout - self._schedule.now)
            for name in silent:
                yield Answer(str(name), {}, UNREACHABLE, f"no answer in {timeout:g} s")

    def push(
        self, session: str, needs: Mapping[str, Sequence[Any]], read: Any, progress: Any
    ) -> list[Answer]:
        """See `Transport.push`."""
        self.pushes(session, list(needs))
        self._schedule.sleep(self._dice.uniform(0.1, 3.0))
        found = []
        for name, segments in needs.items():
            host = self.hosts[name]
            reached = not host.is_down(self._schedule.now) and not self._strikes("push lost")
            if reached and session in host.sessions:
                assert all(read(*segment) is not None for segment in segments)
                host.sessions[session].complete = host.has_files = True
            code = "" if reached else UNREACHABLE
            found.append(Answer(name, {}, code, "stalled" if code else ""))
        return found

    def _strikes(self, what: str) -> bool:
        if self._dice.random() >= self.trouble:
            return False
        self.met[what] += 1
        return True

    def _carry(self, function: str, host: Host, arguments: Mapping[str, Any]) -> Answer | None:
        """Carry one question there and its answer back; None when none comes."""
        if host.is_down(self._schedule.now):
            self.met["down"] += 1
            return None
        if self._strikes("question lost"):
            return None
        if function in _ORDERS and self._strikes(f"{function} late"):
            self._later(function, host, arguments, self._dice.uniform(1.0, 90.0))
            return None
        if function in _ORDERS and self._strikes(f"{function} twice"):
            self._later(function, host, arguments, self._dice.uniform(0.0, 30.0))
        answer = self._ask(function, host, arguments)
        return None if self._strikes("answer lost") else answer

    def _later(
        self, function: str, host: Host, arguments: Mapping[str, Any], seconds: float
    ) -> None:
        def arrive() -> None:
            if not host.is_down(self._schedule.now):
                self._ask(function, host, arguments)

        self._schedule.spawn("network", arrive, after=seconds)

    def _ask(self, function: str, host: Host, arguments: Mapping[str, Any]) -> Answer:
        host.settle(self._schedule.now)
        if function in host.refuses:
            self.met[f"{function} refused"] += 1
            code = host.refuses[function]
            return Answer(host.name, {}, code, f"simulated {code}")
        try:
            return Answer(host.name, self._doors[function](host, arguments))
        except _Refused as no:
            return Answer(host.name, {}, str(no), f"refused: {no}")

    # ---- the doors -------------------------------------------------------------------------

    def _inventory(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        inventory = host.kinds[host.truth]
        head = {**msgspec.to_builtins(inventory), "packages": [], "host": host.name}
        if arguments["cookie"] == inventory.cookie:
            value = {"cookie": inventory.cookie, "unchanged": True, "head": head}
        else:
            rows = [(p.digest, p.installtime, p.reason, seal_of(details_of(p)))
                    for p in inventory.packages]  # fmt: skip
            value = {"cookie": inventory.cookie, "head": head, "packages": rows}
        return {**value, "pinned": self._pinned}

    def _details(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = set(arguments["digests"])
        found = [details_of(p) for p in host.kinds[host.truth].packages if p.digest in wanted]
        return {"packed": base64.b64encode(zlib.compress(json.dumps(found).encode())).decode()}

    def _begin(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        manifest = json.loads(arguments["manifest"])
        name = manifest["session"]
        known = host.sessions.get(name)
        if known is None:
            if manifest["sequence"] <= host.sequence:
                raise _Refused("sequence")
            host.sequence = manifest["sequence"]
            fate = host.fates.pop(0) if host.fates else "applied"
            known = host.sessions[name] = Session(manifest, fate, host.cuts)
            host.cuts, known.complete = 0, host.has_files
        elif known.manifest != manifest:
            raise _Refused("session")
        missing = [] if known.complete else [[f["sha256"], 0, f["size"]] for f in manifest["files"]]
        return {"session": name, "missing": missing, "free": 1 << 40, "state": known.state}

    def _staged(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        one = self._session(host, arguments)
        return {"complete": one.complete, "missing": [], "bad": []}

    def _session(self, host: Host, arguments: Mapping[str, Any]) -> Session:
        if arguments["session"] not in host.sessions:
            raise _Refused("session")
        return host.sessions[arguments["session"]]

    def _apply(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        one, now = self._session(host, arguments), self._schedule.now
        order = json.loads(arguments["order"])
        if (order["session"], order["host"]) != (arguments["session"], host.name):
            raise _Refused("order")
        if now > order["expires"]:
            raise _Refused("expired")
        if one.state in ("running", "ended"):
            return {"started": True}
        if host.at_work or host.falls is not None:
            raise _Refused("busy")
        self._watch(host, "apply", arguments["session"])
        self._start(host, one, now)
        return {"started": True}

    def _start(self, host: Host, one: Session, now: float) -> None:
        one.starts += 1
        self.met["start that is cut off" if one.cuts else f"start that ends {one.fate}"] += 1
        one.begun, one.ends, one.state = now, now + host.slow, "running"
        if one.cuts == 0 and one.state != "cut":
            self._refuse(host, one, now)
        if one.fate == "hang":
            one.ends = float("inf")

    def _refuse(self, host: Host, one: Session, now: float) -> None:
        """Refuse as the agent does, in the process that was started: nothing was changed."""
        late = now > one.manifest["expires"]
        cut = next((s for s in host.sessions.values() if s.state == "cut" and s is not one), None)
        if one.starts > 1:
            return
        if cut is not None and one.manifest.get("recovers") is None:
            one.state, one.outcome = "ended", "refused"
        elif host.truth == AFTER:
            one.state, one.outcome = "ended", "unchanged"
        elif host.kinds[host.truth].cookie != one.manifest["cookie"] or late:
            one.state, one.outcome = "ended", "refused"

    def _following(
        self, kind: str, host: Host, arguments: Mapping[str, Any]
    ) -> tuple[Session, dict[str, Any]]:
        one, order = self._session(host, arguments), json.loads(arguments["order"])
        named = (order["kind"], order["host"], order["session"])
        if named != (kind, host.name, arguments["session"]) or one.outcome != "applied":
            raise _Refused("order")
        if self._schedule.now > order["expires"]:
            raise _Refused("expired")
        return one, order

    def _restart(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        one, order = self._following("restart", host, arguments)
        if (one.restart or {}).get("number") != order["number"]:
            self._watch(host, "restart", arguments["session"])
        host.restart(one, order["number"], self._schedule.now)
        return {"ordered": True}

    def _reboot(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        one, order = self._following("reboot", host, arguments)
        if order["boot_id"] != host.boot:
            return {"rebooted": True}
        if host.at_work:
            raise _Refused("busy")
        said = one.reboot or {}
        tried = (said.get("number"), bool(said.get("error"))) == (order["number"], True)
        if host.falls is None and not tried:
            self._watch(host, "reboot", arguments["session"])
            host.reboot(one, order["number"], self._schedule.now)
        return {"ordered": True}

    def _result(self, host: Host, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        one = self._session(host, arguments)
        report = self._report(host, one, arguments)
        signature = f"signed by {host.name}"
        lie, host.lie = host.lie, "" if self._dice.random() < 0.3 else host.lie
        if not lie:
            return {"report": json.dumps(report), "signature": signature}
        self.met[f"lie: {lie}"] += 1
        if lie == "nothing":
            return {}
        if lie == "junk":
            return {"report": [1, 2], "signature": None}
        if lie == "signature":
            return {"report": json.dumps({**report, "state": "done", "outcome": "applied",
                                          "packages": one.manifest["after"]}),
                    "signature": "forged"}  # fmt: skip
        wrong = {**report, lie: "wrong"}
        if lie in ("nonce", "session", "host", "plan"):
            # An old report, or one of somebody else: it would be good news.
            wrong.update(state="done", outcome="applied", packages=one.manifest["after"])
        elif report["outcome"] is None:
            wrong = report
        return {"report": json.dumps(wrong), "signature": signature}

    def _report(self, host: Host, one: Session, arguments: Mapping[str, Any]) -> dict[str, Any]:
        manifest = one.manifest
        report: dict[str, Any] = {
            "host": host.name, "plan": manifest["plan"], "session": manifest["session"],
            "nonce": arguments["nonce"], "state": one.state, "outcome": None, "code": "",
            "detail": "", "ended": None, "packages": "", "findings": {},
            "boot_id": host.boot, "ended_boot_id": one.boot,
            "restart": one.restart or {}, "reboot": one.reboot or {},
        }  # fmt: skip
        there = manifest["after"] if host.truth == AFTER else "other"
        if one.state == "cut":
            report.update(state="failed", outcome="failed", code="interrupted", packages=there)
        elif one.state == "ended":
            done = "failed" if one.outcome == "failed" else "done"
            report.update(state=done, outcome=one.outcome, ended=one.ends, packages=there)
            if one.outcome in ("failed", "refused"):
                report["code"] = "simulated"
            if one.outcome == "applied":
                report["findings"] = findings_of(host)
        return report


def findings_of(host: Host) -> dict[str, list[str]]:
    """Return what a host finds after a transaction, as its report has it."""
    services = [line for line in host.needs if line != "reboot"]
    reboot = ["kernel-core-6-1.noarch"] if "reboot" in host.needs else []
    return {"services": services, "reboot": reboot}


class _Refused(Exception):
    """The door says no, with a code."""


def details_of(package: InstalledPackage) -> dict[str, Any]:
    """Return what a host tells of a package that the master does not know."""
    raw = dict(msgspec.to_builtins(package))
    raw.pop("installtime", None)
    raw.pop("reason", None)
    return raw


def with_cookie(inventory: Inventory) -> Inventory:
    """Return an inventory with the cookie that belongs to its packages."""
    cookie = cookie_of([(p.digest, p.installtime) for p in inventory.packages])
    return msgspec.structs.replace(inventory, cookie=cookie)
