"""What every command works with: settings, state, the directory of hosts, a transport.

Invariant: settings are read anew by every command, so no master has to be restarted.
"""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from cpacman.commands.access import check_reader
from cpacman.config import LiveSettings, Settings, parse_rate, settings_from_opts
from cpacman.depot.pool import Pool
from cpacman.errors import ConfigError, CpacmanError, Problem, UsageError
from cpacman.fleet.hostfiles import HostsFiles, load_hosts_files
from cpacman.fleet.placing import configured_transport
from cpacman.report.progress import Reporter, Silent
from cpacman.rollout.checks import Nobody, Probes
from cpacman.signing import PlanKey, Rotation, load_plan_key, load_rotations
from cpacman.store import Store
from cpacman.transport.bus import Bus
from cpacman.transport.hostkeys import known_hosts_files
from cpacman.transport.master import SaltDirectory
from cpacman.transport.port import Directory
from cpacman.transport.probes import SaltProbes
from cpacman.transport.publish import PublishTransport
from cpacman.transport.pushing import Limits
from cpacman.transport.router import Router
from cpacman.transport.ssh import SshTransport
from cpacman.transport.sshpipe import Greeting
from cpacman.transport.throttle import Throttle


class Bandwidth(NamedTuple):
    """The caps that a command line names, as they were typed."""

    bandwidth: str | int | None = None
    bandwidth_per_host: str | int | None = None


NO_BANDWIDTH = Bandwidth()


class Context(NamedTuple):
    """The outside world of one command."""

    settings: Settings
    store: Store
    pool: Pool
    key: PlanKey
    directory: Directory
    transport: Router
    who: str
    reporter: Reporter = Silent()
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    rotations: Callable[[], Sequence[Rotation]] = tuple
    probes: Probes = Nobody()
    live: Callable[[], Settings] | None = None

    def settings_now(self) -> Settings:
        """Return the settings as they are written down now, for who works for hours.

        Raises:
            ConfigError: they can't be read any more.
        """
        return self.live() if self.live else self.settings

    def wait_until(self, met: Callable[[], bool], limit: float, every: float) -> None:
        """Look every so many seconds until something is met, or somebody stops us.

        Args:
            met: what is waited for.
            limit: the time at which that is given up, in seconds since the epoch.
            every: seconds between two looks.
        """
        while not met() and not self.stopping() and (left := limit - self.clock()) > 0:
            self.sleep(min(every, left))

    def today(self) -> datetime.date:
        """Return the day, where the master stands."""
        return datetime.datetime.fromtimestamp(self.clock()).astimezone().date()


def database_url(settings: Settings) -> str:
    """Return the database's URL: the configured one, or a SQLite file in the state directory."""
    return settings.database or f"sqlite:///{settings.state_dir / 'cpacman.db'}"


@contextmanager
def open_context(
    opts: Mapping[str, Any],
    *,
    who: str,
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    bandwidth: Bandwidth = NO_BANDWIDTH,
) -> Iterator[Context]:
    """Read the settings of a Salt master and open what they name.

    Raises:
        ConfigError: the settings are wrong; every problem at once.
        CpacmanError: the state database can't be opened.
        SafetyError: readers are configured, and this one is none of them.
    """
    settings = settings_from_opts(opts)
    check_reader(settings, who)
    served = served_paths(settings, opts.get("file_roots") or {})
    if served:
        raise ConfigError(served)
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        mend = "make it by hand, of mode 0700, for the user that Salt runs as"
        problem = Problem(f"state_dir {settings.state_dir}", str(error.strerror), mend)
        raise CpacmanError(problem) from error
    directory = SaltDirectory(opts)
    reporter = reporter or Silent()
    bus = Bus(opts)
    with Store.open(database_url(settings)) as store:
        store.listener = bus.tell
        key = load_plan_key(settings.state_dir)
        throttle = throttle_of(settings, bandwidth)
        transport = Router(
            _publish(opts, who, settings, store, directory, throttle, reporter),
            _ssh(opts, settings, directory, throttle, key),
            directory,
            _route(settings, directory),
            reporter.line,
        )
        try:
            yield Context(
                settings=settings,
                store=store,
                pool=Pool(settings.depot),
                key=key,
                directory=directory,
                transport=transport,
                who=who,
                reporter=reporter,
                stopping=stopping,
                probes=SaltProbes(opts),
                rotations=lambda: load_rotations(settings.state_dir),
                live=LiveSettings(opts, settings),
            )
        finally:
            transport.close()
            bus.close()


def throttle_of(settings: Settings, bandwidth: Bandwidth) -> Throttle:
    """Return the caps: those of the command line, else those configured.

    Raises:
        UsageError: one is no size.
    """
    given, problems = [], []
    for name, value in bandwidth._asdict().items():
        try:
            given.append(None if value is None else parse_rate(value))
        except PydanticCustomError as error:
            context = error.context or {}
            problems.append(Problem(name, context["text"], context["mend"]))
    if problems:
        raise UsageError(problems)
    total, per_host = given
    known = settings.transport
    return Throttle(
        known.bandwidth if total is None else total,
        known.bandwidth_per_host if per_host is None else per_host,
    )


def _publish(
    opts: Mapping[str, Any],
    who: str,
    settings: Settings,
    store: Store,
    directory: SaltDirectory,
    throttle: Throttle,
    reporter: Reporter,
) -> PublishTransport:
    transport = settings.transport
    return PublishTransport(
        opts,
        who=who,
        connected=directory.minions,
        filtered=lambda: _filtered(store),
        share=transport.share.value / 100,
        limits=Limits(transport.chunk, transport.window, transport.stall, throttle),
        tell=reporter.line,
    )


def _ssh(
    opts: Mapping[str, Any],
    settings: Settings,
    directory: SaltDirectory,
    throttle: Throttle,
    key: PlanKey,
) -> SshTransport:
    transport = settings.transport
    return SshTransport(
        lambda: directory.roster.hosts,
        Greeting(pin=key.fingerprint),
        known_hosts=known_hosts_files(settings.state_dir, opts),
        connections=transport.connections,
        chunk=transport.chunk,
        window=transport.window,
        stall=transport.stall,
        throttle=throttle,
    )


def _route(settings: Settings, directory: SaltDirectory) -> Callable[[str], str]:
    """Return host -> transport: what its files name, else what was found out."""

    @functools.cache
    def files() -> HostsFiles:
        return load_hosts_files(settings.membership.hosts_d, settings)

    return lambda host: configured_transport(host, files()) or directory.transport_of(host)


def served_paths(settings: Settings, file_roots: Mapping[str, Any]) -> list[Problem]:
    """Return the configured places that Salt's file server would hand out to any host."""
    roots = [Path(root).resolve() for listed in file_roots.values() for root in listed]
    places = {"state_dir": settings.state_dir, "depot": settings.depot}
    for channel, one in settings.channels.items():
        for name, repository in one.repositories.items():
            places[f"channels.{channel}.repositories.{name}.path"] = repository.path
    return [
        Problem(place, f"{path} is served to every host by file_roots ({root})", "move either one")
        for place, path in places.items()
        for root in roots
        if path.resolve().is_relative_to(root) or root.is_relative_to(path.resolve())
    ]


def _filtered(store: Store) -> list[str]:
    """Return the hosts that said with their inventory that they take only what is for them."""
    heads = store.inventory_heads()
    return [host for host, (head, _) in heads.items() if head.facts.get("zmq_filtering")]
