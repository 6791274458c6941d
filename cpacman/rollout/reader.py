"""Reading package files for a push, from several threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

_OPEN = 32


class Reader:
    """Reads segments; the files that were read last stay open.

    Args:
        path_of: where the file with a sha256 is.
    """

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        self._path_of = path_of
        self._handles: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __call__(self, sha256: str, offset: int, length: int) -> bytes:
        """Return the bytes of a segment."""
        with self._lock:
            return os.pread(self._handle(sha256), length, offset)

    def _handle(self, sha256: str) -> int:
        handle = self._handles.pop(sha256, -1)
        if handle < 0:
            handle = os.open(self._path_of(sha256), os.O_RDONLY | os.O_CLOEXEC)
            if len(self._handles) >= _OPEN:
                os.close(self._handles.pop(next(iter(self._handles))))
        self._handles[sha256] = handle
        return handle
