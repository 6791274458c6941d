"""Two real processes at once: one wins, the other is told, nothing is half done."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest

from cpacman.errors import ConflictError
from cpacman.store import Store
from cpacman.store.tables import pins_table
from tests.unit.store.samples import rollout

ROUNDS = 25


def _point(url: str, who: str, barrier: Any) -> list[int]:
    won = []
    with Store.open(url) as store:
        barrier.wait()
        for number in range(ROUNDS):
            try:
                store.point(
                    "production",
                    "el9",
                    f"s-{number}-{who}",
                    expected=_held(store),
                    action="promote",
                    at=number,
                    who=who,
                )
                won.append(number)
            except ConflictError:
                pass
    return won  # fmt: skip


def _held(store: Store) -> str | None:
    pointer = store.pointers().get(("production", "el9"))
    return pointer["snapshot"] if pointer else None


def _lock(url: str, who: str, barrier: Any) -> list[int]:
    won = []
    with Store.open(url) as store:
        barrier.wait()
        for number in range(ROUNDS):
            # Each names the hosts in another order: they must not wait for one another for ever.
            hosts = [(f"web{number}", "all", "t"), (f"db{number}", "all", "t")]
            try:
                store.start_rollout(
                    rollout(f"r-{number}-{who}"), hosts if who == "a" else hosts[::-1], at=1.0
                )
                won.append(number)
            except ConflictError:
                pass
    return won  # fmt: skip


def _both(target: Any, url: str) -> tuple[list[int], list[int]]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        barrier = manager.Barrier(2)
        first, second = pool.starmap(target, [(url, who, barrier) for who in "ab"])
    return first, second


def test_two_operators_promote_at_once(store: Store, url: str) -> None:
    """Each pointer was moved from where its mover saw it: the journal is one unbroken chain."""
    first, second = _both(_point, url)
    moves = [e["detail"] for e in store.history(limit=1000)]
    assert len(moves) == len(first) + len(second) >= ROUNDS
    assert [m["from"] for m in moves] == [None, *(m["to"] for m in moves[:-1])]


def test_two_rollouts_want_the_same_hosts(store: Store, url: str) -> None:
    """Each host is locked by exactly one rollout, and the other one was not created at all."""
    first, second = _both(_lock, url)
    assert sorted(first + second) == list(range(ROUNDS))
    assert len(store.rollouts()) == ROUNDS


def test_what_contradicts_is_a_conflict(store: Store) -> None:
    """A row that somebody else wrote first is told as such, without the SQL."""
    with pytest.raises(ConflictError, match="contradicts"), store._write() as connection:
        for _ in range(2):
            connection.execute(pins_table.insert(), {"host": "a", "key": "k", "since": 1.0})
    assert store.pins() == {}
