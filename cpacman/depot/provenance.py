"""Provenance at the door: what enters the depot is signed by the channel's keys, or is refused.

Invariants: keys that are configured are enforced: where a channel has some, a repository's packages
are refused unless they are verified, if it does not say otherwise; what can't be verified is not
verified; repository metadata that is signed must verify, too, and is never required to be.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cpacman.depot.repository import Repository, Unsettled
from cpacman.depot.rpmkeys import Verdict, open_keyring, verify_detached
from cpacman.depot.rpmmd import capped, read_repomd
from cpacman.depot.signatures import Entering, check_packages, known_verdicts
from cpacman.errors import Problem, RepositoryError
from cpacman.model import Package
from cpacman.report.progress import Reporter

if TYPE_CHECKING:
    from cpacman.config import Channel, RepositorySettings, Signatures

SHOWN = 5
MEND = "add its key to the channel's keys, or say signatures: warn at the repository"


class Door(NamedTuple):
    """What a channel's packages must pass: its keys, and where verdicts and key rings are kept."""

    keys: tuple[Path, ...]
    depot: Path
    cache: Path
    reporter: Reporter
    rehearsing: bool = False


Place = Callable[[Package], Path]
"""Finds the bytes of a package that enters."""


def mode_of(settings: RepositorySettings, keys: Sequence[Path]) -> Signatures:
    """Return how a repository's signatures are looked at: as it says, else as there are keys."""
    return settings.signatures or ("require" if keys else "off")


def check_entering(
    repository: Repository, settings: RepositorySettings, place: Place, door: Door
) -> None:
    """Verify a repository's metadata and packages, as far as it is not known how they stand.

    Raises:
        RepositoryError: signatures are required and something has none that verifies.
        CpacmanError: keys or programs are missing.
    """
    mode = mode_of(settings, door.keys)
    if mode == "off":
        return
    problems = list(_metadata_faults(repository, door))
    entering = [Entering(one, place(one)) for one in repository.packages]
    verdicts = check_packages(
        entering,
        keys=door.keys,
        depot=door.depot,
        cache=door.cache,
        reporter=door.reporter,
        keep=not door.rehearsing,
    )
    problems += _package_faults(repository, verdicts)
    if problems and mode == "require":
        raise RepositoryError(capped(problems))
    if problems:
        names = "; ".join(f"{one.path} {one.message}" for one in problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        door.reporter.line(f"{repository.name}: signatures: {names}{more}")


def _package_faults(repository: Repository, verdicts: dict[str, Verdict]) -> Iterator[Problem]:
    for one in repository.packages:
        verdict = verdicts[one.sha256]
        if verdict.status != "good":
            yield Problem(f"{repository.name}: {one.location}", verdict.detail, MEND)


def _metadata_faults(repository: Repository, door: Door) -> Iterator[Problem]:
    """Yield what is wrong with the signature of repomd.xml, where there is one."""
    signature = repository.path / "repodata" / "repomd.xml.asc"
    if repository.kind != "rpm-md" or not signature.exists():
        return
    data = read_repomd(repository.name, repository.path)
    if hashlib.sha256(data).hexdigest() != repository.fingerprint:
        raise Unsettled(Problem(repository.name, "is being rewritten", "let the mirror finish"))
    verdict = verify_detached(open_keyring(door.keys, door.cache), data, signature)
    if verdict.status != "good":
        yield Problem(f"{repository.name}: {signature}", verdict.detail, "mirror it again")


# ---------------------------------------------------------------------------------- what is known


class Standing(NamedTuple):
    """How packages stand: counts by status (`unchecked`: no verdict), and those not good."""

    counts: dict[str, int]
    problems: tuple[tuple[Package, str], ...]


def standing_of(channel: Channel | None, packages: Iterable[Package], depot: Path) -> Standing:
    """Return what is known of packages under a channel's keys and modes as they are now.

    Packages of a repository that is not configured any more count as if it said nothing.

    Raises:
        CpacmanError: a key file is missing.
    """
    keys = channel.keys if channel else ()
    asked = [one for one in packages if channel and mode_for(channel, one.repository) != "off"]
    known = known_verdicts(depot, keys, {one.sha256 for one in asked}) if asked else {}
    counts: Counter[str] = Counter()
    problems = []
    for one in asked:
        verdict = known[one.sha256]
        counts[verdict.status if verdict else "unchecked"] += 1
        if verdict is None or verdict.status != "good":
            problems.append((one, verdict.detail if verdict else "was never checked by these keys"))
    return Standing(dict(sorted(counts.items())), tuple(problems))


def is_required(channel: Channel | None, repository: str) -> bool:
    """Return whether a repository's packages must be verified under today's configuration."""
    return channel is not None and mode_for(channel, repository) == "require"


def mode_for(channel: Channel, repository: str) -> Signatures:
    """Return how a repository's signatures are looked at, by its name."""
    settings = channel.repositories.get(repository)
    if settings is None:
        return "require" if channel.keys else "off"
    return mode_of(settings, channel.keys)
