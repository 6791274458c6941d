"""A plan from directories and files: what the console does where a runner has snapshots.

Invariants: every input is read before anything is planned, and all that is wrong with all of them
is told at once; package files are not looked at; a line of policy that can't hold for a host is
said, never dropped.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from cpacman.depot.folder import write_atomically
from cpacman.depot.repository import Repository, read_repository
from cpacman.depot.snapshot import SnapshotRepository, snapshot_id
from cpacman.errors import InputError, Problem, UsageError, UserError
from cpacman.inventory import decode_inventory
from cpacman.model import Advisory, Inventory, Plan, Request
from cpacman.planner.lines import Limits, Placed, expired, holding, not_for
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.ruling import Line, Policy
from cpacman.planner.solver import Candidate, Source
from cpacman.report.progress import Reporter, Silent
from cpacman.report.table import render_plan

if TYPE_CHECKING:
    from cpacman.config import Settings
    from cpacman.fleet.placing import Placement
    from cpacman.planner.why import Why

CHANNEL = "offline"
"""The name of the one channel that a plan from directories has."""

T = TypeVar("T")


class Order(NamedTuple):
    """What was typed: `repos` as `NAME=DIR`, `inventories` as files or directories.

    `dump` is the file that gets the solve of the one host as a case.
    """

    repos: tuple[str, ...]
    inventories: tuple[str, ...]
    config: Path | None = None
    request: Request = Request()
    arch_change: tuple[str, ...] = ()
    noautoupdate: tuple[str, ...] = ()
    dump: Path | None = None


class Made(NamedTuple):
    """A plan, and the advisories of its repositories."""

    plan: Plan
    advisories: tuple[Advisory, ...]


class _Collector:
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


def make_plan(
    order: Order, *, cache: Path, today: datetime.date, reporter: Reporter | None = None
) -> Made:
    """Return the plan for what was typed.

    Args:
        order: what was typed.
        cache: a directory of our own.
        today: which lines of policy still hold.
        reporter: told how far the planning is.

    Raises:
        UserError: what is wrong with options, configuration, repositories and inventories.
    """
    reporter = reporter or Silent()
    channel, warnings = _read(order, cache, today, reporter)
    plan = plan_hosts([channel], request=order.request, cache=cache / "solver", reporter=reporter)
    if order.dump is not None:
        from cpacman.planner.cases.write import dump_case

        dump_case(channel, order.request, plan, order.dump)
    made = msgspec.structs.replace(plan, warnings=(*plan.warnings, *warnings))
    return Made(made, channel.advisories)


def replay(path: Path) -> tuple[Made, list[str]]:
    """Return the plan of a case file, and in what it is not what the case expects.

    Raises:
        UserError: it can't be read, or is no case.
    """
    from cpacman.planner.cases.build import advisories_of, plan_case
    from cpacman.planner.cases.expect import differences
    from cpacman.planner.cases.text import read_case

    case = read_case(path)._replace(title=str(path))
    with tempfile.TemporaryDirectory(prefix="cpacman-") as scratch:
        plan = plan_case(case, Path(scratch))
    return Made(plan, advisories_of(case)), list(differences(case, plan))


def explain(
    order: Order,
    word: str,
    *,
    cache: Path,
    today: datetime.date,
    reporter: Reporter | None = None,
) -> Why:
    """Return why a package is, or is not, in the plan for what was typed.

    Raises:
        UserError: what is wrong with what was typed, or with what it names.
    """
    from cpacman.planner import why

    channel, _ = _read(order, cache, today, reporter or Silent())
    if len(channel.inventories) != 1:
        found = f"there are {len(channel.inventories)} hosts"
        raise UsageError(Problem("--inventory", found, "name the file of one host"))
    told = why.explain(channel, word, request=order.request, cache=cache / "solver")
    if order.dump is not None:
        from cpacman.planner.cases.write import dump_case

        plan = plan_hosts([channel], request=order.request, cache=cache / "solver")
        dump_case(channel, order.request, plan, order.dump)
    return told


def _read(
    order: Order, cache: Path, today: datetime.date, reporter: Reporter
) -> tuple[ChannelInput, list[str]]:
    """Read all that was typed, and say what has to be said about it."""
    collect = _Collector()
    places = collect.run(lambda: _places(order.repos)) or {}
    collect.run(lambda: _check_names("--noautoupdate", order.noautoupdate, places))
    settings = collect.run(lambda: _settings(order.config))
    read = []
    for number, (name, path) in enumerate(sorted(places.items())):
        reporter.progress(f"reading {name}:", number, len(places), "repositories")
        read.append(collect.run(functools.partial(read_repository, name, path, cache)))
    inventories = collect.run(lambda: _inventories(order.inventories, reporter))
    collect.stop_if_any()
    repositories = [one for one in read if one is not None]
    flags = {one.name: _flags(one, order, settings) for one in repositories}
    channel = _channel(repositories, flags, inventories or [], cache)
    rules = collect.run(lambda: _rules(order, settings, inventories or [], today))
    collect.stop_if_any()
    policies, warnings = rules or _Rules({}, [])
    return msgspec.structs.replace(channel, policies=policies), warnings


def render(made: Made, how: str) -> bytes:
    """Return a plan as the console prints it: a table or one JSON document."""
    if how == "json":
        return msgspec.json.format(msgspec.json.encode(made.plan), indent=2) + b"\n"
    severities = {one.id: one.severity for one in made.advisories}
    return render_plan(made.plan, severities=severities, full=True).encode() + b"\n"


def render_why(told: Why, how: str) -> bytes:
    """Return an explanation as the console prints it: for people, or as one JSON document."""
    if how == "json":
        return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    from cpacman.report import screens

    return screens.render({"why": msgspec.to_builtins(told)}).encode() + b"\n"


# Repositories


def _places(repos: Iterable[str]) -> dict[str, Path]:
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


def _check_names(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    problems = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            problems.append(Problem(f"{option} {name}", "is no --repo", mend))
    if problems:
        raise UsageError(problems)


class _Flags(NamedTuple):
    autoupdate: bool
    priority: int
    module_hotfixes: bool
    origin: str


def _flags(repository: Repository, order: Order, settings: Settings | None) -> _Flags:
    """Return how a repository may be used: as typed, or as any channel configures its name."""
    channels = settings.channels.values() if settings else ()
    same = [c.repositories[repository.name] for c in channels if repository.name in c.repositories]
    autoupdate = all(one.autoupdate for one in same)
    priority = min((one.priority for one in same), default=99)
    origin = max((one.origin for one in same), default="")
    hotfixes = any(one.module_hotfixes for one in same)
    return _Flags(
        autoupdate and repository.name not in order.noautoupdate, priority, hotfixes, origin
    )


def _source(repository: Repository, flags: _Flags) -> Source:
    return Source(
        name=repository.name,
        primary=str(repository.metadata.primary),
        checksum=repository.checksums["primary"],
        filelists=str(repository.metadata.filelists or ""),
        updateinfo=str(repository.metadata.updateinfo or ""),
        autoupdate=flags.autoupdate,
        priority=flags.priority,
        modules=str(repository.metadata.modules or ""),
        modules_checksum=repository.checksums.get("modules", ""),
        module_hotfixes=flags.module_hotfixes,
        origin=flags.origin,
    )


def _channel(
    repositories: Sequence[Repository],
    flags: Mapping[str, _Flags],
    inventories: Sequence[Inventory],
    cache: Path,
) -> ChannelInput:
    return ChannelInput(
        channel=CHANNEL,
        snapshot=_snapshot(repositories, flags, cache),
        sources=tuple(_source(one, flags[one.name]) for one in repositories),
        inventories=tuple(inventories),
        advisories=_advisories(repositories),
        sha256_of=functools.partial(_sha256_of, {one.name: one for one in repositories}),
    )


def _advisories(repositories: Iterable[Repository]) -> tuple[Advisory, ...]:
    """Return the advisories of all repositories, each once."""
    found = {msgspec.json.encode(one): one for repo in repositories for one in repo.advisories}
    return tuple(found[key] for key in sorted(found))


def _sha256_of(repositories: Mapping[str, Repository], candidate: Candidate) -> str:
    """Return the sha256 that was computed for a package whose metadata has another checksum."""
    packages = repositories[candidate.repository].packages
    return next((p.sha256 for p in packages if p.nevra == candidate.nevra), "")


def _snapshot(repositories: Sequence[Repository], flags: Mapping[str, _Flags], cache: Path) -> str:
    """Return the id a snapshot of these repositories would have.

    It takes a while to compute, so it is kept under what decides it: contents and flags.
    """
    decides = sorted((one.name, one.fingerprint, *flags[one.name]) for one in repositories)
    file = cache / "snapshots" / hashlib.sha256(repr(decides).encode()).hexdigest()
    try:
        return file.read_text()
    except OSError:
        known = _snapshot_id(repositories, flags)
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(file, known.encode())
    return known


def _snapshot_id(repositories: Sequence[Repository], flags: Mapping[str, _Flags]) -> str:
    entries = [
        SnapshotRepository(
            name=one.name,
            path=str(one.path),
            kind=one.kind,
            fingerprint=one.fingerprint,
            metadata=one.metadata,
            checksums=one.checksums,
            autoupdate=flags[one.name].autoupdate,
            priority=flags[one.name].priority,
            module_hotfixes=flags[one.name].module_hotfixes,
            origin=flags[one.name].origin,
        )
        for one in repositories
    ]
    packages = (p for one in repositories for p in one.packages)
    return snapshot_id(CHANNEL, entries, packages, _advisories(repositories))


# Inventories


def _inventories(words: Iterable[str], reporter: Reporter) -> list[Inventory]:
    """Read inventories from files, and from the `*.json` files of directories.

    Raises:
        InputError: files that can't be read or are no inventories, and hosts that are there twice.
    """
    collect = _Collector()
    found: dict[str, tuple[Path, Inventory]] = {}
    paths = list(dict.fromkeys(collect_files(words, collect.problems)))
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


def collect_files(words: Iterable[str], problems: list[Problem]) -> Iterator[Path]:
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


# Policy


def _settings(path: Path | None) -> Settings | None:
    """Read the configuration.

    Raises:
        ConfigError: it is wrong.
    """
    if path is None:
        return None
    from cpacman.config import read_settings

    return read_settings(path)


class _Rules(NamedTuple):
    """The policy of each host, by its id, and what has to be said about lines."""

    policies: dict[str, Policy]
    warnings: list[str]


def _rules(
    order: Order, settings: Settings | None, hosts: Sequence[Inventory], today: datetime.date
) -> _Rules:
    """Return which lines hold for whom.

    Without a master, scopes see the metadata that host files give, and nothing else.

    Raises:
        ConfigError: host files that are wrong, or that hold rules which nothing enforces.
    """
    typed = tuple(
        Line(kind="arch_change", packages=(name,), where=f"--arch-change {name}")
        for name in sorted(set(order.arch_change))
    )
    if settings is None:
        return _Rules({one.host: Policy(lines=typed) for one in hosts}, [])
    from cpacman.fleet.placing import lines_for

    places = _placements(settings, hosts)
    limits = _limits(settings, order.repos)
    lines = {name: lines_for(settings, one) for name, one in places.items()}
    policies = {
        name: Policy(
            lines=(*typed, *holding(lines[name], one.host.meta, today)),
            without=not_for(limits, one.host.class_, one.host.meta),
            installonly_limit=settings.installonly_limit,
            weak_deps=settings.weak_deps,
        )
        for name, one in places.items()
    }
    placed = {one.place: one for found in lines.values() for one in found}.values()
    metas = [one.host.meta for one in places.values()]
    warnings = [*expired(placed, today), *_fitting_nobody(placed, metas)]
    return _Rules(policies, [*warnings, *_unplaced(settings, places.values())])


def _unplaced(settings: Settings, places: Iterable[Placement]) -> Iterator[str]:
    """Yield a warning for each host that lines of a place may be meant for which nobody tells."""
    for name, what, several in (
        ("class_", "class", settings.classes),
        ("channel", "channel", settings.channels.values()),
    ):
        if not any(one.policy for one in several):
            continue
        for host in (one.host for one in places):
            if not getattr(host, name):
                yield f"{host.id}: is of no {what} that is known here; no {what}'s policy holds"


def _limits(settings: Settings, repos: Iterable[str]) -> list[Limits]:
    """Return for whom the named repositories are, as any channel configures their names."""
    names = {word.partition("=")[0] for word in repos}
    return [
        Limits(name, one.classes, one.only)
        for channel in settings.channels.values()
        for name, one in channel.repositories.items()
        if name in names
    ]


def _placements(settings: Settings, hosts: Sequence[Inventory]) -> dict[str, Placement]:
    from cpacman.fleet.hostfiles import load_hosts_files
    from cpacman.fleet.placing import facts_of, place_host

    files = load_hosts_files(settings.membership.hosts_d, settings)
    return {
        one.host: place_host(
            one.host,
            settings=settings,
            hosts_files=files,
            pillar={},
            grains={},
            facts=facts_of(one),
        )
        for one in hosts
    }


def _fitting_nobody(placed: Iterable[Placed], metas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for where, line, _ in placed:
        if line.scope is not None and not any(line.scope.fits(meta) for meta in metas):
            yield f"{where}: its scope {line.scope} fits none of these hosts"
