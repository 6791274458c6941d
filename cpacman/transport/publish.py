"""Calls and bytes over Salt's own publish channel.

Invariants: loads are addressed to explicit lists of ids; the bytes of a chunk are in no job cache
and no return; with filtering in force they reach nobody but their targets. A host that falls
behind leaves the target list until it answers again, so it slows nobody.

All that touches the inside of Salt is in `Channel`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cpacman.errors import Problem
from cpacman.transport.channel import Channel
from cpacman.transport.port import (
    UNREACHABLE,
    Answer,
    PushProgress,
    ReadSegment,
    Segment,
    read_answer,
)
from cpacman.transport.pushing import Limits, Push
from cpacman.words import many

LARGE = frozenset({"begin"})
"""Functions whose arguments are too large to come back with the return."""
TWINS_TOLD = frozenset({"inventory"})
"""Functions in whose answers a second machine of the same id is noticed: what is asked before
anything is planned or changed."""
TWIN_WAIT = 0.4
"""Seconds to listen for such a second answer."""
_TICK = 0.25


class PublishTransport:
    """The `publish` transport of one master.

    Args:
        opts: the master's options.
        who: the user noted in each load.
        connected: names all accepted hosts.
        filtered: names those that are known to take only what is for them.
        share: part of all that would hear it which targets must be, where it is not filtered.
        limits: how much is under way, and how long to wait.
        tell: shows a line to whoever waits.
    """

    name = "publish"

    def __init__(
        self,
        opts: Mapping[str, Any],
        *,
        who: str,
        connected: Callable[[], Iterable[str]],
        filtered: Callable[[], Iterable[str]],
        share: float,
        limits: Limits,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._opts = dict(opts)
        self._who = who
        self._connected = connected
        self._filtered = filtered
        self._share = share
        self._limits = limits
        self._tell = tell

    def close(self) -> None:
        """Nothing stays open between calls."""

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Refuse when many would get bytes that are not for them."""
        others = self._listeners(targets)
        if not targets or len(targets) >= self._share * (len(targets) + len(others)):
            return []
        some = " ".join(others[:5])
        return [
            Problem(
                "zmq_filtering",
                f"is off: bytes for {many(len(targets), 'host')} would reach {len(others)} others"
                f" ({some}{' ...' if len(others) > 5 else ''})",
                "set zmq_filtering: True on the master and on all minions, restart them,"
                " and refresh",
            )
        ]

    def _listeners(self, targets: Sequence[str]) -> list[str]:
        """Return who takes every load, though it is not for them.

        Over zeromq the master sends by topic only with `zmq_filtering`, and a minion without it
        subscribes to everything. A minion that says it filters, and answered, shows that the master
        does: it would hear nothing otherwise. One that never said so is taken to hear all.
        """
        if self._opts.get("transport", "zeromq") != "zeromq":
            return []
        others = set(self._connected()) - set(targets)
        if self._opts.get("zmq_filtering"):
            others -= set(self._filtered())
        return sorted(others)

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`."""
        with Channel.opened(self._opts, self._who) as channel:
            waiting: dict[tuple[str, str], str] = {}
            for arguments, hosts in _grouped(requests):
                large = function in LARGE
                jid = channel.publish(
                    function, hosts, {} if large else arguments, arguments if large else None
                )
                waiting.update({(jid, host): host for host in hosts})
            linger = TWIN_WAIT if function in TWINS_TOLD else 0.0
            arriving = _arriving(channel, function, waiting, timeout, linger)
            yield from _without_twins(arriving) if linger else arriving

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """See `Transport.push`."""
        if not needs:
            return []
        self._name_listeners(needs)
        with Channel.opened(self._opts, self._who) as channel:
            return Push(channel, session, needs, read, progress, self._limits).run()

    def _name_listeners(self, needs: Mapping[str, Sequence[Segment]]) -> None:
        """Say which hosts hear what is not for them; `check` found them few enough."""
        others = self._listeners(list(needs))
        if others:
            size = sum(n for _, _, n in {s for segments in needs.values() for s in segments})
            self._tell(
                f"{many(len(others), 'host')} that are no targets take the same {size / 1e6:.1f} MB"
            )


def _arriving(
    channel: Channel,
    function: str,
    jobs: Mapping[tuple[str, str], str],
    timeout: float,
    linger: float,
) -> Iterator[Answer]:
    """Yield what arrives for `(job id, host)` pairs, and what comes again `linger` seconds more."""
    waiting = dict(jobs)
    end = time.monotonic() + timeout
    complete = False
    while not complete or linger:
        if not waiting and not complete:
            complete, end = True, min(end, time.monotonic() + linger)
        left = end - time.monotonic()
        if left <= 0:
            break
        event = channel.wait(min(_TICK, left))
        if event is not None and (event.jid, event.host) in jobs:
            waiting.pop((event.jid, event.host), None)
            yield read_answer(event.host, function, event.value)
    for host in waiting.values():
        yield Answer(host, {}, UNREACHABLE, f"no answer in {timeout:.0f} s")


def _without_twins(answers: Iterable[Answer]) -> Iterator[Answer]:
    """Make one error of the answers of several machines that go by one id."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.host, []).append(answer)
    for host, given in found.items():
        if len(given) == 1:
            yield given[0]
        else:
            mend = "give the copy an id and a key of its own"
            yield Answer(host, {}, "twins", f"{len(given)} machines answer to this id; {mend}")


def _grouped(
    requests: Mapping[str, Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], list[str]]]:
    groups: list[tuple[Mapping[str, Any], list[str]]] = []
    index: dict[str, int] = {}
    for host in sorted(requests):
        key = repr(sorted(requests[host].items()))
        if key not in index:
            index[key] = len(groups)
            groups.append((requests[host], []))
        groups[index[key]][1].append(host)
    return groups
