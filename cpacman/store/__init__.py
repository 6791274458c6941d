"""The state database: what was decided and what happened, on SQLite or PostgreSQL.

Invariants: a decision is committed before its effect; the journal is only ever appended to; a
host is locked by at most one rollout; documents are stored under the hash of their content, so
storing the same one twice is nothing. Times are seconds since the epoch.

Each area is a module with its tables, where they are newer than the first schema, and a class of
methods; `Store` is all of them. A change of schema is a new function in `migrations.STEPS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cpacman.errors import CpacmanError, Problem
from cpacman.store.blocks import Block, Blocks
from cpacman.store.chains import Chain, Chains, Guard, Step, chain_guard
from cpacman.store.connect import engine_of
from cpacman.store.decisions import Decisions
from cpacman.store.evidence import Ended, Evidence
from cpacman.store.inventories import Inventories
from cpacman.store.journal import Journal
from cpacman.store.leases import Leases
from cpacman.store.members import Members
from cpacman.store.migrations import SCHEMA_VERSION, check_version, migrate
from cpacman.store.origins import Origins
from cpacman.store.pins import Pins
from cpacman.store.plans import Plans, StoredPlan
from cpacman.store.recovery import Recovery
from cpacman.store.rollout_hosts import RolloutHost, RolloutHosts
from cpacman.store.rollout_levels import RolloutLevel, RolloutLevels
from cpacman.store.rollouts import Rollouts
from cpacman.store.snapshots import PointerMove, Snapshots

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "SCHEMA_VERSION",
    "Block",
    "Chain",
    "Ended",
    "Guard",
    "PointerMove",
    "RolloutHost",
    "RolloutLevel",
    "Step",
    "Store",
    "StoredPlan",
    "chain_guard",
]


class Store(
    Journal,
    Snapshots,
    Blocks,
    Inventories,
    Members,
    Pins,
    Plans,
    Rollouts,
    RolloutHosts,
    RolloutLevels,
    Decisions,
    Recovery,
    Evidence,
    Origins,
    Leases,
    Chains,
):
    """The database behind plain functions. Open it with `Store.open(url)`; close it after use."""

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect, make or migrate the schema, and return the store.

        Raises:
            CpacmanError: the database can't be opened, or is of a newer version than this.
        """
        engine = engine_of(url)
        migrate(engine)
        return cls(engine)

    @classmethod
    def look(cls, url: str) -> Self:
        """Connect to look only: nothing is made, and no schema is brought forward.

        Raises:
            CpacmanError: there is none, it can't be read, or is of another version than this.
        """
        path = sa.make_url(url).database if url.startswith("sqlite:") else None
        if path is not None and not Path(path).is_file():
            mend = "name the master's configuration (--config), or run it as the user of the master"
            raise CpacmanError(Problem(f"database {path}", "is not there, or not for you", mend))
        engine = engine_of(url)
        check_version(engine)
        return cls(engine)
