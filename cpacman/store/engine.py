"""The base of all areas of the store: how they read and write, and what errors become.

Invariants: a decision is committed before its effect; whoever will write takes its turn at the
beginning, so that what it read still holds when it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cpacman.errors import InputError, Problem
from cpacman.model import short_id
from cpacman.store.connect import told, writer_of

if TYPE_CHECKING:
    from typing_extensions import Self

ENTRIES = "entries"
"""Where a transaction keeps the journal entries that it makes."""
_MIN_PREFIX = 3


class Database:
    """A connected database; each area of the store adds its functions to it.

    Attributes:
        listener: told of each journal entry, once it is committed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writer_of(engine)
        self.listener: Callable[[Mapping[str, Any]], None] | None = None

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Begin when it is our turn, commit at the end; whoever writes holds up other writers.

        Raises:
            ConflictError: it contradicts what somebody else wrote.
            CpacmanError: the database can't be written; nothing of this step was kept.
        """
        with told(self._engine, "written"), self._writer.begin() as connection:
            connection.info[ENTRIES] = []
            yield connection
            entries = connection.info[ENTRIES]
        # Only what is committed is told: an event must never be ahead of the truth.
        for entry in entries if self.listener else ():
            self.listener(entry)  # type: ignore[misc]

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """Read the state of one moment.

        Raises:
            CpacmanError: the database can't be read.
        """
        with told(self._engine, "read"), self._engine.connect() as connection:
            yield connection

    def _rows(self, query: sa.sql.Select[Any]) -> list[dict[str, Any]]:
        with self._read() as connection:
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
