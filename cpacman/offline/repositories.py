"""Directories of packages as one channel, without a depot: what a snapshot of them would be.

Invariants: package files are not looked at; a directory is used as a channel of the configuration
uses the repository of that name; where several do, by the narrowest of them.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cpacman.depot.folder import write_atomically
from cpacman.depot.repository import Repository
from cpacman.depot.snapshot import SnapshotRepository, snapshot_id
from cpacman.errors import Problem, UsageError
from cpacman.model import Advisory, Inventory
from cpacman.planner.plan import ChannelInput
from cpacman.planner.solver import Candidate
from cpacman.planner.sources import source_of

if TYPE_CHECKING:
    from cpacman.config import Settings

CHANNEL = "offline"
"""The name of the one channel that a plan from directories has."""


def places_of(repos: Iterable[str]) -> dict[str, Path]:
    """Return name -> directory of `NAME=DIR` words.

    Raises:
        UsageError: words that are not of that form, and names that are given twice.
    """
    found: dict[str, Path] = {}
    problems = []
    for word in repos:
        name, given, path = word.partition("=")
        if not (name and given and path):
            problems.append(Problem(f"--repo {word}", "is not NAME=DIR", "e.g. base=/srv/base"))
        elif name in found and found[name] != Path(path):
            problems.append(Problem(f"--repo {word}", f"{name} is {found[name]} already"))
        found.setdefault(name, Path(path))
    if problems:
        raise UsageError(problems)
    return found


def check_names(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of repositories that nobody typed.

    Raises:
        UsageError: each with the nearest one that was.
    """
    known = sorted(known)
    problems = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            problems.append(Problem(f"{option} {name}", "is no --repo", mend))
    if problems:
        raise UsageError(problems)


def channel_of(
    repositories: Sequence[Repository],
    noautoupdate: Collection[str],
    settings: Settings | None,
    inventories: Sequence[Inventory],
    cache: Path,
) -> ChannelInput:
    """Return what is planned from: directories as one channel, used as their names are configured.

    Args:
        repositories: what the directories hold.
        noautoupdate: those of them that serve named packages only.
        settings: the configuration, where one was typed.
        inventories: the hosts.
        cache: a directory of our own.
    """
    entries = [_entry(one, noautoupdate, settings) for one in repositories]
    return ChannelInput(
        channel=CHANNEL,
        snapshot=_snapshot(repositories, entries, cache),
        sources=tuple(source_of(one) for one in entries),
        inventories=tuple(inventories),
        advisories=_advisories(repositories),
        sha256_of=functools.partial(_sha256_of, {one.name: one for one in repositories}),
    )


def _entry(
    repository: Repository, noautoupdate: Collection[str], settings: Settings | None
) -> SnapshotRepository:
    """Return a repository as a snapshot would have it, used as any channel configures its name."""
    channels = settings.channels.values() if settings else ()
    same = [c.repositories[repository.name] for c in channels if repository.name in c.repositories]
    return SnapshotRepository(
        name=repository.name,
        path=str(repository.path),
        kind=repository.kind,
        fingerprint=repository.fingerprint,
        metadata=repository.metadata,
        checksums=repository.checksums,
        autoupdate=all(o.autoupdate for o in same) and repository.name not in noautoupdate,
        priority=min((one.priority for one in same), default=99),
        module_hotfixes=any(one.module_hotfixes for one in same),
        origin=max((one.origin for one in same), default=""),
    )


def _advisories(repositories: Iterable[Repository]) -> tuple[Advisory, ...]:
    """Return the advisories of all repositories, each once."""
    found = {msgspec.json.encode(one): one for repo in repositories for one in repo.advisories}
    return tuple(found[key] for key in sorted(found))


def _sha256_of(repositories: Mapping[str, Repository], candidate: Candidate) -> str:
    """Return the sha256 that was computed for a package whose metadata has another checksum."""
    packages = repositories[candidate.repository].packages
    return next((p.sha256 for p in packages if p.nevra == candidate.nevra), "")


def _snapshot(
    repositories: Sequence[Repository], entries: Sequence[SnapshotRepository], cache: Path
) -> str:
    """Return the id a snapshot of these repositories would have.

    It takes a while to compute, so it is kept under what decides it: contents and their use.
    """
    decides = sorted(
        (one.name, one.fingerprint, one.autoupdate, one.priority, one.module_hotfixes, one.origin)
        for one in entries
    )
    file = cache / "snapshots" / hashlib.sha256(repr(decides).encode()).hexdigest()
    try:
        return file.read_text()
    except OSError:
        packages = (p for one in repositories for p in one.packages)
        known = snapshot_id(CHANNEL, entries, packages, _advisories(repositories))
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(file, known.encode())
    return known
