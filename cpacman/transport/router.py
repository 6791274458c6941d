"""One transport for a fleet that mixes several: each host is asked over its own.

Invariants: a host's calls all go one way, so that a report that only its channel vouches for is
never taken for a signed one; the others don't wait for those of one transport.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cpacman.errors import HostError, Problem
from cpacman.signing import parse_report, verify_report
from cpacman.transport.port import (
    CANT_BE_SERVED,
    Answer,
    Directory,
    PushProgress,
    ReadSegment,
    Segment,
    Transport,
)
from cpacman.transport.ssh import SshTransport
from cpacman.words import many

PUBLISH, SSH = "publish", "ssh"
_TICK = 0.25


class Router:
    """The transports of one master.

    Args:
        publish: for hosts with a minion.
        ssh: for hosts of the roster.
        directory: whose keys are accepted.
        route: host -> `publish` or `ssh`, as configured or found out.
        tell: shows a line to whoever waits.
    """

    name = "router"

    def __init__(
        self,
        publish: Transport,
        ssh: SshTransport,
        directory: Directory,
        route: Callable[[str], str],
        tell: Callable[[str], None],
    ) -> None:
        self._publish = publish
        self.ssh = ssh
        self._directory = directory
        self._route = route
        self._tell = tell

    def check(self, targets: Sequence[str]) -> list[Problem]:
        """Refuse what neither transport can do well; see `_carrier`."""
        published = [host for host in targets if self._route(host) == PUBLISH]
        if not self._publish.check(published):
            return []
        return self._publish.check([host for host in published if not self.ssh.reaches(host)])

    def close(self) -> None:
        """Hang up everywhere."""
        self.ssh.close()

    def verify(self, host: str, text: str, signature: str) -> Mapping[str, Any]:
        """Return a host's report: signed with its key, or vouched for by its channel.

        Raises:
            HostError: the signature does not hold, or it is no report.
        """
        if self._route(host) == SSH:
            return parse_report(text)
        return verify_report(text, signature, self._directory.public_key(host))

    def call(
        self, function: str, requests: Mapping[str, Mapping[str, Any]], *, timeout: float
    ) -> Iterator[Answer]:
        """See `Transport.call`."""
        by = self._split(requests)
        yield from by.pop("")
        found: list[Answer] = []
        with _Beside(by[SSH], lambda: found.extend(
            self.ssh.call(function, {h: requests[h] for h in by[SSH]}, timeout=timeout)
        )) as beside:  # fmt: skip
            if by[PUBLISH]:
                mine = {host: requests[host] for host in by[PUBLISH]}
                yield from self._publish.call(function, mine, timeout=timeout)
            while not beside.wait(_TICK) or found:
                while found:
                    yield found.pop(0)

    def push(
        self,
        session: str,
        needs: Mapping[str, Sequence[Segment]],
        read: ReadSegment,
        progress: Callable[[PushProgress], None],
    ) -> list[Answer]:
        """See `Transport.push`."""
        total = sum(n for segments in needs.values() for _, _, n in segments)
        carried = self._carriers(needs)
        done = {PUBLISH: 0, SSH: 0}
        stopped = threading.Event()

        def tell() -> None:
            try:
                progress(PushProgress(sum(done.values()), total))
            except BaseException:
                stopped.set()
                raise

        def told(step: PushProgress) -> None:
            done[PUBLISH] = step.done
            tell()

        def noted(step: PushProgress) -> None:
            done[SSH] = step.done
            if stopped.is_set():
                raise _Stopped

        found: list[Answer] = []
        with _Beside(carried[SSH], lambda: found.extend(
            self.ssh.push(session, carried[SSH], read, noted)
        )) as beside:  # fmt: skip
            if carried[PUBLISH]:
                found_too = self._publish.push(session, carried[PUBLISH], read, told)
            else:
                found_too = []
            while not beside.wait(_TICK):
                tell()
        return sorted([*found, *found_too])

    def _carriers(
        self, needs: Mapping[str, Sequence[Segment]]
    ) -> dict[str, dict[str, Sequence[Segment]]]:
        """Return which transport carries the bytes of each host.

        Where publish would send them to many who are no targets, hosts that ssh leads to, too,
        get them that way.
        """
        published = [host for host in needs if self._route(host) == PUBLISH]
        spread = bool(published) and bool(self._publish.check(published))
        by_ssh = {
            host for host in needs
            if host not in published or (spread and self.ssh.reaches(host))
        }  # fmt: skip
        moved = len(by_ssh.intersection(published))
        if moved:
            self._tell(
                f"bytes for {many(moved, 'host')} go by ssh: publish would send them to others, too"
            )
        return {
            SSH: {host: needs[host] for host in needs if host in by_ssh},
            PUBLISH: {host: needs[host] for host in needs if host not in by_ssh},
        }

    def _split(self, hosts: Mapping[str, Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {PUBLISH: [], SSH: [], "": []}
        for host in sorted(hosts):
            route = self._route(host)
            if route == PUBLISH and not self._has_key(host):
                words = "is to be reached by publish, and the master accepted no key for it"
                found[""].append(Answer(host, {}, CANT_BE_SERVED, words))
            else:
                found[route].append(host)
        return found

    def _has_key(self, host: str) -> bool:
        try:
            self._directory.public_key(host)
        except HostError:
            return False
        return True


class _Stopped(Exception):
    """The other half of a push was stopped, so this one ends, too."""


class _Beside:
    """A piece of work in a thread, while this one does something else; nothing to do is no thread.

    Args:
        wanted: whether there is anything to do.
        work: the work; its error is raised here.
    """

    def __init__(self, wanted: object, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True) if wanted else None

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Wait a little; return whether the work is done."""
        if self._thread is not None:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def __enter__(self) -> _Beside:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._thread is not None and kind is None:
            self._thread.join()
            if self._error is not None:
                raise self._error
