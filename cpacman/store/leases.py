"""Leases, so that one engine acts when several run, and when jobs ran last.

Invariants: a lease has one holder at most; one that is not renewed for its lifetime is anybody's.
"""

from __future__ import annotations

import sqlalchemy as sa

from cpacman.store.engine import Database
from cpacman.store.tables import metadata

ENGINE = "engine"
"""The lease of the engine that acts."""
LIFETIME = 30.0
"""Seconds after which another engine takes over from one that shows no life."""

leases_table = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("beat", sa.Float, nullable=False),
)
jobs_table = sa.Table(
    "jobs",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("wanted", sa.Float, nullable=False),
    sa.Column("ran", sa.Float, nullable=False),
    sa.Column("result", sa.String),
)


class Leases(Database):
    """Who may act, and what ran when."""

    def hold_lease(self, name: str, *, owner: str, at: float, lifetime: float) -> bool:
        """Take or renew a lease; return whether it is this owner's now.

        Args:
            name: of the lease.
            owner: who wants it.
            at: seconds since the epoch.
            lifetime: seconds after which a holder that did not renew it has lost it.
        """
        table = leases_table
        with self._write() as connection:
            row = connection.execute(sa.select(table).where(table.c.name == name)).first()
            if row is None:
                connection.execute(table.insert(), {"name": name, "owner": owner, "beat": at})
                return True
            # A sign of life from the future is none: the clock was put back since.
            if row.owner != owner and abs(at - row.beat) < lifetime:
                return False
            mine = table.update().where(table.c.name == name)
            connection.execute(mine.values(owner=owner, beat=at))
        return True

    def lease(self, name: str) -> tuple[str, float] | None:
        """Return who holds a lease, and when it was renewed last."""
        table = leases_table
        rows = self._rows(sa.select(table).where(table.c.name == name))
        return (rows[0]["owner"], rows[0]["beat"]) if rows else None

    def is_held(self, name: str, *, at: float, lifetime: float) -> bool:
        """Return whether somebody holds a lease and shows life."""
        held = self.lease(name)
        return held is not None and abs(at - held[1]) < lifetime

    def want_job(self, name: str, *, at: float) -> None:
        """Note that a job is wanted; many wishes before it runs are one."""
        self._put_job(name, wanted=at)

    def ran_job(self, name: str, *, at: float, result: str) -> None:
        """Note when a job ran, and how it ended."""
        self._put_job(name, ran=at, result=result[:2000])

    def _put_job(self, name: str, **values: float | str) -> None:
        table = jobs_table
        with self._write() as connection:
            known = connection.execute(sa.select(table.c.name).where(table.c.name == name)).first()
            if known:
                connection.execute(table.update().where(table.c.name == name).values(values))
            else:
                row = {"name": name, "wanted": 0.0, "ran": 0.0, **values}
                connection.execute(table.insert(), row)

    def jobs(self) -> dict[str, tuple[float, float, str]]:
        """Return name -> when it was wanted last, when it ran last, how that ended."""
        rows = self._rows(sa.select(jobs_table))
        return {r["name"]: (r["wanted"], r["ran"], r["result"] or "") for r in rows}
