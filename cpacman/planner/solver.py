"""libsolv behind plain values: the only file that imports `solv`.

Invariants: no id of libsolv leaves this file; packages are fed in one canonical order, so equal
input gives equal output; a solve never changes the universe, so any number of hosts can be solved
one after the other. Nothing here knows a rule of ours: what a host must not get arrives as a set
of hidden candidates, what it wants as tasks.

How many hosts share one universe: the distinct packages of all of them stand once in a repo of
their own; a shadow of it is what counts as installed, and for each host only its own packages
are moved into the shadow, the others are disabled.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import solv

from cpacman.errors import Problem, RepositoryError
from cpacman.model import Dependency, InstalledPackage
from cpacman.planner.metadata import file_checksum, is_in_primary, read_text, sort_primary
from cpacman.planner.modules import FORMAT as MODULES_FORMAT
from cpacman.planner.modules import Modules, Stream, defaults_of, read_modules

FORMAT = 1
"""Version of the caches' layout: part of their names, so an old cache is never read."""

INSTALL_ONLY = (
    "kernel",
    "kernel-PAE",
    "kernel-core",
    "kernel-modules",
    "kernel-modules-core",
    "kernel-modules-extra",
    "kernel-devel",
    "kernel-debug",
    "kernel-rt",
    "kernel-uek",
    "installonlypkg(kernel)",
    "installonlypkg(kernel-module)",
    "installonlypkg(vm)",
    "multiversion(kernel)",
)
"""Packages with one of these among their provides stand side by side and are never replaced."""

_FLAGS = {
    "=": solv.REL_EQ,
    "<": solv.REL_LT,
    ">": solv.REL_GT,
    "<=": solv.REL_LT | solv.REL_EQ,
    ">=": solv.REL_GT | solv.REL_EQ,
}

_DEPENDENCIES = (
    ("provides", solv.SOLVABLE_PROVIDES),
    ("requires", solv.SOLVABLE_REQUIRES),
    ("conflicts", solv.SOLVABLE_CONFLICTS),
    ("obsoletes", solv.SOLVABLE_OBSOLETES),
    ("recommends", solv.SOLVABLE_RECOMMENDS),
    ("suggests", solv.SOLVABLE_SUGGESTS),
    ("supplements", solv.SOLVABLE_SUPPLEMENTS),
    ("enhances", solv.SOLVABLE_ENHANCES),
)

_WEAK = frozenset(
    {
        solv.Solver.SOLVER_REASON_WEAKDEP,
        solv.Solver.SOLVER_REASON_RECOMMENDED,
        solv.Solver.SOLVER_REASON_SUPPLEMENTED,
    }
)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of one repository, as files.

    `checksum` is the sha256 of the primary file as hex digits; empty means: computed here.
    `priority` is as dnf has it: the smaller number wins. `modules` is the file of module metadata,
    `module_hotfixes` says that modules hide nothing of this repository.
    """

    name: str
    primary: str
    checksum: str = ""
    filelists: str = ""
    updateinfo: str = ""
    autoupdate: bool = True
    priority: int = 99
    modules: str = ""
    modules_checksum: str = ""
    module_hotfixes: bool = False
    origin: str = ""

    @property
    def label(self) -> str:
        """The origin of its packages: repositories of one origin may serve each other's."""
        return self.origin or self.name


class Candidate(NamedTuple):
    """One package that a repository offers. `checksum` is `type:hex`, `size` bytes."""

    name: str
    evr: str
    arch: str
    repository: str
    checksum: str
    vendor: str = ""
    buildtime: int = 0
    size: int = 0

    @property
    def nevra(self) -> str:
        """`name-[epoch:]version-release.arch`."""
        return f"{self.name}-{self.evr}.{self.arch}"


class Verb(str, Enum):
    """What a task asks of the solver."""

    UPDATE_ALL = "update-all"
    UPDATE = "update"
    INSTALL = "install"
    ERASE = "erase"


class Task(NamedTuple):
    """One demand: INSTALL takes one of `candidates`, UPDATE and ERASE the `installed` NEVRAs.

    A `weak` INSTALL that can't be met is no problem.
    """

    verb: Verb
    candidates: tuple[Candidate, ...] = ()
    installed: tuple[str, ...] = ()
    weak: bool = False


class Step(NamedTuple):
    """What happens in a solution: `new` comes (None: nothing does), the NEVRAs `old` leave."""

    new: Candidate | None
    old: tuple[str, ...] = ()
    weak: bool = False
    side_by_side: bool = False


class Clash(str, Enum):
    """The kinds of rules that make a wish impossible."""

    NOTHING_PROVIDES = "nothing-provides"
    REQUIRES = "requires"
    CONFLICTS = "conflicts"
    OBSOLETES = "obsoletes"
    SAME_NAME = "same-name"
    NOT_INSTALLABLE = "not-installable"
    OTHER = "other"


class Finding(NamedTuple):
    """One rule of a problem: `package` (a NEVRA) and what it wants, or whom it collides with.

    `providers` are the candidates that provide `dep`, hidden ones included, when a requirement
    can't be met; `text` is the solver's own wording.
    """

    clash: Clash
    package: str
    installed: bool
    other: str
    dep: str
    providers: tuple[Candidate, ...]
    text: str


class Solution(NamedTuple):
    """What the solver found: steps, or else the findings of every problem."""

    steps: tuple[Step, ...]
    problems: tuple[tuple[Finding, ...], ...] = ()


class Matches(NamedTuple):
    """What a spec names: candidates, and NEVRAs of installed packages.

    `just_name` tells whether it named packages by name (with or without arch) and no version.
    """

    candidates: tuple[Candidate, ...]
    installed: tuple[str, ...]
    just_name: bool


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


class Versions:
    """The order of versions as rpm has it, by libsolv itself."""

    def __init__(self) -> None:
        pool = _new_pool(None)
        repo = pool.add_repo("versions")
        self._pool = pool
        self._left, self._right = repo.add_solvable(), repo.add_solvable()
        self._known: dict[tuple[str, str], int] = {}

    def compare(self, left: str, right: str) -> int:
        """Return -1, 0 or 1 as `left` is older than, equal to or newer than `right`."""
        known = self._known.get((left, right))
        if known is None:
            self._left.evr, self._right.evr = left, right
            known = self._known[left, right] = self._left.evrcmp(self._right)
        return known

    @functools.cached_property
    def key(self) -> Callable[[str], Any]:
        """A sort key for `[epoch:]version-release` texts."""
        return functools.cmp_to_key(self.compare)


class Universe:
    """What the repositories of one snapshot offer to hosts of one architecture.

    Args:
        sources: the repositories; their order does not matter.
        arch: the hosts' architecture, e.g. `x86_64`.
        cache: a directory for the solver's own files, or None. A cache that can't be written
            only makes the next start slower.
        words: what requests name, which may be things that packages provide, or paths.

    Raises:
        RepositoryError: metadata that is missing or can't be read; every source's problem.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        arch: str,
        cache: Path | None = None,
        words: Iterable[str] = (),
    ) -> None:
        self.sources = {s.name: s for s in sorted(sources, key=lambda s: s.name)}
        self.versions = Versions()
        self._pool = _new_pool(arch)
        self._cache = cache
        self._words = frozenset(words)
        self._dep_ids: dict[Dependency, int] = {}
        self._repos = self._load()
        self._seen: dict[int, Candidate] = {}
        self._by_name: dict[str, tuple[Candidate, ...]] = {}
        self._unlisted: set[str] = set()
        self._installed: _Installed | None = None
        self._matching: dict[str, tuple[Candidate, ...]] = {}
        self._masks: dict[tuple[tuple[str, ...], tuple[str, ...]], frozenset[int]] = {}

    def _load(self) -> dict[str, _Loaded]:
        """Load every source, collecting what is wrong with all of them."""
        repos: dict[str, _Loaded] = {}
        problems: list[Problem] = []
        for source in self.sources.values():
            try:
                repos[source.name] = _load_source(self._pool, source, self._cache)
            except RepositoryError as error:
                problems.extend(error.problems)
        if problems:
            raise RepositoryError(problems)
        return repos

    def admit(self, packages: Iterable[InstalledPackage]) -> None:
        """Make the distinct packages of a chunk of hosts known, forgetting those of the last.

        About 4,000 distinct packages a chunk keep each solve fast.
        """
        # libsolv makes its map of disabled packages once, of the size that the pool has then, and
        # writes behind its end when the pool has grown: an empty list gives the map back.
        self._pool.set_disabled_list([])
        if self._installed:
            self._installed.drop()
        asked = [loaded.asked for loaded in self._repos.values()]
        known = [names for names in asked if names is not None]
        all_asked = frozenset(INSTALL_ONLY).union(self._words, *known)
        whole = len(known) == len(asked)
        self._installed = _Installed(
            self._pool, packages, self._dep_ids, all_asked if whole else None
        )
        wanted = {self._pool.id2str(i) for i in self._pool.addfileprovides_queue()}
        wanted |= {word for word in self._words if word.startswith("/")}
        self._installed.provide_files(wanted)
        self._provide_unlisted({path for path in wanted if not is_in_primary(path)})
        self._installed.close()
        self._pool.createwhatprovides()
        self._forget_derived()

    def _forget_derived(self) -> None:
        """Forget what the last chunk's packages had a part in; what is offered stays known."""
        for name in ("_supplementing", "_side_by_side"):
            self.__dict__.pop(name, None)
        self._recommended: dict[str, tuple[int, ...]] = {}
        self._shared: dict[Hashable, dict[Any, Any]] = {}

    def _provide_unlisted(self, paths: set[str]) -> None:
        """Let repositories provide the paths that only their filelists know, each path once."""
        paths = paths - self._unlisted
        self._unlisted |= paths
        for source in self.sources.values():
            if source.filelists and paths:
                for path, nevras in _find_owners(source, paths, self._cache).items():
                    self._provide_path(source.name, path, nevras)

    def _provide_path(self, repository: str, path: str, owners: Sequence[tuple[int, str]]) -> None:
        first = self._repos[repository].start
        dep = self._pool.str2id(path)
        for position, nevra in owners:
            solvable = self._pool.id2solvable(first + position)
            if str(solvable) == nevra:
                solvable.add_deparray(solv.SOLVABLE_PROVIDES, dep)

    @contextmanager
    def host(
        self,
        packages: Iterable[InstalledPackage],
        *,
        modules: Iterable[str] = (),
        without: Iterable[str] = (),
    ) -> Iterator[HostView]:
        """Give the view of one host, whose packages were all admitted before.

        Args:
            packages: what is installed.
            modules: the module streams that the host enabled, as `name:stream`.
            without: repositories that are not for this host.
        """
        if self._installed is None:
            raise RuntimeError("admit the chunk's packages first")
        ids = self._installed.ids_of(packages)
        self._installed.show(ids.values())
        try:
            yield HostView(self, ids, self._mask(tuple(modules), tuple(without)))
        finally:
            self._installed.hide(ids.values())

    def _mask(self, modules: tuple[str, ...], without: tuple[str, ...]) -> frozenset[int]:
        """Return what does not exist for a host: by its module streams and its repositories."""
        key = (tuple(sorted(modules)), tuple(sorted(without)))
        if key not in self._masks:
            shut = {i for name in without for i in self._repos[name].range}
            self._masks[key] = frozenset(shut | self._streams.hidden_ids(key[0]))
        return self._masks[key]

    @functools.cached_property
    def _streams(self) -> _Streams:
        return _Streams(self)

    def shared(self, key: Hashable) -> dict[Any, Any]:
        """Return a place for what is the same on all hosts of a chunk that have a key in common."""
        return self._shared.setdefault(key, {})

    def stream_of(self, candidate: Candidate) -> str:
        """Return the module stream (`name:stream`) that a package belongs to, or nothing."""
        return self._streams.names.get(candidate.nevra, "")

    def candidates(self, name: str) -> tuple[Candidate, ...]:
        """Return what the repositories offer under a name, newest first."""
        if name not in self._by_name:
            found = [c for c in self._providing(name) if c.name == name]
            order = self.versions.key
            found.sort(key=lambda c: (c.arch, c.repository, c.checksum))
            found.sort(key=lambda c: order(c.evr), reverse=True)
            self._by_name[name] = tuple(found)
        return self._by_name[name]

    def matching(self, word: str) -> tuple[Candidate, ...]:
        """Return the candidates that a word of policy names; looked up once for all hosts."""
        if word not in self._matching:
            self._matching[word] = HostView(self, {}).match(word).candidates
        return self._matching[word]

    def providers(self, dep: str) -> tuple[Candidate, ...]:
        """Return the candidates that provide what a dependency's text asks for."""
        return tuple(self._providing(dep))

    def _providing(self, dep: str) -> list[Candidate]:
        ids = (s.id for s in self._pool.whatprovides(self._pool.str2id(dep)))
        return [self._candidate(i) for i in ids if not self._is_installed(i)]

    def _is_installed(self, solvable_id: int) -> bool:
        return self._installed is not None and solvable_id in self._installed.range

    def _candidate(self, solvable_id: int) -> Candidate:
        """Return the value of an available solvable, made once."""
        if (value := self._seen.get(solvable_id)) is None:
            value = self._seen[solvable_id] = _read_candidate(self._pool, solvable_id)
            self._ids[value] = solvable_id
        return value

    @functools.cached_property
    def _ids(self) -> dict[Candidate, int]:
        return {}

    @functools.cached_property
    def _obsoleted(self) -> dict[str, list[tuple[int, int]]]:
        """Name -> available solvables that obsolete it, with the dependency that says so."""
        table: dict[str, list[tuple[int, int]]] = {}
        for solvable in self._having(solv.SOLVABLE_OBSOLETES):
            for dep in solvable.lookup_idarray(solv.SOLVABLE_OBSOLETES):
                table.setdefault(self._pool.id2str(dep), []).append((solvable.id, dep))
        return table

    @functools.cached_property
    def _supplementing(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """Available solvables with plain supplements: id, name, who provides one of those."""
        rows = []
        for solvable in self._having(solv.SOLVABLE_SUPPLEMENTS):
            deps = solvable.lookup_deparray(solv.SOLVABLE_SUPPLEMENTS)
            plain = [dep for dep in deps if not str(dep).startswith("(")]
            ids = {s.id for dep in plain for s in self._pool.whatprovides(dep.id)}
            rows.append((solvable.id, solvable.name, tuple(filter(self._is_installed, ids))))
        return [row for row in rows if row[2]]

    @functools.cached_property
    def _side_by_side(self) -> frozenset[int]:
        """Every solvable that may stand beside other versions of itself."""
        found = (s.id for n in INSTALL_ONLY for s in self._pool.whatprovides(self._pool.str2id(n)))
        return frozenset(found)

    def _having(self, key: int) -> list[Any]:
        """Return the available solvables that have any dependency of one kind."""
        flags = solv.Selection.SELECTION_GLOB | solv.Selection.SELECTION_FLAT
        flags |= solv.Selection.SELECTION_WITH_DISABLED
        found = self._pool.matchdeps("*", flags, key).solvables()
        return [s for s in found if not self._is_installed(s.id)]

    def _recommendable(self, dep: Any) -> tuple[int, ...]:
        """Return who provides a recommended dependency, whatever its version."""
        name = str(dep).split(" ", 1)[0]
        if name not in self._recommended:
            found = self._pool.whatprovides(self._pool.str2id(name))
            self._recommended[name] = tuple(s.id for s in found)
        return self._recommended[name]


class HostView:
    """One host inside a universe: what it could get, and what solving for it gives."""

    def __init__(
        self, universe: Universe, ids: Mapping[str, int], masked: frozenset[int] = frozenset()
    ) -> None:
        self._universe = universe
        self._masked = masked
        self._pool = universe._pool
        self._ids = ids
        self._nevras = {i: nevra for nevra, i in ids.items()}
        self._names = frozenset(self._pool.id2solvable(i).name for i in self._nevras)

    def obsoleters(self, package: InstalledPackage) -> tuple[Candidate, ...]:
        """Return the candidates of another name that obsolete an installed package."""
        rows = self._universe._obsoleted.get(package.name)
        if not rows:
            return ()
        solvable = self._pool.id2solvable(self._ids[package.nevra])
        found = {i for i, dep in rows if solvable.matchesdep(solv.SOLVABLE_NAME, dep)}
        found -= self._masked
        values = [self._universe._candidate(i) for i in sorted(found)]
        order = self._universe.versions.key
        values = [v for v in values if v.name != package.name]
        return tuple(sorted(values, key=lambda c: (c.name, order(c.evr)), reverse=True))

    @property
    def masked(self) -> frozenset[int]:
        """What does not exist for this host: equal for hosts of the same streams."""
        return self._masked

    def ids_of(self, packages: Iterable[InstalledPackage]) -> tuple[int, ...]:
        """Return what tells installed packages apart, in this chunk."""
        return tuple([self._ids[package.nevra] for package in packages])

    def is_masked(self, candidate: Candidate) -> bool:
        """Return whether a candidate does not exist for this host."""
        return bool(self._masked) and self._universe._ids[candidate] in self._masked

    def stands_beside(self, package: InstalledPackage | Candidate) -> bool:
        """Return whether a package is of a kind that is installed beside its other versions."""
        ids: Mapping[Any, int] = self._universe._ids
        found = ids[package] if isinstance(package, Candidate) else self._ids[package.nevra]
        return found in self._universe._side_by_side

    def match(self, spec: str, *, masked: bool = False) -> Matches:
        """Find what a user means: name, name.arch, NEVRA forms, glob, then provide, then file.

        Of what does not exist for this host nothing is found, unless `masked` asks for it.
        """
        hidden = frozenset() if masked else self._masked
        select = solv.Selection
        plain = select.SELECTION_NAME | select.SELECTION_DOTARCH | select.SELECTION_GLOB
        provides = select.SELECTION_PROVIDES | select.SELECTION_GLOB | select.SELECTION_REL
        files = select.SELECTION_FILELIST | select.SELECTION_GLOB
        if found := self._select(spec, plain, hidden):
            return self._matches(found, just_name=True)
        found = self._select(spec, plain | select.SELECTION_CANON, hidden)
        if not found:
            found = self._select(spec, provides, hidden) + self._select(spec, files, hidden)
        return self._matches(found, just_name=False)

    def _select(self, spec: str, flags: int, hidden: frozenset[int]) -> list[int]:
        flags |= solv.Selection.SELECTION_FLAT | solv.Selection.SELECTION_WITH_DISABLED
        found = (s.id for s in self._pool.select(spec, flags).solvables())
        return [
            i
            for i in found
            if i in self._nevras or not (i in hidden or self._universe._is_installed(i))
        ]

    def _matches(self, ids: Iterable[int], *, just_name: bool) -> Matches:
        known = sorted(set(ids))
        installed = tuple(self._nevras[i] for i in known if i in self._nevras)
        offered = (self._universe._candidate(i) for i in known if i not in self._nevras)
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
    ) -> Solution:
        """Solve for this host without removing, downgrading or breaking anything.

        Args:
            tasks: what is wanted. An INSTALL, UPDATE or ERASE task that can't be met is a
                problem, UPDATE_ALL never is.
            hidden: candidates that must not be taken for this host.
            closed: repositories that nothing must be taken from, except what is `opened`.
            removable: NEVRAs of installed packages that may leave when nothing else helps.
            weak: whether weak dependencies are taken as dnf takes them.
        """
        self._disable(hidden, closed, opened)
        solver = _new_solver(self._pool, weak=weak)
        found = solver.solve(
            [*self._jobs(tasks), *self._standing_jobs(), *self._removal_jobs(removable)]
        )
        if found:
            return Solution((), tuple(self._findings(problem) for problem in found))
        return Solution(tuple(self._steps(solver)))

    def _disable(
        self,
        hidden: Collection[Candidate],
        closed: Collection[str],
        opened: Collection[Candidate],
    ) -> None:
        """Make the solver blind to what is not for this host, other hosts' packages included."""
        ids = self._universe._ids
        shut = {i for name in closed for i in self._universe._repos[name].range}
        shut -= {ids[c] for c in opened}
        shut.update(ids[c] for c in hidden)
        shut.update(self._others)
        shut.update(self._masked)
        self._pool.set_disabled_list(sorted(shut))

    @functools.cached_property
    def _others(self) -> list[int]:
        """What is installed on other hosts of the chunk only."""
        chunk = self._universe._installed
        return [i for i in chunk.range if i not in self._nevras] if chunk else []

    def _jobs(self, tasks: Iterable[Task]) -> Iterator[Any]:
        job = solv.Job
        for task in tasks:
            if task.verb is Verb.UPDATE_ALL:
                yield self._pool.Job(job.SOLVER_UPDATE | job.SOLVER_SOLVABLE_ALL, 0)
            elif task.verb is Verb.INSTALL:
                ids = [self._universe._ids[c] for c in task.candidates]
                yield self._install_job(ids, job.SOLVER_WEAK if task.weak else 0)
            else:
                yield from self._installed_jobs(task)

    def _install_job(self, ids: list[int], flags: int) -> Any:
        job = solv.Job
        how = job.SOLVER_INSTALL | flags
        if len(ids) == 1:
            return self._pool.Job(how | job.SOLVER_SOLVABLE, ids[0])
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

    def _standing_jobs(self) -> Iterator[Any]:
        """What holds for every solve: install-only packages, weak dependencies refused before."""
        job = solv.Job
        multiversion = job.SOLVER_MULTIVERSION | job.SOLVER_SOLVABLE_PROVIDES
        for name in INSTALL_ONLY:
            yield self._pool.Job(multiversion, self._pool.str2id(name))
        for i in self._unwanted:
            yield self._pool.Job(job.SOLVER_EXCLUDEFROMWEAK | job.SOLVER_SOLVABLE, i)

    @functools.cached_property
    def _unwanted(self) -> list[int]:
        """Weak dependencies that the host does without already: dnf does not bring them back.

        Source: libdnf, `Goal::exclude_from_weak_autodetect`.
        """
        found = set(self._unmet_recommends())
        for i, name, providers in self._universe._supplementing:
            if name not in self._names and any(p in self._nevras for p in providers):
                found.add(i)
        return sorted(found)

    def _unmet_recommends(self) -> Iterator[int]:
        for i in self._nevras:
            deps = self._pool.id2solvable(i).lookup_deparray(solv.SOLVABLE_RECOMMENDS)
            for dep in deps:
                if str(dep).startswith("("):
                    continue
                ids = self._universe._recommendable(dep)
                if not any(p in self._nevras for p in ids):
                    yield from (p for p in ids if not self._universe._is_installed(p))

    def _steps(self, solver: Any) -> Iterator[Step]:
        transaction = solver.transaction()
        gone = {s.id for s in transaction.steps() if s.id in self._nevras}
        for solvable in transaction.newsolvables():
            others = {s.id for s in transaction.allothersolvables(solvable)} & self._nevras.keys()
            gone -= others
            yield Step(
                self._universe._candidate(solvable.id),
                tuple(sorted(self._nevras[i] for i in others)),
                solver.describe_decision(solvable)[0] in _WEAK,
                solvable.id in self._universe._side_by_side,
            )
        yield from (Step(None, (self._nevras[i],)) for i in sorted(gone))

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
            offered = sorted(i for i in ids if not self._universe._is_installed(i))
            providers = tuple(self._universe._candidate(i) for i in offered)
        return Finding(
            clash,
            str(info.solvable) if info.solvable else "",
            bool(info.solvable) and info.solvable.id in self._nevras,
            str(info.othersolvable) if info.othersolvable else "",
            str(info.dep) if info.dep_id else "",
            providers,
            info.problemstr(),
        )


class _Streams:
    """The module streams of a universe, and what they hide from a host.

    Source: libdnf, `setModuleExcludes` and `resolveActiveModulePackages`.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._pool = universe._pool
        read = [_read_modules(s, universe._cache) for s in universe.sources.values() if s.modules]
        self.builds = tuple(dict.fromkeys(b for one in read for b in one.streams))
        self._defaults = defaults_of(read)
        self.names = {nevra: build.name for build in self.builds for nevra in build.artifacts}
        hot = [s.name for s in universe.sources.values() if s.module_hotfixes]
        self._hot = frozenset(i for name in hot for i in universe._repos[name].range)

    def hidden_ids(self, enabled: Collection[str]) -> set[int]:
        """Return what a host does not see: what is of other streams, or what its own shadow."""
        if not self.builds:
            return set()
        active = self._active(enabled)
        seen = {nevra for build in active for nevra in build.artifacts}
        own = {i for nevra in seen for i in self._ids.get(nevra, ())}
        foreign = {i for n in self.names.keys() - seen for i in self._ids.get(n, ())}
        shadowed = {i for name in _binary_names(seen) for i in self._providers(name)}
        return (foreign | shadowed) - own - self._hot

    def _providers(self, name: str) -> Iterator[int]:
        found = self._pool.whatprovides(self._pool.str2id(name))
        yield from (s.id for s in found if not self._universe._is_installed(s.id))

    @functools.cached_property
    def _ids(self) -> dict[str, list[int]]:
        """NEVRA -> ids of what belongs to any stream."""
        found: dict[str, list[int]] = {}
        for name in _binary_names(self.names):
            for i in self._providers(name):
                found.setdefault(str(self._pool.id2solvable(i)), []).append(i)
        return found

    def _active(self, enabled: Collection[str]) -> list[Stream]:
        """Return the builds of streams that are enabled, or by default, or that those need.

        Every version of a stream counts. A host that enables one stream of a module has no
        default for it.
        """
        modules = {name.partition(":")[0] for name in enabled}
        default = {f"{m}:{s}" for m, s in self._defaults.items() if m not in modules}
        rows = [b for b in self.builds if b.name in enabled or b.name in default]
        if all(module == "platform" for build in rows for module, _ in build.requires):
            return rows
        chosen = _solve_modules(self.builds, rows, frozenset(enabled))
        return [b for b in self.builds if (b.name, b.context) in chosen]


def _binary_names(nevras: Iterable[str]) -> set[str]:
    """Return the names of packages; sources provide nothing and shadow nothing."""
    return {n.rsplit("-", 2)[0] for n in nevras if not n.endswith((".src", ".nosrc"))}


def _read_modules(source: Source, cache: Path | None) -> Modules:
    """Read a source's module metadata and leave a cache behind."""
    file = None
    if cache is not None and source.modules_checksum:
        file = cache / f"{source.modules_checksum}-{MODULES_FORMAT}.modules"
    found = read_modules(source.name, Path(source.modules), file)
    if file is not None and not file.exists():
        encoded = msgspec.msgpack.encode(found)
        _write_atomically(file, lambda path: _write_bytes(path, encoded))
    return found


def _solve_modules(
    builds: Iterable[Stream], wanted: Iterable[Stream], enabled: Collection[str]
) -> set[tuple[str, str]]:
    """Return (name, context) of the streams that go together, most wanted ones first."""
    pool = _new_pool(None)
    repo = pool.add_repo("modules")
    known: dict[int, tuple[str, str]] = {}
    streams: dict[str, set[str]] = {}
    for build in builds:
        streams.setdefault(build.module, set()).add(build.stream)
    for build in builds:
        known[_add_stream(pool, repo, build, streams[build.module])] = (build.name, build.context)
    platform = repo.add_solvable()
    platform.name, platform.evr, platform.arch = "platform", "1", "noarch"
    for stream in {s for b in builds for m, ss in b.requires if m == "platform" for s in ss}:
        platform.add_deparray(solv.SOLVABLE_PROVIDES, pool.str2id(f"module(platform:{stream})"))
    platform.add_deparray(solv.SOLVABLE_PROVIDES, pool.str2id("module(platform)"))
    pool.createwhatprovides()
    names = dict.fromkeys((b.name, f"{b.name}:{b.context}") for b in wanted)
    for strong in (enabled, ()):
        install = solv.Job.SOLVER_INSTALL | solv.Job.SOLVER_SOLVABLE_NAME
        jobs = [
            pool.Job(install | (0 if own in strong else solv.Job.SOLVER_WEAK), pool.str2id(name))
            for own, name in names
        ]
        solver = pool.Solver()
        if not solver.solve(jobs):
            found = solver.transaction().newsolvables()
            return {known[s.id] for s in found if s.id in known}
    return set()


def _add_stream(pool: Any, repo: Any, build: Stream, streams: Collection[str]) -> int:
    """Add a build as a package that needs what the build needs; streams exclude each other."""
    solvable = repo.add_solvable()
    solvable.name = f"{build.name}:{build.context}"
    solvable.evr, solvable.arch = build.version, "noarch"
    for word in (solvable.name, f"module({build.module})", f"module({build.name})"):
        solvable.add_deparray(solv.SOLVABLE_PROVIDES, pool.str2id(word))
    for other in sorted(set(streams) - {build.stream}):
        rival = pool.str2id(f"module({build.module}:{other})")
        solvable.add_deparray(solv.SOLVABLE_CONFLICTS, rival)
    for module, said in build.requires:
        for stream in (s[1:] for s in said if s.startswith("-")):
            rival = pool.str2id(f"module({module}:{stream})")
            solvable.add_deparray(solv.SOLVABLE_CONFLICTS, rival)
        ids = [pool.str2id(f"module({module}:{s})") for s in said if not s.startswith("-")]
        need = ids[0] if ids else pool.str2id(f"module({module})")
        for more in ids[1:]:
            need = pool.rel2id(need, more, solv.REL_OR)
        solvable.add_deparray(solv.SOLVABLE_REQUIRES, need)
    added: int = solvable.id
    return added


class _Installed:
    """The distinct packages of a chunk of hosts, and the shadow that counts as installed."""

    def __init__(
        self,
        pool: Any,
        packages: Iterable[InstalledPackage],
        dep_ids: dict[Dependency, int],
        asked: frozenset[str] | None,
    ) -> None:
        self._pool = pool
        self._dep_ids = dep_ids
        self._known: dict[int, tuple[InstalledPackage, bytes]] = {}
        distinct = {self._content(p): p for p in packages}
        order = sorted(distinct, key=lambda c: (_order(distinct[c]), c))
        self._repo = pool.add_repo("installed on some host")
        self._packages = [distinct[content] for content in order]
        self._asked = None if asked is None else asked | self._asked_here()
        ids = [self._add(package) for package in self._packages]
        self._ids = dict(zip(order, ids, strict=True))
        self.range = range(ids[0], ids[-1] + 1) if ids else range(0)

    def _content(self, package: InstalledPackage) -> bytes:
        """Return what tells packages apart: two hosts may lie differently about one digest."""
        known = self._known.get(id(package))
        if known is None:
            known = (package, _content(package))
            self._known[id(package)] = known
        return known[1]

    def _asked_here(self) -> set[str]:
        """Return the names that the hosts' own packages ask for."""
        fields = [field for field, _ in _DEPENDENCIES if field != "provides"]
        deps = {dep[0] for p in self._packages for field in fields for dep in getattr(p, field)}
        return {name for dep in deps for name in asked_names(dep)}

    def _add(self, package: InstalledPackage) -> int:
        solvable = self._repo.add_solvable()
        solvable.name, solvable.evr = package.name, package.evr
        solvable.arch = package.arch or "noarch"
        if package.vendor:
            solvable.vendor = package.vendor
        for field, key in _DEPENDENCIES:
            deps = self._provides(package) if field == "provides" else getattr(package, field)
            for dep in deps:
                solvable.add_deparray(key, self._dep_id(dep))
        added: int = solvable.id
        return added

    def _provides(self, package: InstalledPackage) -> list[Dependency]:
        """Return what a package provides, itself included, as far as anybody asks for it."""
        itself = (package.name, "=", package.evr)
        asked = self._asked
        rest = (d for d in package.provides if asked is None or d[0] in asked)
        return [itself, *(d for d in rest if d != itself)]

    def _dep_id(self, dep: Dependency) -> int:
        if (known := self._dep_ids.get(dep)) is None:
            known = self._dep_ids[dep] = _dep_id(self._pool, dep)
        return known

    def provide_files(self, wanted: set[str]) -> None:
        """Let packages provide those of their files that a dependency names."""
        for i, package in zip(self.range, self._packages, strict=True):
            for path in wanted.intersection(package.files):
                dep = self._pool.str2id(path)
                self._pool.id2solvable(i).add_deparray(solv.SOLVABLE_PROVIDES, dep)

    def close(self) -> None:
        """Finish filling: from now on packages only move between repo and shadow."""
        self._repo.internalize()
        self._shadow = self._repo.createshadow("@System")
        self._pool.installed = self._shadow
        self._shadow.moveshadow(list(self.range))

    def ids_of(self, packages: Iterable[InstalledPackage]) -> dict[str, int]:
        """Return NEVRA -> id of one host's packages."""
        return {p.nevra: self._ids[self._content(p)] for p in packages}

    def show(self, ids: Iterable[int]) -> None:
        """Make a host's packages, and no others, the installed ones."""
        self.hide(self.range)
        self._shadow.moveshadow(list(ids))

    def hide(self, ids: Iterable[int]) -> None:
        """Take packages out of what counts as installed."""
        self._repo.moveshadow(list(ids))

    def drop(self) -> None:
        """Forget the chunk."""
        self._pool.installed = None
        self._repo.moveshadow(list(self.range))
        self._shadow.free(True)
        self._repo.free(True)


def _order(package: InstalledPackage) -> tuple[str, str, str, str]:
    return (package.name, package.arch, package.evr, package.digest)


def _content(package: InstalledPackage) -> bytes:
    """Return the bytes of all that matters for solving."""
    fields = (getattr(package, field) for field, _ in _DEPENDENCIES)
    head = (*_order(package), package.vendor, package.buildtime, package.files)
    return msgspec.msgpack.encode((*head, *fields))


def _new_pool(arch: str | None) -> Any:
    """Return a pool with rpm's rules; without an arch packages of every one count."""
    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    if arch is not None:
        pool.setarch(arch)
    for flag in (
        solv.Pool.POOL_FLAG_OBSOLETEUSESCOLORS,
        solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS,
        solv.Pool.POOL_FLAG_WHATPROVIDESWITHDISABLED,
    ):
        pool.set_flag(flag, 1)
    return pool


def _new_solver(pool: Any, *, weak: bool) -> Any:
    """Return a solver with libdnf's flags. Changes of vendor are hidden before, not refused here.

    libsolv takes an empty vendor for a vendor of its own, while a host whose inventory lacks the
    field has merely not told it; so the rule is applied to candidates, where the two differ.
    """
    solver = pool.Solver()
    for flag in (
        solv.Solver.SOLVER_FLAG_ALLOW_VENDORCHANGE,
        solv.Solver.SOLVER_FLAG_KEEP_ORPHANS,
        solv.Solver.SOLVER_FLAG_BEST_OBEY_POLICY,
        solv.Solver.SOLVER_FLAG_YUM_OBSOLETES,
    ):
        solver.set_flag(flag, 1)
    solver.set_flag(solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, 0 if weak else 1)
    return solver


def _dep_id(pool: Any, dep: Dependency) -> int:
    name, flags, evr = dep
    if name.startswith("(") and (rich := pool.parserpmrichdep(name)) is not None:
        return int(rich.id)
    known: int = pool.str2id(name)
    if flags in _FLAGS:
        known = pool.rel2id(known, pool.str2id(evr), _FLAGS[flags])
    return known


def _read_candidate(pool: Any, solvable_id: int) -> Candidate:
    solvable = pool.id2solvable(solvable_id)
    checksum = solvable.lookup_checksum(solv.SOLVABLE_CHECKSUM)
    return Candidate(
        solvable.name,
        solvable.evr,
        solvable.arch,
        solvable.repo.name,
        str(checksum) if checksum else "",
        solvable.vendor if solvable.vendorid else "",
        solvable.lookup_num(solv.SOLVABLE_BUILDTIME),
        solvable.lookup_num(solv.SOLVABLE_DOWNLOADSIZE),
    )


def offered(sources: Iterable[Source], words: Iterable[str], cache: Path | None) -> set[str]:
    """Return those words that name something in some repositories, in any architecture."""
    pool = _new_pool(None)
    for source in sources:
        _load_source(pool, source, cache)
    pool.createwhatprovides()
    select = solv.Selection
    flags = select.SELECTION_NAME | select.SELECTION_DOTARCH | select.SELECTION_GLOB
    flags |= select.SELECTION_CANON | select.SELECTION_PROVIDES | select.SELECTION_FLAT
    return {word for word in words if pool.select(word, flags).solvables()}


class _Loaded(NamedTuple):
    """A repo in the pool, the id of its first solvable, and the names it asks for (if known)."""

    repo: Any
    start: int
    asked: frozenset[str] | None = None

    @property
    def range(self) -> range:
        """The ids of its solvables, which stand in one row."""
        return range(self.start, self.start + self.repo.nsolvables)


def _load_source(pool: Any, source: Source, cache: Path | None) -> _Loaded:
    """Load one repository from its cache, or from its metadata and leave a cache behind.

    Raises:
        RepositoryError: the metadata is missing or is not rpm-md.
    """
    start = len(pool.solvables)
    repo = pool.add_repo(source.name)
    repo.priority = -source.priority - (0 if source.autoupdate else 1_000_000)
    cached = _cache_file(source, cache)
    if cached is None:
        _read_primary(repo, source)
        return _Loaded(repo, start)
    if not _read_solv(repo, cached):
        _read_primary(repo, source)
        _write_atomically(cached, lambda path: _write_solv(repo, path))
    return _Loaded(repo, start, _asked(repo, cached.with_suffix(".asked")))


def _asked(repo: Any, file: Path) -> frozenset[str]:
    """Return the names that a repository's dependencies ask for, from the cache when it is there.

    Of the 39,000 things that an EL9 host's 700 packages provide, most are symbols of the kernel
    that nobody asks for; knowing that saves half of the work of making a host known.
    """
    try:
        head, *names = file.read_text().split("\n")
        if head == str(len(names)):
            return frozenset(names)
    except (OSError, ValueError):
        pass
    asked = sorted(_asked_names(repo))
    text = "\n".join([str(len(asked)), *asked])
    _write_atomically(file, lambda path: _write_bytes(path, text.encode()))
    return frozenset(asked)


def _asked_names(repo: Any) -> set[str]:
    keys = [key for field, key in _DEPENDENCIES if field != "provides"]
    ids = {i for s in repo.solvables_iter() for key in keys for i in s.lookup_idarray(key)}
    return {name for i in ids for name in asked_names(repo.pool.dep2str(i))}


def asked_names(dep: str) -> Iterator[str]:
    """Yield the names that a dependency's text asks for; of a rich one more than those."""
    if not dep.startswith("("):
        yield dep.split(" ", 1)[0]
        return
    for word in dep.split():
        # Parentheses belong to names, too: (a()(64bit) if b).
        name = word.lstrip("(")
        yield name
        while name.endswith(")"):
            name = name[:-1]
            yield name


def _cache_file(source: Source, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    checksum = source.checksum or _checksum(source)
    return cache / f"{checksum}-{FORMAT}.solv"


def _checksum(source: Source) -> str:
    try:
        return file_checksum(Path(source.primary))
    except OSError as error:
        raise _unreadable(source, error.strerror or str(error)) from error


def _unreadable(source: Source, what: str, path: str = "") -> RepositoryError:
    mend = "mirror the repository again"
    return RepositoryError(Problem(path or source.primary, f"{source.name}: {what}", mend))


def _read_solv(repo: Any, path: Path) -> bool:
    """Read a cache; one that is damaged counts as absent."""
    stream = solv.xfopen(str(path))
    if stream is None:
        return False
    read = bool(repo.add_solv(stream))
    stream.close()
    if not read:
        repo.empty(True)
    return read


def _read_primary(repo: Any, source: Source) -> None:
    try:
        text = sort_primary(read_text(Path(source.primary)))
    except (OSError, ValueError) as error:
        raise _unreadable(source, f"cannot be read: {error}") from error
    if not _feed(text, lambda stream: repo.add_rpmmd(stream, None, 0)):
        raise _unreadable(source, f"is not rpm-md: {repo.pool.errstr}")


def _feed(text: bytes, reader: Callable[[Any], Any]) -> bool:
    """Hand a text to one of libsolv's parsers, which want an open file."""
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0)
        stream = solv.xfopen_fd("metadata.xml", os.dup(file.fileno()))
        try:
            return bool(reader(stream))
        finally:
            stream.close()


def _write_solv(repo: Any, path: Path) -> None:
    with path.open("wb") as file:
        stream = solv.xfopen_fd("", os.dup(file.fileno()))
        repo.write(stream)
        stream.close()


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a cache beside its place and move it there; failing only costs time later."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            write(Path(scratch) / path.name)
            (Path(scratch) / path.name).replace(path)


Owners = dict[str, tuple[tuple[int, str], ...]]
"""Path -> the packages that own it, as (position in the repository, NEVRA)."""


def _find_owners(source: Source, paths: set[str], cache: Path | None) -> Owners:
    """Ask a repository's filelists who owns some paths; answers are remembered.

    Filelists are large and few paths are ever asked for, so what is cached is the answers.

    Raises:
        RepositoryError: the filelists are missing or are not rpm-md.
    """
    primary = _cache_file(source, cache)
    file = primary.with_suffix(".owners") if primary else None
    known = _read_owners(file)
    if missing := paths - known.keys():
        known = known | _search_filelists(source, missing, cache)
        if file:
            encoded = msgspec.msgpack.encode(known)
            _write_atomically(file, lambda path: _write_bytes(path, encoded))
    return {path: known[path] for path in sorted(paths) if known[path]}


def _read_owners(file: Path | None) -> Owners:
    if file is None:
        return {}
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=Owners)
    except (OSError, msgspec.DecodeError):
        return {}


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _search_filelists(source: Source, paths: set[str], cache: Path | None) -> Owners:
    """Load a repository with its filelists into a pool of its own and look the paths up."""
    pool = _new_pool(None)
    loaded = _load_source(pool, source, cache)
    try:
        text = read_text(Path(source.filelists))
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error}"
        raise _unreadable(source, what, source.filelists) from error
    if not _feed(text, functools.partial(_add_filelists, loaded.repo)):
        raise _unreadable(source, f"is not rpm-md: {pool.errstr}", source.filelists)
    asking = pool.add_repo("asking").add_solvable()
    for path in paths:
        asking.add_deparray(solv.SOLVABLE_REQUIRES, pool.str2id(path))
    pool.addfileprovides()
    pool.createwhatprovides()
    return {path: _owners(pool, loaded.start, path) for path in paths}


def _add_filelists(repo: Any, stream: Any) -> Any:
    return repo.add_rpmmd(stream, "FL", solv.Repo.REPO_EXTEND_SOLVABLES)


def _owners(pool: Any, start: int, path: str) -> tuple[tuple[int, str], ...]:
    found = pool.whatprovides(pool.str2id(path))
    return tuple(sorted((s.id - start, str(s)) for s in found))
