"""What the repositories of one snapshot offer to hosts of one architecture.

How many hosts share one universe: the distinct packages of all of them stand once in a repo of
their own; a shadow of it is what counts as installed, and for each host only its own packages
are moved into the shadow, the others are disabled.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import solv

from cpacman.errors import Problem, RepositoryError
from cpacman.model import Dependency, InstalledPackage
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.solver.installed import Installed
from cpacman.planner.solver.loading import Loaded, find_owners, load_source
from cpacman.planner.solver.pools import INSTALL_ONLY, Versions, new_pool
from cpacman.planner.solver.streams import Streams
from cpacman.planner.solver.values import Candidate, Source, Step
from cpacman.planner.solver.view import HostView

_MOST_SHARED = 200_000
"""Answers kept for the hosts of later chunks: some 100 MB."""


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
        self.pool = new_pool(arch)
        self.cache = cache
        self._words = frozenset(words)
        self._dep_ids: dict[Dependency, int] = {}
        self.repos = self._load()
        self._seen: dict[int, Candidate] = {}
        self._by_name: dict[str, tuple[Candidate, ...]] = {}
        self._unlisted: set[str] = set()
        self._shared: dict[Hashable, dict[Any, Any]] = {}
        self._steps: dict[tuple[int, str], Step] = {}
        self.chunk: Installed | None = None
        self._matching: dict[str, tuple[Candidate, ...]] = {}
        self._masks: dict[tuple[tuple[str, ...], ...], frozenset[int]] = {}

    def _load(self) -> dict[str, Loaded]:
        """Load every source, collecting what is wrong with all of them."""
        repos: dict[str, Loaded] = {}
        problems: list[Problem] = []
        for source in self.sources.values():
            try:
                repos[source.name] = load_source(self.pool, source, self.cache)
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
        self.pool.set_disabled_list([])
        if self.chunk:
            self.chunk.drop()
        asked = [loaded.asked for loaded in self.repos.values()]
        known = [names for names in asked if names is not None]
        all_asked = frozenset(INSTALL_ONLY).union(self._words, *known)
        whole = len(known) == len(asked)
        self.chunk = Installed(self.pool, packages, self._dep_ids, all_asked if whole else None)
        wanted = {self.pool.id2str(i) for i in self.pool.addfileprovides_queue()}
        wanted |= {word for word in self._words if word.startswith("/")}
        self.chunk.provide_files(wanted)
        self._provide_unlisted({path for path in wanted if not is_in_primary(path)})
        self.chunk.close()
        self.pool.createwhatprovides()
        self._forget_derived()

    def _forget_derived(self) -> None:
        """Forget what the last chunk's packages had a part in; what is offered stays known."""
        for name in ("supplementing", "side_by_side", "multiversion_jobs"):
            self.__dict__.pop(name, None)
        self._recommended: dict[str, tuple[int, ...]] = {}
        self._wished: dict[int, tuple[tuple[int, ...], ...]] = {}
        if sum(map(len, self._shared.values())) > _MOST_SHARED:
            self._shared.clear()

    def _provide_unlisted(self, paths: set[str]) -> None:
        """Let repositories provide the paths that only their filelists know, each path once."""
        paths = paths - self._unlisted
        self._unlisted |= paths
        for source in self.sources.values():
            if source.filelists and paths:
                for path, nevras in find_owners(source, paths, self.cache).items():
                    self._provide_path(source.name, path, nevras)

    def _provide_path(self, repository: str, path: str, owners: Sequence[tuple[int, str]]) -> None:
        first = self.repos[repository].start
        dep = self.pool.str2id(path)
        for position, nevra in owners:
            solvable = self.pool.id2solvable(first + position)
            if str(solvable) == nevra:
                solvable.add_deparray(solv.SOLVABLE_PROVIDES, dep)

    @contextmanager
    def host(
        self,
        packages: Iterable[InstalledPackage],
        *,
        modules: Iterable[str] = (),
        disabled: Iterable[str] = (),
        without: Iterable[str] = (),
    ) -> Iterator[HostView]:
        """Give the view of one host, whose packages were all admitted before.

        Args:
            packages: what is installed.
            modules: the module streams that the host enabled, as `name:stream`.
            disabled: the modules of which it wants no stream at all.
            without: repositories that are not for this host.
        """
        if self.chunk is None:
            raise RuntimeError("admit the chunk's packages first")
        ids = self.chunk.ids_of(packages)
        self.chunk.show(ids.values())
        try:
            yield HostView(self, ids, self._mask(modules, disabled, without))
        finally:
            self.chunk.hide(ids.values())

    def _mask(
        self, modules: Iterable[str], disabled: Iterable[str], without: Iterable[str]
    ) -> frozenset[int]:
        """Return what does not exist for a host: by its module streams and its repositories."""
        key = (tuple(sorted(modules)), tuple(sorted(disabled)), tuple(sorted(without)))
        if key not in self._masks:
            shut = {i for name in key[2] for i in self.repos[name].range}
            self._masks[key] = frozenset(shut | self._streams.hidden_ids(key[0], key[1]))
        return self._masks[key]

    @functools.cached_property
    def _streams(self) -> Streams:
        return Streams(self)

    def shared(self, key: Hashable) -> dict[Any, Any]:
        """Return a place for what is the same on all hosts that have a key in common.

        It outlives a chunk: nothing in it may be known by the id of an installed package.
        """
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
            self._matching[word] = HostView(self, {}).match(word, files=False).candidates
        return self._matching[word]

    def offered(self, words: Iterable[str]) -> dict[str, Sequence[Candidate]]:
        """Return what words name of what the repositories offer, of those that name anything."""
        if self.chunk is None:
            self.admit(())
        return {word: found for word in words if (found := self.matching(word))}

    @functools.cached_property
    def vendors(self) -> frozenset[str]:
        """The vendors of everything that is offered, or installed on a host of the chunk."""
        return frozenset(s.vendor for s in self.pool.solvables_iter() if s.vendorid)

    def providers(self, dep: str) -> tuple[Candidate, ...]:
        """Return the candidates that provide what a dependency's text asks for."""
        return tuple(self._providing(dep))

    def _providing(self, dep: str) -> list[Candidate]:
        ids = (s.id for s in self.pool.whatprovides(self.pool.str2id(dep)))
        return [self.candidate(i) for i in ids if not self.is_installed(i)]

    def is_installed(self, solvable_id: int) -> bool:
        """Return whether a solvable is of the hosts, not of a repository."""
        return self.chunk is not None and solvable_id in self.chunk.range

    def candidate(self, solvable_id: int) -> Candidate:
        """Return the value of an available solvable, made once."""
        if (value := self._seen.get(solvable_id)) is None:
            value = self._seen[solvable_id] = _read_candidate(self.pool, solvable_id)
            self.ids[value] = solvable_id
        return value

    @functools.cached_property
    def ids(self) -> dict[Candidate, int]:
        """Candidate -> id, of those that were made."""
        return {}

    @functools.cached_property
    def obsoleted(self) -> dict[str, list[tuple[int, int]]]:
        """Name -> available solvables that obsolete it, with the dependency that says so."""
        table: dict[str, list[tuple[int, int]]] = {}
        for solvable in self._having(solv.SOLVABLE_OBSOLETES):
            for dep in solvable.lookup_idarray(solv.SOLVABLE_OBSOLETES):
                table.setdefault(self.pool.id2str(dep), []).append((solvable.id, dep))
        return table

    @functools.cached_property
    def supplementing(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """Available solvables with plain supplements: id, name, who provides one of those."""
        rows = []
        for solvable in self._having(solv.SOLVABLE_SUPPLEMENTS):
            deps = solvable.lookup_deparray(solv.SOLVABLE_SUPPLEMENTS)
            plain = [dep for dep in deps if not str(dep).startswith("(")]
            ids = {s.id for dep in plain for s in self.pool.whatprovides(dep.id)}
            rows.append((solvable.id, solvable.name, tuple(filter(self.is_installed, ids))))
        return [row for row in rows if row[2]]

    @functools.cached_property
    def side_by_side(self) -> frozenset[int]:
        """Every solvable that may stand beside other versions of itself."""
        found = (s.id for n in INSTALL_ONLY for s in self.pool.whatprovides(self.pool.str2id(n)))
        return frozenset(found)

    def _having(self, key: int) -> list[Any]:
        """Return the available solvables that have any dependency of one kind."""
        flags = solv.Selection.SELECTION_GLOB | solv.Selection.SELECTION_FLAT
        flags |= solv.Selection.SELECTION_WITH_DISABLED
        found = self.pool.matchdeps("*", flags, key).solvables()
        return [s for s in found if not self.is_installed(s.id)]

    @functools.cached_property
    def obsoletes(self) -> dict[int, set[str]]:
        """Available solvable -> the names that it obsoletes, of those that obsolete any."""
        found: dict[int, set[str]] = {}
        for name, rows in self.obsoleted.items():
            for i, _ in rows:
                found.setdefault(i, set()).add(name)
        return found

    def plain_step(self, number: int, nevra: str) -> Step:
        """Return the one value of the step in which a package takes its older one's place."""
        if (known := self._steps.get((number, nevra))) is None:
            known = self._steps[number, nevra] = Step(self.candidate(number), (nevra,))
        return known

    @functools.cached_property
    def multiversion_jobs(self) -> list[Any]:
        """What tells the solver which packages stand side by side."""
        how = solv.Job.SOLVER_MULTIVERSION | solv.Job.SOLVER_SOLVABLE_PROVIDES
        return [self.pool.Job(how, self.pool.str2id(name)) for name in INSTALL_ONLY]

    def recommended_by(self, solvable_id: int) -> tuple[tuple[int, ...], ...]:
        """Return who could meet each plain recommendation of an installed package."""
        if (known := self._wished.get(solvable_id)) is None:
            deps = self.pool.id2solvable(solvable_id).lookup_deparray(solv.SOLVABLE_RECOMMENDS)
            plain = [dep for dep in map(str, deps) if not dep.startswith("(")]
            known = self._wished[solvable_id] = tuple(map(self._recommendable, plain))
        return known

    def _recommendable(self, dep: str) -> tuple[int, ...]:
        """Return who provides a recommended dependency, whatever its version."""
        name = dep.split(" ", 1)[0]
        if name not in self._recommended:
            found = self.pool.whatprovides(self.pool.str2id(name))
            self._recommended[name] = tuple(s.id for s in found)
        return self._recommended[name]


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
