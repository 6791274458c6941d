"""A host of the lab whose first process is a real systemd, with the minion as one of its services.

Invariants: it has cgroups of its own, below those of the process that made it, and they are gone
when the host is; no unit of this machine runs there but those that every system needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cpacman.errors import Problem
from lab.errors import LabError
from lab.host import DAEMON_LOG, Host, host_environ
from lab.namespace import PATIENCE, Daemon, wait_for

INIT = Path(__file__).resolve().parent / "systemd-init.sh"
PREFIX = "cpacman-lab-"
"""Of the cgroup of a process's hosts; the process's id follows."""
UNIT = "salt-minion.service"
TARGET = f"""\
[Unit]
Requires=basic.target
Wants={UNIT}
After=basic.target
AllowIsolate=yes
"""
MINION = """\
[Unit]
After=basic.target

[Service]
KillMode=mixed
TimeoutStopSec=5
Environment={environment}
ExecStart={command}
StandardOutput=append:{log}
StandardError=append:{log}
"""
"""Of the packages of Salt, but for Type=notify and where the program lies."""


class SystemdHost(Host):
    """A host with systemd; everything else about it is as with the others."""

    cgroups: Sequence[Path] = ()

    def place_units(self) -> None:
        """Say which units there will be."""
        script = Path(sys.executable).with_name("salt-minion")
        environment = " ".join(f'"{name}={value}"' for name, value in host_environ().items())
        unit = MINION.format(
            environment=environment, command=f"{sys.executable} {script}", log=DAEMON_LOG
        )
        self.place_file("/etc/lab.init", INIT.read_bytes(), 0o755)
        self.place_file("/run/systemd/system/lab.target", TARGET.encode())
        self.place_file(f"/run/systemd/system/{UNIT}", unit.encode())

    def launch(self, layers: Path, hide: Iterable[Path], need: Iterable[Path], site: Path) -> None:
        """Start systemd in cgroups of its own; `settle` waits for it.

        Raises:
            LabError: this machine gives it none.
        """
        self.place_units()
        roots = hierarchies()
        if not roots:
            raise LabError(Problem(self.name, "no cgroups for its systemd are mounted here"))
        self.cgroups = [root / f"{PREFIX}{os.getpid()}" / self.name for root in roots]
        for cgroup in self.cgroups:
            cgroup.mkdir(parents=True, exist_ok=True)
        self._launched = (layers, tuple(hide), tuple(need), site)
        super().launch(*self._launched)

    def unshare(self) -> list[str]:
        """The command that gives the host its namespaces, that of its cgroups among them."""
        enter = " && ".join(f"echo $$ >{cgroup}/cgroup.procs" for cgroup in self.cgroups)
        return ["sh", "-c", f'{enter} && exec "$@"', "sh", *super().unshare(), "--cgroup"]

    def start_minion(self) -> None:
        """Wait until systemd is up, and start the minion's service unless that did it."""
        if not self._daemon_alive():
            wait_for(f"systemd of {self.name}", self._is_booted, PATIENCE)
            self.run(["systemctl", "start", UNIT]).check()
            self._daemon = Daemon(self.inside.outer_pid(self.main_pid()))

    @contextlib.contextmanager
    def coming_back(self, after: float = 0.0) -> Iterator[None]:
        """Play the machine meanwhile: when its systemd ends it for a reboot, it is started again.

        Args:
            after: seconds that the host is away.
        """
        with ThreadPoolExecutor(1) as pool:
            over = threading.Event()
            watching = pool.submit(self._come_back, over, after)
            try:
                yield
            finally:
                over.set()
                watching.result()

    def _come_back(self, over: threading.Event, after: float) -> None:
        while not over.wait(0.1):
            if self._unshare is not None and not self._unshare.alive() and not over.wait(after):
                self._inside = self._daemon = None
                super().launch(*self._launched)
                self.settle()

    def main_pid(self, unit: str = UNIT) -> int:
        """The id of a service's main process, as the host sees it; 0 where it does not run."""
        asked = ["systemctl", "show", "--property=MainPID", "--value", unit]
        return int(self.run(asked).check().stdout)

    def _is_booted(self) -> bool:
        return self.run(["systemctl", "is-active", "--quiet", "lab.target"]).returncode == 0

    def release(self) -> None:
        """Remove its cgroups, as soon as its processes are gone; and what dead labs left."""
        for cgroup in self.cgroups:
            wait_for(f"end of {cgroup}", lambda cgroup=cgroup: remove_cgroup(cgroup), PATIENCE)
            with contextlib.suppress(OSError):  # the others' are there yet
                cgroup.parent.rmdir()
        for root in hierarchies():
            for top in root.glob(f"{PREFIX}*"):
                if not Path(f"/proc/{top.name.removeprefix(PREFIX)}").exists():
                    remove_cgroup(top)


def hierarchies() -> list[Path]:
    """Where the hierarchies of cgroups that a systemd manages are mounted on this machine."""
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where))
    return [path for path in found if os.access(path, os.W_OK)]


def remove_cgroup(top: Path) -> bool:
    """Remove a cgroup and those below it; false while some still hold a process."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not top.exists()
