"""Asking for a gate: Salt functions on hosts, commands on the master, pages, events.

Invariants: every question ends in time, also when the asked hangs; an answer is never invented:
who says nothing is left out, or `answered` is false.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cpacman.rollout.gate import Reply

_PAUSE = 0.2
_MOST = 65536
"""Bytes of a page or of a command's output that are looked at."""


class SaltProbes:
    """The probes of a Salt master.

    Args:
        opts: the master's options.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)

    def salt(
        self,
        function: str,
        hosts: Sequence[str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout: float,
    ) -> Mapping[str, Reply]:
        """See `Probes.salt`. The job cache is read: waiting by Salt's client has no end."""
        import salt.client

        with salt.client.LocalClient(mopts=dict(self._opts)) as client:
            jid = client.cmd_async(
                list(hosts), function, list(args), tgt_type="list", kwarg=dict(kwargs)
            )
            if not jid:
                return {}
            look = client.returners[f"{self._opts['master_job_cache']}.get_jid"]
            deadline = time.monotonic() + timeout
            while True:
                found = {h: one for h, one in look(jid).items() if h in set(hosts)}
                if len(found) == len(hosts) or time.monotonic() > deadline:
                    return {host: _reply(one) for host, one in found.items()}
                time.sleep(_PAUSE)

    def command(self, arguments: Sequence[str], timeout: float) -> Reply:
        """See `Probes.command`. What it leaves running in the background is not waited for."""
        with tempfile.TemporaryFile() as output:
            try:
                # A group of its own, so that all of it can be ended.
                process = subprocess.Popen(
                    list(arguments), stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                return Reply(False, detail=str(error))
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                return Reply(False, detail=f"still running after {timeout:g} s, ended")
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            output.seek(0)
            return Reply(True, output.read(_MOST).decode(errors="replace"), code)

    def http(self, address: str, timeout: float) -> Reply:
        """See `Probes.http`. A refused connection is an answer: nobody serves there.

        The host itself is asked, for this page: no proxy may answer for it, and a redirection is
        an answer of its own, or another page or host would pass the gate instead.
        """
        try:
            with _connected(address, timeout) as (connection, path):
                connection.request("GET", path, headers={"User-Agent": "cpacman"})
                with connection.getresponse() as page:
                    text = page.read(_MOST).decode(errors="replace")
                    return Reply(True, text, page.status)
        except ConnectionRefusedError as error:
            return Reply(True, "", 0, str(error))
        except (OSError, ValueError, http.client.HTTPException) as error:
            return Reply(False, detail=str(error) or type(error).__name__)

    def event(self, tag: str, timeout: float) -> Reply:
        """See `Probes.event`."""
        import salt.utils.event

        with salt.utils.event.get_master_event(
            dict(self._opts), self._opts["sock_dir"], listen=True
        ) as bus:
            found = bus.get_event(wait=timeout, tag=tag, full=True, match_type="fnmatch")
        return Reply(found is not None, found)


@contextlib.contextmanager
def _connected(address: str, timeout: float) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    """Connect to where an address says; yield the connection and the path of the page.

    The time is for all of it: a timeout of the socket alone never ends what comes byte by byte.

    Raises:
        TimeoutError: it took longer.
    """
    found = urlsplit(address)
    kind = http.client.HTTPSConnection if found.scheme == "https" else http.client.HTTPConnection
    connection = kind(found.hostname or "", found.port, timeout=timeout)
    late = threading.Event()
    sockets: list[socket.socket] = []

    def hang_up() -> None:
        late.set()
        for one in sockets or [connection.sock]:
            with contextlib.suppress(OSError, AttributeError):
                one.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, hang_up)
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        # The connection forgets its socket as soon as the other side says that it will close it.
        sockets.append(connection.sock)
        yield connection, (found.path or "/") + (f"?{found.query}" if found.query else "")
    finally:
        timer.cancel()
        connection.close()
        if late.is_set():
            raise TimeoutError(f"no whole answer in {timeout:g} s")


def _reply(one: Mapping[str, Any]) -> Reply:
    code = one.get("retcode") or 0
    return Reply(True, one.get("return"), code if isinstance(code, int) else 1)
