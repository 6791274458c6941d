"""Salt's publish socket and event bus. All that touches the inside of Salt for pushing is here.

Invariants: a load is addressed to an explicit list of ids; what is `extra` in it is in no job cache
and no return. Tested on Salt 3006 and 3008.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_NONE, _MANY = b"\xa0", b"\xdb"
"""How MessagePack writes no bytes, and how it begins many, in the old form that Salt uses."""


def packed(load: dict[str, Any], data: Sequence[bytes], dumps: Callable[[Any], bytes]) -> bytes:
    """Return a load as Salt packs it, its data copied once.

    The packer grows its buffer again and again for large values. So it packs the load without
    data, which stands last, and the data goes where it wrote that there is none.
    """
    head = dumps(load)
    if not data:
        return head
    if not head.endswith(_NONE):
        load["cpacman"]["data"] = b"".join(data)
        return dumps(load)
    size = sum(map(len, data))
    return b"".join([head[: -len(_NONE)], _MANY, size.to_bytes(4, "big"), *data])


class Event:
    """A return that arrived on the master's event bus."""

    def __init__(self, jid: str, host: str, value: Any) -> None:
        self.jid = jid
        self.host = host
        self.value = value


class Channel:
    """The master's publish socket and event bus. Tested on Salt 3006 and 3008."""

    def __init__(self, opts: dict[str, Any], who: str, server: Any, bus: Any) -> None:
        self._opts = opts
        self._who = who
        self._server = server
        self._bus = bus
        self._loop = asyncio.new_event_loop()

    @classmethod
    @contextmanager
    def opened(cls, opts: dict[str, Any], who: str) -> Iterator[Channel]:
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
        data: Sequence[bytes] = (),
    ) -> str:
        """Send one load to an explicit list of hosts and return its job id.

        What is `extra` travels under a key of its own: the door sees it as `__pub_cpacman`, and
        it is neither returned in `fun_args` nor written to the job cache. `data` are the parts of
        what is its key `data`.
        """
        import salt.payload
        import salt.utils.jid

        jid = str(salt.utils.jid.gen_jid(self._opts))
        load: dict[str, Any] = {
            "fun": f"cpacman.{function}", "arg": [{"__kwarg__": True, **arguments}],
            "tgt": list(hosts), "tgt_type": "list", "jid": jid, "ret": "", "user": self._who,
        }  # fmt: skip
        if extra is not None:
            load["cpacman"] = {**extra, "data": b""} if data else dict(extra)
        # Salt 3008 is awaited and takes bytes; 3006 packs by itself and returns when it is sent.
        if asyncio.iscoroutinefunction(self._server.publish):
            payload = packed(load, data, salt.payload.dumps)
            self._loop.run_until_complete(self._server.publish(payload))
        else:
            if data:
                load["cpacman"]["data"] = b"".join(data)
            self._server.publish(load)
        return jid

    def wait(self, seconds: float) -> Event | None:
        """Return the next return of any job, or None when none came in time."""
        event = self._bus.get_event(
            wait=max(seconds, 0.01), tag="salt/job/", match_type="startswith", full=True,
            auto_reconnect=True,
        )  # fmt: skip
        data = event["data"] if event else {}
        # An event that a minion fires by itself has its body one level down: it is no return.
        if "return" not in data or "jid" not in data or "id" not in data:
            return None
        return Event(str(data["jid"]), str(data["id"]), data["return"])
