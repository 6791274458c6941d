"""Which hosts took which plan key."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.tables import pins_table


class Pins(Database):
    """The plan key and who has it."""

    def pins(self) -> dict[str, str]:
        """Return host -> fingerprint of the plan key that it took."""
        return {row["host"]: row["key"] for row in self._rows(sa.select(pins_table))}

    def forget_pins(self, hosts: Sequence[str], *, at: float, who: str) -> None:
        """Let hosts take a plan key as if they were new: somebody has accepted them."""
        p = pins_table
        with self._write() as connection:
            for host in sorted(hosts):
                if connection.execute(p.delete().where(p.c.host == host)).rowcount:
                    entry = {"action": "unpin", "subject": host, "host": host, "at": at,
                             "who": who, "detail": "{}"}  # fmt: skip
                    record(connection, entry)

    def pin(self, host: str, key: str, *, at: float, who: str) -> None:
        """Note that a host took a plan key."""
        p = pins_table
        with self._write() as connection:
            connection.execute(p.delete().where(p.c.host == host))
            connection.execute(p.insert(), {"host": host, "key": key, "since": at})
            entry = {"action": "pin", "subject": key, "host": host, "at": at, "who": who,
                     "detail": "{}"}  # fmt: skip
            record(connection, entry)
