"""Progress on a terminal: one line that is written over, and gone at the end.

Invariant: nothing is written to what is no terminal, so that errors stay the only lines there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

_PAUSE = 0.1
"""Seconds between two writes of one stage."""


class Terminal:
    """Shows how far work is.

    Args:
        stream: where to; usually standard error.
        clock: tells the time in seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._last, self._shown = "", 0.0, False

    def line(self, text: str) -> None:
        """Show one finished line."""
        if self._stream.isatty():
            self.clear()
            self._stream.write(f"{_clean(text)}\n")

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Tell how far something is: at once when it is something new, else now and then."""
        now = self._clock()
        if not self._stream.isatty() or (what == self._stage and now - self._last < _PAUSE):
            return
        self._stage, self._last, self._shown = what, now, True
        text = _clean(f"{what} {done} of {total} {unit}".rstrip())
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{text[:width]}")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
