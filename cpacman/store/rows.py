"""What every area of the store needs to read and write rows.

Invariants: an insert of what is there already is nothing; lists of values are asked for in parts
that any database takes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection


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
    return msgspec.json.encode(value, order="sorted").decode()


def pack(value: Any, *, level: int = 6) -> bytes:
    """Return a document as it is kept; the lowest `level` of compression is the quickest."""
    return zlib.compress(msgspec.msgpack.encode(value), level)


def unpack(blob: bytes, type_: Any) -> Any:
    """Return a document that `pack` made."""
    return msgspec.msgpack.decode(zlib.decompress(blob), type=type_)
