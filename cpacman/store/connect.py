"""How the database is reached: SQLite as a file of our own, PostgreSQL by its URL.

Invariants: writers take turns on either, from the beginning of their transaction, so that what
one read still holds when it writes; what one commits is on disk before it acts on it; a reader
sees the state of one moment; an error names the database without its password, and a way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from cpacman.errors import ConflictError, CpacmanError, Problem

WAIT = 30
"""Seconds that a writer waits for its turn."""

_TURN = 0x63706163
"""The advisory lock of PostgreSQL that writers take turns by: any number that is ours."""

_WAYS_OUT = (
    (("disk is full", "No space left", "53100"), "make room on its file system, then repeat"),
    (("malformed", "not a database"), "it is damaged: keep it and what lies beside it, bring back "
     "a copy, or rescue what is left: sqlite3 FILE .recover | sqlite3 NEW"),
    (("is locked", "lock timeout", "55P03"), "another command is writing: wait for it, repeat"),
    (("password", "refused", "connect"), "is the server up, and does the URL in `database` fit?"),
)  # fmt: skip
_WAY_OUT = "look at the disk and at who may write there"


def engine_of(url: str) -> Engine:
    """Return the engine of a database; a SQLite file is made, for its owner alone.

    Raises:
        CpacmanError: the URL is none, or its driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        return _sqlite_engine(parsed) if sqlite else _server_engine(parsed)
    except ModuleNotFoundError as error:
        mend = "salt-pip install 'cpacman[postgresql]'"
        raise CpacmanError(Problem("database", f"its driver is missing ({error})", mend)) from error
    except sa.exc.ArgumentError as error:
        mend = "write postgresql://USER@HOST/NAME, or leave it out for a SQLite file"
        raise CpacmanError(Problem("database", "is no URL of a database", mend)) from error
    except OSError as error:
        mend = "make its directory, for the user that Salt runs as"
        raise CpacmanError(Problem("database", str(error), mend)) from error


def writer_of(engine: Engine) -> Engine:
    """Return the same database for writing: each transaction begins by taking its turn."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(writes=True)
    # Once it is our turn, each statement has to see what the one before us committed.
    return engine.execution_options(writes=True, isolation_level="READ COMMITTED")


@contextmanager
def told(engine: Engine, verb: str) -> Iterator[None]:
    """Turn what the driver raises into what an operator can act on."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        words = f"it contradicts what is there already: {first_line(error.orig or error)}"
        raise ConflictError(Problem(name_of(engine), words, "look again, then repeat")) from error
    except sa.exc.DBAPIError as error:
        words = first_line(error.orig or error)
        code = str(getattr(error.orig, "sqlstate", "") or "")
        mend = _way_out(f"{words} {code}")
        raise CpacmanError(Problem(name_of(engine), f"can't be {verb}: {words}", mend)) from error


def name_of(engine: Engine) -> str:
    """Return the URL of a database without its password."""
    return engine.url.render_as_string(hide_password=True)


def first_line(error: BaseException) -> str:
    """Return what an error says, without the SQL that it was about."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _way_out(text: str) -> str:
    return next((mend for words, mend in _WAYS_OUT if any(w in text for w in words)), _WAY_OUT)


# ---- SQLite --------------------------------------------------------------------------------


def _sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(url, connect_args={"timeout": WAIT})
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


# ---- PostgreSQL ----------------------------------------------------------------------------


def _server_engine(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "postgresql":
        raise sa.exc.ArgumentError(url.drivername)
    engine = sa.create_engine(
        url,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",
        connect_args={"connect_timeout": WAIT, "application_name": "cpacman"},
    )
    sa.event.listen(engine, "begin", _server_begin)
    return engine


def _server_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{WAIT}s'")
        # A server may be set to tell of a commit before it is on disk; we act on it.
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")
