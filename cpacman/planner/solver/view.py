"""One host inside a universe: what it could get, and what solving for it gives.

Invariant: a solve never changes the universe, so any number of hosts can be solved one after the
other.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import solv

from cpacman.model import InstalledPackage
from cpacman.planner.solver.pools import new_solver
from cpacman.planner.solver.values import (
    Candidate,
    Clash,
    Finding,
    Matches,
    Solution,
    Step,
    Task,
    Verb,
)

if TYPE_CHECKING:
    from cpacman.planner.solver.universe import Universe


_WEAK = frozenset(
    {
        solv.Solver.SOLVER_REASON_WEAKDEP,
        solv.Solver.SOLVER_REASON_RECOMMENDED,
        solv.Solver.SOLVER_REASON_SUPPLEMENTED,
    }
)


_CLASHES = {
    solv.Solver.SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP: Clash.NOTHING_PROVIDES,
    solv.Solver.SOLVER_RULE_JOB_NOTHING_PROVIDES_DEP: Clash.NOTHING_PROVIDES,
    solv.Solver.SOLVER_RULE_PKG_REQUIRES: Clash.REQUIRES,
    solv.Solver.SOLVER_RULE_PKG_CONFLICTS: Clash.CONFLICTS,
    solv.Solver.SOLVER_RULE_PKG_SELF_CONFLICT: Clash.CONFLICTS,
    solv.Solver.SOLVER_RULE_PKG_OBSOLETES: Clash.OBSOLETES,
    solv.Solver.SOLVER_RULE_PKG_INSTALLED_OBSOLETES: Clash.OBSOLETES,
    solv.Solver.SOLVER_RULE_PKG_SAME_NAME: Clash.SAME_NAME,
    solv.Solver.SOLVER_RULE_PKG_IMPLICIT_OBSOLETES: Clash.SAME_NAME,
    solv.Solver.SOLVER_RULE_PKG_NOT_INSTALLABLE: Clash.NOT_INSTALLABLE,
}


class HostView:
    """One host inside a universe: what it could get, and what solving for it gives."""

    def __init__(
        self, universe: Universe, ids: Mapping[str, int], masked: frozenset[int] = frozenset()
    ) -> None:
        self._universe = universe
        self._masked = masked
        self._pool = universe.pool
        self._ids = ids
        self._nevras = {i: nevra for nevra, i in ids.items()}
        self._last: tuple[set[int], bool, Any] | None = None

    def obsoleters(self, package: InstalledPackage | Candidate) -> tuple[Candidate, ...]:
        """Return the candidates of another name that obsolete a package."""
        rows = self._universe.obsoleted.get(package.name)
        if rows is None:
            return ()
        solvable = self._pool.id2solvable(self._id_of(package))
        found = {i for i, dep in rows if solvable.matchesdep(solv.SOLVABLE_NAME, dep)}
        found -= self._masked
        values = [self._universe.candidate(i) for i in sorted(found)]
        order = self._universe.versions.key
        values = [v for v in values if v.name != package.name]
        return tuple(sorted(values, key=lambda c: (c.name, order(c.evr)), reverse=True))

    def _id_of(self, package: InstalledPackage | Candidate) -> int:
        ids: Mapping[Any, int] = self._universe.ids
        return ids[package] if isinstance(package, Candidate) else self._ids[package.nevra]

    @property
    def masked(self) -> frozenset[int]:
        """What does not exist for this host: equal for hosts of the same streams."""
        return self._masked

    def is_masked(self, candidate: Candidate) -> bool:
        """Return whether a candidate does not exist for this host."""
        return bool(self._masked) and self._universe.ids[candidate] in self._masked

    def stands_beside(self, package: InstalledPackage | Candidate) -> bool:
        """Return whether a package is of a kind that is installed beside its other versions."""
        return self._id_of(package) in self._universe.side_by_side

    def match(self, spec: str, *, masked: bool = False, files: bool = True) -> Matches:
        """Find what a user means: name, name.arch, NEVRA forms, glob, then provide, then file.

        Of what does not exist for this host nothing is found, unless `masked` asks for it.
        Without `files` only a word that is a path is looked for among them.
        """
        hidden = frozenset() if masked else self._masked
        select = solv.Selection
        plain = select.SELECTION_NAME | select.SELECTION_DOTARCH | select.SELECTION_GLOB
        provides = select.SELECTION_PROVIDES | select.SELECTION_GLOB | select.SELECTION_REL
        paths = select.SELECTION_FILELIST | select.SELECTION_GLOB
        if found := self._select(spec, plain, hidden):
            return self._matches(found, just_name=True)
        found = self._select(spec, plain | select.SELECTION_CANON, hidden)
        if not found:
            found = self._select(spec, provides, hidden)
            if files or spec.startswith("/"):
                found += self._select(spec, paths, hidden)
        return self._matches(found, just_name=False)

    def _select(self, spec: str, flags: int, hidden: frozenset[int]) -> list[int]:
        flags |= solv.Selection.SELECTION_FLAT | solv.Selection.SELECTION_WITH_DISABLED
        found = (s.id for s in self._pool.select(spec, flags).solvables())
        return [
            i
            for i in found
            if i in self._nevras or not (i in hidden or self._universe.is_installed(i))
        ]

    def _matches(self, ids: Iterable[int], *, just_name: bool) -> Matches:
        known = sorted(set(ids))
        installed = tuple(self._nevras[i] for i in known if i in self._nevras)
        offered = (self._universe.candidate(i) for i in known if i not in self._nevras)
        return Matches(tuple(offered), installed, just_name)

    def solve(
        self,
        tasks: Iterable[Task],
        *,
        hidden: Collection[Candidate] = (),
        closed: Collection[str] = (),
        opened: Collection[Candidate] = (),
        removable: Collection[str] = (),
        weak: bool = True,
        afresh: bool = False,
    ) -> Solution:
        """Solve for this host without removing, downgrading or breaking anything.

        Args:
            tasks: what is wanted. An INSTALL, UPDATE or ERASE task that can't be met is a
                problem, UPDATE_ALL never is.
            hidden: candidates that must not be taken for this host.
            closed: repositories that nothing must be taken from, except what is `opened`.
            removable: NEVRAs of installed packages that may leave when nothing else helps.
            weak: whether weak dependencies are taken as dnf takes them.
            afresh: forget the solves before this one. They never change whether there is a
                solution, but which of several reasons against one is found.
        """
        if afresh:
            self._last = None
        tasks = list(tasks)
        solver = self._solver(self._shut(hidden, closed, opened), weak)
        found = solver.solve(
            [*self._jobs(tasks), *self._standing_jobs, *self._removal_jobs(removable)]
        )
        if found:
            return Solution((), tuple(self._findings(problem) for problem in found))
        everything = any(task.verb is Verb.UPDATE_ALL for task in tasks)
        return Solution(tuple(self._steps(solver, everything=everything)))

    def _shut(
        self,
        hidden: Collection[Candidate],
        closed: Collection[str],
        opened: Collection[Candidate],
    ) -> set[int]:
        """Return what is not for this host, other hosts' packages included."""
        ids = self._universe.ids
        shut = {i for name in closed for i in self._universe.repos[name].range}
        shut -= {ids[c] for c in opened}
        shut.update(ids[c] for c in hidden)
        shut.update(self._others)
        shut.update(self._masked)
        return shut

    def _solver(self, shut: set[int], weak: bool) -> Any:
        """Return a solver that is blind to some packages.

        Half of the work of a solve is to write down the packages' own rules, which a solver
        remembers: as long as it may see the same packages the last one serves again.
        """
        if self._last is None or self._last[:2] != (shut, weak):
            self._pool.set_disabled_list(sorted(shut))
            self._last = (shut, weak, new_solver(self._pool, weak=weak))
        return self._last[2]

    @functools.cached_property
    def _others(self) -> list[int]:
        """What is installed on other hosts of the chunk only."""
        chunk = self._universe.chunk
        return [i for i in chunk.range if i not in self._nevras] if chunk else []

    def _jobs(self, tasks: Iterable[Task]) -> Iterator[Any]:
        job = solv.Job
        for task in tasks:
            if task.verb is Verb.UPDATE_ALL:
                yield self._pool.Job(job.SOLVER_UPDATE | job.SOLVER_SOLVABLE_ALL, 0)
            elif task.verb is Verb.INSTALL:
                yield self._install_job(task)
            else:
                yield from self._installed_jobs(task)

    def _install_job(self, task: Task) -> Any:
        """Return the job for one of some candidates.

        Where all are of one architecture that is what was chosen: libsolv would else bring a
        better one beside it. For a single candidate it knows that by itself.
        """
        job = solv.Job
        how = job.SOLVER_INSTALL | (job.SOLVER_WEAK if task.weak else 0)
        ids = [self._universe.ids[c] for c in task.candidates]
        if len(ids) == 1:
            return self._pool.Job(how | job.SOLVER_SOLVABLE, ids[0])
        if len({c.arch for c in task.candidates}) == 1:
            how |= job.SOLVER_SETARCH
        what = self._pool.towhatprovides(ids)
        return self._pool.Job(how | job.SOLVER_SOLVABLE_ONE_OF, what)

    def _installed_jobs(self, task: Task) -> Iterator[Any]:
        job = solv.Job
        update = job.SOLVER_UPDATE | job.SOLVER_FORCEBEST
        how = update if task.verb is Verb.UPDATE else job.SOLVER_ERASE
        for nevra in task.installed:
            yield self._pool.Job(how | job.SOLVER_SOLVABLE, self._ids[nevra])

    def _removal_jobs(self, removable: Collection[str]) -> Iterator[Any]:
        how = solv.Job.SOLVER_ALLOWUNINSTALL | solv.Job.SOLVER_SOLVABLE
        yield from (self._pool.Job(how, self._ids[nevra]) for nevra in sorted(removable))

    @functools.cached_property
    def _standing_jobs(self) -> list[Any]:
        """What holds for every solve: install-only packages, weak dependencies refused before."""
        how = solv.Job.SOLVER_EXCLUDEFROMWEAK | solv.Job.SOLVER_SOLVABLE
        unwanted = [self._pool.Job(how, i) for i in self._unwanted]
        return [*self._universe.multiversion_jobs, *unwanted]

    @functools.cached_property
    def _unwanted(self) -> list[int]:
        """Weak dependencies that the host does without already: dnf does not bring them back.

        Source: libdnf, `Goal::exclude_from_weak_autodetect`.
        """
        found = set(self._unmet_recommends())
        for i, name, providers in self._universe.supplementing:
            if name not in self._names and not self._nevras.keys().isdisjoint(providers):
                found.add(i)
        return sorted(found)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        """The names of what is installed."""
        chunk = self._universe.chunk
        return frozenset(chunk.names[i] for i in self._nevras) if chunk else frozenset()

    def _unmet_recommends(self) -> Iterator[int]:
        chunk = self._universe.chunk
        for i in chunk.recommending.intersection(self._nevras) if chunk else ():
            for ids in self._universe.recommended_by(i):
                if self._nevras.keys().isdisjoint(ids):
                    yield from (p for p in ids if not self._universe.is_installed(p))

    def _steps(self, solver: Any, *, everything: bool) -> Iterator[Step]:
        """Yield what a solution does; when everything is updated, why an update comes is plain."""
        nevras = self._nevras
        gone = {-i for i in solver.raw_decisions(-1)} & nevras.keys()
        plain = self._plain(gone)
        transaction = solver.transaction()
        for number in [i for i in solver.raw_decisions(1) if i not in nevras]:
            own = plain(number)
            if own and everything:
                gone.discard(own)
                yield self._universe.plain_step(number, nevras[own])
                continue
            solvable = self._pool.id2solvable(number)
            others = {s.id for s in transaction.allothersolvables(solvable)} & nevras.keys()
            gone -= others
            yield Step(
                self._universe.candidate(number),
                tuple(sorted(nevras[i] for i in others)),
                solver.describe_decision(solvable)[0] in _WEAK,
                number in self._universe.side_by_side,
            )
        yield from (Step(None, (nevras[i],)) for i in sorted(gone))

    def _plain(self, gone: Collection[int]) -> Callable[[int], int]:
        """Return what tells whose place a package takes where that is plain, and 0 elsewhere.

        What comes under the name and arch of a package that leaves, the only one of that name, and
        obsoletes nothing else that leaves, takes its place and no other's. Most steps are like
        that, and asking libsolv about each of them is dear.
        """
        universe, chunk = self._universe, self._universe.chunk
        if chunk is None:
            return lambda number: 0
        names = chunk.names
        counts = Counter(map(names.__getitem__, self._nevras))
        alone = {(names[i], chunk.arches[i]): i for i in gone if counts[names[i]] == 1}
        leaving = {names[i] for i in gone}

        def place(number: int) -> int:
            new = universe.candidate(number)
            if number in universe.side_by_side:
                return 0
            obsoleted = universe.obsoletes.get(number, ())
            if obsoleted and any(name in leaving and name != new.name for name in obsoleted):
                return 0
            return alone.get((new.name, new.arch), 0)

        return place

    def _findings(self, problem: Any) -> tuple[Finding, ...]:
        infos = [info for rule in problem.findallproblemrules() for info in rule.allinfos()]
        return tuple(dict.fromkeys(map(self._finding, infos)))

    def _finding(self, info: Any) -> Finding:
        clash = _CLASHES.get(info.type)
        if clash is None:
            # Other rules' fields are not what their names say: a job's number, say.
            return Finding(Clash.OTHER, "", False, "", "", (), info.problemstr())
        providers: tuple[Candidate, ...] = ()
        if clash in (Clash.REQUIRES, Clash.NOTHING_PROVIDES) and info.dep_id:
            ids = {s.id for s in self._pool.whatprovides(info.dep_id)}
            offered = sorted(i for i in ids if not self._universe.is_installed(i))
            providers = tuple(self._universe.candidate(i) for i in offered)
        return Finding(
            clash,
            str(info.solvable) if info.solvable else "",
            bool(info.solvable) and info.solvable.id in self._nevras,
            str(info.othersolvable) if info.othersolvable else "",
            str(info.dep) if info.dep_id else "",
            providers,
            info.problemstr(),
        )
