"""What every command works with: settings, state, the directory of hosts, a transport.

Invariant: settings are read anew by every command, so no master has to be restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cpacman.config import Settings, settings_from_opts
from cpacman.depot.pool import Pool
from cpacman.errors import ConfigError, CpacmanError, Problem
from cpacman.report.progress import Reporter, Silent
from cpacman.signing import PlanKey, load_plan_key
from cpacman.store import Store
from cpacman.transport.master import SaltDirectory
from cpacman.transport.port import Directory, Transport
from cpacman.transport.publish import PublishTransport


class Context(NamedTuple):
    """The outside world of one command."""

    settings: Settings
    store: Store
    pool: Pool
    key: PlanKey
    directory: Directory
    transport: Transport
    who: str
    reporter: Reporter = Silent()
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time


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
) -> Iterator[Context]:
    """Read the settings of a Salt master and open what they name.

    Raises:
        ConfigError: the settings are wrong; every problem at once.
        CpacmanError: the state database can't be opened.
    """
    settings = settings_from_opts(opts)
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
    with Store.open(database_url(settings)) as store:
        transport = PublishTransport(
            opts,
            who=who,
            connected=directory.accepted,
            unfiltered=lambda: _unfiltered(store),
            chunk=settings.transport.chunk,
            window=settings.transport.window,
            stall=settings.transport.stall,
        )
        yield Context(
            settings=settings,
            store=store,
            pool=Pool(settings.depot),
            key=load_plan_key(settings.state_dir),
            directory=directory,
            transport=transport,
            who=who,
            reporter=reporter or Silent(),
            stopping=stopping,
        )


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


def _unfiltered(store: Store) -> list[str]:
    """Return the hosts that said with their inventory that they take every load."""
    heads = store.inventory_heads()
    return [host for host, (head, _) in heads.items() if not head.facts.get("zmq_filtering")]
