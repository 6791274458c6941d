"""Chains: rollouts through several classes, one after the other.

Invariants: a chain is carried on by one process at most; the rollout of a step is created, and a
class is pointed elsewhere for it, only in one transaction with a look at the chain's owner and at
the operator's wish; what a step has begun is written down in that same transaction. A wish is
written to the chain and to its rollout at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cpacman.errors import ConflictError, Problem
from cpacman.model import short_id
from cpacman.store import carrying
from cpacman.store.engine import Database
from cpacman.store.journal import record
from cpacman.store.rows import Text, as_json
from cpacman.store.tables import metadata, rollouts_table

Guard = Callable[[Connection], None]
"""Called inside of a transaction; raises when what is about to be written must not be."""

chains_table = sa.Table(
    "chains",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("classes", Text, nullable=False),
    sa.Column("steps", Text, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("why", Text),
    sa.Column("until", sa.Float),
    sa.Column("wish", sa.String),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("who", Text, nullable=False),
    sa.Column("reason", Text),
    sa.Column("ticket", Text),
    sa.Column("settings", Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("beat", sa.Float),
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One class of a chain that was begun: its rollout, none where the class has no host."""

    class_: str
    rollout: str | None
    at: float


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """One chain as the database has it; `settings` are plain values that are kept with it.

    `beat` is when its owner showed life last.
    """

    id: str
    classes: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    state: str = "running"
    why: str | None = None
    until: float | None = None
    wish: str | None = None
    owner: str = ""
    who: str
    reason: str | None = None
    ticket: str | None = None
    settings: dict[str, Any] = {}
    created: float = 0.0
    ended: float | None = None
    beat: float | None = None

    @property
    def rollout(self) -> str | None:
        """The rollout of the class that it came to last."""
        return self.steps[-1].rollout if self.steps else None


class Chains(Database):
    """Chains and how far they came."""

    def start_chain(self, chain: Chain, *, at: float) -> None:
        """Create a chain that has begun nothing yet."""
        row = {**msgspec.structs.asdict(chain), "created": at}
        for name in ("classes", "steps", "settings"):
            row[name] = as_json(msgspec.to_builtins(row[name]))
        with self._write() as connection:
            connection.execute(chains_table.insert(), row)
            entry = {"action": "chain", "subject": chain.id, "at": at, "who": chain.who,
                     "reason": chain.reason, "ticket": chain.ticket,
                     "detail": as_json({"classes": list(chain.classes)})}  # fmt: skip
            record(connection, entry)

    def chain(self, prefix: str) -> Chain:
        """Return one chain, by id or unique prefix.

        Raises:
            InputError: no chain, or more than one, begins like that.
        """
        full = self._resolve(chains_table, "chain", prefix)
        return _read(self._rows(sa.select(chains_table).where(chains_table.c.id == full))[0])

    def chains(self, *, active: bool = False) -> list[Chain]:
        """Return the chains, oldest first; with `active` only those that have not ended."""
        query = sa.select(chains_table).order_by(chains_table.c.created)
        if active:
            query = query.where(chains_table.c.ended.is_(None))
        return [_read(row) for row in self._rows(query)]

    def own_chain(self, chain: str, *, seen: str, owner: str, at: float) -> None:
        """Take a chain over from the owner that the caller saw, who is gone, or from nobody.

        Raises:
            ConflictError: somebody else was faster.
        """
        with self._write() as connection:
            carrying.take_over(connection, chains_table, chain, seen, owner)
            mine = chains_table.c.id == chain
            connection.execute(chains_table.update().where(mine).values(beat=at))

    def beat_chain(self, chain: str, *, owner: str, at: float) -> Chain:
        """Say that its owner is at it, where this is the owner, and return the chain."""
        c = chains_table
        with self._write() as connection:
            mine = sa.and_(c.c.id == chain, c.c.owner == owner)
            connection.execute(c.update().where(mine).values(beat=at))
        return self.chain(chain)

    def wish_chain(
        self, chain: str, wish: str, *, at: float, who: str, reason: str | None = None
    ) -> None:
        """Ask whoever carries a chain on to halt or cancel it; it begins nothing from now on.

        Nor does its rollout start a host: whoever asks may be gone before they can ask that, too.

        Raises:
            ConflictError: it has ended meanwhile.
        """
        with self._write() as connection:
            carrying.write_wish(
                connection, chains_table, chain, wish, at=at, who=who, reason=reason
            )
            query = sa.select(chains_table).where(chains_table.c.id == chain)
            steps = _read(dict(connection.execute(query).mappings().one())).steps
            r = rollouts_table
            begun = r.c.id.in_([step.rollout for step in steps if step.rollout])
            going = sa.and_(begun, r.c.state.in_(carrying.OPEN))
            connection.execute(r.update().where(going).values(wish=wish))

    def move_chain(
        self,
        chain: str,
        *,
        expected: str,
        state: str,
        at: float,
        who: str,
        why: str = "",
        until: float | None = None,
        owner: str | None = None,
        reason: str | None = None,
        settings: Mapping[str, Any] | None = None,
        forgets: bool = False,
    ) -> str | None:
        """Move a chain to its next state, and journal that; an end forgets a wish.

        Returns:
            the wish that forbids it, and then nothing was moved: what is to be halted neither
            waits nor goes on, unless a person says so, who `forgets` it.

        Raises:
            ConflictError: it is not in the state that the caller saw.
        """
        also: dict[str, Any] = {} if settings is None else {"settings": as_json(dict(settings))}
        if forgets:
            also["wish"] = None
        with self._write() as connection:
            wish = carrying.wish_of(connection, chains_table, chain)
            if wish and state not in carrying.CLOSED and not forgets:
                return wish
            carrying.move(
                connection, chains_table, chain, expected=expected, state=state, at=at, who=who,
                why=why, until=until, owner=owner, reason=reason, also=also,
            )  # fmt: skip
        return None

    def step_chain(self, chain: str, step: Step, *, owner: str) -> None:
        """Note that a chain has come to its next class, without a rollout there."""
        with self._write() as connection:
            chain_guard(chain, owner, step)(connection)


def chain_guard(chain: str, owner: str, step: Step | None = None) -> Guard:
    """Return what lets a transaction through only while a chain may begin something.

    It may while the class before is done: a person may try hosts of it again at any time.

    Args:
        chain: its id.
        owner: who must own it.
        step: noted as begun, with the same transaction.
    """

    def check(connection: Connection) -> None:
        c = chains_table
        row = connection.execute(sa.select(c).where(c.c.id == chain)).mappings().first()
        if row is None or row["owner"] != owner or row["state"] != "running" or row["wish"]:
            words = "was halted, or is carried on by another process"
            raise ConflictError(Problem(short_id(chain), words, "look at it: rollout"))
        _check_last(connection, _read(dict(row)))
        if step is not None:
            steps = as_json(msgspec.to_builtins((*_read(dict(row)).steps, step)))
            connection.execute(c.update().where(c.c.id == chain).values(steps=steps))

    return check


def _check_last(connection: Connection, chain: Chain) -> None:
    """Let nothing begin while hosts of the class that it came to last are tried again."""
    r = rollouts_table.c
    query = sa.select(r.state).where(r.id == chain.rollout)
    state = connection.execute(query).scalar() if chain.rollout else None
    if state not in (None, "done"):
        words = f"{short_id(str(chain.rollout))} is {state} again"
        raise ConflictError(Problem(short_id(chain.id), words, "it goes on when that is done"))


def _read(row: Mapping[str, Any]) -> Chain:
    plain = {str(name): value for name, value in row.items()}
    for name in ("classes", "steps", "settings"):
        plain[name] = msgspec.json.decode(plain[name])
    return msgspec.convert(plain, Chain)
