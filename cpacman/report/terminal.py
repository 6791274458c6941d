"""Progress on a terminal: one line that is written over, and gone at the end.

Invariant: nothing is written to what is no terminal, so that errors stay the only lines there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
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


class Block:
    """Lines that are drawn over again and again, where there is a terminal.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._height = stream, 0

    @property
    def is_drawn(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._stream.isatty()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those before, as many and as much as there is room for."""
        size = shutil.get_terminal_size()
        shown = [_clean(line)[: size.columns - 1] for line in lines[: size.lines - 1]]
        self._stream.write(self._back() + "".join(f"\x1b[K{line}\n" for line in shown) + "\x1b[J")
        self._stream.flush()
        self._height = len(shown)

    def clear(self) -> None:
        """Take the lines away again."""
        if self._height:
            self._stream.write(f"{self._back()}\x1b[J")
            self._stream.flush()
            self._height = 0

    def _back(self) -> str:
        return f"\x1b[{self._height}A" if self._height else ""


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
