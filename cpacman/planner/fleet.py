"""Many hosts at once: which are equal, in what lots they are solved, what is solved already.

Invariants: equal groups of hosts are solved once, whatever their number; what comes out is the
same bytes in one process or in several, fresh or from what an earlier run left behind; an answer
is kept under everything that decides it (metadata, policy, request, packages, the planner's own
code), so it is either right or not found.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import msgspec

from cpacman.model import (
    Action,
    FailedError,
    Failure,
    Held,
    InstalledPackage,
    Transaction,
    canonical_json,
    package_hash,
    packages_digest,
)
from cpacman.planner.workers import cpus, run_lots
from cpacman.report.progress import Reporter

CHUNK = 4000
"""Distinct packages of hosts that share one solver pool: more make each solve slower."""

FEW = 6
"""Groups up to which a second process costs more than it brings, and nothing is kept."""

LONGEST = 64
"""Groups of one lot at most: what is lost when a run is interrupted, and waited for at its end."""

KEPT_BYTES = 512 * 2**20
"""What answers of earlier plans may take on the disk; the oldest go first."""

Result = Transaction | Failure


class Solved(NamedTuple):
    """What came out for one group, and its `t-` id; a failure has none."""

    number: str
    result: Result


class Group(NamedTuple):
    """Hosts that are equal in all that matters.

    `key` is the hash of the inventory and the policy, `packages` the numbers of its packages in
    the `Book`, `hosts` how many hosts it is.
    """

    key: bytes
    packages: Sequence[int]
    hosts: int


Solve = Callable[[Sequence[int]], Iterator[Solved]]
"""Solves one lot of groups, given by their places, one after the other."""


# Inventories


class PackageSet(NamedTuple):
    """What is known of the packages of an inventory, apart from the rest of it.

    `numbers` are their places in the `Book`, `causes` what is wrong with them; `doubles` tells
    whether one NEVRA stands there twice.
    """

    numbers: array[int]
    digest: str
    causes: tuple[str, ...]
    doubles: bool


class Book:
    """What is known of the distinct packages of many inventories, each looked at once.

    Args:
        wrong_with: tells what is wrong with a package that a host reported.
    """

    def __init__(self, wrong_with: Callable[[InstalledPackage], Iterable[str]]) -> None:
        self._wrong_with = wrong_with
        self._by_object: dict[int, int] = {}
        self._by_hash: dict[bytes, int] = {}
        self._hashes: list[bytes] = []
        self._nevras: list[str] = []
        self._causes: list[tuple[str, ...]] = []
        self._sets: dict[int, PackageSet] = {}
        self._alive: list[object] = []

    def look_up(self, packages: tuple[InstalledPackage, ...]) -> PackageSet:
        """Return what is known of packages; what is the same object is looked at once."""
        known = self._sets.get(id(packages))
        if known is None:
            known = self._sets[id(packages)] = self._look_at(packages)
            self._alive.append(packages)
        return known

    def _look_at(self, packages: tuple[InstalledPackage, ...]) -> PackageSet:
        known = self._by_object
        numbers = [
            number if (number := known.get(id(p))) is not None else self._add(p) for p in packages
        ]
        return PackageSet(
            array("I", numbers),
            packages_digest([self._hashes[number] for number in numbers]),
            tuple(cause for number in numbers for cause in self._causes[number]),
            len({self._nevras[number] for number in numbers}) < len(numbers),
        )

    def _add(self, package: InstalledPackage) -> int:
        digest = package_hash(package)
        number = self._by_hash.setdefault(digest, len(self._hashes))
        if number == len(self._hashes):
            self._hashes.append(digest)
            self._nevras.append(package.nevra)
            self._causes.append(tuple(self._wrong_with(package)))
        self._by_object[id(package)] = number
        self._alive.append(package)
        return number


# Lots


def solve_groups(
    groups: Sequence[Group],
    prepare: Callable[[], Solve],
    *,
    memory: Memory | None,
    reporter: Reporter,
    workers: int | None = None,
) -> Generator[tuple[int, Solved], None, None]:
    """Yield every group's place and what came out for it, in no particular order.

    Args:
        groups: the distinct groups of hosts.
        prepare: reads what solving needs; called at most once, and only if something is to do.
        memory: answers of earlier runs, and the place for those of this one.
        reporter: told how many hosts are planned.
        workers: processes at most; as many as there are processors when not given.

    Raises:
        CpacmanError: a process was killed; what was solved until then is kept in `memory`.
    """
    total = sum(group.hosts for group in groups)
    done = 0
    open_: list[int] = []
    shared = _Shared()
    known = memory.read({group.key for group in groups}, shared) if memory else {}
    for place, group in enumerate(groups):
        if (solved := known.get(group.key)) is None:
            open_.append(place)
        else:
            done += group.hosts
            yield place, solved
    if not open_:
        return
    solve = prepare()
    count = 1 if len(open_) <= FEW else workers or cpus()
    lots = list(_lots(open_, groups, count))
    keys = [group.key for group in groups]

    def work(number: int) -> bytes:
        rows = zip(lots[number], solve(lots[number]), strict=True)
        return _encode([(keys[place], solved) for place, solved in rows])

    reporter.progress("planning", done, total, "hosts")
    try:
        for number, frame in run_lots(len(lots), work, workers=count):
            if memory:
                memory.add(frame)
            answers = dict(_decode(frame, shared))
            for place in lots[number]:
                done += groups[place].hosts
                yield place, answers[keys[place]]
            reporter.progress("planning", done, total, "hosts")
    finally:
        if memory:
            memory.close()


def _lots(places: Sequence[int], groups: Sequence[Group], workers: int) -> Iterator[list[int]]:
    """Yield groups in lots of about `CHUNK` distinct packages, enough of them for all workers.

    Groups that are much alike go into one lot: what they have in common is made known once.
    """
    most = min(LONGEST, -(-len(places) // (2 * workers))) if workers > 1 else LONGEST
    lot: list[int] = []
    seen: set[int] = set()
    for place in sorted(places, key=lambda place: (_likeness(groups[place].packages), place)):
        mine = set(groups[place].packages)
        if lot and (len(lot) >= most or len(seen | mine) > CHUNK):
            yield lot
            lot, seen = [], set()
        lot.append(place)
        seen |= mine
    if lot:
        yield lot


def _likeness(packages: Sequence[int]) -> list[int]:
    """Return what sets of packages have in common the more of the more they share.

    The smallest few after a shuffle: min-wise hashing (Broder 1997). Sets that only share what
    every host has part at the first of them that is not of those.
    """
    return sorted([number * 0x9E3779B1 & 0xFFFFFFFF for number in packages])[:16]


# Answers as bytes


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """One answer: its actions and held packages are places in the frame's own tables."""

    key: bytes
    number: str
    failure: Failure | None
    bare: Transaction | None
    actions: bytes
    held: bytes


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """The answers of one lot. Hosts have most actions in common: each stands here once."""

    actions: tuple[Action, ...]
    held: tuple[Held, ...]
    rows: tuple[_Row, ...]


class _Shared:
    """Values that many answers have in common, one object of each."""

    def __init__(self) -> None:
        self._actions: dict[Action, Action] = {}
        self._held: dict[Held, Held] = {}

    def actions(self, values: Iterable[Action]) -> list[Action]:
        """Return the one object of each action."""
        return [self._actions.setdefault(value, value) for value in values]

    def held(self, values: Iterable[Held]) -> list[Held]:
        """Return the one object of each held package."""
        return [self._held.setdefault(value, value) for value in values]


def _encode(answers: Iterable[tuple[bytes, Solved]]) -> bytes:
    actions: dict[Action, int] = {}
    held: dict[Held, int] = {}
    rows = []
    for key, (number, result) in answers:
        if isinstance(result, Failure):
            rows.append(_Row(key, number, result, None, b"", b""))
            continue
        mine = array("I", [actions.setdefault(a, len(actions)) for a in result.actions])
        kept = array("I", [held.setdefault(h, len(held)) for h in result.held])
        bare = msgspec.structs.replace(result, actions=(), held=())
        rows.append(_Row(key, number, None, bare, mine.tobytes(), kept.tobytes()))
    return msgspec.msgpack.encode(_Frame(tuple(actions), tuple(held), tuple(rows)))


def _decode(frame: bytes, shared: _Shared) -> Iterator[tuple[bytes, Solved]]:
    found = msgspec.msgpack.decode(frame, type=_Frame)
    actions, held = shared.actions(found.actions), shared.held(found.held)
    for row in found.rows:
        if row.bare is None:
            result: Result = row.failure or Failure(error=FailedError.INVENTORY)
        else:
            result = msgspec.structs.replace(
                row.bare,
                actions=tuple([actions[place] for place in array("I", row.actions)]),
                held=tuple([held[place] for place in array("I", row.held)]),
            )
        yield row.key, Solved(row.number, result)


# Answers of earlier runs


class Memory:
    """Answers on the disk: one file for each set of circumstances, frames one after the other.

    A frame that is damaged or torn ends the file for its readers; whoever writes next cuts it
    off. Only one process writes at a time, a second one just does not keep what it finds.

    Args:
        folder: where the files are; those that were not used for longest are removed.
        circumstances: all that decides an answer, apart from the group itself.
    """

    def __init__(self, folder: Path, circumstances: object) -> None:
        body = [canonical_json(circumstances), code_fingerprint().encode()]
        self._file = folder / f"{hashlib.sha256(b''.join(body)).hexdigest()}.solved"
        self._stream: int | None = None

    def read(self, wanted: set[bytes], shared: _Shared) -> dict[bytes, Solved]:
        """Return those answers that are wanted and there."""
        found: dict[bytes, Solved] = {}
        for frame, _ in self._frames():
            with suppress(msgspec.DecodeError):
                found.update(row for row in _decode(frame, shared) if row[0] in wanted)
        return found

    def _frames(self) -> Iterator[tuple[bytes, int]]:
        """Yield the sound frames and where each ends."""
        try:
            data = self._file.read_bytes()
        except OSError:
            return
        at = 0
        while at + _FRAME.size <= len(data):
            size, check = _FRAME.unpack_from(data, at)
            packed = data[at + _FRAME.size : at + _FRAME.size + size]
            if len(packed) < size or zlib.crc32(packed) != check:
                return
            at += _FRAME.size + size
            with suppress(zlib.error):
                yield zlib.decompress(packed), at

    def add(self, frame: bytes) -> None:
        """Keep a frame; one that can't be kept only costs time later."""
        packed = zlib.compress(frame, 1)
        with suppress(OSError):
            if self._stream is None:
                self._stream = self._open()
            if self._stream >= 0:
                os.write(self._stream, _FRAME.pack(len(packed), zlib.crc32(packed)) + packed)

    def _open(self) -> int:
        """Return the file to write to, cut to its sound part; -1 while another process writes."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(stream, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(stream)
            return -1
        end = max((end for _, end in self._frames()), default=0)
        # Answers to inventories that are gone by now stay in the file: it begins anew some day.
        end = 0 if end > KEPT_BYTES // 2 else end
        os.ftruncate(stream, end)
        os.lseek(stream, end, os.SEEK_SET)
        prune(self._file.parent, keep=self._file)
        return stream

    def close(self) -> None:
        """End the writing and note that the file was of use."""
        if self._stream is not None and self._stream >= 0:
            os.close(self._stream)
        self._stream = None
        with suppress(OSError):
            os.utime(self._file)


_FRAME = Struct("<QI")


def prune(folder: Path, *, keep: Path, most: int = KEPT_BYTES) -> None:
    """Remove the files that were not used for longest, until the rest fits into `most` bytes."""
    files = [(path, path.stat()) for path in folder.glob("*.solved") if path != keep]
    files.sort(key=lambda row: row[1].st_mtime, reverse=True)
    room = most
    for path, stat in files:
        room -= stat.st_size
        if room < 0:
            path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return the hash of the code that decides what a plan is: another one, other answers."""
    from importlib.metadata import version

    here = Path(__file__).parent
    digest = hashlib.sha256(version("solv").encode())
    for path in (*sorted(here.rglob("*.py")), here.parent / "model.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()
