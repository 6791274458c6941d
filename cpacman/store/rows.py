"""What every area of the store needs to read and write rows.

Invariants: an insert of what is there already is nothing; lists of values are asked for in parts
that any database takes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection


class Text(sa.types.TypeDecorator[str]):
    """Text that may come from a host: what no database could keep is kept as a question mark.

    PostgreSQL takes no NUL, neither database a lone surrogate; and a host must not be able to
    stop the step that tells how it ended.
    """

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return what is written."""
        if value is None:
            return None
        return value.replace("\0", "?").encode("utf-8", "replace").decode()


def insert_missing(
    connection: Connection, table: sa.Table, key: str, row: Mapping[str, Any]
) -> bool:
    """Insert a row unless its key is there; return whether it was inserted."""
    column = table.c[key]
    if connection.execute(sa.select(column).where(column == row[key])).first():
        return False
    connection.execute(table.insert(), dict(row))
    return True


def insert_all_missing(
    connection: Connection, table: sa.Table, key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert those rows whose key is not there."""
    wanted = missing_keys(connection, table.c[key], [row[key] for row in rows])
    if new := [dict(row) for row in rows if row[key] in wanted]:
        connection.execute(table.insert(), new)


def missing_keys(connection: Connection, column: Any, keys: Sequence[Any]) -> set[Any]:
    """Return those keys that no row has."""
    known: set[Any] = set()
    for part in parts(keys):
        known.update(r[0] for r in connection.execute(sa.select(column).where(column.in_(part))))
    return set(keys) - known


def parts(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Return the values in parts that fit into one query."""
    return (values[i : i + size] for i in range(0, len(values), size))


def as_json(value: Any) -> str:
    """Return a value as JSON, the same for equal values."""
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except UnicodeEncodeError:  # a lone surrogate, from a host
        plain = json.dumps(msgspec.to_builtins(value), sort_keys=True, ensure_ascii=False)
        return plain.encode("utf-8", "replace").decode()


def pack(value: Any, *, level: int = 6) -> bytes:
    """Return a document as it is kept; the lowest `level` of compression is the quickest."""
    return zlib.compress(msgspec.msgpack.encode(value), level)


def unpack(blob: bytes, type_: Any) -> Any:
    """Return a document that `pack` made."""
    return msgspec.msgpack.decode(zlib.decompress(blob), type=type_)
