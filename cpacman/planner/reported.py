"""What a host may say of itself: data, looked at before anything is planned from it.

Invariant: whatever is wrong is told, shown in a way that is fit for a terminal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from cpacman.model import FailedError, Failure, InstalledPackage, Inventory
from cpacman.planner.fleet import Book
from cpacman.planner.policy import ARCHES, color

_WORD = re.compile(r"[A-Za-z0-9._+~^%{}:@-]{1,255}\Z")
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LINE = re.compile(r"[ -~]{1,300}\Z")
_MANY = 10
"""Causes shown of one inventory."""


def check_inventory(inventory: Inventory, platform: str) -> Failure | None:
    """Return why an inventory can't be planned from, or None: what a host says is only data."""
    known = Book(wrong_with).look_up(inventory.packages)
    return judge_inventory(inventory, platform, known.causes, known.doubles)


def judge_inventory(
    inventory: Inventory, platform: str, causes: Sequence[str], doubles: bool
) -> Failure | None:
    """Judge an inventory, knowing what is wrong with its packages and if some stand there twice."""
    if inventory.platform != platform:
        words = f"the host reports platform {inventory.platform!r}, its channel is {platform!r}"
        return Failure(error=FailedError.PLATFORM, causes=(words,))
    if inventory.arch and inventory.arch not in ARCHES:
        words = f"architecture {_shown(inventory.arch)} is not one that rpm knows"
        return Failure(error=FailedError.PLATFORM, causes=(words,))
    causes = list(causes)
    if doubles:
        counts = Counter(p.nevra for p in inventory.packages)
        causes += [f"{_shown(n)} is listed {many} times" for n, many in counts.items() if many > 1]
    # One that can't be read must not be passed over: the host would get what it holds back.
    causes += [f"hold {_shown(text)} is no line" for text in inventory.holds if not _is_line(text)]
    if not causes:
        return None
    more = [f"and {len(causes) - _MANY} more"] if len(causes) > _MANY else []
    return Failure(error=FailedError.INVENTORY, causes=(*sorted(causes)[:_MANY], *more))


def _is_line(text: str) -> bool:
    return bool(_LINE.match(text))


def arch_of(inventory: Inventory) -> str:
    """Return a host's architecture; one that it does not tell shows in its packages."""
    arches = {p.arch for p in inventory.packages} - {"noarch", ""}
    widest = sorted(arches, key=lambda arch: (-color(arch), arch))
    return inventory.arch or (widest[0] if widest else "noarch")


def wrong_with(package: InstalledPackage) -> Iterator[str]:
    """Yield what is wrong with a package that a host reported."""
    words = {"name": package.name, "version": package.version}
    if package.release:
        words["release"] = package.release
    for field, value in words.items():
        if not _WORD.match(value):
            yield f"{_shown(package.name)}: {field} {_shown(value)} is not one that rpm allows"
    if package.arch and package.arch not in ARCHES:
        yield f"{_shown(package.name)}: architecture {_shown(package.arch)} is unknown"
    if package.epoch < 0 or package.epoch > 0xFFFFFFFF:
        yield f"{_shown(package.name)}: epoch {package.epoch} is out of range"
    if not _is_clean(package):
        yield f"{_shown(package.name)}: a dependency or file has characters that rpm does not allow"


def _is_clean(package: InstalledPackage) -> bool:
    """Return whether no text of a package has control characters, all texts in one look."""
    deps = (
        package.provides, package.requires, package.conflicts, package.obsoletes,
        package.recommends, package.suggests, package.supplements, package.enhances,
    )  # fmt: skip
    words = chain.from_iterable(chain.from_iterable(deps))
    return not _UNCLEAN.search("".join((package.vendor, *package.files, *words)))


def _shown(text: str) -> str:
    """Return a host's text fit for a terminal: escaped, and not too long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
