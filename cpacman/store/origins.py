"""From which repository CPacMan installed what hosts have, as their transactions tell.

Invariant: what a transaction installs on a host is known in the same commit as its outcome; hosts
with equal histories share one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.model import canonical_json
from cpacman.store.engine import Database
from cpacman.store.rows import insert_missing, pack, parts, unpack
from cpacman.store.tables import metadata

origin_sets_table = sa.Table(
    "origin_sets",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("repositories", sa.LargeBinary, nullable=False),
)
origins_table = sa.Table(
    "origins",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("digest", sa.String, sa.ForeignKey("origin_sets.digest"), nullable=False, index=True),
)


class Origins(Database):
    """Look up where packages came from."""

    def origins(self, hosts: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return host -> NEVRA -> repository; equal ones are the same object."""
        o, s = origins_table.c, origin_sets_table.c
        digests: dict[str, str] = {}
        sets: dict[str, dict[str, str]] = {}
        with self._read() as connection:
            for part in parts(sorted(hosts)):
                query = sa.select(o.host, o.digest).where(o.host.in_(part))
                digests.update((row[0], row[1]) for row in connection.execute(query))
            for part in parts(sorted(set(digests.values()))):
                query = sa.select(s.digest, s.repositories).where(s.digest.in_(part))
                found = connection.execute(query)
                sets.update((digest, unpack(blob, dict[str, str])) for digest, blob in found)
        return {host: sets[digest] for host, digest in digests.items()}


def note_origins(
    connection: Connection, host: str | None, changes: Iterable[Mapping[str, Any]]
) -> None:
    """Keep where the packages came from that a transaction brought to a host."""
    rows = [change for change in changes if change.get("repository") or change.get("from")]
    gone = [c["nevra"] for c in changes if c["action"] == "remove"]
    if host is None or not (rows or gone):
        return
    old, known = _known(connection, host)
    new = {nevra: repository for nevra, repository in known.items() if nevra not in gone}
    for change in rows:
        new.pop(change.get("from") or "", None)
        if change.get("repository"):
            new[change["nevra"]] = change["repository"]
    if new != known:
        _write(connection, host, new, old)


def drop_origins(connection: Connection, hosts: Sequence[str]) -> None:
    """Forget where what hosts have came from: what is known is of another machine, or of none."""
    o, s = origins_table, origin_sets_table
    for part in parts(sorted(hosts)):
        connection.execute(o.delete().where(o.c.host.in_(part)))
    if hosts:
        used = sa.exists().where(o.c.digest == s.c.digest)
        connection.execute(s.delete().where(~used))


def _known(connection: Connection, host: str) -> tuple[str | None, dict[str, str]]:
    o, s = origins_table.c, origin_sets_table.c
    joined = origin_sets_table.join(origins_table, o.digest == s.digest)
    query = sa.select(s.digest, s.repositories).select_from(joined).where(o.host == host)
    row = connection.execute(query).first()
    return (row[0], unpack(row[1], dict[str, str])) if row else (None, {})


def _write(connection: Connection, host: str, new: Mapping[str, str], old: str | None) -> None:
    o, s = origins_table, origin_sets_table
    digest = hashlib.sha256(canonical_json(new)).hexdigest()
    row = {"digest": digest, "repositories": pack(msgspec.to_builtins(new))}
    insert_missing(connection, s, "digest", row)
    connection.execute(o.delete().where(o.c.host == host))
    connection.execute(o.insert(), {"host": host, "digest": digest})
    if old is not None:
        unused = ~sa.exists().where(o.c.digest == old)
        connection.execute(s.delete().where(s.c.digest == old, unused))
