"""Verdicts on packages' signatures: made once for bytes and keys, and kept in the depot.

Invariants: a verdict holds for bytes, so it is kept by their
sha256 and the key ring, and the bytes are hashed when it is made; other keys mean another verdict.
How a package is verified is the platform's; `rpmkeys` knows RPM's.

Layout in the depot: `signatures/<key ring>.msgpack`, sha256 -> verdict.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.depot.folder import write_atomically
from cpacman.depot.rpmkeys import (
    Keyring,
    Verdict,
    keyring_id,
    open_keyring,
    verify_packages,
)
from cpacman.depot.rpmmd import capped, hash_files
from cpacman.errors import Problem, RepositoryError
from cpacman.model import Package
from cpacman.report.progress import Reporter

BATCH = 32
"""Packages for one process of rpm: starting it costs as much as a small package."""


class Entering(NamedTuple):
    """A package that enters the depot, and where its bytes are right now."""

    package: Package
    file: Path


class Ledger:
    """The verdicts of one key ring in a depot. Making one reads them."""

    def __init__(self, depot: Path, ring: str) -> None:
        self.path = depot / "signatures" / f"{ring}.msgpack"
        self.verdicts = _read(self.path)

    def add(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep more verdicts, on disk when this returns."""
        if verdicts:
            self.verdicts |= verdicts
            write_atomically(self.path, msgspec.msgpack.encode(self.verdicts))


def _read(path: Path) -> dict[str, Verdict]:
    """Return kept verdicts; what can't be read is made again."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=dict[str, Verdict])
    except (OSError, msgspec.MsgspecError):
        return {}


def forget_verdicts(depot: Path, kept: Collection[str]) -> None:
    """Forget the verdicts on packages that the depot has no more."""
    for path in sorted((depot / "signatures").glob("*.msgpack")):
        verdicts = _read(path)
        left = {sha256: one for sha256, one in verdicts.items() if sha256 in kept}
        if not left:
            path.unlink()
        elif len(left) < len(verdicts):
            write_atomically(path, msgspec.msgpack.encode(left))


def known_verdicts(
    depot: Path, keys: Sequence[Path], packages: Iterable[str]
) -> dict[str, Verdict | None]:
    """Return what is known of packages, by sha256, under the keys as they are now.

    Raises:
        CpacmanError: a key file is missing.
    """
    ledger = Ledger(depot, keyring_id(keys)).verdicts if keys else {}
    return {sha256: ledger.get(sha256) for sha256 in packages}


def check_packages(
    entering: Sequence[Entering],
    *,
    keys: Sequence[Path],
    depot: Path,
    cache: Path,
    reporter: Reporter,
    keep: bool = True,
) -> dict[str, Verdict]:
    """Return the verdict on each package, by sha256, verifying what has none yet, in parallel.

    With `keep` off nothing is written to the depot.

    Raises:
        RepositoryError: bytes are not those that the metadata names.
        CpacmanError: keys or programs are missing.
    """
    keyring = open_keyring(keys, cache)
    for file in keyring.unusable:
        reporter.line(f"{file}: rpm can't use this key: what only it signs is refused")
    ledger = Ledger(depot, keyring.id)
    fresh = {one.package.sha256: one for one in entering}
    fresh = {sha256: one for sha256, one in fresh.items() if sha256 not in ledger.verdicts}
    found: dict[str, Verdict] = {}
    try:
        for batch in _verified(keyring, list(fresh.values())):
            found |= batch
            reporter.progress("signatures", len(found), len(fresh), "packages")
    finally:
        if keep:
            ledger.add(found)  # a run that ends early is no work lost
    known = ledger.verdicts | found
    return {sha256: known[sha256] for sha256 in {o.package.sha256 for o in entering}}


def _verified(keyring: Keyring, fresh: Sequence[Entering]) -> Iterator[dict[str, Verdict]]:
    """Yield verdicts, batch by batch, several at a time.

    Raises:
        RepositoryError: bytes are not those that the metadata names; all of them are named.
    """
    batches = [fresh[i : i + BATCH] for i in range(0, len(fresh), BATCH)]
    altered: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for verdicts, problems in executor.map(lambda one: _batch(keyring, one), batches):
            altered += problems
            yield verdicts
    if altered:
        raise RepositoryError(capped(altered))


def _batch(
    keyring: Keyring, entering: Sequence[Entering]
) -> tuple[dict[str, Verdict], list[Problem]]:
    """Verify some packages; a verdict is about the bytes, so they are hashed here, too."""
    problems = [
        Problem(
            f"{one.package.repository}: {one.package.location}",
            "is not the file that the metadata names: it was altered",
            "let the mirror finish, or mirror it again",
        )
        for one in entering
        if hash_files(one.file, ["sha256"])["sha256"] != one.package.sha256
    ]
    if problems:
        return {}, problems
    files = {one.file: one.package.sha256 for one in entering}
    verdicts = verify_packages(keyring, list(files))
    return {files[file]: verdict for file, verdict in verdicts.items()}, []
