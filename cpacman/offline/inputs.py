"""Files that the console is given: inventories, and the configuration of a master.

Invariant: all that is wrong with all files is told at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cpacman.errors import InputError, Problem, UserError
from cpacman.inventory import decode_inventory
from cpacman.model import Inventory
from cpacman.report.progress import Reporter

if TYPE_CHECKING:
    from cpacman.config import Settings

T = TypeVar("T")


class Collector:
    """Runs steps and keeps what is wrong, so that one bad input does not hide another."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def run(self, step: Callable[[], T]) -> T | None:
        """Return what a step returns, or None when it complains."""
        try:
            return step()
        except UserError as error:
            self.problems += error.problems
            return None

    def stop_if_any(self) -> None:
        """Raise everything that was wrong.

        Raises:
            InputError: something was.
        """
        if self.problems:
            raise InputError(self.problems)


def read_inventories(words: Iterable[str], reporter: Reporter) -> list[Inventory]:
    """Read inventories from files, and from the `*.json` files of directories.

    Raises:
        InputError: files that can't be read or are no inventories, and hosts that are there twice.
    """
    collect = Collector()
    found: dict[str, tuple[Path, Inventory]] = {}
    paths = list(dict.fromkeys(_files(words, collect.problems)))
    for number, path in enumerate(paths):
        reporter.progress("reading inventories:", number, len(paths), "files")
        inventory = collect.run(functools.partial(_inventory, path))
        if inventory is None:
            continue
        if inventory.host in found:
            other = found[inventory.host][0]
            what = f"host {inventory.host} is in {other} too"
            collect.problems.append(Problem(str(path), what, "give each host once"))
        found.setdefault(inventory.host, (path, inventory))
    collect.stop_if_any()
    return [inventory for _, inventory in found.values()]


def _files(words: Iterable[str], problems: list[Problem]) -> Iterator[Path]:
    """Yield the files that are meant, adding to `problems` what is not there."""
    for word in words:
        path = Path(word)
        if not path.is_dir():
            yield path
            continue
        files = sorted(path.glob("*.json"))
        if not files:
            problems.append(Problem(word, "holds no *.json file", "name the inventories' folder"))
        yield from files


def _inventory(path: Path) -> Inventory:
    """Read one inventory; one that does not name its host is called as its file.

    Raises:
        InputError: it can't be read, or is none.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    inventory = decode_inventory(text, str(path))
    return inventory if inventory.host else msgspec.structs.replace(inventory, host=path.stem)


def settings_of(path: Path | None) -> Settings | None:
    """Read the configuration.

    Raises:
        ConfigError: it is wrong.
    """
    if path is None:
        return None
    from cpacman.config import read_settings

    return read_settings(path)
