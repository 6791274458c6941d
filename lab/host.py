"""One host of the lab: a root of overlays, its own namespaces, address and rpm database.

Invariants: a host runs a real salt-minion, or a real sshd, under the paths a real one has; all
access goes through its namespaces, never through /proc/PID/root (an absolute link on the host
would lead out of it, and `rpm --root` there makes databases outside).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cpacman.errors import Problem
from lab import rpms
from lab.errors import LabError
from lab.namespace import (
    PATIENCE,
    Daemon,
    Namespace,
    Result,
    Running,
    children,
    inner_environ,
    status,
    wait_for,
)
from lab.sockets import listening

SALT, SSH = "salt", "ssh"
SSH_PORT = 22
BITS = 16
MASTER_ADDRESS = "10.203.0.1"
PUBLISH_PORT, RETURN_PORT = 4505, 4506
INIT = Path(__file__).resolve().parent / "host-init.sh"
DAEMON_LOG = "/var/log/lab.log"

MINION = {
    "master": MASTER_ADDRESS,
    "publish_port": PUBLISH_PORT,
    "master_port": RETURN_PORT,
    "zmq_filtering": True,
    # Without these a minion can stay deaf for minutes after its link was down for one.
    "tcp_keepalive": True,
    "tcp_keepalive_idle": 5,
    "tcp_keepalive_intvl": 2,
    "tcp_keepalive_cnt": 3,
    "recon_default": 300,
    "recon_max": 1500,
    "random_reauth_delay": 1,
    "acceptance_wait_time": 1,
    "auth_timeout": 5,
    "return_retry_timer": 1,
    "return_retry_timer_max": 3,
    "log_level": "error",
    "log_level_logfile": "error",
    "file_buffer_size": 262144,
    "mine_enabled": False,
    "enable_fqdns_grains": False,
}
SSHD = """\
HostKey /etc/ssh/lab_host_key
AuthorizedKeysFile /root/.ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
"""


class Host:
    """A host; `Lab` makes it, `launch` and `settle` bring it up.

    Args:
        name: its id, its host name.
        index: counts from 0; decides the address.
        kind: `SALT` or `SSH`.
        directory: the lab's directory for this host's files and layers.
        hub: the lab's outer namespaces.
        overrides: what differs from `MINION`.
    """

    def __init__(
        self,
        name: str,
        *,
        index: int,
        kind: str,
        directory: Path,
        hub: Namespace,
        overrides: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.kind = kind
        self.address = f"10.203.{1 + index // 250}.{1 + index % 250}"
        self.directory = directory
        self.hub = hub
        self.link = f"lab-{index}"
        self.minion = {**MINION, **overrides, "id": name}
        self._unshare: Daemon | None = None
        self._inside: Namespace | None = None
        self._daemon: Daemon | None = None
        self._disturbed = False

    @property
    def inside(self) -> Namespace:
        """The host's namespaces.

        Raises:
            LabError: the host is not up.
        """
        if self._inside is None:
            raise LabError(Problem(self.name, "is not up"))
        return self._inside

    def is_up(self) -> bool:
        """Whether the host has come up."""
        return self._inside is not None

    @property
    def pid(self) -> int:
        """The outside id of the host's first process."""
        return self.inside.pid

    # -- its life

    def place_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Say what will be at `path` when the host comes up."""
        target = self.directory / "files" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    def launch(self, layers: Path, hide: Iterable[Path], need: Iterable[Path], site: Path) -> None:
        """Start the host's first process; `settle` waits for it."""
        (self.directory / "root").mkdir(parents=True, exist_ok=True)
        if self.kind == SALT:
            self.place_file("/etc/salt/minion", yaml.safe_dump(self.minion).encode())
        else:
            self.place_file("/etc/ssh/sshd_config", SSHD.encode())
        arguments = [self.name, self.directory, layers, site, *hide, "--", *need]
        self._unshare = self.hub.spawn(
            [*self.unshare(), "--fork", "--kill-child=SIGKILL", "sh", str(INIT)]
            + [str(argument) for argument in arguments],
            str(self.directory / "init.log"),
        )

    def unshare(self) -> list[str]:
        """The command that gives the host its namespaces."""
        return ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid"]

    def settle(self) -> None:
        """Wait until the host has its root, then plug it in.

        Raises:
            LabError: its first process failed; with what it said.
        """
        wait_for(f"host {self.name}", self._has_root, PATIENCE)
        first = self._first_process()
        self._inside = Namespace(first, ("-a",), host_environ())
        inner = status(first, "NSpid")[1]
        # Its card's address is always the same: the hub would look for a host that was rebuilt at
        # the card of before, for as long as its neighbour table believes in that.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in str(self.address).split("."))
        peer = f"peer name eth0 address {card} netns {inner}"
        plug = f"ip link add {self.link} type veth {peer} && "
        self.hub.run(["sh", "-c", f"{plug} ip link set {self.link} master lab0 up"]).check()
        address = f"ip addr add {self.address}/{BITS} dev eth0"
        script = f"ip link set lo up && {address} && ip link set eth0 up"
        self.inside.run(["sh", "-c", script]).check()

    def _first_process(self) -> int:
        return next(iter(children(self._unshare.pid)), 0) if self._unshare else 0

    def _has_root(self) -> bool:
        if self._unshare is not None and not self._unshare.alive():
            said = (self.directory / "init.log").read_text(encoding="utf-8").strip()
            raise LabError(Problem(self.name, f"the host did not come up: {said[-500:]}"))
        first = self._first_process()
        return first != 0 and Path(f"/proc/{first}/root/run/lab.ready").exists()

    def release(self) -> None:
        """Give back what outlives its processes, once they are gone: nothing."""

    def kill(self) -> None:
        """Pull the plug: every process of the host is killed at once; its files stay."""
        if self._inside is not None:
            os.kill(self._inside.pid, signal.SIGKILL)
            gone = self._unshare
            wait_for(f"end of {self.name}", lambda: gone is None or not gone.alive(), PATIENCE)
        self._inside = self._daemon = self._unshare = None

    # -- commands and files

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | None = None,
        timeout: float = PATIENCE,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command on the host; see `Namespace.run`."""
        return self.inside.run(argv, stdin=stdin, timeout=timeout, env=env)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Running:
        """Start a command on the host and return at once; see `Namespace.start`."""
        return self.inside.start(argv, env=env)

    def call(self, function: str, *args: str, timeout: float = PATIENCE) -> Result:
        """Run `salt-call --out=json` on the host."""
        script = Path(sys.executable).with_name("salt-call")
        argv = [sys.executable, str(script), "--out=json", "--log-level=error", function, *args]
        return self.run(argv, timeout=timeout)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file on the host; its directory is made.

        Raises:
            LabError: it could not be written.
        """
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], stdin=content).check()

    def read(self, path: str) -> str:
        """What is in a file on the host.

        Raises:
            LabError: it could not be read.
        """
        return self.run(["cat", path]).check().stdout

    def exists(self, path: str) -> bool:
        """Whether there is such a path on the host (a dangling link counts)."""
        return self.run(["sh", "-c", '[ -e "$1" ] || [ -L "$1" ]', "sh", path]).returncode == 0

    def remove(self, *paths: str) -> None:
        """Remove files and directories on the host; those that are not there are no error."""
        self.run(["rm", "-rf", "--", *paths]).check()

    # -- packages

    def packages(self) -> tuple[str, ...]:
        """The NEVRAs in the host's rpm database, sorted; epoch 0 left out, keys left out."""
        form = "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\\n"
        lines = self.run(["rpm", "-qa", "--qf", form]).check().stdout.splitlines()
        return tuple(sorted(line for line in lines if not line.startswith("gpg-pubkey-")))

    def install_rpms(self, packages: Iterable[str | Path], *options: str) -> None:
        """`rpm -U` inside the host: NEVRAs of the lab, or files outside.

        The files travel as standard input of a `tar`, as the host does not see them.

        Raises:
            LabError: a NEVRA nobody built, or rpm refused.
        """
        files = [self._package_file(package) for package in packages]
        if not files:
            return
        self.run(["mkdir", "-p", "/run/lab.rpms"]).check()
        for file in files:
            self.write(f"/run/lab.rpms/{file.name}", file.read_bytes())
        quoted = " ".join(shlex.quote(file.name) for file in files)
        script = f"cd /run/lab.rpms && rpm -U --oldpackage {shlex.join(options)} {quoted}"
        done = self.run(["sh", "-c", f"{script}; code=$?; rm -rf /run/lab.rpms; exit $code"])
        if done.returncode:
            raise LabError(Problem(self.name, f"rpm: {done.stderr.strip()}"))

    @staticmethod
    def _package_file(package: str | Path) -> Path:
        if isinstance(package, Path):
            return package
        built = rpms.build()
        if package not in built:
            raise LabError(Problem(package, "no such package in the lab"))
        return built[package]

    def reset_packages(self, nevras: Iterable[str]) -> None:
        """Make the host have exactly `nevras` again, every file as packaged."""
        wanted = tuple(sorted(nevras))
        if self.packages() == wanted and not self.run(["rpm", "-Va"]).stdout:
            return
        script = "rpm -qa | xargs -r rpm -e --nodeps --noscripts --allmatches"
        self.run(["sh", "-c", script]).check()
        self.remove("/etc/confapp.conf", "/etc/confapp.conf.rpmsave", "/var/lib/scripted")
        self.install_rpms(wanted)

    # -- the daemon and the cable

    def start_minion(self) -> None:
        """Start the minion (sshd on an ssh host), unless it runs.

        `Lab.wait_for_minions` says when it listens.
        """
        if self._daemon_alive():
            return
        script = Path(sys.executable).with_name("salt-minion")
        minion = [sys.executable, str(script)]
        argv = minion if self.kind == SALT else ["/usr/sbin/sshd", "-D", "-e"]
        self._daemon = self.inside.spawn(argv, DAEMON_LOG)
        if self.kind == SSH:
            wait_for(f"sshd of {self.name}", lambda: SSH_PORT in listening(self.pid), PATIENCE)

    def kill_minion(self) -> None:
        """kill -9 of the minion and all its processes (what it started as a daemon lives on)."""
        if self._daemon is not None:
            self._daemon.signal(signal.SIGKILL)
            wait_for(f"end of {self.name}'s daemon", lambda: not self._daemon_alive(), PATIENCE)
            self._daemon = None
            self._disturbed = True

    def boot_id(self) -> str:
        """The id of this boot, as the host itself reads it; `reboot` there begins another one."""
        return Path(f"/proc/{self.pid}/root/run/lab.boot").read_text(encoding="ascii").strip()

    @contextlib.contextmanager
    def coming_back(self, after: float = 0.0) -> Iterator[None]:
        """Play the host's service manager meanwhile: after a reboot it starts the daemon.

        Args:
            after: seconds that the host is away.
        """
        over, boot = threading.Event(), self.boot_id()

        def watch() -> None:
            nonlocal boot
            while not over.wait(0.1):
                if self.boot_id() not in ("", boot) and not over.wait(after):
                    boot = self.boot_id()
                    self.start_minion()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._disturbed = True

    def pause(self) -> None:
        """SIGSTOP: the minion hears nothing, its connections stay."""
        self._disturbed = True
        self._signal_daemon(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: the minion goes on where it was."""
        self._signal_daemon(signal.SIGCONT)

    def _daemon_alive(self) -> bool:
        return self._daemon is not None and self._daemon.alive()

    def _signal_daemon(self, number: signal.Signals) -> None:
        if self._daemon is None or not self._daemon.alive():
            raise LabError(Problem(self.name, "its daemon does not run"))
        self._daemon.signal(number)

    def link_down(self) -> None:
        """Unplug the network cable."""
        self._disturbed = True
        self.hub.run(["ip", "link", "set", self.link, "down"]).check()

    def link_up(self) -> None:
        """Plug it in again."""
        self.hub.run(["ip", "link", "set", self.link, "up"]).check()

    def reset(self, nevras: Iterable[str]) -> bool:
        """Bring processes, packages, CPacMan's directories and cable back to what they were.

        Returns:
            Whether the daemon or the cable was disturbed, so that it may not listen yet.
        """
        disturbed, self._disturbed = self._disturbed or not self._daemon_alive(), False
        self.link_up()
        if self._daemon_alive():
            self.resume()
        # Before the start: a minion that is just starting has children that look like strays.
        self._kill_strays()
        self.start_minion()
        self.run(["sh", "-c", "rm -rf /etc/fickle.* /var/lib/cpacman /var/cache/cpacman"]).check()
        self.reset_packages(nevras)
        return disturbed

    def _kill_strays(self) -> None:
        """Kill what commands and jobs left behind: all but the first process and the daemon."""
        kept = {self.pid} | ({self._daemon.pid} if self._daemon else set())
        for pid, _ in self.inside.processes():
            with contextlib.suppress(ProcessLookupError):
                if pid != self.pid and os.getpgid(pid) not in kept:
                    os.kill(pid, signal.SIGKILL)


def host_environ() -> dict[str, str]:
    """What commands on a host see: the system's Python comes first, Salt's programs last."""
    return inner_environ(str(Path(sys.executable).parent))
