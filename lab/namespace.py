"""A set of namespaces: run a command in it, start a daemon in it, find its processes.

Invariants: output goes to files, never to pipes (a daemon that a command leaves behind would hold
a pipe open, and the reader waits for ever); a daemon is a child of the namespace's first process,
never of `nsenter`, and leads a session and a process group of its own, so one signal reaches
all of it. Process ids here are the outside ones.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from cpacman.errors import Problem
from lab.errors import LabError
from lab.requirements import SYSTEM_PATH

# Seconds for what takes a few at rest: against hanging, and long enough on the busiest machine.
PATIENCE = 300.0
# Detaches from nsenter: the inner shell prints the daemon's pid and ends, the pid 1 inherits it.
SPAWN = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'
# Handed on from the caller; everything else in its environment stays outside.
HANDED_ON = ("TERM", "LANG", "LC_ALL", "COVERAGE_PROCESS_START")


class Result(NamedTuple):
    """What a command gave back; `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout: str
    stderr: str

    def check(self) -> Result:
        """This result, if the command went well.

        Raises:
            LabError: it did not; with the last line it printed.
        """
        if self.returncode:
            said = (self.stderr.strip() or self.stdout.strip() or "nothing").splitlines()
            raise LabError(Problem("", f"exit {self.returncode}: {said[-1]}"))
        return self


class Daemon(NamedTuple):
    """A program in the background: its process id outside, which is its process group's too."""

    pid: int

    def alive(self) -> bool:
        """Whether its first process runs (a dead one that nobody reaped yet does not)."""
        return state_of(self.pid) not in ("", "Z", "X")

    def signal(self, number: signal.Signals) -> None:
        """Send `number` to every process of its group at once; nothing if they are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Namespace:
    """The namespaces of the process `pid`, in its root directory.

    Args:
        pid: the first process, as seen from outside.
        kinds: nsenter's options for the kinds to enter (`-a`: all).
        environ: the environment of what runs inside.
    """

    def __init__(self, pid: int, kinds: Sequence[str], environ: Mapping[str, str]) -> None:
        self.pid = pid
        self.kinds = tuple(kinds)
        self.environ = dict(environ)

    def prefix(self) -> list[str]:
        """The beginning of a command line that runs the rest of it inside."""
        return ["nsenter", "-t", str(self.pid), *self.kinds, "--"]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        timeout: float = PATIENCE,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command inside and wait for it (not for what it leaves in the background).

        Raises:
            LabError: it took longer than `timeout` seconds; it is killed then.
        """
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with self.start(argv, stdin=data, env=env) as running:
            return running.wait(timeout)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a command inside and return at once; use it in `with`, or `kill` and `wait`."""
        files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - Running closes them
        if stdin:
            files[0].write(stdin)
            files[0].seek(0)
        process = subprocess.Popen(
            [*self.prefix(), *argv],
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            env={**self.environ, **(env or {})},
            start_new_session=True,
        )
        return Running(process, files)

    def spawn(self, argv: Sequence[str], log: str) -> Daemon:
        """Start a daemon inside; `log` is a path as seen from inside.

        Raises:
            LabError: it ended at once.
        """
        shell = self.run(["sh", "-c", SPAWN, "sh", log, *argv]).check()
        return Daemon(self.outer_pid(int(shell.stdout)))

    def outer_pid(self, inner: int) -> int:
        """The outside id of the process that is `inner` in here.

        Raises:
            LabError: there is none.
        """
        for pid, ids in self.processes():
            if ids[-1] == inner:
                return pid
        raise LabError(Problem(str(inner), "no such process in the lab; it ended at once"))

    def processes(self) -> Iterator[tuple[int, list[int]]]:
        """Every process whose pid namespace is this one: its outside id, and its ids inwards."""
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/pid").readlink() == own:
                    yield int(entry.name), [int(word) for word in status(int(entry.name), "NSpid")]


class Running:
    """A command that runs inside; the processes below `nsenter` are its own."""

    def __init__(self, process: subprocess.Popen[bytes], files: Sequence[IO[bytes]]) -> None:
        self.process = process
        self._files = files

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for file in self._files:
            file.close()

    @property
    def pid(self) -> int:
        """The outside id of the command itself (not of nsenter).

        Raises:
            LabError: it has ended.
        """
        for _ in range(200):
            inner = children(self.process.pid)
            if inner:
                return inner[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise LabError(Problem(str(self.process.args), "has ended already"))

    def output(self) -> str:
        """What it printed so far."""
        return os.pread(self._files[1].fileno(), 1 << 24, 0).decode(errors="replace")

    def wait(self, timeout: float = PATIENCE) -> Result:
        """Wait for its end.

        Raises:
            LabError: it did not end within `timeout` seconds; it is killed then.
        """
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            command = " ".join(self.process.args)  # type: ignore[arg-type]
            raise LabError(Problem(command, f"took longer than {timeout} s")) from None
        texts = []
        for file in self._files[1:]:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Result(code, *texts)

    def signal(self, number: signal.Signals) -> None:
        """Send `number` to the command and all below it; nothing if it has ended.

        nsenter itself is left alone: it ends with its child and passes the signal on as its own.
        """
        if self.process.poll() is None:
            for pid in descendants(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Kill the command and all below it, and wait for its end; nothing if it has ended."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def status(pid: int, field: str) -> list[str]:
    """The words of one field of /proc/PID/status; empty when there is no such process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return line.split()[1:]
    return []


def state_of(pid: int) -> str:
    """The state letter of a process (R, S, T, Z ...), or nothing."""
    return next(iter(status(pid, "State")), "")


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def wait_for(what: str, check: Callable[[], bool], seconds: float, step: float = 0.02) -> None:
    """Wait until `check()` is true.

    Raises:
        LabError: it was not within `seconds`.
    """
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            raise LabError(Problem(what, f"not within {seconds:g} s"))
        time.sleep(step)


def inner_environ(extra_path: str = "") -> dict[str, str]:
    """The environment of what runs in the lab: nothing of the caller's but its terminal.

    Python keeps its byte code there, as on any real host: a minion that had to compile the agent
    for each job would spend more time on that than on the job.
    """
    handed = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    path = f"{SYSTEM_PATH}:{extra_path}" if extra_path else SYSTEM_PATH
    own = {"HOME": "/root", "PATH": path, "USER": "root"}
    return {"LANG": "C.UTF-8", "TERM": "dumb", **handed, **own}
