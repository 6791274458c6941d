"""Calls and bytes over Salt's own publish channel.

Invariants: loads are addressed to explicit lists of ids; the bytes of a chunk are in no job cache
and no return; with filtering in force they reach nobody but their targets. A host that falls
behind leaves the target list until it answers again, so it slows nobody.

All that touches the inside of Salt is in `_Channel`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cpacman.errors import Problem
from cpacman.transport.chunks import Chunk, plan_chunks
from cpacman.transport.port import UNREACHABLE, Answer, PushProgress, ReadSegment, Segment

MOST_OF_THE_FLEET = 0.8
LARGE = frozenset({"begin"})
"""Functions whose arguments are too large to come back with the return."""
TWINS_TOLD = frozenset({"inventory"})
"""Functions in whose answers a second machine of the same id is noticed: what is asked before
anything is planned or changed."""
TWIN_WAIT = 0.4
"""Seconds to listen for such a second answer."""
_TICK = 0.25
_ROUNDS = 3


class PublishTransport:
    """The `publish` transport of one master.

    Args:
        opts: the master's options.
        who: the user noted in each load.
        connected: names all accepted hosts.
        unfiltered: names those that are known to take what is not for them.
        chunk: bytes in one load.
        window: loads in flight.
        stall: seconds without an acknowledgement after which a host counts as behind.
    """

    name = "publish"

    def __init__(
        self,
        opts: Mapping[str, Any],
        *,
        who: str,
        connected: Callable[[], Iterable[str]],
        unfiltered: Callable[[], Iterable[str]],
        chunk: int,
        window: int,
        stall: float = 30.0,
    ) -> None:
        self._opts = dict(opts)
        self._who = who
        self._connected = connected
        self._unfiltered = unfiltered
        self._chunk = chunk
        self._window = window
        self._stall = stall

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Refuse when many would get bytes that are not for them.

        Over zeromq the master sends by topic only with `zmq_filtering`, and a minion without it
        subscribes to everything.
        """
        if self._opts.get("transport", "zeromq") != "zeromq":
            return []
        bystanders = set(self._connected()) - set(targets)
        if self._opts.get("zmq_filtering"):
            bystanders &= set(self._unfiltered())
        if not bystanders or len(targets) >= MOST_OF_THE_FLEET * (len(targets) + len(bystanders)):
            return []
        some = " ".join(sorted(bystanders)[:5])
        return [
            Problem(
                "zmq_filtering",
                f"is off: bytes for {len(targets)} hosts would reach {len(bystanders)} others"
                f" ({some}{' ...' if len(bystanders) > 5 else ''})",
                "set zmq_filtering: True on the master and on all minions, restart them,"
                " and refresh",
            )
        ]

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`."""
        with _Channel.opened(self._opts, self._who) as channel:
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
        with _Channel.opened(self._opts, self._who) as channel:
            run = _Push(channel, session, needs, read, progress)
            run.send_all(plan_chunks(needs, self._chunk), self._window, self._stall)
            for _ in range(_ROUNDS):
                again = run.lacking()
                if not again:
                    break
                run.send_all(plan_chunks(again, self._chunk), self._window, self._stall)
            return run.results()


def _arriving(
    channel: _Channel,
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
            yield _answer(event.host, function, event.value)
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


class _Event:
    """A return that arrived on the master's event bus."""

    def __init__(self, jid: str, host: str, value: Any) -> None:
        self.jid = jid
        self.host = host
        self.value = value


class _Channel:
    """The master's publish socket and event bus. Tested on Salt 3006 and 3008."""

    def __init__(self, opts: dict[str, Any], who: str, server: Any, bus: Any) -> None:
        self._opts = opts
        self._who = who
        self._server = server
        self._bus = bus
        self._loop = asyncio.new_event_loop()

    @classmethod
    @contextmanager
    def opened(cls, opts: dict[str, Any], who: str) -> Iterator[_Channel]:
        """Open both, and close them whatever happens."""
        import salt.transport
        import salt.utils.event

        # A transport of our own: `PubServerChannel.publish` prints the whole load for its log.
        server = salt.transport.publish_server(opts)
        with salt.utils.event.get_event(
            "master", opts=opts, sock_dir=opts["sock_dir"], listen=True
        ) as bus:
            bus.subscribe("salt/job/")
            channel = cls(opts, who, server, bus)
            try:
                yield channel
            finally:
                server.close()
                channel._loop.close()

    def publish(
        self,
        function: str,
        hosts: Sequence[str],
        arguments: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Send one load to an explicit list of hosts and return its job id.

        What is `extra` travels under a key of its own: the door sees it as `__pub_cpacman`, and
        it is neither returned in `fun_args` nor written to the job cache.
        """
        import salt.payload
        import salt.utils.jid

        jid = str(salt.utils.jid.gen_jid(self._opts))
        load: dict[str, Any] = {
            "fun": f"cpacman.{function}", "arg": [{"__kwarg__": True, **arguments}],
            "tgt": list(hosts), "tgt_type": "list", "jid": jid, "ret": "", "user": self._who,
        }  # fmt: skip
        if extra is not None:
            load["cpacman"] = dict(extra)
        # Salt 3008 is awaited and takes bytes; 3006 packs by itself and returns when it is sent.
        if asyncio.iscoroutinefunction(self._server.publish):
            self._loop.run_until_complete(self._server.publish(salt.payload.dumps(load)))
        else:
            self._server.publish(load)
        return jid

    def wait(self, seconds: float) -> _Event | None:
        """Return the next return of any job, or None when none came in time."""
        event = self._bus.get_event(
            wait=max(seconds, 0.01), tag="salt/job/", match_type="startswith", full=True,
            auto_reconnect=True,
        )  # fmt: skip
        data = event["data"] if event else {}
        # An event that a minion fires by itself has its body one level down: it is no return.
        if "return" not in data or "jid" not in data or "id" not in data:
            return None
        return _Event(str(data["jid"]), str(data["id"]), data["return"])


class _Push:
    """One push: who lacks what, and what is in flight."""

    def __init__(
        self,
        channel: _Channel,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> None:
        self._channel = channel
        self._session = session
        self._read = read
        self._progress = progress
        self._total = sum(n for segments in needs.values() for _, _, n in segments)
        self._done = 0
        self._errors: dict[str, Answer] = {}
        self._behind: set[str] = set()
        self._owed: dict[str, set[Segment]] = defaultdict(set)
        self._flight: dict[str, tuple[Chunk, set[str], float]] = {}
        self._late: dict[str, Chunk] = {}
        self._hosts = sorted(needs)

    def send_all(self, chunks: Sequence[Chunk], window: int, stall: float) -> None:
        """Send chunks, at most `window` in flight, until each is acknowledged or owed."""
        queue = deque(chunks)
        for chunk in chunks:
            for host in chunk.hosts:
                self._owed[host].update(chunk.segments)
        while queue or self._flight:
            while queue and len(self._flight) < window:
                self._send(queue.popleft())
            event = self._channel.wait(_TICK)
            if event is not None:
                self._acknowledge(event)
            self._drop_stalled(stall)

    def lacking(self) -> dict[str, list[Segment]]:
        """Return what hosts that may be tried again still lack; each then counts as present."""
        self._behind.clear()
        found = {h: sorted(s) for h, s in self._owed.items() if s and h not in self._errors}
        self._owed.clear()
        return found

    def results(self) -> list[Answer]:
        """Return how it ended for each host."""
        return [self._errors.get(host) or self._result(host) for host in self._hosts]

    def _result(self, host: str) -> Answer:
        stopped = bool(self._owed.get(host))
        return (
            Answer(host, {}, UNREACHABLE, "stopped taking bytes") if stopped else Answer(host, {})
        )

    def _send(self, chunk: Chunk) -> None:
        hosts = {h for h in chunk.hosts if h not in self._behind and h not in self._errors}
        if not hosts:
            return
        data = b"".join(self._read(*segment) for segment in chunk.segments)
        extra = {"session": self._session, "segments": chunk.segments, "data": data}
        jid = self._channel.publish("receive", sorted(hosts), {"session": self._session}, extra)
        self._flight[jid] = (chunk, hosts, time.monotonic())

    def _acknowledge(self, event: _Event) -> None:
        flight = self._flight.get(event.jid)
        chunk = flight[0] if flight else self._late.get(event.jid)
        if chunk is None or event.host not in chunk.hosts:
            return
        answer = _answer(event.host, "receive", event.value)
        if answer.code:
            self._errors[event.host] = answer
        else:
            self._take(event.host, chunk)
        if flight:
            flight[1].discard(event.host)
            if not flight[1]:
                del self._flight[event.jid]

    def _take(self, host: str, chunk: Chunk) -> None:
        fresh = self._owed[host].intersection(chunk.segments)
        self._owed[host].difference_update(fresh)
        self._behind.discard(host)
        self._done += sum(length for _, _, length in fresh)
        self._progress(PushProgress(self._done, self._total))

    def _drop_stalled(self, stall: float) -> None:
        now = time.monotonic()
        for jid, (chunk, waiting, sent) in list(self._flight.items()):
            if now - sent > stall:
                self._behind.update(waiting)
                self._late[jid] = chunk
                del self._flight[jid]


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


def _answer(host: str, function: str, value: Any) -> Answer:
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
    return Answer(host, {}, str(error.get("code", "error")), str(error.get("message", "")))
