"""The state database: what was decided and what happened, on SQLite or PostgreSQL.

Invariants: a decision is committed before its effect; the journal is only ever appended to; a
host is locked by at most one rollout; documents are stored under the hash of their content, so
storing the same one twice is nothing. Times are seconds since the epoch.
"""

from __future__ import annotations

import gc
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cpacman.errors import ConflictError, CpacmanError, InputError, Problem
from cpacman.model import (
    InstalledPackage,
    Inventory,
    Plan,
    Transaction,
    inventory_digest,
    package_hash,
    packages_digest,
    short_id,
)

SCHEMA_VERSION = 1
_MIN_PREFIX = 3
_MOST_PACKAGES = 20_000
"""Details of packages that one open store remembers: some 100 MB."""

metadata = sa.MetaData()

schema_table = sa.Table(
    "schema_version", metadata, sa.Column("version", sa.Integer, nullable=False)
)
journal_table = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("host", sa.String, index=True),
    sa.Column("reason", sa.String),
    sa.Column("ticket", sa.String, index=True),
    sa.Column("detail", sa.String, nullable=False),
)
changes_table = sa.Table(
    "changes",
    metadata,
    sa.Column("seq", sa.Integer, sa.ForeignKey("journal.seq"), nullable=False, index=True),
    sa.Column("host", sa.String, nullable=False, index=True),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False, index=True),
    sa.Column("nevra", sa.String, nullable=False),
    sa.Column("from", sa.String),
)
snapshots_table = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("channel", sa.String, nullable=False, index=True),
    sa.Column("taken", sa.Float, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("packages", sa.Integer, nullable=False),
)
pointers_table = sa.Table(
    "pointers",
    metadata,
    sa.Column("class", sa.String, primary_key=True),
    sa.Column("channel", sa.String, primary_key=True),
    sa.Column("snapshot", sa.String, nullable=False),
    sa.Column("previous", sa.String),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("who", sa.String, nullable=False),
)
packages_table = sa.Table(
    "packages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("detail", sa.LargeBinary, nullable=False),
)
sets_table = sa.Table(
    "package_sets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("members", sa.LargeBinary, nullable=False),
)
inventories_table = sa.Table(
    "inventories",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("set_id", sa.Integer, sa.ForeignKey("package_sets.id"), nullable=False),
    sa.Column("cookie", sa.String, nullable=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
    sa.Column("taken", sa.Float, nullable=False),
)
transactions_table = sa.Table(
    "transactions",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
plans_table = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("class", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
)
rollouts_table = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("plan", sa.String, nullable=False),
    sa.Column("class", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("reason", sa.String),
    sa.Column("ticket", sa.String),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
)
rollout_hosts_table = sa.Table(
    "rollout_hosts",
    metadata,
    sa.Column("rollout", sa.String, primary_key=True),
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("level", sa.String, nullable=False),
    sa.Column("transaction", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("outcome", sa.String),
    sa.Column("code", sa.String),
    sa.Column("detail", sa.String),
    sa.Column("manifest", sa.String),
    sa.Column("updated", sa.Float, nullable=False),
)
locks_table = sa.Table(
    "host_locks",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("rollout", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
pins_table = sa.Table(
    "pins",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
sequences_table = sa.Table(
    "host_sequences",
    metadata,
    sa.Column("host", sa.String, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
)


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what was noted when it was stored."""

    plan: Plan
    class_: str
    created: float
    who: str


class RolloutHost(msgspec.Struct, frozen=True, kw_only=True):
    """One host of one rollout as the database has it."""

    host: str
    level: str
    transaction: str
    state: str
    outcome: str | None
    code: str | None
    detail: str | None
    manifest: str | None
    updated: float


class Store:
    """The database behind plain functions. Open it with `Store.open(url)`; close it after use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._packages: dict[str, tuple[int, InstalledPackage]] = {}

    @classmethod
    def open(cls, url: str) -> Store:
        """Connect, make or migrate the schema, and return the store.

        Raises:
            CpacmanError: the database can't be opened, or is of a newer version than this.
        """
        try:
            engine = _engine_of(url)
            _migrate(engine)
        except sa.exc.SQLAlchemyError as error:
            raise CpacmanError(
                Problem(url, f"cannot open the state database: {_short(error)}")
            ) from error
        return cls(engine)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.execution_options(writes=True).begin() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            mend = "look at the disk and at who may write there"
            raise CpacmanError(
                Problem(str(self._engine.url), f"can't be written: {error.orig}", mend)
            ) from error

    def _rows(self, query: sa.sql.Select[Any]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # ---- journal -------------------------------------------------------------------------

    def record(
        self,
        action: str,
        subject: str,
        *,
        at: float,
        who: str,
        host: str | None = None,
        reason: str | None = None,
        ticket: str | None = None,
        detail: Mapping[str, Any] | None = None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Append one entry to the journal, with the package changes it made on `host`."""
        with self._write() as connection:
            _record(
                connection,
                {"action": action, "subject": subject, "at": at, "who": who, "host": host,
                 "reason": reason, "ticket": ticket, "detail": _json(detail or {})},
                changes,
            )  # fmt: skip

    def history(
        self,
        *,
        host: str | None = None,
        package: str | None = None,
        who: str | None = None,
        ticket: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 200,
    ) -> list[dict[str, Any]]:
        """Return the newest journal entries that match, oldest first, with their changes."""
        j, c = journal_table.c, changes_table.c
        query = sa.select(journal_table)
        if host is not None:
            query = query.where(j.host == host)
        if package is not None:
            inner = sa.select(c.seq).where(sa.or_(c.name == package, c.nevra == package))
            query = query.where(j.seq.in_(inner))
        if who is not None:
            query = query.where(j.who == who)
        if ticket is not None:
            query = query.where(j.ticket == ticket)
        if since is not None:
            query = query.where(j.at >= since)
        if until is not None:
            query = query.where(j.at <= until)
        rows = self._rows(query.order_by(j.seq.desc()).limit(limit))[::-1]
        changes = self._changes_of([row["seq"] for row in rows])
        return [
            {**row, "detail": msgspec.json.decode(row["detail"]), "changes": changes[row["seq"]]}
            for row in rows
        ]

    def _changes_of(self, seqs: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        found: dict[int, list[dict[str, Any]]] = {seq: [] for seq in seqs}
        query = sa.select(changes_table).where(changes_table.c.seq.in_(seqs))
        for row in self._rows(query):
            found[row.pop("seq")].append(row)
        return found

    # ---- snapshots and classes -----------------------------------------------------------

    def add_snapshot(
        self, snapshot_id: str, *, channel: str, packages: int, at: float, who: str
    ) -> bool:
        """Note a snapshot that lies in the depot; return whether it was new."""
        with self._write() as connection:
            known = connection.execute(
                sa.select(snapshots_table.c.id).where(snapshots_table.c.id == snapshot_id)
            ).first()
            if known:
                return False
            connection.execute(
                snapshots_table.insert(),
                {"id": snapshot_id, "channel": channel, "taken": at, "who": who,
                 "packages": packages},
            )  # fmt: skip
            entry = {"action": "snapshot", "subject": snapshot_id, "at": at, "who": who,
                     "detail": _json({"channel": channel, "packages": packages})}  # fmt: skip
            _record(connection, entry)
        return True

    def snapshots(self, channel: str | None = None) -> list[dict[str, Any]]:
        """Return every snapshot (of one channel), oldest first."""
        query = sa.select(snapshots_table).order_by(snapshots_table.c.taken)
        if channel is not None:
            query = query.where(snapshots_table.c.channel == channel)
        return self._rows(query)

    def pointers(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return `(class, channel)` -> snapshot, previous, since, who."""
        return {(r["class"], r["channel"]): r for r in self._rows(sa.select(pointers_table))}

    def point(
        self,
        class_: str,
        channel: str,
        snapshot: str,
        *,
        expected: str | None,
        action: str,
        at: float,
        who: str,
        reason: str | None = None,
        ticket: str | None = None,
    ) -> None:
        """Point a class at a snapshot, if it still points where the caller saw it pointing.

        Raises:
            ConflictError: somebody moved the pointer meanwhile.
        """
        with self._write() as connection:
            p = pointers_table.c
            where = sa.and_(p["class"] == class_, p.channel == channel)
            row = connection.execute(sa.select(p.snapshot).where(where)).first()
            now = row[0] if row else None
            if now != expected:
                raise ConflictError(_moved(class_, channel, expected, now))
            values = {"class": class_, "channel": channel, "snapshot": snapshot,
                      "previous": now, "since": at, "who": who}  # fmt: skip
            if row:
                connection.execute(pointers_table.update().where(where).values(values))
            else:
                connection.execute(pointers_table.insert(), values)
            detail = {"class": class_, "channel": channel, "from": now, "to": snapshot}
            entry = {"action": action, "subject": class_, "at": at, "who": who, "reason": reason,
                     "ticket": ticket, "detail": _json(detail)}  # fmt: skip
            _record(connection, entry)

    # ---- inventories ---------------------------------------------------------------------

    def unknown_packages(self, keys: Iterable[str]) -> list[str]:
        """Return those keys whose details are not in the store, sorted."""
        wanted = set(keys)
        return sorted(wanted - set(self._package_ids(wanted)))

    def _package_ids(self, digests: Iterable[str]) -> dict[str, int]:
        p = packages_table.c
        found: dict[str, int] = {}
        with self._engine.connect() as connection:
            for part in _parts(sorted(digests)):
                rows = connection.execute(sa.select(p.digest, p.id).where(p.digest.in_(part)))
                found.update((row[0], row[1]) for row in rows)
        return found

    def add_packages(self, packages: Mapping[str, InstalledPackage]) -> None:
        """Keep the details of installed packages, one row for each key: a digest and a seal."""
        if packages.keys() <= self._packages.keys():
            return
        known = self._package_ids(packages)
        rows = [
            {"digest": key, "detail": _pack(_without_host(package))}
            for key, package in sorted(packages.items())
            if key not in known
        ]
        if rows:
            with self._write() as connection:
                _insert_all_missing(connection, packages_table, "digest", rows)

    def put_inventory(
        self, inventory: Inventory, *, at: float, keys: Mapping[str, str] | None = None
    ) -> None:
        """Keep what a host reported; equal sets of packages share one row.

        Args:
            inventory: the whole of it.
            at: when it was taken.
            keys: digest -> key of the package's details, where it is not the digest itself.
        """
        self.put_inventories([inventory], at=at, keys={inventory.host: keys or {}})

    def put_inventories(
        self,
        inventories: Sequence[Inventory],
        *,
        at: float,
        keys: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Keep what hosts reported, all or none of it; what they have in common is done once.

        Args:
            inventories: the whole of each; of one host the last word counts.
            at: when they were taken.
            keys: host -> its `keys`, as for one inventory.
        """
        latest = {one.host: one for one in inventories}
        keys_of = {host: (keys or {}).get(host, {}) for host in latest}
        fresh: dict[str, InstalledPackage] = {}
        hashes: dict[int, bytes] = {}
        for host, one in latest.items():
            for package in one.packages:
                if id(package) not in hashes or keys_of[host]:
                    hashes.setdefault(id(package), package_hash(package))
                    _keep_plainest(
                        fresh, keys_of[host].get(package.digest, package.digest), package
                    )
        self.add_packages(fresh)
        rows = self._package_rows(fresh)
        sets: dict[str, bytes] = {}
        hosts: list[tuple[str, dict[str, Any]]] = []
        for host, one in latest.items():
            known = packages_digest(hashes[id(p)] for p in one.packages)
            digest = inventory_digest(one, known)
            if digest not in sets:
                own = {p.digest: keys_of[host].get(p.digest, p.digest) for p in one.packages}
                sets[digest] = _members_of(one.packages, {d: rows[key] for d, key in own.items()})
            head = _pack(msgspec.structs.replace(one, packages=()))
            hosts.append((digest, {"host": host, "cookie": one.cookie, "head": head, "taken": at}))
        self._put_sets(sets, hosts)

    def _put_sets(
        self, sets: Mapping[str, bytes], hosts: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        """Write sets of packages and the hosts that have them, given with their set's digest."""
        s, i = sets_table, inventories_table
        ids: dict[str, int] = {}
        with self._write() as connection:
            new = [{"digest": digest, "members": blob} for digest, blob in sorted(sets.items())]
            _insert_all_missing(connection, s, "digest", new)
            for part in _parts(sorted(sets)):
                query = sa.select(s.c.digest, s.c.id).where(s.c.digest.in_(part))
                ids.update((row[0], row[1]) for row in connection.execute(query))
            for part in _parts(sorted({row["host"] for _, row in hosts})):
                connection.execute(i.delete().where(i.c.host.in_(part)))
            rows = [{**row, "set_id": ids[digest]} for digest, row in hosts]
            if rows:
                connection.execute(i.insert(), rows)

    def renew_inventory(self, head: Inventory, *, at: float) -> None:
        """Keep a host's new head; its packages are unchanged."""
        i = inventories_table
        with self._write() as connection:
            row = {"head": _pack(head), "taken": at}
            connection.execute(i.update().where(i.c.host == head.host).values(row))

    def inventory_heads(self) -> dict[str, tuple[Inventory, float]]:
        """Return host -> (inventory without packages, when it was taken)."""
        i = inventories_table.c
        rows = self._rows(sa.select(i.host, i.head, i.taken))
        return {r["host"]: (_unpack(r["head"], Inventory), r["taken"]) for r in rows}

    def inventories(self, hosts: Sequence[str]) -> dict[str, Inventory]:
        """Return the inventories of those hosts that have one; equal sets are read once."""
        i, s = inventories_table.c, sets_table.c
        found: dict[str, tuple[int, bytes]] = {}
        sets: dict[int, bytes] = {}
        with self._engine.connect() as connection:
            for part in _parts(sorted(hosts)):
                query = sa.select(i.host, i.set_id, i.head).where(i.host.in_(part))
                found.update({h: (set_id, head) for h, set_id, head in connection.execute(query)})
            for part in _parts(sorted({set_id for set_id, _ in found.values()})):
                query = sa.select(s.id, s.members).where(s.id.in_(part))
                sets.update((row[0], row[1]) for row in connection.execute(query))
        with _without_collector():
            members = {number: _unpack(blob, _Members) for number, blob in sets.items()}
            numbers = {n for one in members.values() for n in array("I", one.ids)}
            assembler = _Assembler(self._details(numbers))
            packages = {number: assembler.packages_of(one) for number, one in members.items()}
            return {
                host: msgspec.structs.replace(_unpack(head, Inventory), packages=packages[set_id])
                for host, (set_id, head) in found.items()
            }

    def _details(self, numbers: set[int]) -> dict[int, InstalledPackage]:
        p = packages_table.c
        found: dict[int, InstalledPackage] = {}
        with self._engine.connect() as connection:
            for part in _parts(sorted(numbers)):
                query = sa.select(p.id, p.detail).where(p.id.in_(part))
                for number, blob in connection.execute(query):
                    found[number] = _unpack(blob, InstalledPackage)
        return found

    def _package_rows(self, keys: Iterable[str]) -> dict[str, tuple[int, InstalledPackage]]:
        """Return key -> (id, details) of the known ones; those rows never change."""
        wanted = set(keys)
        if missing := wanted - self._packages.keys():
            ids = self._package_ids(missing)
            details = self._details(set(ids.values()))
            if len(self._packages) + len(ids) > _MOST_PACKAGES:
                kept = wanted & self._packages.keys()
                self._packages = {key: self._packages[key] for key in kept}
            self._packages.update({key: (n, details[n]) for key, n in ids.items()})
        return {key: self._packages[key] for key in wanted & self._packages.keys()}

    def packages(self, keys: Iterable[str]) -> dict[str, InstalledPackage]:
        """Return key -> details of those installed packages that the store knows."""
        return {key: details for key, (_, details) in self._package_rows(keys).items()}

    # ---- the plan key ---------------------------------------------------------------------

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
            _record(connection, entry)

    # ---- plans ---------------------------------------------------------------------------

    def put_plan(self, plan: Plan, *, class_: str, at: float, who: str) -> None:
        """Keep a plan; its transactions are kept once each, whichever plan they are in."""
        bare = msgspec.structs.replace(plan, transactions={})
        with self._write() as connection:
            for number, transaction in sorted(plan.transactions.items()):
                row = {"id": number, "document": _pack(transaction)}
                _insert_missing(connection, transactions_table, "id", row)
            header = {"id": plan.plan_id, "class": class_, "created": at, "who": who,
                      "document": _pack(bare)}  # fmt: skip
            if _insert_missing(connection, plans_table, "id", header):
                entry = {"action": "plan", "subject": plan.plan_id, "at": at, "who": who,
                         "detail": _json({"class": class_, "hosts": len(plan.hosts),
                                          "failed": sorted(plan.failed)})}  # fmt: skip
                _record(connection, entry)

    def plan(self, prefix: str) -> StoredPlan:
        """Return a plan by its id or a unique prefix of it.

        Raises:
            InputError: no plan, or more than one, begins like that.
        """
        t = transactions_table.c
        full = self._resolve(plans_table, "plan", prefix)
        row = self._rows(sa.select(plans_table).where(plans_table.c.id == full))[0]
        bare = _unpack(row["document"], Plan)
        transactions: dict[str, Transaction] = {}
        with self._engine.connect() as connection:
            for part in _parts(sorted(set(bare.hosts.values()))):
                query = sa.select(t.id, t.document).where(t.id.in_(part))
                for number, blob in connection.execute(query):
                    transactions[number] = _unpack(blob, Transaction)
        plan = msgspec.structs.replace(bare, transactions=transactions)
        return StoredPlan(plan=plan, class_=row["class"], created=row["created"], who=row["who"])

    def _resolve(self, table: sa.Table, what: str, prefix: str) -> str:
        column = table.c.id
        letter = f"{what[0]}-"
        mend = f"list them with: salt-run cpacman.history; an id looks like {letter}7c41e9"
        if not prefix.startswith(letter) or len(prefix) < _MIN_PREFIX:
            raise InputError(Problem(what, f"{prefix!r} is no id of a {what}", mend))
        query = sa.select(column).where(column.startswith(prefix, autoescape=True)).limit(5)
        found = [row["id"] for row in self._rows(query)]
        if len(found) == 1:
            return str(found[0])
        if not found:
            raise InputError(Problem(what, f"there is no {what} {prefix}", mend))
        several = ", ".join(short_id(number) for number in found)
        raise InputError(Problem(what, f"{prefix} is the beginning of several: {several}"))

    # ---- rollouts ------------------------------------------------------------------------

    def start_rollout(
        self,
        rollout: Mapping[str, Any],
        hosts: Sequence[tuple[str, str, str]],
        *,
        at: float,
    ) -> None:
        """Create a rollout with its `(host, level, transaction)` and lock every host for it.

        Raises:
            ConflictError: a host is locked by another rollout; nothing was created.
        """
        names = [host for host, _, _ in hosts]
        with self._write() as connection:
            taken = _locked(connection, names)
            if taken:
                raise ConflictError(
                    [Problem(h, f"is being changed by rollout {short_id(r)}", "wait for it")
                     for h, r in sorted(taken.items())]
                )  # fmt: skip
            connection.execute(rollouts_table.insert(), {**rollout, "created": at})
            rows = [
                {"rollout": rollout["id"], "host": host, "level": level, "transaction": number,
                 "state": "waiting", "updated": at}
                for host, level, number in hosts
            ]  # fmt: skip
            locks = [{"host": h, "rollout": rollout["id"], "since": at} for h in names]
            if rows:
                connection.execute(rollout_hosts_table.insert(), rows)
                connection.execute(locks_table.insert(), locks)
            detail = {"plan": rollout["plan"], "class": rollout["class"], "hosts": len(hosts)}
            entry = {"action": "rollout", "subject": rollout["id"], "at": at,
                     "who": rollout["who"], "reason": rollout.get("reason"),
                     "ticket": rollout.get("ticket"), "detail": _json(detail)}  # fmt: skip
            _record(connection, entry)

    def next_sequence(self, host: str, *, at: float) -> int:
        """Return the next manifest sequence for a host; never the same one twice.

        It is the time in seconds or one more than the last, so that a master whose database was
        lost still gives numbers that hosts take for new.
        """
        s = sequences_table
        with self._write() as connection:
            row = connection.execute(sa.select(s.c.sequence).where(s.c.host == host)).first()
            number = max(int(row[0]) + 1, int(at)) if row else int(at)
            if row:
                connection.execute(s.update().where(s.c.host == host).values(sequence=number))
            else:
                connection.execute(s.insert(), {"host": host, "sequence": number})
        return number

    def move_host(
        self, rollout: str, host: str, *, expected: str, state: str, at: float, **values: Any
    ) -> None:
        """Move one host of a rollout from the state the caller saw to the next one.

        Raises:
            ConflictError: the host is not in the expected state any more.
        """
        with self._write() as connection:
            _move(connection, rollout, host, expected, {"state": state, "updated": at, **values})

    def end_host(
        self,
        rollout: str,
        host: str,
        *,
        expected: str,
        outcome: str,
        at: float,
        who: str,
        code: str | None = None,
        detail: str | None = None,
        ticket: str | None = None,
        reason: str | None = None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write a host's one outcome, journal it with what changed, and unlock the host."""
        values = {"state": "ended", "updated": at, "outcome": outcome, "code": code,
                  "detail": detail}  # fmt: skip
        with self._write() as connection:
            _move(connection, rollout, host, expected, values)
            k = locks_table.c
            mine = sa.and_(k.host == host, k.rollout == rollout)
            connection.execute(locks_table.delete().where(mine))
            entry = {"action": outcome, "subject": rollout, "at": at, "who": who, "host": host,
                     "ticket": ticket, "reason": reason,
                     "detail": _json({"code": code, "detail": detail})}  # fmt: skip
            _record(connection, entry, changes)

    def end_rollout(self, rollout: str, *, state: str, at: float, who: str) -> None:
        """Close a rollout as `done` or `halted`."""
        r = rollouts_table
        with self._write() as connection:
            connection.execute(r.update().where(r.c.id == rollout).values(state=state, ended=at))
            entry = {"action": state, "subject": rollout, "at": at, "who": who, "detail": "{}"}
            _record(connection, entry)

    def rollouts(self, *, active: bool = False) -> list[dict[str, Any]]:
        """Return the rollouts, oldest first; with `active` only those that have not ended."""
        query = sa.select(rollouts_table).order_by(rollouts_table.c.created)
        if active:
            query = query.where(rollouts_table.c.ended.is_(None))
        return self._rows(query)

    def rollout(self, prefix: str) -> tuple[dict[str, Any], list[RolloutHost]]:
        """Return one rollout and its hosts, by id or unique prefix.

        Raises:
            InputError: no rollout, or more than one, begins like that.
        """
        full = self._resolve(rollouts_table, "rollout", prefix)
        row = self._rows(sa.select(rollouts_table).where(rollouts_table.c.id == full))[0]
        h = rollout_hosts_table
        rows = self._rows(sa.select(h).where(h.c.rollout == full).order_by(h.c.host))
        return row, [RolloutHost(**{k: v for k, v in r.items() if k != "rollout"}) for r in rows]


class _Own(NamedTuple):
    """What belongs to a host's package and not to all that share its details."""

    id: int
    reason: str
    files: tuple[str, ...]


class _Members(NamedTuple):
    """A distinct set of packages: their ids as a packed array, and what is the host's own.

    `reasons` has a byte for each id, a place in `_REASONS`, or `_OWN` for a package whose files
    are not those that all hosts share: those stand in `own`, in the same order. Sets of before
    have no `reasons`, and each id in `own` at most once.
    """

    ids: bytes
    own: tuple[_Own, ...]
    reasons: bytes = b""


_REASONS = ("", "user", "dep", "weak")
_OWN = len(_REASONS)


def _members_of(
    packages: Iterable[InstalledPackage], rows: Mapping[str, tuple[int, InstalledPackage]]
) -> bytes:
    """Return what is kept of a set of packages."""
    pairs: list[tuple[int, int]] = []
    own: list[_Own] = []
    for package in packages:
        number, details = rows[package.digest]
        plain = package.files == details.files and package.reason in _REASONS
        pairs.append((number, _REASONS.index(package.reason) if plain else _OWN))
        if not plain:
            own.append(_Own(number, package.reason, package.files))
    pairs.sort()
    ids = array("I", [number for number, _ in pairs])
    return _pack(_Members(ids.tobytes(), tuple(sorted(own)), bytes(code for _, code in pairs)))


class _Assembler:
    """Puts sets of packages together: what is equal on several hosts is one object."""

    def __init__(self, details: dict[int, InstalledPackage]) -> None:
        self._details = details
        self._tables: list[dict[int, InstalledPackage]] = [details, {}, {}, {}]
        self._own: dict[_Own, InstalledPackage] = {}

    def packages_of(self, members: _Members) -> tuple[InstalledPackage, ...]:
        """Return the packages of one set."""
        ids = array("I", members.ids)
        if not members.reasons:
            by_id = {one.id: one for one in members.own}
            return tuple(self._own_of(by_id[n]) if n in by_id else self._details[n] for n in ids)
        tables, own = self._tables, iter(members.own)
        return tuple(
            [
                self._own_of(next(own))
                if code == _OWN
                else tables[code].get(number) or self._add(number, code)
                for number, code in zip(ids, members.reasons, strict=True)
            ]
        )

    def _add(self, number: int, code: int) -> InstalledPackage:
        made = msgspec.structs.replace(self._details[number], reason=_REASONS[code])
        self._tables[code][number] = made
        return made

    def _own_of(self, own: _Own) -> InstalledPackage:
        if own not in self._own:
            self._own[own] = msgspec.structs.replace(
                self._details[own.id], reason=own.reason, files=own.files
            )
        return self._own[own]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Make very many values that all stay without looking for garbage among them all the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _engine_of(url: str) -> Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(parsed, connect_args={"timeout": 30})
    sa.event.listen(engine, "connect", _sqlite_connect)
    sa.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _: object) -> None:
    # The driver must not begin by itself: a read that turns into a write later would fail with
    # "database is locked" at once instead of waiting for its turn.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        known = sa.inspect(connection).has_table("schema_version")
        version = connection.execute(sa.select(schema_table.c.version)).scalar() if known else None
        if version is not None and version > SCHEMA_VERSION:
            raise CpacmanError(
                Problem(
                    str(engine.url),
                    f"the database is of version {version}, this program knows {SCHEMA_VERSION}",
                    "install the newer CPacMan again",
                )
            )
        if version is None:
            metadata.create_all(connection)
            connection.execute(schema_table.insert(), {"version": SCHEMA_VERSION})


def _record(
    connection: Connection,
    entry: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]] = (),
) -> None:
    row = {"host": None, "reason": None, "ticket": None, **entry}
    seq = connection.execute(journal_table.insert().values(row)).inserted_primary_key
    rows = [{**change, "seq": seq[0] if seq else 0, "host": row["host"]} for change in changes]
    if rows:
        connection.execute(changes_table.insert(), rows)


def _insert_missing(
    connection: Connection, table: sa.Table, key: str, row: Mapping[str, Any]
) -> bool:
    column = table.c[key]
    if connection.execute(sa.select(column).where(column == row[key])).first():
        return False
    connection.execute(table.insert(), dict(row))
    return True


def _insert_all_missing(
    connection: Connection, table: sa.Table, key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    column = table.c[key]
    known: set[Any] = set()
    for part in _parts([row[key] for row in rows]):
        known.update(r[0] for r in connection.execute(sa.select(column).where(column.in_(part))))
    new = [dict(row) for row in rows if row[key] not in known]
    if new:
        connection.execute(table.insert(), new)


def _locked(connection: Connection, hosts: Sequence[str]) -> dict[str, str]:
    k = locks_table.c
    found: dict[str, str] = {}
    for part in _parts(hosts):
        rows = connection.execute(sa.select(k.host, k.rollout).where(k.host.in_(part)))
        found.update((row[0], row[1]) for row in rows)
    return found


def _move(
    connection: Connection, rollout: str, host: str, expected: str, values: Mapping[str, Any]
) -> None:
    h = rollout_hosts_table
    mine = sa.and_(h.c.rollout == rollout, h.c.host == host, h.c.state == expected)
    done = connection.execute(h.update().where(mine).values(dict(values)))
    if done.rowcount != 1:
        raise ConflictError(Problem(host, f"is not {expected} any more in {short_id(rollout)}"))


def _moved(class_: str, channel: str, expected: str | None, now: str | None) -> Problem:
    return Problem(
        f"{class_} {channel}",
        f"points at {short_id(now or 'nothing')} now, not at {short_id(expected or 'nothing')}",
        "somebody moved it meanwhile: look again",
    )


def _keep_plainest(found: dict[str, InstalledPackage], key: str, package: InstalledPackage) -> None:
    """Keep a package's details for all hosts: files that one of them was asked for are its own."""
    known = found.setdefault(key, package)
    if len(package.files) < len(known.files):
        found[key] = package


def _without_host(package: InstalledPackage) -> InstalledPackage:
    return msgspec.structs.replace(package, installtime=0, reason="")


def _parts(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    return (values[i : i + size] for i in range(0, len(values), size))


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _pack(value: Any) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(value), 6)


def _unpack(blob: bytes, type_: Any) -> Any:
    return msgspec.msgpack.decode(zlib.decompress(blob), type=type_)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0]
