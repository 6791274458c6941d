"""What a push costs, beside what Salt and scp take for the same bytes, on one machine in one run.

A lab of a master, ten hosts with a minion and three with an sshd: hosts share the processors with
the master, so wall times tell little by themselves and their ratios more. CPU is that of the runner
and of all processes of the master. `CPACMAN_BENCH_PUSH=all` also pushes 10 MB and 300 MB in 1, 20
and 200 files to 1, 3 and 10 hosts.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab import Lab
from tests.bench.bench_plan import Row, _row
from tests.integration.fleet import Fleet

MB = 10**6
HOSTS = [f"web{n}" for n in range(1, 11)]
SSH = ["old1", "old2", "old3"]
LARGE, SMALL, FILES = 300, 2, 20
STALL = "6s"


def rows() -> list[Row]:
    """Return the measurements."""
    with Lab(HOSTS, ssh_hosts=SSH) as lab:
        bench = Bench(lab)
        parts = [bench.publish, bench.ssh, bench.deploy]
        if os.environ.get("CPACMAN_BENCH_PUSH") == "all":
            parts.append(bench.grid)
        found = []
        for row in itertools.chain.from_iterable(part() for part in parts):
            print(f"bench: {row['name']} {row['value']} {row['unit']}", file=sys.stderr, flush=True)
            found.append(row)
        return found


def write_random(path: Path, size: int) -> None:
    """Write a file that no compressor makes smaller."""
    with path.open("wb") as stream:
        for start in range(0, size, 16 * MB):
            stream.write(os.urandom(min(16 * MB, size - start)))


class Bench:
    """A lab and what is measured in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fleet = Fleet(lab)
        self.fleet.members({"*": {"class": "development"}})
        self.fleet.configure(transport={"stall": STALL, "answer": "60s"})
        self.fleet.ready()
        self.conf = str(lab.master.factory.config_file)
        self._numbers = iter(range(10**6))

    # ---- the pieces

    def files(self, size: int, count: int) -> Path:
        """Make that many files of random bytes, of so many MB in all."""
        directory = self.lab.path(f"bench{next(self._numbers)}")
        directory.mkdir()
        for number in range(count):
            write_random(directory / f"x{number}", size * MB // count)
        return directory

    def argv(self, spec: Mapping[str, Any]) -> list[str]:
        """The command line of a push in a process of its own; see `pusher`."""
        return [sys.executable, "-m", "tests.bench.pusher", self.conf, json.dumps(spec)]

    def push(self, hosts: Sequence[str], files: Path) -> Any:
        """Push, and return what it took."""
        spec = {"hosts": list(hosts), "files": str(files)}
        return json.loads(self.lab.run(self.argv(spec), timeout=900).check().stdout)

    def wall(self, script: str) -> float:
        """Run a shell line where the master runs; return its seconds."""
        start = time.monotonic()
        self.lab.run(["sh", "-ec", script], timeout=900).check()
        return time.monotonic() - start

    def heard(self, hosts: Sequence[str]) -> dict[str, int]:
        """Bytes that came in over the hosts' connections to the master's publisher."""
        found = {}
        for host in hosts:
            text = self.lab.host(host).run(["ss", "-tinH", "dport = :4505"]).check().stdout
            found[host] = sum(int(n) for n in re.findall(r"bytes_received:(\d+)", text))
        return found

    # ---- the rows

    def publish(self) -> Iterator[Row]:
        """Publish beside salt-cp and cp.get_file, and what it costs."""
        command = "make bench ONLY=push"
        three, one = HOSTS[:3], HOSTS[:1]
        large = self.files(LARGE, FILES)
        first = self.push(three, large)
        speed = LARGE / first["wall"]
        again = self.push(three, large)
        yield _row("push.publish.mb-per-s-per-host.3-hosts", speed, "MB/s", None, command)
        yield _row("push.publish.second-push-bytes", again["lacked"], "bytes", 0, command)
        yield from self._beside_salt(three, speed, command)

        others = [host for host in HOSTS if host not in one]
        before = self.heard(others)
        alone = self.push(one, self.files(LARGE, FILES))
        reached = sum(n - before[host] for host, n in self.heard(others).items())
        yield _row("push.publish.bytes-to-non-targets", reached, "bytes", 0, command)
        cost, more = (self._cpu(run) for run in (alone, first))
        yield _row("push.publish.cpu-s-per-gb", cost, "s", 14, command)
        yield _row(
            "push.publish.cpu-s-per-gb-per-further-host", (more - cost) / 2, "s", 0.9, command
        )
        memory = max(alone["memory"], first["memory"]) / MB
        yield _row("push.publish.memory-above-idle", memory, "MB", 200, command)
        yield from self._stopped(command)

    @staticmethod
    def _cpu(run: Any) -> float:
        return float(run["runner"] + run["master"]) / (LARGE / 1000)

    def _beside_salt(self, hosts: Sequence[str], speed: float, command: str) -> Iterator[Row]:
        small = self.files(SMALL, 1) / "x0"
        program = f"{sys.executable} {Path(sys.executable).with_name('salt-cp')}"
        names = ",".join(hosts)
        conf = shlex.quote(str(Path(self.conf).parent))
        chunked = self.wall(f"{program} -c {conf} --chunked -L {names} {small} /var/tmp/bench.cp")
        theirs = SMALL / chunked
        yield _row("push.publish.over.salt-cp", speed / theirs, "times", 400, command)

        served = self.lab.master.root / "roots" / "bench.bin"
        write_random(served, LARGE * MB)
        start = time.monotonic()
        answers = self.lab.salt(
            list(hosts), "cp.get_file", "salt://bench.bin", "/var/tmp/bench.bin", timeout=600
        )
        pulled = LARGE / (time.monotonic() - start)
        served.unlink()
        assert len([one for one in answers.data.values() if one]) == len(hosts), answers
        yield _row("push.publish.over.get_file", speed / pulled, "times", 1, command)

    def _stopped(self, command: str) -> Iterator[Row]:
        """Three hosts and one that stops once it has begun, beside the three alone."""
        alone = self.push(HOSTS[:3], self.files(100, FILES))
        host, begun, go = self.lab.host(HOSTS[3]), self.lab.path("begun"), self.lab.path("go")
        spec = {"hosts": HOSTS[:4], "files": str(self.files(100, FILES)), "stopped": HOSTS[3:4],
                "begun": str(begun), "go": str(go)}  # fmt: skip
        with self.lab.start(self.argv(spec)) as running:
            while not begun.exists():
                time.sleep(0.05)
            host.pause()
            go.touch()
            try:
                run = json.loads(running.wait(600).check().stdout)
            finally:
                host.resume()
        yield _row(
            "push.publish.one-stopped.memory-above-idle", run["memory"] / MB, "MB", 200, command
        )
        yield _row("push.publish.one-stopped.seconds", run["others"], "s", alone["wall"], command)

    def ssh(self) -> Iterator[Row]:
        """The ssh transport beside `scp -r` to the same hosts at once."""
        command = "make bench ONLY=push"
        roster = yaml.safe_load(self.lab.master.roster.read_text(encoding="utf-8"))
        ours, theirs = [], []
        for _ in range(2):
            files = self.files(LARGE, FILES)
            ours.append(self.push(SSH, files)["wall"])
            lines = []
            for name in SSH:
                entry = roster[name]
                options = " ".join(f"-o {shlex.quote(one)}" for one in entry["ssh_options"])
                lines.append(f"scp -q -r -i {entry['priv']} {options} {files}"
                             f" root@{entry['host']}:/var/tmp/{files.name} & ")  # fmt: skip
            theirs.append(self.wall("".join(lines) + "wait"))
        speed, plain = (LARGE / statistics.median(times) for times in (ours, theirs))
        yield _row("push.ssh.mb-per-s-per-host.3-hosts", speed, "MB/s", plain, command)
        yield _row("push.ssh.over.scp", speed / plain, "times", 0.8, command)

    def deploy(self) -> Iterator[Row]:
        """One small package on ten hosts: what of the time goes where."""
        command = "make bench ONLY=push"
        plan = self.fleet.plan(tgt="web*", upgrade="confapp")["plan_id"]
        argv = [sys.executable, "-m", "tests.bench.deployer", self.conf, plan, ",".join(HOSTS)]
        found = json.loads(self.lab.run(argv, timeout=300).check().stdout)
        assert set(found["outcomes"].values()) == {"applied"}, found
        start = time.monotonic()
        self.lab.salt_run("cpacman.version")
        startup = time.monotonic() - start
        calls = sum(len(times) for times in found["took"].values())
        salts = startup + calls * found["ping"]
        name = "push.deploy.10-hosts"
        yield _row(f"{name}.seconds", found["total"] + startup, "s", None, command)
        yield _row(f"{name}.salts-own.seconds", salts, "s", None, command)
        yield _row(f"{name}.start.seconds", startup, "s", None, command)
        inside = sum(sum(times) for times in found["took"].values())
        for function, times in found["took"].items():
            # Beside each: as many round trips of test.ping.
            yield _row(
                f"{name}.{function}.seconds", sum(times), "s", len(times) * found["ping"], command
            )
        yield _row(f"{name}.runner.seconds", found["total"] - inside, "s", None, command)

    def grid(self) -> Iterator[Row]:
        """Every size, number of files and number of hosts."""
        command = "CPACMAN_BENCH_PUSH=all make bench ONLY=push"
        for kind, hosts in (("publish", HOSTS), ("ssh", SSH)):
            for count in [n for n in (1, 3, 10) if n <= len(hosts)]:
                for size, files in ((10, 1), (10, 20), (300, 1), (300, 20), (300, 200)):
                    run = self.push(hosts[:count], self.files(size, files))
                    name = f"push.{kind}.{size}-mb.{files}-files.{count}-hosts"
                    yield _row(
                        f"{name}.mb-per-s-per-host", size / run["wall"], "MB/s", None, command
                    )
                    yield _row(f"{name}.memory-above-idle", run["memory"] / MB, "MB", 200, command)
