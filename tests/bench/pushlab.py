"""A lab of twenty hosts, and what can be sent to them: by us, by Salt, by scp."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab import Lab
from tests.bench.card import Rates, Sniffers
from tests.integration.fleet import Fleet

MB = 10**6
HOSTS = [f"web{n}" for n in range(1, 11)]
SSH = [f"old{n}" for n in range(1, 11)]
TIMES = {"stall": "6s", "answer": "60s"}


class PushLab:
    """A lab and what is measured in it.

    Args:
        lab: with `HOSTS` and `SSH`.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fleet = Fleet(lab)
        self.fleet.members({"*": {"class": "development"}})
        self.configure()
        self.fleet.ready()
        self._conf = str(lab.master.factory.config_file)
        self._files: list[Path] = []
        self._idle = self._run({"look": True})["memory"]

    def configure(self, **transport: Any) -> None:
        """Configure the transports."""
        self.fleet.configure(transport={**TIMES, **transport})

    def files(self, size: int, count: int) -> Path:
        """Make that many files of random bytes, of so many MB in all."""
        directory = self.lab.path(f"bench{len(self._files)}")
        directory.mkdir()
        self._files.append(directory)
        for number in range(count):
            write_random(directory / f"x{number}", size * MB // count)
        return directory

    def forget(self) -> None:
        """Remove what was made and what came to the hosts."""
        for directory in self._files:
            shutil.rmtree(directory, ignore_errors=True)
        for host in self.lab.hosts.values():
            host.run(["sh", "-c", "rm -rf /var/cache/cpacman/* /var/tmp/bench*"]).check()

    # ---- by us

    def push(self, hosts: Sequence[str], files: Path, *, memory: bool = False) -> Any:
        """Push, and return what it took; the memory is looked at all the time, or not at all."""
        idle = {"idle": self._idle} if memory else {}
        return self._run({"hosts": list(hosts), "files": str(files), **idle})

    def push_with_one_stopped(self, hosts: Sequence[str], files: Path) -> Any:
        """Push; the last host stops once it has begun."""
        host, begun, go = self.lab.host(hosts[-1]), self.lab.path("begun"), self.lab.path("go")
        spec = {"hosts": list(hosts), "files": str(files), "idle": self._idle,
                "stopped": list(hosts[-1:]), "begun": str(begun), "go": str(go)}  # fmt: skip
        with self.lab.start(self._argv(spec)) as running:
            while not begun.exists():
                time.sleep(0.05)
            host.pause()
            go.touch()
            try:
                return json.loads(running.wait(300).check().stdout)
            finally:
                host.resume()

    def deploy(self, hosts: Sequence[str], package: str) -> Any:
        """Upgrade one package, with a clock around every call; see `deployer`."""
        plan = self.fleet.plan(tgt=hosts[0][:3] + "*", upgrade=package)["plan_id"]
        argv = [sys.executable, "-m", "tests.bench.deployer", self._conf, plan, ",".join(hosts)]
        found = json.loads(self.lab.run(argv, timeout=300).check().stdout)
        assert set(found["outcomes"].values()) == {"applied"}, found
        start = time.monotonic()
        self.lab.salt_run("cpacman.version")
        return {**found, "startup": time.monotonic() - start}

    def _argv(self, spec: Mapping[str, Any]) -> list[str]:
        return [sys.executable, "-m", "tests.bench.pusher", self._conf, json.dumps(spec)]

    def _run(self, spec: Mapping[str, Any]) -> Any:
        return json.loads(self.lab.run(self._argv(spec), timeout=600).check().stdout)

    # ---- by others

    def salt_cp(self, hosts: Sequence[str], size: int) -> float:
        """Seconds that salt-cp takes for a file."""
        program = Path(sys.executable).with_name("salt-cp")
        file = self.files(size, 1) / "x0"
        conf = shlex.quote(str(Path(self._conf).parent))
        return self._wall(
            f"{sys.executable} {program} -c {conf} --chunked -L {','.join(hosts)} {file}"
            " /var/tmp/bench.cp"
        )

    def get_file(self, hosts: Sequence[str], size: int) -> float:
        """Seconds that hosts take to fetch a file from the master, all at once."""
        served = self.lab.master.root / "roots" / "bench.bin"
        write_random(served, size * MB)
        names = ",".join(hosts)
        argv = [sys.executable, "-m", "tests.bench.puller", self._conf, served.name, names]
        try:
            return float(self.lab.run(argv, timeout=600).check().stdout)
        finally:
            served.unlink()
            self.forget()

    def scp(self, hosts: Sequence[str], files: Path) -> float:
        """Seconds of `scp -r` to all hosts at once."""
        roster = yaml.safe_load(self.lab.master.roster.read_text(encoding="utf-8"))
        lines = []
        for entry in (roster[name] for name in hosts):
            options = " ".join(f"-o {shlex.quote(one)}" for one in entry["ssh_options"])
            to = f"root@{entry['host']}:/var/tmp/{files.name}"
            lines.append(f'scp -q -r -i {entry["priv"]} {options} {files} {to} & p="$p $!"; ')
        return self._wall("".join(lines) + "for one in $p; do wait $one; done")

    def _wall(self, script: str) -> float:
        start = time.monotonic()
        self.lab.run(["sh", "-ec", script], timeout=600).check()
        return time.monotonic() - start

    # ---- at the hosts' cards

    @contextlib.contextmanager
    def bystanders(self, hosts: Sequence[str]) -> Iterator[Sniffers]:
        """Count what reaches hosts that are not meant; what came is known after the block."""
        with Sniffers.on([self.lab.host(name) for name in hosts]) as sniffers:
            yield sniffers

    @contextlib.contextmanager
    def cards(self, hosts: Sequence[str]) -> Iterator[Rates]:
        """Look how fast bytes come in; the rates are known after the block."""
        with Rates([self.lab.host(name) for name in hosts]) as rates:
            yield rates


def write_random(path: Path, size: int) -> None:
    """Write a file that no compressor makes smaller."""
    with path.open("wb") as stream:
        for start in range(0, size, 16 * MB):
            stream.write(os.urandom(min(16 * MB, size - start)))
