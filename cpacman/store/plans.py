"""Plans: documents under the hash of their content, their transactions kept once each."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from cpacman.model import Plan, Transaction
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import as_json, insert_missing, missing_keys, pack, parts, unpack
from cpacman.store.tables import plans_table, transactions_table


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what was noted when it was stored."""

    plan: Plan
    class_: str
    created: float
    who: str


class Plans(Database):
    """Keep plans and read them."""

    def put_plan(self, plan: Plan, *, class_: str, at: float, who: str) -> None:
        """Keep a plan; its transactions are kept once each, whichever plan they are in."""
        bare = msgspec.structs.replace(plan, transactions={})
        with self._write() as connection:
            new = missing_keys(connection, transactions_table.c.id, sorted(plan.transactions))
            for part in parts(sorted(new), 100):
                # Ten thousand of them at the higher level take 9 seconds more, to save a tenth.
                rows = [{"id": n, "document": pack(plan.transactions[n], level=1)} for n in part]
                connection.execute(transactions_table.insert(), rows)
            header = {"id": plan.plan_id, "class": class_, "created": at, "who": who,
                      "document": pack(bare)}  # fmt: skip
            if insert_missing(connection, plans_table, "id", header):
                entry = {"action": "plan", "subject": plan.plan_id, "at": at, "who": who,
                         "detail": as_json({"class": class_, "hosts": len(plan.hosts),
                                          "failed": sorted(plan.failed)})}  # fmt: skip
                record(connection, entry)

    def plan(self, prefix: str) -> StoredPlan:
        """Return a plan by its id or a unique prefix of it.

        Raises:
            InputError: no plan, or more than one, begins like that.
        """
        t = transactions_table.c
        full = self._resolve(plans_table, "plan", prefix)
        row = self._rows(sa.select(plans_table).where(plans_table.c.id == full))[0]
        bare = unpack(row["document"], Plan)
        transactions: dict[str, Transaction] = {}
        with self._read() as connection:
            for part in parts(sorted(set(bare.hosts.values()))):
                query = sa.select(t.id, t.document).where(t.id.in_(part))
                for number, blob in connection.execute(query):
                    transactions[number] = unpack(blob, Transaction)
        plan = msgspec.structs.replace(bare, transactions=transactions)
        return StoredPlan(plan=plan, class_=row["class"], created=row["created"], who=row["who"])
