"""The port between the rollout and whatever carries its calls and bytes.

Invariant: an answer is total. Every host that was asked gets exactly one `Answer`; a host that
says nothing gets one with an error, so that silence never looks like "nothing to do".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cpacman.errors import HostError, Problem

Segment = tuple[str, int, int]
"""`(sha256, offset, length)`: a range of bytes of one package file."""

ReadSegment = Callable[[str, int, int], bytes]
"""Reads `length` bytes at `offset` of the package file with that sha256."""

UNREACHABLE = "unreachable"
CANT_BE_SERVED = "transport"
"""No transport that is configured, or was found out, leads to the host."""
_CODE = re.compile(r"[a-z][a-z-]{0,39}")
_LONGEST = 2000


class Answer(NamedTuple):
    """What one host answered: a value, or an error with its code."""

    host: str
    value: Mapping[str, Any]
    code: str = ""
    error: str = ""


class PushProgress(NamedTuple):
    """How far a push is: bytes acknowledged by hosts, of how many in all."""

    done: int
    total: int


class Transport(Protocol):
    """Carries calls and bytes to hosts that it can reach."""

    name: str

    def close(self) -> None:
        """Let go of what is open."""
        ...

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Return why this transport must not be used for these targets; empty is good."""
        ...

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """Call a function of the door on every host of `requests`, each with its arguments.

        Args:
            function: `inventory`, `begin`, ...
            requests: host -> keyword arguments.
            timeout: seconds that a host may take.
        """
        ...

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """Send every host the segments it needs.

        Args:
            session: the session that the hosts' doors accepted, the same for all.
            needs: host -> segments, as the door asked for them.
            read: reads a segment.
            progress: is told how far it is, several times a second; what it raises ends the push.

        Returns:
            one for each host: without a code when all its segments were acknowledged.
        """
        ...


def read_answer(host: str, function: str, value: Any) -> Answer:
    """Read what a door returned; anything that is not a plain dict is an error of that host."""
    if not isinstance(value, dict):
        text = str(value)[:300]
        if f"'cpacman.{function}' is not available" in text:
            mend = f"salt {host} saltutil.sync_modules"
            return Answer(host, {}, "no-door", f"CPacMan's module is not on the host; run: {mend}")
        return Answer(host, {}, "garbled", f"unexpected answer: {text}")
    error = value.get("error")
    if error is None:
        return Answer(host, value)
    if not isinstance(error, dict):
        return Answer(host, {}, "garbled", f"unexpected error: {str(error)[:300]}")
    code, words = str(error.get("code", "error")), str(error.get("message", ""))[:_LONGEST]
    # Who answers is not out of reach: that is for us to find, and counted apart from failures.
    if not _CODE.fullmatch(code) or code in (UNREACHABLE, CANT_BE_SERVED):
        return Answer(host, {}, "garbled", f"unexpected error {code!r:.60}: {words}")
    return Answer(host, {}, code, words)


class Directory(Protocol):
    """Who the hosts are: what the master knows without asking them."""

    def accepted(self) -> list[str]:
        """Return the ids of all hosts whose key the master accepted or that its roster has."""
        ...

    def transport_of(self, host: str) -> str:
        """Return the transport that was found out: `publish` with an accepted key, else `ssh`."""
        ...

    def match(self, target: str | Sequence[str], target_type: str) -> list[str]:
        """Return the accepted hosts that a Salt target matches, sorted."""
        ...

    def grains(self, hosts: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return what the master has cached of the hosts' grains."""
        ...

    def pillars(
        self, hosts: Sequence[str], grains: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Mapping[str, Any] | HostError]:
        """Return what each host's pillar, compiled on the master, says of it.

        Args:
            hosts: their ids.
            grains: of each host that has any.

        Returns:
            host -> a mapping of at most the key `cpacman`; an error where it does not render.
        """
        ...

    def fingerprints(self, hosts: Sequence[str]) -> dict[str, str]:
        """Return a digest of each host's accepted key; empty where the master has none."""
        ...

    def public_key(self, host: str) -> bytes:
        """Return the key (PEM) that the master accepted for a host.

        Raises:
            HostError: the master accepted none.
        """
        ...
