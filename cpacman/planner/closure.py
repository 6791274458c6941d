"""What packages need: a choice of packages, closed under dependencies within two snapshots.

Invariants: the solver finds what is needed, on a bare host and with what the class holds already
going first, so that no more comes than has to; what was excluded never comes; a package that can't
be installed from the newer snapshot either is as broken as it was and no fault of the choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cpacman.planner.explain import causes
from cpacman.planner.solver import Candidate, HostView, Solution, Source, Task, Universe, Verb

Row = tuple[str, str]
"""Repository and NEVRA of a package."""

_OLD, _NEW = "held: ", "newer: "


class Side(NamedTuple):
    """What there is of one of the two snapshots: all of it but `rows`, or those `rows` only."""

    whole: bool
    rows: tuple[Row, ...] = ()


ALL = Side(whole=True)
NONE = Side(whole=False)


class Need(NamedTuple):
    """What came out for one package: what it needs besides, or why it can't be installed."""

    package: Row
    needs: tuple[Row, ...] = ()
    causes: tuple[str, ...] = ()


class Closure:
    """Two snapshots beside each other, and what a package needs of either.

    Args:
        held: the repositories of what the class holds.
        newer: those of the newer snapshot.
        arch: the hosts' architecture.
        cache: a directory for the solver's files, or None.
    """

    def __init__(
        self, held: Iterable[Source], newer: Iterable[Source], *, arch: str, cache: Path | None
    ) -> None:
        old = [_beside(one, _OLD, 1) for one in held]
        new = [_beside(one, _NEW, 2) for one in newer]
        self._names = {_OLD: [one.name for one in old], _NEW: [one.name for one in new]}
        self._universe = Universe((*old, *new), arch=arch, cache=cache)
        self._universe.admit(())
        self._rows: dict[str, dict[Row, Candidate]] = {}

    def look(
        self, packages: Sequence[Row], *, old: Side, new: Side, more: Side | None = None
    ) -> list[Need]:
        """Return what packages of the newer snapshot need that is not there, or why they can't be.

        Args:
            packages: those to look at; they come themselves.
            old: what stays of what the class holds.
            new: what comes of the newer snapshot.
            more: what could come besides; None means nothing, and what needs more is told so.

        Returns:
            only packages with something to tell.
        """
        there = set(self._candidates(_NEW, new.rows)) if not new.whole else None
        with self._universe.host(()) as view:
            looks = [self._look(view, row, old, new, more, there) for row in packages]
        return [one for one in looks if one is not None]

    def _look(
        self,
        view: HostView,
        row: Row,
        old: Side,
        new: Side,
        more: Side | None,
        there: set[Candidate] | None,
    ) -> Need | None:
        (candidate,) = self._candidates(_NEW, [row]) or (None,)
        if candidate is None:
            return None
        found = self._try(view, candidate, old, new)
        if not found.problems or self._try(view, candidate, NONE, ALL).problems:
            return None
        if more is not None:
            found = self._try(view, candidate, old, more)
            if not found.problems:
                return Need(row, needs=tuple(_needed(found, there or set())))
        words = (text for one in found.problems for text in causes(one, lambda _: None))
        return Need(row, causes=tuple(_plain(text) for text in dict.fromkeys(words)))

    def _try(self, view: HostView, candidate: Candidate, old: Side, new: Side) -> Solution:
        closed: list[str] = []
        opened: list[Candidate] = [candidate]
        hidden: list[Candidate] = []
        for name, side in ((_OLD, old), (_NEW, new)):
            closed += [] if side.whole else self._names[name]
            (hidden if side.whole else opened).extend(self._candidates(name, side.rows))
        task = Task(Verb.INSTALL, (candidate,))
        return view.solve([task], closed=closed, opened=opened, hidden=hidden, weak=False)

    def _candidates(self, side: str, rows: Iterable[Row]) -> list[Candidate]:
        found = (self._candidate(side, row) for row in rows)
        return [one for one in found if one is not None]

    def _candidate(self, side: str, row: Row) -> Candidate | None:
        repository, nevra = row
        name = nevra.rsplit("-", 2)[0]
        if name not in self._rows:
            offered = self._universe.candidates(name)
            self._rows[name] = {(one.repository, one.nevra): one for one in offered}
        return self._rows[name].get((side + repository, nevra))


def _beside(source: Source, side: str, priority: int) -> Source:
    """Return a repository as one of two of its name: no streams, no rules, only an order."""
    return msgspec.structs.replace(
        source, name=side + source.name, priority=priority, autoupdate=True, modules="",
        modules_checksum="",
    )  # fmt: skip


def _needed(solution: Solution, there: set[Candidate]) -> list[Row]:
    rows = (step.new for step in solution.steps if step.new and step.new not in there)
    return [(one.repository.removeprefix(_NEW), one.nevra) for one in rows
            if one.repository.startswith(_NEW)]  # fmt: skip


def _plain(text: str) -> str:
    return text.replace(_OLD, "").replace(_NEW, "")
