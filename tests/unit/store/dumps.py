"""`python -m tests.unit.store.dumps` writes the dump of this schema version, once for ever.

A dump is the schema as this version makes it and a little of everything, as SQL for each database.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from cpacman.store import SCHEMA_VERSION, Store
from cpacman.store.tables import metadata
from tests.unit.store.samples import fill

FOLDER = Path(__file__).with_name("schemas")
DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect()}
_END = ";\n--\n"


def path_of(version: int, dialect: str) -> Path:
    """Return where the dump of a version stands."""
    return FOLDER / f"v{version}.{dialect}.sql"


def restore(url: str, version: int) -> None:
    """Make a database as a version left it."""
    dialect = sa.make_url(url).get_backend_name()
    full = url.replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(full)
    with engine.begin() as connection:
        for statement in path_of(version, dialect).read_text().split(_END):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def _statements(connection: sa.Connection, dialect: str) -> Iterator[str]:
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=DIALECTS[dialect])).strip()
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            yield str(CreateIndex(index).compile(dialect=DIALECTS[dialect])).strip()
        rows = connection.execute(sa.select(table).order_by(*table.c)).all()
        names = ", ".join(f'"{column.name}"' for column in table.c)
        for row in rows:
            values = ", ".join(_literal(value, dialect) for value in row)
            yield f'INSERT INTO "{table.name}" ({names}) VALUES ({values})'
        key = table.autoincrement_column
        if dialect == "postgresql" and key is not None and rows:
            yield (f"SELECT setval(pg_get_serial_sequence('{table.name}', '{key.name}'),"
                   f" max({key.name})) FROM {table.name}")  # fmt: skip


def _literal(value: Any, dialect: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'" if dialect == "sqlite" else f"'\\x{value.hex()}'::bytea"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Write the dumps of the version that this tree makes."""
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/db") as store:
        fill(store)
        with store._engine.connect() as connection:
            for dialect in DIALECTS:
                text = _END.join(_statements(connection, dialect)) + _END
                path = path_of(SCHEMA_VERSION, dialect)
                path.write_text(re.sub(r"[ \t]+\n", "\n", text))


if __name__ == "__main__":
    main()
