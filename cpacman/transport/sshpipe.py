"""One host over one ssh: requests go in, answers come out, and nothing waits for ever.

Invariants: the host's key is checked by OpenSSH against files that a person filled; no other
connection is shared; what the host says is bounded in size; a deadline that passes ends the
connection, which ends what answers on the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpacman._loader import salt_dirs
from cpacman.transport.port import UNREACHABLE
from cpacman.transport.roster import SshHost

MAX_ANSWER = 64 * 2**20
_MAX_NOISE = 64 * 1024
_PIPE = 2**20
_READ = 2**18
_STDERR_KEPT = 4000
_SET_PIPE_SIZE = 1031

BOOT = (
    'import sys;i=getattr(sys.stdin,"buffer",sys.stdin);'
    'exec(compile(i.read(int(i.readline())),"cpacman-ssh","exec",0,1))'
)
_NO_PYTHON = "cpacman: no Python 2.7 or 3.4 and later"
_FIND = """\
cd /; PATH={path}; export PATH; unset PYTHONPATH PYTHONHOME LD_LIBRARY_PATH LD_PRELOAD; \
for m in rpm json; do \
for p in /usr/libexec/platform-python python3 python2 python; do \
command -v $p >/dev/null 2>&1 && $p -Es -c \
"import sys,$m;v=sys.version_info;sys.exit(not((2,7)<=v<(3,)or(3,4)<=v))" \
</dev/null >/dev/null 2>&1 && exec $p -Es -c "$0"; \
done; done; echo "{none}" >&2; exit 127"""
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_SAID = (
    ("host key verification failed", "host-key"),
    ("host identification has changed", "host-key"),
    ("permission denied", "login"),
    ("sudo:", "login"),
    ("too many authentication failures", "login"),
    (_NO_PYTHON.lower(), "python"),
)
_MENDS = {
    "host-key": "look at it and accept it: salt-run cpacman.hostkeys {id} accept=True",
    "login": "the roster's user, priv and sudo must give root without a password",
    "python": "name the directory of one by set_path in the roster",
}


class Broken(Exception):
    """The connection is over, or never was. `code` says why, for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Greeting(NamedTuple):
    """What the host's side must know before it serves."""

    pin: str
    state_dir: str = ""
    cache_dir: str = ""
    root: str = ""


def ssh_command(host: SshHost, known_hosts: Sequence[str]) -> list[str]:
    """Return the command line that logs in and starts the system's Python.

    Of an option that is given twice, OpenSSH takes the first: what is about safety comes first,
    the roster's own next, what is merely a default last.
    """
    files = " ".join(f'"{path}"' for path in (*known_hosts, *host.known_hosts))
    safe = [
        "BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={files}",
        "NoHostAuthenticationForLocalhost=no", "UpdateHostKeys=no", "ControlPath=none",
        "ControlMaster=no", "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no",
        "PermitLocalCommand=no", "RequestTTY=no", "LogLevel=ERROR",
    ]  # fmt: skip
    own = [f"User={host.user}"] if host.user else []
    own += [f"Port={host.port}"] if host.port else []
    own += [f'IdentityFile="{host.priv}"'] if host.priv else []
    own += ["IdentitiesOnly=yes"] if host.identities_only else []
    default = [
        f"ConnectTimeout={host.timeout}", "ServerAliveInterval=5", "ServerAliveCountMax=3",
        "Compression=no", "GSSAPIAuthentication=no",
    ]  # fmt: skip
    options = [word for o in (*safe, *own, *host.options, *default) for word in ("-o", o)]
    return ["ssh", *options, "--", host.host, remote_command(host)]


def remote_command(host: SshHost) -> str:
    """Return what the login shell is given: any shell can read it."""
    path = ":".join(word for word in (host.path, _SYSTEM_PATH) if word)
    find = _FIND.format(path=shlex.quote(path), none=_NO_PYTHON)
    words = ["sh", "-c", find, BOOT]
    if host.sudo:
        who = ["-u", host.sudo_user] if host.sudo_user else []
        words = ["sudo", "-n", *who, "--", *words]
    return shlex.join(words)


def programs() -> tuple[bytes, bytes]:
    """Return the two texts that a host is given: what serves, and the agent."""
    (modules,) = salt_dirs()["modules"]
    remote = Path(__file__).with_name("remote.py")
    return remote.read_bytes(), Path(modules, "cpacman_agent.py").read_bytes()


class SshPipe:
    """A connection to one host. Made open; `Broken` ends it for good.

    Args:
        host: how it is reached.
        known_hosts: files of host keys, the accepted ones first.
        greeting: what its side must know.
        timeout: seconds until it must answer.
    """

    def __init__(
        self, host: SshHost, known_hosts: Sequence[str], greeting: Greeting, timeout: float
    ) -> None:
        self.host = host
        self._process = subprocess.Popen(
            ssh_command(host, known_hosts),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0, start_new_session=True,
        )  # fmt: skip
        self._out: list[memoryview] = []
        self._in = bytearray()
        self._scanned = 0
        self._said = b""
        self._next = 0
        self._streams()
        try:
            self._greet(greeting, timeout)
        except BaseException:
            self.close()
            raise

    def _streams(self) -> None:
        process = self._process
        streams = [one for one in (process.stdin, process.stdout, process.stderr) if one]
        self._stdin, self._stdout, self._stderr = (stream.fileno() for stream in streams)
        for handle in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(handle, False)
        for handle in (self._stdin, self._stdout):
            # Larger pipes are fewer turns; a system that says no is merely slower.
            with contextlib.suppress(OSError):
                fcntl.fcntl(handle, _SET_PIPE_SIZE, _PIPE)

    def _greet(self, greeting: Greeting, timeout: float) -> None:
        remote, agent = programs()
        nonce = secrets.token_hex(16)
        hello = {"host": self.host.id, "nonce": nonce, "agent": len(agent), **greeting._asdict()}
        first = f"{len(remote)}\n".encode() + remote + json.dumps(hello).encode() + b"\n" + agent
        deadline = time.monotonic() + timeout
        self._out.append(memoryview(first))
        wanted, noise = f"cpacman {nonce}".encode(), 0
        # What a login shell prints before is nobody's business, as long as it ends.
        while not (line := self._line(deadline)).endswith(wanted):
            noise += len(line) + 1
            if noise > _MAX_NOISE:
                raise Broken("garbled", "the login shell prints without end")
        told = self._document(deadline)
        if told.get("uid") != 0:
            raise Broken("login", f"the login is not root; {_MENDS['login']}")

    # -- requests

    def send(self, verb: str, arguments: Mapping[str, Any], data: bytes = b"") -> int:
        """Queue a request and return its number; `flush` and `take` move it."""
        self._next += 1
        head = {"id": self._next, "verb": verb, "arguments": dict(arguments), "size": len(data)}
        self._out.append(memoryview(json.dumps(head).encode() + b"\n"))
        if data:
            self._out.append(memoryview(data))
        return self._next

    def take(self, timeout: float) -> tuple[int, Mapping[str, Any]]:
        """Return the next answer and the number of its request.

        Raises:
            Broken: none came in time, the connection is over, or it is nonsense.
        """
        document = self._document(time.monotonic() + timeout)
        number, answer = document.get("id"), document.get("answer")
        if not isinstance(number, int) or not isinstance(answer, dict):
            raise self._end("garbled", "unexpected answer")
        return number, answer

    def move(self, seconds: float) -> None:
        """Write what was queued, and take in what comes, for so long.

        Raises:
            Broken: the connection is over.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._move(left)

    def request(self, verb: str, arguments: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
        """Send a request and return its answer.

        Raises:
            Broken: as `take`.
        """
        wanted = self.send(verb, arguments)
        number, answer = self.take(timeout)
        if number != wanted:
            raise self._end("garbled", "the answer is to another request")
        return answer

    def close(self) -> None:
        """Hang up; what answers on the host ends with it."""
        process = self._process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._process.returncode is None and self._process.poll() is None

    # -- bytes

    def _document(self, deadline: float) -> Mapping[str, Any]:
        try:
            document = json.loads(self._line(deadline))
        except ValueError as error:
            raise self._end("garbled", f"not JSON: {error}") from error
        if not isinstance(document, dict):
            raise self._end("garbled", "an answer is an object")
        return document

    def _line(self, deadline: float) -> bytes:
        """Return the next line, writing what waits to be written meanwhile."""
        while True:
            end = self._in.find(b"\n", self._scanned)
            if end >= 0:
                line = bytes(self._in[:end])
                del self._in[: end + 1]
                self._scanned = 0
                return line
            self._scanned = len(self._in)
            if self._scanned > MAX_ANSWER:
                raise self._end("garbled", "an answer without end")
            self._turn(deadline)

    def _turn(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._end(UNREACHABLE, "no answer in time")
        self._move(left)

    def _move(self, seconds: float) -> None:
        """Wait until something can be moved, no longer than so long, and move it."""
        poller = select.poll()
        poller.register(self._stdout, select.POLLIN)
        poller.register(self._stderr, select.POLLIN)
        if self._out:
            poller.register(self._stdin, select.POLLOUT)
        ready = dict(poller.poll(seconds * 1000))
        if self._stderr in ready:
            self._hear()
        if self._stdin in ready and self._out:
            self._write()
        if self._stdout in ready:
            self._read()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._stdout, _READ)
            if not data:
                raise self._ended()
            self._in += data

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                count = os.write(self._stdin, self._out[0][:_PIPE])
            except BrokenPipeError:
                raise self._ended() from None
            self._out[0] = self._out[0][count:]
            if not len(self._out[0]):
                self._out.pop(0)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._said = (self._said + os.read(self._stderr, 4096))[-_STDERR_KEPT:]

    def _ended(self) -> Broken:
        """Return why ssh ended, as it said itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._hear()
        lines = [line.strip() for line in self._said.decode("utf-8", "replace").splitlines()]
        text = next((line for line in reversed(lines) if line), "the connection ended")
        whole = " ".join(lines).lower()
        code = next((code for words, code in _SAID if words in whole), UNREACHABLE)
        mend = _MENDS.get(code, "").format(id=self.host.id)
        return self._end(code, f"{text}; {mend}" if mend else text)

    def _end(self, code: str, message: str) -> Broken:
        self.close()
        return Broken(code, message)
