"""Running the checks of a gate: what is asked of whom, how often, and what came back.

Invariants: every check that is meant for a moment has a finding for each of its hosts, whatever
happens; nothing that a host said becomes a part of a command; time is bounded by the check's own
timeout and retries.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from cpacman.rollout import gate
from cpacman.rollout.gate import Expected, Finding, Reply, Verdict

_AT_ONCE = 16
"""Commands and HTTP probes that run side by side."""


class Check(NamedTuple):
    """One check, as the configuration has it.

    Attributes:
        kind: `salt`, `state`, `master`, `http` or `event`.
        target: the function, the states, the command line, the address, or the tag.
        per_host: whether it is asked of each host, or once for all.
    """

    name: str
    kind: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    expected: Expected = Expected()
    timeout: float = 30.0
    retries: int = 0
    pause: float = 5.0
    required: bool = True
    per_host: bool = True


class Probes(Protocol):
    """Who asks: of hosts by Salt, on the master by commands, over HTTP, on the event bus."""

    def salt(
        self,
        function: str,
        hosts: Sequence[str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout: float,
    ) -> Mapping[str, Reply]:
        """Call a function on hosts; one that did not answer in time may be left out."""
        ...

    def command(self, arguments: Sequence[str], timeout: float) -> Reply:
        """Run a command on the master, without a shell."""
        ...

    def http(self, address: str, timeout: float) -> Reply:
        """Get a page: the code is its status, the value its beginning."""
        ...

    def event(self, tag: str, timeout: float) -> Reply:
        """Wait for an event whose tag fits."""
        ...


class Nobody:
    """Probes that ask nobody: whatever stands on their answers is inconclusive."""

    def salt(
        self,
        function: str,
        hosts: Sequence[str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout: float,
    ) -> Mapping[str, Reply]:
        """See `Probes.salt`."""
        return {}

    def command(self, arguments: Sequence[str], timeout: float) -> Reply:
        """See `Probes.command`."""
        return Reply(False)

    def http(self, address: str, timeout: float) -> Reply:
        """See `Probes.http`."""
        return Reply(False)

    def event(self, tag: str, timeout: float) -> Reply:
        """See `Probes.event`."""
        return Reply(False)


def run_check(
    check: Check,
    hosts: Sequence[str],
    probes: Probes,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Run a check, again after a pause where it did not pass, and return what it found."""
    found = {one.host: one for one in _once(check, hosts, probes)}
    for _ in range(check.retries):
        again = [host for host, one in found.items() if one.verdict is not Verdict.PASS]
        if not again:
            break
        sleep(check.pause)
        found.update({one.host: one for one in _once(check, again, probes)})
    return list(found.values())


def _once(check: Check, hosts: Sequence[str], probes: Probes) -> Iterator[Finding]:
    asked = list(hosts) if check.per_host else [""]
    try:
        replies = _ask(check, asked, probes)
    except Exception as error:
        # Whatever broke: it is the check that did, and that never passes anything.
        replies = dict.fromkeys(asked, Reply(False, detail=f"{type(error).__name__}: {error}"))
    silent = Reply(False, detail=f"no answer in {check.timeout:g} s")
    for host in asked:
        verdict, detail = _judge(check, replies.get(host, silent))
        yield Finding(check.name, host, verdict, detail, check.required)


def _ask(check: Check, hosts: Sequence[str], probes: Probes) -> Mapping[str, Reply]:
    if check.kind == "salt":
        return probes.salt(check.target, hosts, check.args, check.kwargs, check.timeout)
    if check.kind == "state":
        return probes.salt(
            "state.apply", hosts, [check.target], {"test": True, **check.kwargs}, check.timeout
        )
    if check.kind == "event":
        return {"": probes.event(check.target, check.timeout)}
    one = _command if check.kind == "master" else _page
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(hosts, pool.map(lambda h: one(check, h, probes), hosts), strict=True))


def _command(check: Check, host: str, probes: Probes) -> Reply:
    return probes.command(command_of(check.target, host), check.timeout)


def _page(check: Check, host: str, probes: Probes) -> Reply:
    return probes.http(check.target.format(host=host), check.timeout)


def command_of(text: str, host: str) -> list[str]:
    """Return the arguments of a command line; a host's id is a part of an argument, never more."""
    return [part.format(host=host) for part in shlex.split(text)]


def _judge(check: Check, reply: Reply) -> tuple[Verdict, str]:
    if check.kind == "salt":
        return gate.judge_reply(reply, check.expected)
    if check.kind == "state":
        return gate.judge_states(reply)
    if check.kind == "master":
        return gate.judge_command(reply, check.expected)
    if check.kind == "http":
        return gate.judge_http(reply, check.expected)
    return (Verdict.PASS, "") if reply.answered else _silent(reply)


def _silent(reply: Reply) -> tuple[Verdict, str]:
    return Verdict.INCONCLUSIVE, reply.detail or "no such event"


def run_checks(
    checks: Iterable[tuple[Check, Sequence[str]]],
    probes: Probes,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Run checks, each on its hosts, one after the other; return all findings, in order."""
    return [one for check, hosts in checks for one in run_check(check, hosts, probes, sleep)]
