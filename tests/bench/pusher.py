"""One measured push, in a process of its own where the master runs: `pusher.py CONF SPEC`.

Files of random bytes stand for packages: they are begun by real signed manifests, pushed, hashed on
the hosts, and never installed. Prints what it took as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import salt.config

from cpacman.commands.context import Context, open_context
from cpacman.model import canonical_json
from cpacman.rollout.reader import Reader
from cpacman.transport.port import PushProgress

TICK = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Push as the specification says; or only `look` what the master holds when nothing happens."""
    spec = json.loads(sys.argv[2])
    if spec.get("look"):
        print(json.dumps({"memory": memory_of(masters())}))
        return 0
    opts = salt.config.master_config(sys.argv[1])
    opts["output"] = "json"
    with open_context(opts, who="bench") as context:
        print(json.dumps(measure(context, spec)))
    return 0


def measure(context: Context, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Push once, and prove by the hosts' own hashes that all arrived."""
    files = {hash_of(path): path for path in sorted(Path(spec["files"]).iterdir())}
    sizes = {sha256: path.stat().st_size for sha256, path in files.items()}
    session = f"b-{secrets.token_hex(6)}"
    hosts = spec["hosts"]
    pin(context, hosts)
    needs = begin(context, hosts, session, sizes)
    dead = set(spec.get("stopped", ()))
    if dead:
        Path(spec["begun"]).touch()
        wait_for(Path(spec["go"]))
    clock = Clock(sum(n for h in needs if h not in dead for _, _, n in needs[h]))
    start, cpu, masters = time.monotonic(), own_cpu(), master_cpu()
    with watched_memory(spec.get("idle")) as memory, Reader(files.__getitem__) as read:
        answers = context.transport.push(
            session, {h: n for h, n in needs.items() if n}, read,
            clock.note,
        )  # fmt: skip
    wall, runner, master = time.monotonic() - start, own_cpu() - cpu, master_cpu() - masters
    wrong = [a for a in answers if a.code and a.host not in dead]
    asked = {host: {"session": session} for host in hosts if host not in dead}
    staged = {a.host: a for a in context.transport.call("staged", asked, timeout=60)}
    wrong += [a for a in staged.values() if a.value.get("complete") is not True]
    if wrong:
        raise SystemExit(f"bench: {wrong[:2]}")
    return {
        "wall": wall, "runner": runner, "master": master, "memory": memory.master,
        "runner-memory": memory.runner,
        "sent": clock.sent, "others": (clock.at or time.monotonic()) - start,
        "lacked": sum(n for segments in needs.values() for _, _, n in segments),
    }  # fmt: skip


class Clock:
    """Notes how much was acknowledged, and when the hosts that live had all."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.sent = 0
        self.at = 0.0

    def note(self, step: PushProgress) -> None:
        """Take a step in."""
        self.sent = step.done
        if self.sent >= self.wanted and not self.at:
            self.at = time.monotonic()


def wait_for(path: Path) -> None:
    """Wait until somebody made a file."""
    while not path.exists():
        time.sleep(0.01)


def hash_of(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pin(context: Context, hosts: Sequence[str]) -> None:
    """Introduce the plan key to hosts with a minion."""
    key = {"key": context.key.public_key_b64}
    minions = [host for host in hosts if context.directory.transport_of(host) == "publish"]
    for answer in context.transport.call("pin", dict.fromkeys(minions, key), timeout=60):
        assert not answer.code, answer


def begin(
    context: Context, hosts: Sequence[str], session: str, sizes: Mapping[str, int]
) -> dict[str, list[Any]]:
    """Begin a session for these files everywhere; return what each host lacks."""
    requests = {}
    for host in hosts:
        text = manifest(host, session, context.store.next_sequence(host, at=time.time()), sizes)
        requests[host] = {"manifest": text, "signature": context.key.sign_manifest(text)}
    needs = {}
    for answer in context.transport.call("begin", requests, timeout=120):
        assert not answer.code, answer
        needs[answer.host] = [tuple(one) for one in answer.value["missing"]]
    return needs


def manifest(host: str, session: str, sequence: int, sizes: Mapping[str, int]) -> str:
    """Return a manifest that names files and nothing that could be installed."""
    names = {sha256: f"bench{number}" for number, sha256 in enumerate(sorted(sizes))}
    actions = [
        {"action": "install", "name": name, "epoch": 0, "version": "1", "release": "1",
         "arch": "noarch", "nevra": f"{name}-1-1.noarch", "from": None, "sha256": sha256,
         "size": sizes[sha256]}
        for sha256, name in names.items()
    ]  # fmt: skip
    body = {
        "schema": 1, "kind": "manifest", "host": host, "plan": "p-bench", "transaction": "t-bench",
        "rollout": session, "session": session, "sequence": sequence, "nonce": "n", "created": 1,
        "expires": int(time.time()) + 600, "cookie": "c", "after": "0" * 64, "protected": [],
        "actions": actions, "cache": 2**40,
        "files": [{"sha256": s, "size": n, "name": f"{names[s]}.rpm"} for s, n in sizes.items()],
    }  # fmt: skip
    return canonical_json(body).decode()


# ---- what it costs -------------------------------------------------------------------------------


def own_cpu() -> float:
    """CPU seconds of this process and its children, the running ones too (ssh)."""
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        one = resource.getrusage(who)
        used += one.ru_utime + one.ru_stime
    return used + sum(cpu_of(pid) for pid in children(os.getpid()))


def master_cpu() -> float:
    """CPU seconds of all processes of the master."""
    return sum(cpu_of(pid) for pid in masters())


def masters() -> list[int]:
    """The processes of the master, which share this one's process namespace."""
    own = Path("/proc/self/ns/pid").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if (b"salt_master" in line or b"salt-master" in line) and (
                entry / "ns/pid"
            ).readlink() == own:
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """The processes below one."""
    text = "".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(word) for word in text.split()]


def cpu_of(pid: int) -> float:
    """CPU seconds of one process."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(word) for word in words[11:15]) / TICK
    return 0.0


class Memory:
    """How much more memory (PSS) master and runner have than when idle, at most, in bytes.

    Attributes:
        master: of all its processes together.
        runner: of this one.
    """

    def __init__(self) -> None:
        self.master = 0
        self.runner = 0
        self._own = memory_of([os.getpid()])

    def look(self, idle: int) -> None:
        """Look once."""
        self.master = max(self.master, memory_of(masters()) - idle)
        self.runner = max(self.runner, memory_of([os.getpid()]) - self._own)


@contextlib.contextmanager
def watched_memory(idle: int | None) -> Iterator[Memory]:
    """Look at the memory all the time during a block.

    That costs a good part of a processor, so nobody looks where times are taken: without the
    master's `idle` bytes.
    """
    found, over = Memory(), threading.Event()

    def look() -> None:
        while idle is not None and not over.wait(0.05):
            found.look(idle)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def memory_of(pids: Sequence[int]) -> int:
    """Bytes of proportional set size."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024
    return total


if __name__ == "__main__":
    sys.exit(main())
