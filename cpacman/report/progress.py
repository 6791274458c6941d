"""How long work tells that it is going on. The library never prints: it calls a Reporter."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives what a person may want to see while work goes on."""

    def line(self, text: str) -> None:
        """Show one finished line."""
        ...

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Tell how far something is; called often, shown seldom."""
        ...


class Silent:
    """The default: says nothing."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Say nothing."""


class Pace:
    """How fast bytes go, by kind of work: from when it began, or began anew."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._last: dict[str, int] = {}

    def words(self, what: str, done: int, total: int, now: float) -> str:
        """Return the rate since the beginning and the time left, "" while they are not known."""
        if done < self._last.get(what, done + 1):
            self._begun[what] = (now, done)
        self._last[what] = done
        since, before = self._begun[what]
        if now <= since or done <= before:
            return ""
        rate = (done - before) / (now - since)
        left = f", {(total - done) / rate:.0f} s left" if done < total else ""
        return f"{rate / 1e6:.1f} MB/s{left}"
