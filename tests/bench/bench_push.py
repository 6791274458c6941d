"""What a push costs, beside what Salt and scp take for the same bytes, on one machine in one run.

A lab of a master, ten hosts with a minion and ten with an sshd: hosts share the processors with
the master, so wall times tell little by themselves and their ratios more. CPU is that of the runner
and of all processes of the master. `make bench ONLY=push PARTS=publish,ssh` measures some of it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence

from lab import Lab
from tests.bench.bench_plan import Row, _row
from tests.bench.pushlab import HOSTS, MB, SSH, PushLab

PARTS = ("publish", "memory", "salt", "caps", "ssh", "deploy", "grid")
LARGE, SMALL, FILES = 300, 2, 20
ROUNDS = 3
CAP = 8
"""Megabytes in a second, to one host and in all."""
GRID = ((10, 1), (10, 200), (300, 1), (300, 200))
"""Megabytes, and the number of files that they lie in."""


def rows(parts: Sequence[str] = PARTS) -> list[Row]:
    """Return the measurements of these parts."""
    with Lab(HOSTS, ssh_hosts=SSH) as lab:
        bench = PushLab(lab)
        found = []
        for part in parts:
            for row in globals()[f"_{part}"](bench):
                print(
                    f"bench: {row['name']} {row['value']} {row['unit']}",
                    file=sys.stderr,
                    flush=True,
                )
                found.append({**row, "command": f"make bench ONLY=push PARTS={part}"})
        return found


def _publish(bench: PushLab) -> Iterator[Row]:
    """What it costs to push to one host and to each further one, and who else hears of it."""
    cost: dict[int, list[float]] = {1: [], 3: []}
    speed: dict[int, list[float]] = {1: [], 3: []}
    reached, card = [], []
    for _ in range(ROUNDS):
        for count in (1, 3):
            files = bench.files(LARGE, FILES)
            with bench.bystanders(HOSTS[count:]) as heard:
                run = bench.push(HOSTS[:count], files)
            cost[count].append((run["runner"] + run["master"]) / (LARGE / 1000))
            speed[count].append(LARGE / run["wall"])
            reached.append(heard.payload)
            card.append(heard.card)
            again = bench.push(HOSTS[:count], files)
            assert again["lacked"] == 0, again
            bench.forget()
    one, three = (statistics.median(cost[count]) for count in (1, 3))
    for count, found in speed.items():
        name = f"push.publish.mb-per-s-per-host.{count}-hosts"
        yield _row(name, statistics.median(found), "MB/s", None, "")
    yield _row("push.publish.second-push-bytes", again["lacked"], "bytes", 0, "")
    yield _row("push.publish.bytes-to-non-targets", max(reached), "bytes", 0, "")
    # Everything that came in there meanwhile: keep-alives and the minions' own questions.
    yield _row("push.publish.non-targets.card-bytes", max(card), "bytes", None, "")
    yield _row("push.publish.cpu-s-per-gb", one, "s", 14, "")
    yield _row("push.publish.cpu-s-per-gb.runner", run["runner"] / (LARGE / 1000), "s", None, "")
    yield _row("push.publish.cpu-s-per-gb-per-further-host", (three - one) / 2, "s", 0.9, "")


def _memory(bench: PushLab) -> Iterator[Row]:
    """What the master's processes and the runner hold above idle, also for a host that stops."""
    for count in (1, 3, 10):
        run = bench.push(HOSTS[:count], bench.files(100, FILES), memory=True)
        name = f"push.publish.memory-above-idle.{count}-hosts"
        yield _row(name, run["memory"] / MB, "MB", 200, "")
        yield _row(f"{name}.runner", run["runner-memory"] / MB, "MB", None, "")
        bench.forget()
    alone = bench.push(HOSTS[:3], bench.files(100, FILES))
    run = bench.push_with_one_stopped(HOSTS[:4], bench.files(100, FILES))
    name = "push.publish.one-stopped"
    yield _row(f"{name}.memory-above-idle", run["memory"] / MB, "MB", 200, "")
    # The same three hosts without the fourth one beside it.
    yield _row(f"{name}.seconds-of-the-others", run["others"], "s", alone["wall"], "")
    bench.forget()


def _salt(bench: PushLab) -> Iterator[Row]:
    """Publish beside salt-cp and cp.get_file, to the same three hosts."""
    hosts = HOSTS[:3]
    ours, theirs = [], []
    for turn in range(ROUNDS):
        ours.append(LARGE / bench.push(hosts, bench.files(LARGE, FILES))["wall"])
        bench.forget()
        theirs.append(LARGE / bench.get_file(hosts, LARGE))
        if not turn:
            chunked = SMALL / bench.salt_cp(hosts, SMALL)
    speed, pulled = statistics.median(ours), statistics.median(theirs)
    yield _row("push.salt-cp.mb-per-s-per-host.3-hosts", chunked, "MB/s", None, "")
    yield _row("push.get_file.mb-per-s-per-host.3-hosts", pulled, "MB/s", None, "")
    yield _row("push.publish.over.salt-cp", speed / chunked, "times", 400, "")
    yield _row("push.publish.over.get_file", speed / pulled, "times", 1, "")


def _caps(bench: PushLab) -> Iterator[Row]:
    """Bytes in a second at the hosts' cards, over the cap: to one host, and to three in all."""
    for kind, hosts in (("publish", HOSTS[:3]), ("ssh", SSH[:3])):
        for cap, most, size in (("bandwidth_per_host", 1, 40), ("bandwidth", 3, 16)):
            bench.configure(**{cap: f"{CAP}M"})
            with bench.cards(hosts) as rates:
                bench.push(hosts, bench.files(size, 4))
            found = rates.total if cap == "bandwidth" else max(rates.found.values())
            name = f"push.{kind}.{cap.replace('_', '-')}.over-cap.{most}-hosts"
            yield _row(name, found / (CAP * MB), "times", 1, "")
            bench.forget()
    bench.configure()


def _ssh(bench: PushLab) -> Iterator[Row]:
    """The ssh transport beside `scp -r` to the same hosts at once."""
    hosts = SSH[:3]
    ours, theirs = [], []
    for _ in range(3):
        files = bench.files(LARGE, FILES)
        ours.append(LARGE / bench.push(hosts, files)["wall"])
        theirs.append(LARGE / bench.scp(hosts, files))
        bench.forget()
    yield _row("push.ssh.mb-per-s-per-host.3-hosts", statistics.median(ours), "MB/s",
               statistics.median(theirs), "")  # fmt: skip
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    yield _row("push.ssh.over.scp", ratio, "times", 0.8, "")


def _deploy(bench: PushLab) -> Iterator[Row]:
    """One small package on ten hosts: what of the time goes where, and what is Salt's own."""
    found = bench.deploy(HOSTS, "confapp")
    startup = found["startup"]
    calls = sum(len(times) for times in found["took"].values())
    name = "push.deploy.10-hosts"
    yield _row(f"{name}.seconds", found["total"] + startup, "s", None, "")
    # Salt's own: its start, and as many round trips of test.ping to the same hosts as there were
    # calls.
    yield _row(f"{name}.salts-own.seconds", startup + calls * found["ping"], "s", None, "")
    yield _row(f"{name}.start.seconds", startup, "s", None, "")
    for function, times in found["took"].items():
        yield _row(f"{name}.{function}.seconds", sum(times), "s", len(times) * found["ping"], "")
    inside = sum(sum(times) for times in found["took"].values())
    yield _row(f"{name}.runner.seconds", found["total"] - inside, "s", None, "")


def _grid(bench: PushLab) -> Iterator[Row]:
    """Every size, number of files and number of hosts."""
    for kind, hosts in (("publish", HOSTS), ("ssh", SSH)):
        for count in (1, 3, 10):
            for size, files in GRID:
                run = bench.push(hosts[:count], bench.files(size, files))
                bench.forget()
                name = f"push.{kind}.{size}-mb.{files}-files.{count}-hosts"
                speed = size / run["wall"]
                yield _row(f"{name}.mb-per-s-per-host", speed, "MB/s", None, "")
