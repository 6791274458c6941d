"""Which hosts took which plan key."""

from __future__ import annotations

import sqlalchemy as sa

from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.tables import pins_table


class Pins(Database):
    """The plan key and who has it."""

    def pinned_hosts(self, key: str) -> set[str]:
        """Return the hosts that took the plan key with this fingerprint."""
        query = sa.select(pins_table.c.host).where(pins_table.c.key == key)
        return {row["host"] for row in self._rows(query)}

    def pin(self, host: str, key: str, *, at: float, who: str) -> None:
        """Note that a host took a plan key."""
        p = pins_table
        with self._write() as connection:
            connection.execute(p.delete().where(p.c.host == host))
            connection.execute(p.insert(), {"host": host, "key": key, "since": at})
            entry = {"action": "pin", "subject": key, "host": host, "at": at, "who": who,
                     "detail": "{}"}  # fmt: skip
            record(connection, entry)
