"""Asking for a gate: Salt functions on hosts, commands on the master, pages, events.

Invariants: every question ends in time, also when the asked hangs; an answer is never invented:
who says nothing is left out, or `answered` is false.
"""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

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
        """See `Probes.command`."""
        try:
            done = subprocess.run(
                list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Reply(False, detail=f"still running after {timeout:g} s, ended")
        except OSError as error:
            return Reply(False, detail=str(error))
        return Reply(True, done.stdout[:_MOST].decode(errors="replace"), done.returncode)

    def http(self, address: str, timeout: float) -> Reply:
        """See `Probes.http`. A refused connection is an answer: nobody serves there."""
        try:
            # The configuration takes no address that is not http or https.
            with urllib.request.urlopen(address, timeout=timeout) as page:  # noqa: S310
                return Reply(True, page.read(_MOST).decode(errors="replace"), page.status)
        except urllib.error.HTTPError as error:
            return Reply(True, error.read(_MOST).decode(errors="replace"), error.code)
        except urllib.error.URLError as error:
            refused = isinstance(error.reason, ConnectionRefusedError)
            return Reply(refused, "", 0, str(error.reason))
        except (OSError, ValueError) as error:
            return Reply(False, detail=str(error) or type(error).__name__)

    def event(self, tag: str, timeout: float) -> Reply:
        """See `Probes.event`."""
        import salt.utils.event

        with salt.utils.event.get_master_event(
            dict(self._opts), self._opts["sock_dir"], listen=True
        ) as bus:
            found = bus.get_event(wait=timeout, tag=tag, full=True, match_type="fnmatch")
        return Reply(found is not None, found)


def _reply(one: Mapping[str, Any]) -> Reply:
    code = one.get("retcode") or 0
    return Reply(True, one.get("return"), code if isinstance(code, int) else 1)
