"""What a rollout is given: its plan and levels, its tools, its times. Plain values and ports."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from cpacman.model import Inventory, Plan
from cpacman.report.progress import Reporter
from cpacman.rollout.gate import Finding, Moment
from cpacman.rollout.restarts import Restarts
from cpacman.rollout.windows import Opening
from cpacman.store import Store
from cpacman.transport.port import Transport

HALTED = "halted"
CHANGED = "changed"
ALREADY = "already"


class Files(Protocol):
    """The depot, as far as a push needs it."""

    def check(self, sha256: str, size: int) -> object:
        """Raise when the file is not there or not the one that its name says."""
        ...

    def path_of(self, sha256: str) -> Path:
        """Return where the file is."""
        ...


class Signer(Protocol):
    """The plan key."""

    def sign_manifest(self, text: str) -> str:
        """Return the signature of a manifest or an order, in base64."""
        ...


class Level(NamedTuple):
    """One level of a rollout: its hosts in order, its limits, and what it must pass.

    `soak` is in seconds; `gate` is the name of its checks, "" for none; `around` are the names of
    what is done to a host before it is changed, and undone afterwards; `restarts` is what follows
    a transaction.
    """

    name: str
    hosts: tuple[str, ...]
    concurrency: int
    max_failures: int
    max_unreachable: int
    soak: float = 0.0
    gate: str = ""
    around: tuple[str, ...] = ()
    restarts: Restarts = Restarts()


class Job(NamedTuple):
    """What is to be carried out, and for whom. `host_cache` bounds what a host keeps, in bytes.

    `names` and `demands` are by sha256: the file's name, and what hosts do about its signature.
    `max_failures` and `max_unreachable` are those of the rollout as a whole; each level has its
    own beside them. `settings` are plain values that are kept with the rollout. `forgiven` are
    hosts that ended badly and that a person decided not to count any more.
    """

    rollout: str
    plan: Plan
    class_: str
    levels: tuple[Level, ...]
    names: Mapping[str, str]
    protected: tuple[str, ...]
    who: str
    reason: str | None
    ticket: str | None
    owner: str
    demands: Mapping[str, str] = {}
    max_failures: int = 2**31
    max_unreachable: int = 2**31
    settings: Mapping[str, Any] = {}
    forgiven: frozenset[str] = frozenset()
    host_cache: int = 2**31


class Times(NamedTuple):
    """How long things may take, in seconds.

    `patience` is how long this process waits for a window or a soak, and `limit` the moment up to
    which it waits at all, in seconds since the epoch; what takes longer leaves the rollout waiting,
    for whoever goes on with it later.
    """

    answer: float = 30.0
    apply: float = 1800.0
    patience: float = math.inf
    limit: float = math.inf


class Recheck(NamedTuple):
    """Whether the plan still holds for a host: its inventory now, or why not."""

    inventory: Inventory | None
    code: str = ""
    detail: str = ""


Doing = Literal["apply", "stage"]
"""What windows are for: changing hosts, or sending them what a change needs."""


class Gatekeeper(Protocol):
    """Who runs the checks of gates and knows the calendar."""

    def check(self, gate: str, hosts: Sequence[str], moment: Moment) -> Sequence[Finding]:
        """Run the checks of a gate that are meant for a moment; total, each has its finding."""
        ...

    def unasked(
        self, gate: str, members: Sequence[str], hosts: Sequence[str], moment: Moment
    ) -> Sequence[str]:
        """Return the required checks that are for some of these members, and for no such host."""
        ...

    def before(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """Do to hosts what comes before their change; one finding each."""
        ...

    def after(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """Undo on hosts what was done before their change; one finding each, or none at all."""
        ...

    def openings(self, hosts: Sequence[str], what: Doing = "apply") -> Mapping[str, Opening]:
        """Say of each of these hosts whether it may be changed now, or sent what it needs."""
        ...

    def approval(self, level: str) -> str:
        """Return what a level lacks of approval, "" for nothing."""
        ...

    def every(self, gate: str) -> float:
        """Return after how many seconds the checks of a soak are due again."""
        ...

    def late(self) -> bool:
        """Say whether hosts that were out of reach and come back join the rollout."""
        ...


class NoGates:
    """A gatekeeper that has no gate, no calendar and nobody to ask."""

    def check(self, gate: str, hosts: Sequence[str], moment: Moment) -> Sequence[Finding]:
        """See `Gatekeeper.check`."""
        return ()

    def unasked(
        self, gate: str, members: Sequence[str], hosts: Sequence[str], moment: Moment
    ) -> Sequence[str]:
        """See `Gatekeeper.unasked`."""
        return ()

    def before(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.before`."""
        return ()

    def after(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.after`."""
        return ()

    def openings(self, hosts: Sequence[str], what: Doing = "apply") -> Mapping[str, Opening]:
        """See `Gatekeeper.openings`."""
        return dict.fromkeys(hosts, Opening(True))

    def approval(self, level: str) -> str:
        """See `Gatekeeper.approval`."""
        return ""

    def every(self, gate: str) -> float:
        """See `Gatekeeper.every`."""
        return 60.0

    def late(self) -> bool:
        """See `Gatekeeper.late`."""
        return False


def _nothing_more(_: Inventory) -> Sequence[str]:
    return ()


class Tools(NamedTuple):
    """What a rollout works with.

    `protects` tells the names on a host that policy protects, beside those that are protected
    everywhere.
    """

    store: Store
    transport: Transport
    files: Files
    signer: Signer
    verify: Callable[[str, str, str], Mapping[str, Any]]
    recheck: Callable[[Sequence[str]], Mapping[str, Recheck]]
    refresh: Callable[[Sequence[str]], None]
    reporter: Reporter
    stopping: Callable[[], bool]
    times: Times = Times()
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    gates: Gatekeeper = NoGates()
    protects: Callable[[Inventory], Sequence[str]] = _nothing_more

    def open_now(self, hosts: Iterable[str], what: Doing = "apply") -> list[str]:
        """Return those of some hosts for which it is time, in order."""
        asked = list(hosts)
        found = self.gates.openings(asked, what) if asked else {}
        return [host for host in asked if found[host].is_open]


def new_rollout_id() -> str:
    """Return a fresh rollout id: random, because the same plan may be carried out twice."""
    return f"r-{secrets.token_hex(8)}"


def session_of(rollout: str, attempt: int) -> str:
    """Return the name of a host's session: that of the rollout, with the attempt after the first.

    A session on a host holds one manifest for ever, so a second attempt needs another.
    """
    return rollout if attempt == 1 else f"{rollout}.{attempt}"
