"""Simulated hosts, a real store, and a clock that runs as fast as it is asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpacman.errors import HostError, SafetyError
from cpacman.model import (
    Action,
    ActionKind,
    InstalledPackage,
    Inventory,
    InventoryRef,
    Plan,
    Request,
    Transaction,
)
from cpacman.report.progress import Silent
from cpacman.rollout.gate import Finding, Moment
from cpacman.rollout.job import Job, Level, NoGates, Recheck, Times, Tools
from cpacman.rollout.runner import begin_rollout, continue_rollout
from cpacman.rollout.stopping import End
from cpacman.rollout.windows import Opening
from cpacman.store import Store
from cpacman.transport.fake import FakeHost, FakeTransport

SHA = "a" * 64


class Depot:
    """A depot of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = False

    def check(self, sha256: str, size: int) -> None:
        """Refuse when told so."""
        if self.broken:
            raise SafetyError(f"{sha256} was altered")

    def path_of(self, sha256: str) -> Path:
        """There is only one."""
        return self.path


class Signer:
    """Signs nothing."""

    def sign_manifest(self, text: str) -> str:
        """Return a constant."""
        return "signature"


class Gates(NoGates):
    """A gatekeeper that says what it is told to say, and remembers what it was asked."""

    def __init__(self) -> None:
        self.findings: Callable[[str, Sequence[str], Moment], Sequence[Finding]] = (
            lambda gate, hosts, moment: ()
        )
        self.open: Callable[[], Opening] = lambda: Opening(True)
        self.send: Callable[[], Opening] | None = None
        self.own: dict[str, Callable[[], Opening]] = {}
        self.lacking = ""
        self.asked: list[tuple[str, tuple[str, ...], Moment]] = []
        self.done: list[tuple[str, str, str]] = []
        self.bad_action: set[str] = set()
        self.joins = False

    def check(self, gate: str, hosts: Sequence[str], moment: Moment) -> Sequence[Finding]:
        """See `Gatekeeper.check`."""
        self.asked.append((gate, tuple(hosts), moment))
        return self.findings(gate, hosts, moment)

    def openings(self, hosts: Sequence[str], what: str = "apply") -> dict[str, Opening]:
        """See `Gatekeeper.openings`."""
        said = self.open() if what == "apply" or self.send is None else self.send()
        return {host: self.own[host]() if host in self.own else said for host in hosts}

    def approval(self, level: str) -> str:
        """See `Gatekeeper.approval`."""
        return self.lacking

    def late(self) -> bool:
        """See `Gatekeeper.late`."""
        return self.joins

    def before(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.before`."""
        return [self._act("before", name, host) for host in hosts]

    def after(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.after`."""
        return [self._act("after", name, host) for host in hosts]

    def _act(self, side: str, name: str, host: str) -> Finding:
        from cpacman.rollout.gate import Verdict

        self.done.append((side, name, host))
        bad = side == "before" and host in self.bad_action
        return Finding(name, host, Verdict.FAIL if bad else Verdict.PASS, "no")


class World:
    """Everything a rollout works with, around simulated hosts."""

    def __init__(self, tmp_path: Path, hosts: Mapping[str, FakeHost]) -> None:
        self.store = Store.open(f"sqlite:///{tmp_path}/state.db")
        (tmp_path / "file").write_bytes(b"x" * 1000)
        self.depot = Depot(tmp_path / "file")
        self.gates = Gates()
        self.stopping: Callable[[], bool] = lambda: False
        self.changed: dict[str, Recheck] = {}
        self.lines: list[str] = []
        self._ticks = itertools.count(1000.0)
        self.slept = 0.0
        self.patience = float("inf")
        self.transport = FakeTransport(hosts, self.clock)
        self.inventory = Inventory(packages=(InstalledPackage(name="a", version="1", release="1"),))

    def clock(self) -> float:
        """A second for each look, and what was slept."""
        return next(self._ticks) + self.slept

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept += seconds

    def tools(self) -> Tools:
        """Everything a rollout works with."""
        reporter = Silent()
        reporter.line = self.lines.append  # type: ignore[method-assign]
        return Tools(
            store=self.store, transport=self.transport, files=self.depot, signer=Signer(),
            verify=self.verify, recheck=self.recheck, refresh=lambda hosts: None,
            reporter=reporter, stopping=lambda: self.stopping(),
            times=Times(5, 60, self.patience), clock=self.clock, sleep=self.sleep,
            gates=self.gates,
        )  # fmt: skip

    def verify(self, host: str, text: str, signature: str) -> Mapping[str, Any]:
        """Accept what is signed "good"."""
        if signature != "good":
            raise HostError(f"{host}: the report's signature is wrong")
        return json.loads(text)

    def recheck(self, hosts: Sequence[str]) -> dict[str, Recheck]:
        """Every host is as planned, but for those that were changed."""
        return {h: self.changed.get(h, Recheck(self.inventory)) for h in hosts}

    def begin(self, *levels: Level, empty: tuple[str, ...] = ()) -> Job:
        """Create a rollout of one upgrade on every host that is not among `empty`."""
        made = job(levels or (level("all", *self.transport.hosts),), empty)
        begin_rollout(made, self.tools())
        return made

    def go_on(self, made: Job) -> End:
        """Carry it on as a process that just took it over."""
        return continue_rollout(made, self.tools())

    def run(self, *levels: Level) -> End:
        """Both."""
        return self.go_on(self.begin(*levels))

    @property
    def outcomes(self) -> dict[str, tuple[str | None, str | None]]:
        """Host -> outcome and code, as the database has them."""
        return {row.host: (row.outcome, row.code) for row in self.store.rollout("r-1")[1]}

    @property
    def state(self) -> str:
        """The rollout's state in the database."""
        return str(self.store.rollout("r-1")[0]["state"])

    @property
    def levels(self) -> dict[str, str]:
        """Level -> state in the database."""
        return {one.level: one.state for one in self.store.rollout_levels("r-1")}


def level(name: str, *hosts: str, concurrency: int = 10, failures: int = 0, **more: Any) -> Level:
    """A level with its hosts."""
    return Level(name, hosts, concurrency, failures, 100, **more)


def job(levels: tuple[Level, ...], empty: tuple[str, ...] = ()) -> Job:
    """A job that upgrades one package on every host that is not among `empty`."""
    hosts = [host for one in levels for host in one.hosts]
    action = Action(
        action=ActionKind.UPGRADE, name="a", epoch=0, version="2", release="1", arch="noarch",
        nevra_="a-2-1.noarch", from_="a-1-1.", repository="r", sha256=SHA, size=1000,
    )  # fmt: skip
    plan = Plan(
        plan_id="p-1", request=Request(), policy="", snapshots={},
        hosts={h: "t-0" if h in empty else "t-1" for h in hosts},
        inventories={h: InventoryRef(digest="", cookie="") for h in hosts},
        transactions={"t-1": Transaction(actions=(action,)), "t-0": Transaction()},
    )  # fmt: skip
    return Job("r-1", plan, "all", levels, {}, (), "me", None, "CHG1", "here")
