"""One measured deploy, in a process where the master runs: `deployer.py CONF PLAN HOSTS`.

Prints what each kind of call to the hosts took, and what one round trip of Salt's own takes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import salt.client
import salt.config

from cpacman.commands import deploying
from cpacman.commands.context import open_context
from cpacman.commands.fleet import Selection


def main() -> int:
    """Carry a plan out, with a clock around every call."""
    opts = salt.config.master_config(sys.argv[1])
    opts["output"] = "json"
    took: dict[str, list[float]] = {}
    with open_context(opts, who="bench") as context:
        transport = context.transport
        call, push = transport.call, transport.push

        def timed_call(function: str, *args: Any, **keywords: Any) -> Iterator[Any]:
            start = time.monotonic()
            answers = list(call(function, *args, **keywords))
            took.setdefault(function, []).append(time.monotonic() - start)
            return iter(answers)

        def timed_push(*args: Any) -> Any:
            return timed(took, "push", lambda: push(*args))

        transport.call, transport.push = timed_call, timed_push  # type: ignore[method-assign]
        start = time.monotonic()
        answer = deploying.deploy(context, Selection(), plan=sys.argv[2])
        total = time.monotonic() - start
    hosts = sys.argv[3].split(",")
    client = salt.client.LocalClient(mopts=opts)
    pings: dict[str, list[float]] = {}
    for _ in range(5):
        timed(pings, "ping", lambda: client.cmd(hosts, "test.ping", tgt_type="list", timeout=30))
    print(json.dumps({
        "total": total, "took": took, "ping": sorted(pings["ping"])[2],
        "outcomes": {h: one["outcome"] for h, one in answer["rollout"]["hosts"].items()},
    }))  # fmt: skip
    return 0


def timed(took: dict[str, list[float]], name: str, step: Callable[[], Any]) -> Any:
    """Run a step and note what it took."""
    start = time.monotonic()
    answer = step()
    took.setdefault(name, []).append(time.monotonic() - start)
    return answer


if __name__ == "__main__":
    sys.exit(main())
