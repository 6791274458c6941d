"""How a state database comes to the newest schema: one function for each version after the first.

Invariants: a released step is never changed; all steps of one migration are one transaction; a
database that came up step by step has the same schema as a new one (a test compares them). A step
makes tables and columns by the helpers here, which leave alone what is there: a later version may
have changed the table that an earlier one made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cpacman.errors import CpacmanError, Problem
from cpacman.store.blocks import blocks_table
from cpacman.store.chains import chains_table
from cpacman.store.connect import name_of, told, writer_of
from cpacman.store.leases import jobs_table, leases_table
from cpacman.store.members import members_table
from cpacman.store.origins import origin_sets_table, origins_table
from cpacman.store.snapshots import moves_table
from cpacman.store.tables import (
    approvals_table,
    changes_table,
    journal_table,
    metadata,
    rollout_hosts_table,
    rollout_levels_table,
    rollouts_table,
    schema_table,
    skips_table,
)


def _moves_and_blocks(connection: Connection) -> None:
    """Make the list of moves, from what the journal tells of them, and the block list."""
    create(connection, moves_table, blocks_table)
    j = journal_table.c
    query = sa.select(j.action, j.at, j.who, j.detail).where(j.action.in_(("snapshot", "promote")))
    told = [(row, json.loads(row.detail)) for row in connection.execute(query.order_by(j.seq))]
    rows = [
        {"class": detail["class"], "channel": detail["channel"], "snapshot": detail["to"],
         "action": row.action, "at": row.at, "who": row.who}
        for row, detail in told
        if "to" in detail
    ]  # fmt: skip
    if rows:
        connection.execute(moves_table.insert(), rows)


def _wide_sequences(connection: Connection) -> None:
    """Make room: sequences are times in seconds, which outgrow 32 bits in 2038."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE host_sequences ALTER COLUMN sequence TYPE BIGINT")


def _levels_and_approvals(connection: Connection) -> None:
    """Give rollouts a state that waits, levels of their own, wishes, and people who approve."""
    create(connection, rollout_levels_table, approvals_table)
    for name in ("why", "until", "wish", "beat", "settings"):
        add_column(connection, rollouts_table.c[name])
    add_column(connection, rollout_hosts_table.c.attempt)


def _origins(connection: Connection) -> None:
    """Make room for where packages came from; what was installed before is not known."""
    add_column(connection, changes_table.c.repository)
    create(connection, origin_sets_table, origins_table)


def _members(connection: Connection) -> None:
    """Make the list of members: whom a rollout reached before was accepted by that."""
    create(connection, members_table)
    r, h = rollouts_table.c, rollout_hosts_table.c
    query = (
        sa.select(h.host, r["class"], r.who, h.updated)
        .where(r.id == h.rollout, h.outcome.in_(("applied", "unchanged")))
        .order_by(h.updated)
    )
    latest = {row.host: row for row in connection.execute(query)}
    rows = [
        {"host": host, "state": "member", "class": row[1], "was": "", "key": "", "machine": "",
         "noted": "", "since": row.updated, "who": row.who}
        for host, row in sorted(latest.items())
    ]  # fmt: skip
    if rows:
        connection.execute(members_table.insert(), rows)


def _findings(connection: Connection) -> None:
    """Make room for what hosts found after a transaction: services to restart, files left."""
    add_column(connection, rollout_hosts_table.c.findings)


def _skips(connection: Connection) -> None:
    """Keep which hosts of a rollout an operator wants to be skipped."""
    create(connection, skips_table)


def _leases(connection: Connection) -> None:
    """Keep which engine acts, and when its jobs ran."""
    create(connection, leases_table, jobs_table)


def _chains(connection: Connection) -> None:
    """Keep rollouts through several classes."""
    create(connection, chains_table)


def _boots(connection: Connection) -> None:
    """Make room for the boot that hosts were in before they were told to reboot."""
    add_column(connection, rollout_hosts_table.c.boot)


def _soaking(connection: Connection) -> None:
    """Keep since when a level soaks, so that hosts which come late don't begin that anew."""
    add_column(connection, rollout_levels_table.c.soaking)
    r = rollout_levels_table
    soaks = r.update().where(r.c.state == "soaking")
    connection.execute(soaks.values(soaking=r.c.since))


def _progress(connection: Connection) -> None:
    """Make room for how many bytes of a push are on their way."""
    add_column(connection, rollouts_table.c.progress)


def _delivered(connection: Connection) -> None:
    """Make room for what a blocked advisory delivered, before a mirror forgot it."""
    add_column(connection, blocks_table.c.packages)


def _chain_beats(connection: Connection) -> None:
    """Keep when whoever carries a chain on showed life last."""
    add_column(connection, chains_table.c.beat)


STEPS: Sequence[Callable[[Connection], None]] = (
    _moves_and_blocks,
    _wide_sequences,
    _levels_and_approvals,
    _origins,
    _members,
    _findings,
    _skips,
    _leases,
    _chains,
    _boots,
    _soaking,
    _progress,
    _delivered,
    _chain_beats,
)
"""What leads from version 1 to 2, from 2 to 3, and so on."""

SCHEMA_VERSION = len(STEPS) + 1


def check_version(engine: Engine) -> None:
    """Check that a database has the schema of this program, and leave it alone.

    Raises:
        CpacmanError: it has another one, or can't be used.
    """
    with told(engine, "opened"), engine.connect() as connection:
        version = _version(connection)
    if version != SCHEMA_VERSION:
        words = f"the database is of version {version}, this program knows {SCHEMA_VERSION}"
        mend = "use the CPacMan that the master uses; its next command brings an older one forward"
        raise CpacmanError(Problem(name_of(engine), words, mend))


def migrate(engine: Engine) -> None:
    """Make the schema, or bring it to the newest version.

    Raises:
        CpacmanError: the database is of a newer version than this program, or can't be used.
    """
    with told(engine, "opened"):
        with engine.connect() as connection:
            version = _version(connection)
        if version != SCHEMA_VERSION:
            with writer_of(engine).begin() as connection:
                _bring_forward(connection, name_of(engine))


def _version(connection: Connection) -> int | None:
    if not sa.inspect(connection).has_table("schema_version"):
        return None
    return connection.execute(sa.select(schema_table.c.version)).scalar()


def _bring_forward(connection: Connection, name: str) -> None:
    # Looked at again: somebody else may have done it while we waited for our turn.
    version = _version(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema_table.insert(), {"version": SCHEMA_VERSION})
        return
    if version > SCHEMA_VERSION:
        words = f"the database is of version {version}, this program knows {SCHEMA_VERSION}"
        raise CpacmanError(Problem(name, words, "install the newer CPacMan again"))
    for step in STEPS[version - 1 :]:
        step(connection)
    connection.execute(schema_table.update().values(version=SCHEMA_VERSION))


def create(connection: Connection, *tables: sa.Table) -> None:
    """Make tables, with their indexes, where they are not there yet."""
    for table in tables:
        table.create(connection, checkfirst=True)


def add_column(connection: Connection, column: sa.Column[Any]) -> None:
    """Add a column to its table, if it is not there; it is nullable or has a default."""
    table = column.table
    if any(one["name"] == column.name for one in sa.inspect(connection).get_columns(table.name)):
        return
    ddl = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    quoted = connection.dialect.identifier_preparer.quote(table.name)
    connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {ddl}")
