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
