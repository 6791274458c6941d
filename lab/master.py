"""The lab's Salt master: configured by pytest-salt-factories, run inside the outer namespaces.

Invariants: the file server has the two files a host needs and nothing else, never the checkout
or a repository; keys are real and accepted beforehand, `open_mode` is off; factories' own engine
and log handlers, which talk to the test process, are left out, as the master could not reach it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attr
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from saltfactories.bases import SaltCli
from saltfactories.cli.key import SaltKey
from saltfactories.cli.run import SaltRun
from saltfactories.cli.salt import Salt
from saltfactories.cli.ssh import SaltSsh
from saltfactories.manager import FactoriesManager

from cpacman.errors import Problem
from lab.directory import write_atomically
from lab.errors import LabError
from lab.host import PUBLISH_PORT, RETURN_PORT
from lab.namespace import PATIENCE, Daemon, Namespace, wait_for
from lab.sockets import listening

CHECKOUT = Path(__file__).resolve().parents[1]
DOOR_FILES = ("cpacman.py", "cpacman_agent.py")
# Folder -> option of the master's configuration, for a checkout that is not pip-installed.
LOADER_DIRS = {
    "_runners": "runner_dirs",
    "_output": "outputter_dirs",
    "_states": "states_dirs",
    "_engines": "engines_dirs",
}
MASTER = {
    "interface": "0.0.0.0",
    "publish_port": PUBLISH_PORT,
    "ret_port": RETURN_PORT,
    "zmq_filtering": True,
    "tcp_keepalive": True,
    "tcp_keepalive_idle": 5,
    "tcp_keepalive_intvl": 2,
    "tcp_keepalive_cnt": 3,
    "auto_accept": False,
    "open_mode": False,
    "keysize": 2048,
    "timeout": 5,
    "gather_job_timeout": 5,
    "worker_threads": 3,
    "file_buffer_size": 262144,
    "log_level": "error",
    "log_level_logfile": "error",
    "ssh_log_file": "logs/ssh.log",
}

# Factories' daemons ask for these when they are made, and use them only in their own `start`.
NO_LISTENER = SimpleNamespace(
    host="127.0.0.1",
    port=0,
    register_auth_event_handler=None,
    unregister_auth_event_handler=None,
)
# It warns of its own existence.
logging.getLogger("saltfactories.manager").setLevel(logging.ERROR)


class Manager(FactoriesManager):
    """Configures as factories do, without what reports back to the test process."""

    def final_common_config_tweaks(self, config: dict[str, Any], role: str) -> None:
        """Only the user; no engine, no log handler."""
        config["user"] = "root"
        config.pop(f"pytest-{role}", None)


@attr.s(kw_only=True, slots=True)
class PlainSaltRun(SaltRun):
    """`salt-run` as a person sees it: our outputter, no `--out=json`, no `--timeout` of its own."""

    __cli_output_supported__ = attr.ib(repr=False, init=False, default=False)
    __cli_timeout_supported__ = attr.ib(repr=False, init=False, default=False)

    def process_output(
        self, stdout: str, stderr: str, cmdline: list[str] | None = None
    ) -> tuple[str, str, Any]:
        """The output as it is, and parsed where JSON was asked for."""
        data = None
        if "--out=json" in (cmdline or ()):
            with contextlib.suppress(ValueError):
                data = json.loads(stdout)
        return stdout, stderr, data


def entering(cli: type[SaltCli], prefix: list[str]) -> type[SaltCli]:
    """The wrapper `cli`, with command lines that begin with `prefix` (nsenter)."""

    class Inside(cli):  # type: ignore[misc]
        def cmdline(self, *args: Any, **kwargs: Any) -> list[str]:
            return [*prefix, *super().cmdline(*args, **kwargs)]

    return Inside


class Master:
    """The master of a lab.

    Args:
        directory: the lab's directory; its own is `master` below.
        hub: the outer namespaces.
        overrides: what differs from `MASTER`.
    """

    def __init__(self, directory: Path, hub: Namespace, overrides: Mapping[str, Any]) -> None:
        self.root = directory / "master"
        self.hub = hub
        self.settings = self.root / "cpacman.yaml"
        self.roster = self.root / "conf" / "roster"
        self.known_hosts = self.root / "known_hosts"
        self._daemon: Daemon | None = None
        self._clis: dict[type[SaltCli], Any] = {}
        manager = Manager(
            root_dir=directory,
            log_server_host="127.0.0.1",
            log_server_port=0,
            log_server_level="error",
            event_listener=NO_LISTENER,
            code_dir=CHECKOUT,
            cwd=directory,
            environ=hub.environ,
        )
        self.factory = manager.salt_master_daemon(
            "master", overrides={**self._config(directory), **overrides}
        )

    def _config(self, directory: Path) -> dict[str, Any]:
        return {
            **MASTER,
            "file_roots": {"base": [str(self.root / "roots")]},
            "cpacman": {"config": str(self.settings)},
            "roster_file": str(self.roster),
            "ssh_priv": str(directory / "ssh_key"),
            **loader_dirs(),
        }

    # -- files

    def write_settings(self, section: Mapping[str, Any]) -> None:
        """Write the `cpacman:` section, for the next command to read."""
        write_atomically(self.settings, yaml.safe_dump({"cpacman": dict(section)}, sort_keys=False))

    def copy_modules(self) -> list[str]:
        """Put the door and the agent, as they are now, under the file server; returns their names.

        Copies, since the file server does not follow links out of its roots.
        """
        target = self.root / "roots" / "_modules"
        target.mkdir(parents=True, exist_ok=True)
        found = [name for name in DOOR_FILES if (CHECKOUT / "_modules" / name).exists()]
        for name in found:
            shutil.copyfile(CHECKOUT / "_modules" / name, target / name)
        return found

    def accept_minion(self, name: str) -> tuple[bytes, bytes]:
        """Make a key pair for a minion and accept it; returns private and public PEM."""
        key = rsa.generate_private_key(65537, 2048)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        accepted = self.root / "pki" / "minions"
        accepted.mkdir(parents=True, exist_ok=True)
        (accepted / name).write_bytes(public)
        return private, public

    def write_roster(self, addresses: Mapping[str, str], priv: Path) -> None:
        """Write the roster; host keys are always checked, against the lab's own known_hosts."""
        options = [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes"]
        entry = {"user": "root", "priv": str(priv), "ssh_options": options}
        roster = {name: {"host": address, **entry} for name, address in addresses.items()}
        self.roster.write_text(yaml.safe_dump(roster), encoding="utf-8")

    # -- life

    def start(self) -> None:
        """Start the master; `wait` says when it listens."""
        self._daemon = self.hub.spawn(
            self.factory.cmdline(), str(self.root / "logs" / "master.out")
        )

    def wait(self, seconds: float = PATIENCE) -> None:
        """Wait until both ports are open.

        Raises:
            LabError: it ended, or took longer.
        """
        wait_for("salt-master", self._listens, seconds)

    def _listens(self) -> bool:
        if self._daemon is None or not self._daemon.alive():
            said = (self.root / "logs" / "master.out").read_text(encoding="utf-8").strip()
            raise LabError(Problem("salt-master", f"ended: {said[-1000:]}"))
        return {PUBLISH_PORT, RETURN_PORT} <= listening(self.hub.pid)

    def kill(self) -> None:
        """kill -9 of the master and all its processes."""
        if self._daemon is not None:
            self._daemon.signal(signal.SIGKILL)
            wait_for(
                "end of salt-master", lambda: RETURN_PORT not in listening(self.hub.pid), PATIENCE
            )
            self._daemon = None

    def _is_deaf(self) -> bool:
        return RETURN_PORT not in listening(self.hub.pid)

    # -- commands

    def cli(self, kind: type[SaltCli]) -> Any:
        """One of the wrappers `SaltRun`, `PlainSaltRun`, `Salt`, `SaltKey`, `SaltSsh`."""
        if kind not in self._clis:
            factory = self.factory
            makers = {
                Salt: factory.salt_cli,
                SaltKey: factory.salt_key_cli,
                SaltSsh: factory.salt_ssh_cli,
            }
            maker = makers.get(kind, factory.salt_run_cli)
            inside = entering(kind, self.hub.prefix())
            self._clis[kind] = maker(
                factory_class=inside, environ=self.hub.environ, cwd=self.root, timeout=120
            )
        return self._clis[kind]


def loader_dirs() -> dict[str, list[str]]:
    """How the master finds our folders: nothing to say when the library is pip-installed."""
    if any(found.name == "cpacman" for found in entry_points(group="salt.loader")):
        return {}
    return {
        option: [str(CHECKOUT / folder)]
        for folder, option in LOADER_DIRS.items()
        if (CHECKOUT / folder).is_dir()
    }
