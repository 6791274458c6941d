"""Which module streams are active on a host, and what they hide from it.

Source: libdnf, `setModuleExcludes` and `resolveActiveModulePackages`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import solv

from cpacman.planner.modules import FORMAT as MODULES_FORMAT
from cpacman.planner.modules import Modules, Stream, defaults_of, read_modules
from cpacman.planner.solver.loading import write_atomically, write_bytes
from cpacman.planner.solver.pools import new_pool
from cpacman.planner.solver.values import Source

if TYPE_CHECKING:
    from cpacman.planner.solver.universe import Universe


class Streams:
    """The module streams of a universe, and what they hide from a host.

    Source: libdnf, `setModuleExcludes` and `resolveActiveModulePackages`.
    """

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._pool = universe.pool
        read = [_read_modules(s, universe.cache) for s in universe.sources.values() if s.modules]
        self.builds = tuple(dict.fromkeys(b for one in read for b in one.streams))
        self._defaults = defaults_of(read)
        self.names = {nevra: build.name for build in self.builds for nevra in build.artifacts}
        hot = [s.name for s in universe.sources.values() if s.module_hotfixes]
        self._hot = frozenset(i for name in hot for i in universe.repos[name].range)

    def hidden_ids(self, enabled: Collection[str], disabled: Collection[str]) -> set[int]:
        """Return what a host does not see: what is of other streams, or what its own shadow."""
        if not self.builds:
            return set()
        active = self._active(enabled, disabled)
        seen = {nevra for build in active for nevra in build.artifacts}
        own = {i for nevra in seen for i in self._ids.get(nevra, ())}
        foreign = {i for n in self.names.keys() - seen for i in self._ids.get(n, ())}
        shadowed = {i for name in _binary_names(seen) for i in self._providers(name)}
        return (foreign | shadowed) - own - self._hot

    def _providers(self, name: str) -> Iterator[int]:
        found = self._pool.whatprovides(self._pool.str2id(name))
        yield from (s.id for s in found if not self._universe.is_installed(s.id))

    @functools.cached_property
    def _ids(self) -> dict[str, list[int]]:
        """NEVRA -> ids of what belongs to any stream."""
        found: dict[str, list[int]] = {}
        for name in _binary_names(self.names):
            for i in self._providers(name):
                found.setdefault(str(self._pool.id2solvable(i)), []).append(i)
        return found

    def _active(self, enabled: Collection[str], disabled: Collection[str]) -> list[Stream]:
        """Return the builds of streams that are enabled, or by default, or that those need.

        Every version of a stream counts. A host that enables one stream of a module has no
        default for it; of one that it disabled none is active, whoever needs it.
        """
        builds = [build for build in self.builds if build.module not in disabled]
        modules = {name.partition(":")[0] for name in enabled}
        default = {f"{m}:{s}" for m, s in self._defaults.items() if m not in modules}
        rows = [b for b in builds if b.name in enabled or b.name in default]
        if all(module == "platform" for build in rows for module, _ in build.requires):
            return rows
        chosen = _solve_modules(builds, rows, frozenset(enabled))
        return [b for b in builds if (b.name, b.context) in chosen]


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
        write_atomically(file, lambda path: write_bytes(path, encoded))
    return found


def _solve_modules(
    builds: Iterable[Stream], wanted: Iterable[Stream], enabled: Collection[str]
) -> set[tuple[str, str]]:
    """Return (name, context) of the streams that go together, most wanted ones first."""
    pool = new_pool(None)
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
