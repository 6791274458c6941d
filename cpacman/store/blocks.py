"""The block list: what turned out bad, for all hosts, until it is taken off again.

Invariant: what stands on the list and the journal's word of it are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import Text, as_json
from cpacman.store.tables import metadata

blocks_table = sa.Table(
    "blocks",
    metadata,
    sa.Column("spec", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("until", sa.String),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("packages", Text),
)


class Block(NamedTuple):
    """One entry: `kind` is nevra, advisory or snapshot; `until` the last day it holds.

    `packages` are the NEVRAs that an advisory was ever seen to deliver: a mirror may forget it.
    """

    spec: str
    kind: str
    reason: str
    until: str | None
    who: str
    since: float
    packages: tuple[str, ...] = ()


class Blocks(Database):
    """Put on the list, take off it, read it."""

    def blocks(self) -> list[Block]:
        """Return the whole list, those of the past included, sorted."""
        rows = self._rows(sa.select(blocks_table).order_by("spec"))
        return [Block(**{**row, "packages": _packages(row["packages"])}) for row in rows]

    def block(self, blocks: Sequence[Block], *, ticket: str | None = None) -> None:
        """Put entries on the list; one that is there gets the new reason and last day."""
        with self._write() as connection:
            for one in blocks:
                mine = blocks_table.c.spec == one.spec
                connection.execute(blocks_table.delete().where(mine))
                row = {**one._asdict(), "packages": as_json(one.packages)}
                connection.execute(blocks_table.insert(), row)
                detail = as_json({"kind": one.kind, "until": one.until})
                entry = {"action": "block", "subject": one.spec, "at": one.since, "who": one.who,
                         "reason": one.reason, "ticket": ticket, "detail": detail}  # fmt: skip
                record(connection, entry)

    def keep_delivered(self, spec: str, packages: Iterable[str]) -> None:
        """Add to what an advisory on the list was seen to deliver."""
        mine = blocks_table.c.spec == spec
        with self._write() as connection:
            row = connection.execute(sa.select(blocks_table.c.packages).where(mine)).first()
            if row is not None:
                both = sorted({*_packages(row.packages), *packages})
                connection.execute(blocks_table.update().where(mine).values(packages=as_json(both)))

    def unblock(
        self, specs: Sequence[str], *, at: float, who: str, reason: str | None, ticket: str | None
    ) -> None:
        """Take entries off the list."""
        said: dict[str, Any] = {"at": at, "who": who, "reason": reason, "ticket": ticket}
        with self._write() as connection:
            for spec in specs:
                mine = blocks_table.c.spec == spec
                if connection.execute(blocks_table.delete().where(mine)).rowcount:
                    record(
                        connection, {"action": "unblock", "subject": spec, "detail": "{}", **said}
                    )


def _packages(text: str | None) -> tuple[str, ...]:
    return msgspec.json.decode(text or "[]", type=tuple[str, ...])
