"""The TCP sockets of another network namespace, as the kernel lists them in /proc."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

LISTEN, ESTABLISHED = "0A", "01"


def listening(pid: int) -> set[int]:
    """The TCP ports that are open in the network namespace of process `pid`."""
    return {local[1] for local, _, state in connections(pid) if state == LISTEN}


def connected(pid: int, port: int) -> set[str]:
    """The addresses with an established connection to `port` there."""
    return {
        remote[0]
        for local, remote, state in connections(pid)
        if state == ESTABLISHED and local[1] == port
    }


def connections(pid: int) -> Iterator[tuple[tuple[str, int], tuple[str, int], str]]:
    """Local and remote (address, port) and state of each TCP socket (/proc/PID/net/tcp)."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        words = line.split()
        yield endpoint(words[1]), endpoint(words[2]), words[3]


def endpoint(text: str) -> tuple[str, int]:
    """`0100CB0A:1199` -> ("10.203.0.1", 4505): the address's bytes come in the machine's order."""
    address, port = text.split(":")
    raw = int(address, 16).to_bytes(4, sys.byteorder)
    return ".".join(str(byte) for byte in raw), int(port, 16)
