"""Simulated hosts: what they have, what runs on them, how they fall and come back.

What a host says of itself may be a lie (`Host.lie`), what it *is* never: the checker reads that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cpacman.model import Inventory

BEFORE, HALF, AFTER, OTHER = "before", "half", "after", "other"
LIES = ("nonce", "session", "host", "plan", "packages", "outcome", "signature", "nothing", "junk")
"""What a host may say wrongly that a master can tell."""
PAUSE = 1.5
"""Seconds between an order to reboot and the fall."""
INHIBITED = "a user is logged in"


@dataclass
class Session:
    """One session on a host: its manifest, and how far it is.

    Attributes:
        fate: how it will end: `applied`, `failed` (half done), `refused` (nothing changed), `hang`.
        cuts: how many of its starts are still to be cut off in the middle.
        begun: when it started last, or None.
        ends: when what runs will be over.
        state: `staged`, `running`, `cut` or `ended`.
        starts: how often it really started.
        changed: whether it ever touched a package.
        boot: the boot in which it ended.
        restart: what it says of services that it was told to restart; `restarted`: when they are.
        reboot: what it says of the reboot that it was told.
    """

    manifest: dict[str, Any]
    fate: str
    cuts: int
    state: str = "staged"
    complete: bool = False
    begun: float | None = None
    ends: float = 0.0
    starts: int = 0
    changed: bool = False
    outcome: str | None = None
    boot: str = ""
    restart: dict[str, Any] | None = None
    restarted: float = 0.0
    reboot: dict[str, Any] | None = None


@dataclass
class Host:
    """One simulated host and what will go wrong with it.

    Attributes:
        needs: what it finds after a transaction: lines of services, and `reboot`.
        away: seconds that it takes to come back from a reboot.
        inhibited: how many orders to reboot it does not carry out.
        broken: how many restarts of a service fail.
        falls: when it goes down, to be back in another boot at `rises`.
    """

    name: str
    kinds: Mapping[str, Inventory]
    truth: str = BEFORE
    sessions: dict[str, Session] = field(default_factory=dict)
    sequence: int = 0
    down: list[tuple[float, float]] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    cuts: int = 0
    slow: float = 5.0
    lie: str = ""
    refuses: dict[str, str] = field(default_factory=dict)
    has_files: bool = False
    needs: tuple[str, ...] = ()
    away: float = 20.0
    inhibited: int = 0
    broken: int = 0
    boots: int = 1
    falls: float | None = None
    rises: float = 0.0
    met: Counter[str] = field(default_factory=Counter)

    def is_down(self, now: float) -> bool:
        """Whether nobody reaches it now."""
        fallen = self.falls is not None and self.falls <= now < self.rises
        return fallen or any(start <= now < end for start, end in self.down)

    @property
    def at_work(self) -> Session | None:
        """The session that runs, if any."""
        return next((one for one in self.sessions.values() if one.state == "running"), None)

    @property
    def boot(self) -> str:
        """The boot that it is in."""
        return f"{self.name} boot {self.boots}"

    def falls_at(self, moment: float, away: float) -> None:
        """Go down at a moment, whatever runs then, and come back in another boot."""
        self.falls, self.rises = moment, moment + away

    def settle(self, now: float) -> None:
        """Let what was to end by now have ended."""
        limit = now if self.falls is None else min(now, self.falls)
        for one in self.sessions.values():
            if one.state == "running" and limit >= one.ends:
                self._end(one)
            if one.restart and one.restart["state"] == "running" and limit >= one.restarted:
                self._restarted(one)
        if self.falls is not None and now >= self.falls:
            self._fall()
        if self.falls is not None and now >= self.rises:
            self.boots, self.falls = self.boots + 1, None

    def _fall(self) -> None:
        for one in self.sessions.values():
            if one.state == "running":
                self.met["power cut in a transaction"] += 1
                one.state, self.truth, one.changed, one.fate = "cut", HALF, True, "applied"

    def _end(self, one: Session) -> None:
        if one.cuts > 0:
            one.cuts -= 1
            one.state, self.truth, one.changed = "cut", HALF, True
            return
        one.state, one.outcome, one.boot = "ended", one.fate, self.boot
        if one.fate == "applied":
            self.truth, one.changed = AFTER, True
        elif one.fate == "failed":
            self.truth, one.changed = HALF, True

    # ---- what follows ----------------------------------------------------------------------

    def restart(self, one: Session, number: str, now: float) -> None:
        """Begin to restart services, once for a number."""
        if one.restart is None or one.restart["number"] != number:
            one.restart = {"number": number, "state": "running", "units": [], "left": []}
            one.restarted = now + min(self.slow, 20.0)

    def _restarted(self, one: Session) -> None:
        assert one.restart is not None
        bad = self.broken > 0
        self.broken -= bad
        self.met["restart that fails" if bad else "restart"] += 1
        unit = {"unit": "httpd.service", "ok": not bad, "output": "dead" if bad else ""}
        one.restart = {**one.restart, "state": "done", "units": [unit]}

    def reboot(self, one: Session, number: str, now: float) -> None:
        """Begin to reboot, or say why not."""
        stuck = self.inhibited > 0
        self.inhibited -= stuck
        self.met["reboot that is inhibited" if stuck else "reboot"] += 1
        error = INHIBITED if stuck else ""
        one.reboot = {"boot_id": self.boot, "number": number, "error": error}
        if not stuck:
            self.falls_at(now + PAUSE, self.away)

    def has_rebooted(self, one: Session) -> bool:
        """Whether it is in another boot than that in which a session ended."""
        return one.boot not in ("", self.boot)

    def has_restarted(self, one: Session) -> bool:
        """Whether all services that were to be restarted after a session are up again."""
        said = one.restart or {}
        return said.get("state") == "done" and all(unit["ok"] for unit in said["units"])
