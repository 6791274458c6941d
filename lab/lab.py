"""`Lab`: a master and its hosts, from start to the last trace gone.

Invariants: what talks to the master runs inside the outer namespaces, by nsenter; the object
lives in the process (and the thread) that started it: the first process of the lab is killed by
the kernel when that thread ends, and takes everything with it. `close` may be called twice.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cpacman.errors import Problem
from lab import rpms
from lab.commands import Commands
from lab.directory import NAME, Directory, base_directory, sweep
from lab.errors import LabError
from lab.host import BITS, MASTER_ADDRESS, PUBLISH_PORT, SALT, SSH, Host, host_environ
from lab.hub import CHECKOUT, Hub, start_hub
from lab.namespace import PATIENCE, inner_environ, wait_for
from lab.requirements import check_requirements
from lab.sockets import connected
from lab.systemd import SystemdHost

if TYPE_CHECKING:
    from lab.master import Master

_numbers = itertools.count(1)


class Lab(Commands):
    """A lab, for `with`; nothing is done before `__enter__`.

    Args:
        hosts: ids of the hosts with a salt-minion.
        ssh_hosts: ids of the hosts with an sshd instead.
        systemd_hosts: ids of more hosts with a salt-minion, and a systemd as first process.
        name: of the lab; None: one of its own, so that many can run side by side.
        packages: NEVRAs of the lab that every host starts with.
        settings: the `cpacman:` section, over `default_settings`.
        master: the master's configuration, over `lab.master.MASTER`.
        minion: the minions' configuration, over `lab.host.MINION`.
    """

    rpms = rpms

    def __init__(
        self,
        hosts: Sequence[str] = ("web1", "web2", "db1"),
        *,
        ssh_hosts: Sequence[str] = (),
        systemd_hosts: Sequence[str] = (),
        name: str | None = None,
        packages: Sequence[str] = rpms.OLD,
        settings: Mapping[str, Any] | None = None,
        master: Mapping[str, Any] | None = None,
        minion: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name or f"own-{os.getpid()}-{next(_numbers)}"
        self.packages = tuple(packages)
        self._names = [*hosts, *ssh_hosts, *systemd_hosts]
        self._kinds = {
            **dict.fromkeys(hosts, SALT),
            **dict.fromkeys(ssh_hosts, SSH),
            **dict.fromkeys(systemd_hosts, SALT),
        }
        self._systemd = frozenset(systemd_hosts)
        self._settings = dict(settings or {})
        self._master_config = dict(master or {})
        self._minion_config = dict(minion or {})
        self._directory: Directory | None = None
        self._hub: Hub | None = None
        self._master: Master | None = None
        self._hosts: dict[str, Host] = {}

    # -- life

    def __enter__(self) -> Lab:
        """Bring everything up; whatever goes wrong, nothing is left.

        Raises:
            LabError: a name is not one, something is missing, or a part did not start.
        """
        check_names(self._names)
        check_requirements(ssh=SSH in self._kinds.values(), systemd=bool(self._systemd))
        base = base_directory()
        sweep(base)
        self._directory = Directory.take(base, self.name)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the first process, which ends all others and their mounts; remove the directory."""
        if self._hub is not None:
            self._hub.kill()
        for host in self._hosts.values():
            host.release()
        self._hub = self._master = None
        self._hosts = {}
        if self._directory is not None:
            self._directory.remove()
            self._directory = None

    def wait(self) -> None:
        """Wait until the lab ends, which only a fault makes it do."""
        self.hub.wait()

    def _start(self) -> None:
        self._start_hub()
        self._start_master()
        for index, (name, kind) in enumerate(self._kinds.items()):
            self._hosts[name] = self._make_host(name, index, kind)
        self._boot(self._hosts.values())
        self.master.wait()
        self.wait_for_minions()
        self.sync_modules()
        self._say(ready=True)

    def _start_hub(self) -> None:
        for name in ("files", "hosts", "layers", "tmp"):
            (self.directory / name).mkdir()
        assert self._directory is not None
        keep = [self.directory, CHECKOUT, *python_homes()]
        self._hub = start_hub(self._directory, f"{MASTER_ADDRESS}/{BITS}", keep)
        self._say(ready=False)

    def _start_master(self) -> None:
        # Factories bring all of Salt with them: a second that `lab status` need not wait for.
        from lab.master import Master

        self._master = Master(self.directory, self.hub, self._master_config)
        self.write_master_config({})
        self.master.copy_modules()
        self.master.start()

    def _make_host(self, name: str, index: int, kind: str) -> Host:
        directory = self.directory / "hosts" / name
        overrides = self._minion_config
        made = SystemdHost if name in self._systemd else Host
        host = made(
            name, index=index, kind=kind, directory=directory, hub=self.hub, overrides=overrides
        )
        if kind == SALT:
            private, public = self.master.accept_minion(name)
            host.place_file("/etc/salt/pki/minion/minion.pem", private, 0o400)
            host.place_file("/etc/salt/pki/minion/minion.pub", public)
        else:
            self._make_ssh_keys(host)
        return host

    def _make_ssh_keys(self, host: Host) -> None:
        client = self.directory / "ssh_key"
        if not client.exists():
            make_ssh_key(client)
        own = self.directory / f"hosts/{host.name}.key"
        own.parent.mkdir(exist_ok=True)
        public = make_ssh_key(own)
        host.place_file("/etc/ssh/lab_host_key", own.read_bytes(), 0o600)
        host.place_file(
            "/root/.ssh/authorized_keys", client.with_suffix(".pub").read_bytes(), 0o600
        )
        with self.master.known_hosts.open("a", encoding="utf-8") as known:
            known.write(f"{host.address} {public}")

    def _boot(self, hosts: Iterable[Host]) -> None:
        """Bring hosts up beside each other, with their packages and their daemon."""
        booted = list(hosts)
        homes, site = python_homes(), Path(sysconfig.get_paths()["purelib"])
        hide = [Path("/root"), base_directory(), CHECKOUT]
        for host in booted:
            host.launch(self.directory / "layers" / host.name, hide, homes, site)
        pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        try:
            list(pool.map(self._furnish, booted))
        finally:
            pool.shutdown(cancel_futures=True)
        addresses = {host.name: host.address for host in self._hosts.values() if host.kind == SSH}
        self.master.write_roster(addresses, self.directory / "ssh_key")
        self._say(ready=False)

    def _furnish(self, host: Host) -> None:
        host.settle()
        host.start_minion()
        host.install_rpms(self.packages)

    def _say(self, *, ready: bool) -> None:
        """Write down who is where, for other processes."""
        assert self._directory is not None
        hosts = {
            host.name: {"pid": host.pid if host.is_up() else 0, "address": host.address}
            | {"kind": host.kind}
            for host in self._hosts.values()
        }
        self._directory.write_state(
            {
                "owner": os.getpid(),
                "hub": self.hub.pid,
                "ready": ready,
                "hosts": hosts,
                "environ": self.hub.environ,
                "host_environ": host_environ(),
            }
        )

    # -- parts

    @property
    def directory(self) -> Path:
        """The lab's own directory.

        Raises:
            LabError: the lab is not up.
        """
        if self._directory is None:
            raise LabError(Problem(self.name, "this lab is not up"))
        return self._directory.path

    @property
    def hub(self) -> Hub:
        """The outer namespaces, where the master runs.

        Raises:
            LabError: the lab is not up.
        """
        if self._hub is None:
            raise LabError(Problem(self.name, "this lab is not up"))
        return self._hub

    @property
    def master(self) -> Master:
        """The Salt master.

        Raises:
            LabError: the lab is not up.
        """
        if self._master is None:
            raise LabError(Problem(self.name, "this lab is not up"))
        return self._master

    @property
    def hosts(self) -> dict[str, Host]:
        """All hosts by name."""
        return dict(self._hosts)

    def host(self, name: str) -> Host:
        """The host `name`.

        Raises:
            LabError: there is none.
        """
        if name not in self._hosts:
            raise LabError(Problem(name, "no such host", f"there are: {' '.join(self._hosts)}"))
        return self._hosts[name]

    def path(self, *parts: str) -> Path:
        """A path for repositories and state, the same outside and for the master.

        Its parent exists; it goes away with the lab, and with `reset`.
        """
        found = self.directory.joinpath("files", *parts)
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    # -- what tests change

    def default_settings(self) -> dict[str, Any]:
        """The least that a lab configures: where things are, and that every host is a member."""
        hosts_d = self.path("hosts.d")
        hosts_d.mkdir(exist_ok=True)
        membership = {"hosts_d": str(hosts_d), "on_new": "accept"}
        return {"state_dir": str(self.path("state")), "membership": membership}

    def write_master_config(self, section: Mapping[str, Any]) -> None:
        """Write the `cpacman:` section, over the defaults; the next command reads it."""
        self.master.write_settings({**self.default_settings(), **self._settings, **section})

    def minions(self) -> list[str]:
        """The ids of the hosts that run a salt-minion."""
        return [host.name for host in self._hosts.values() if host.kind == SALT]

    def wait_for_minions(self, seconds: float = PATIENCE) -> None:
        """Wait until every minion is connected to the master's publisher.

        Raises:
            LabError: one is not within `seconds`.
        """
        wanted = {self._hosts[name].address for name in self.minions()}
        wait_for("minions", lambda: wanted <= connected(self.hub.pid, PUBLISH_PORT), seconds)

    def wait_for_answers(self, seconds: float = PATIENCE) -> None:
        """Wait until every minion answers: a connection may stand before it listens to its topic.

        Raises:
            LabError: one does not within `seconds`.
        """
        self.wait_for_minions(seconds)
        wait_for("answers of minions", self._all_answer, seconds)

    def _all_answer(self) -> bool:
        answers = self.salt(self.minions(), "test.ping", "--timeout=2").data or {}
        return all(answers.get(name) is True for name in self.minions())

    def sync_modules(self, seconds: float = PATIENCE) -> None:
        """Bring the door and the agent, as they are in the checkout now, to the minions.

        Raises:
            LabError: not every minion answered.
        """
        self.master.copy_modules()
        silent = set(self.minions())
        until = time.monotonic() + seconds
        while silent and time.monotonic() < until:
            # Salt waits that long for one that did not hear of it, as it does not listen yet.
            answers = self.salt(sorted(silent), "saltutil.sync_modules", "--timeout=10").data or {}
            silent -= {name for name, answer in answers.items() if isinstance(answer, list)}
        if silent:
            raise LabError([Problem(name, "does not answer the master") for name in sorted(silent)])

    def kill_master(self) -> None:
        """kill -9 of the master and all its processes."""
        self.master.kill()

    def start_master(self) -> None:
        """Start the master again and wait until it listens and the minions are back."""
        self.master.start()
        self.master.wait()
        self.wait_for_answers()

    def rebuild_host(self, name: str) -> Host:
        """Throw a host's disk away and bring it up anew, with its packages, id, key and address."""
        host = self.host(name)
        host.kill()
        shutil.rmtree(self.directory / "layers" / name)
        self._boot([host])
        self.wait_for_answers()
        return host

    def reset(self) -> None:
        """Bring hosts, settings and files back to what they were after the start."""
        disturbed = [host.reset(self.packages) for host in self._hosts.values()]
        # The master's engine may be writing there: what it has open goes out of its way whole.
        gone = (self.directory / "files").rename(self.directory / "gone")
        self.write_master_config({})
        shutil.rmtree(gone)
        if any(disturbed):
            self.wait_for_answers()
        else:
            self.wait_for_minions()


def check_names(names: Sequence[str]) -> None:
    """Refuse names that are no host names (they become paths and ids), and names given twice.

    Raises:
        LabError: with all of them.
    """
    problems = [
        Problem(name, "a name has small letters, digits, - and . only, 40 at most")
        for name in names
        if not NAME.fullmatch(name)
    ]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if problems or twice:
        raise LabError([*problems, *(Problem(name, "is named twice") for name in twice)])


def python_homes() -> list[Path]:
    """Where the Python in use lives: its environment, and the installation it was made from."""
    return [Path(home) for home in dict.fromkeys((sys.prefix, sys.base_prefix))]


def make_ssh_key(path: Path) -> str:
    """Make an ed25519 key pair; returns the public line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)]
    subprocess.run(command, env=inner_environ(), check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text(encoding="utf-8")
