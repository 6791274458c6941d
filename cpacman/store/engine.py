"""Open the state database, bring its schema forward, and the base of all areas of the store.

Invariants: a decision is committed before its effect; whoever will write takes its turn at the
beginning, so that what it read still holds when it writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cpacman.errors import CpacmanError, InputError, Problem
from cpacman.model import short_id

if TYPE_CHECKING:
    from typing_extensions import Self

_MIN_PREFIX = 3


class Database:
    """A connected database; each area of the store adds its functions to it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.execution_options(writes=True).begin() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            mend = "look at the disk and at who may write there"
            raise CpacmanError(
                Problem(str(self._engine.url), f"can't be written: {error.orig}", mend)
            ) from error

    def _rows(self, query: sa.sql.Select[Any]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _resolve(self, table: sa.Table, what: str, prefix: str) -> str:
        column = table.c.id
        letter = f"{what[0]}-"
        mend = f"list them with: salt-run cpacman.history; an id looks like {letter}7c41e9"
        if not prefix.startswith(letter) or len(prefix) < _MIN_PREFIX:
            raise InputError(Problem(what, f"{prefix!r} is no id of a {what}", mend))
        query = sa.select(column).where(column.startswith(prefix, autoescape=True)).limit(5)
        found = [row["id"] for row in self._rows(query)]
        if len(found) == 1:
            return str(found[0])
        if not found:
            raise InputError(Problem(what, f"there is no {what} {prefix}", mend))
        several = ", ".join(short_id(number) for number in found)
        raise InputError(Problem(what, f"{prefix} is the beginning of several: {several}"))


def engine_of(url: str) -> Engine:
    """Return the engine of a database; a SQLite file is made, for its owner alone."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(parsed, connect_args={"timeout": 30})
    sa.event.listen(engine, "connect", _sqlite_connect)
    sa.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _: object) -> None:
    # The driver must not begin by itself: a read that turns into a write later would fail with
    # "database is locked" at once instead of waiting for its turn.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
