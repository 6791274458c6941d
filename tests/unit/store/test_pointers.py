"""Moves of pointers and the block list: whole or not at all, and never forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpacman.errors import ConflictError
from cpacman.store import Block, PointerMove, Store


@pytest.fixture
def store(tmp_path: Path):
    """A fresh SQLite store."""
    with Store.open(f"sqlite:///{tmp_path}/cpacman.db") as opened:
        yield opened


def held(store: Store) -> dict[tuple[str, str], str]:
    """What every class points at."""
    return {place: row["snapshot"] for place, row in store.pointers().items()}


def test_moves_that_belong_together_are_all_or_nothing(store: Store) -> None:
    """One channel that was moved meanwhile stops the moves of the others, and is named."""
    store.point("testing", "el8", "s-1", expected=None, action="promote", at=1, who="ann")
    moves = [PointerMove("testing", "el9", "s-9", None), PointerMove("testing", "el8", "s-2", None)]
    with pytest.raises(ConflictError, match="testing el8: points at s-1 now"):
        store.point_all(moves, action="promote", at=2, who="bob")
    assert held(store) == {("testing", "el8"): "s-1"}
    moves[1] = moves[1]._replace(expected="s-1", detail={"skipped": ["qa"]}, packages=3)
    store.point_all(moves, action="promote", at=3, who="bob", reason="r", ticket="t")
    assert held(store) == {("testing", "el8"): "s-2", ("testing", "el9"): "s-9"}
    assert [(m["channel"], m["snapshot"], m["action"]) for m in store.moves()] == [
        ("el8", "s-1", "promote"), ("el9", "s-9", "promote"), ("el8", "s-2", "promote"),
    ]  # fmt: skip
    assert [m["snapshot"] for m in store.moves("el8")] == ["s-1", "s-2"]
    assert [row["id"] for row in store.snapshots()] == ["s-2"]
    last = store.history()[-1]
    assert (last["reason"], last["ticket"]) == ("r", "t")
    assert last["detail"] == {"class": "testing", "channel": "el8", "from": "s-1", "to": "s-2",
                              "skipped": ["qa"]}  # fmt: skip


def test_block_and_unblock(store: Store) -> None:
    """The list and the journal say the same; what is blocked again has its new reason."""
    block = Block("httpd-2-1", "nevra", "crashes", None, "ann", 1.0)
    store.block([block, block._replace(spec="A-1", kind="advisory")], ticket="t")
    store.block([block._replace(reason="crashes db", until="2027-01-01")])
    assert [(one.spec, one.reason, one.until) for one in store.blocks()] == [
        ("A-1", "crashes", None), ("httpd-2-1", "crashes db", "2027-01-01"),
    ]  # fmt: skip
    store.unblock(["A-1", "unknown"], at=2.0, who="bob", reason="mended", ticket=None)
    assert [one.spec for one in store.blocks()] == ["httpd-2-1"]
    told = [(e["action"], e["subject"], e["reason"]) for e in store.history()]
    assert told[2:] == [("block", "httpd-2-1", "crashes db"), ("unblock", "A-1", "mended")]


def test_first_version_gets_its_moves_from_the_journal(store: Store, tmp_path: Path) -> None:
    """What classes held before the list of moves was there is known afterwards."""
    store.add_snapshot("s-1", channel="el9", packages=1, at=1, who="ann")
    store.point("testing", "el9", "s-1", expected=None, action="snapshot", at=2, who="ann")
    store.point("testing", "el9", "s-2", expected="s-1", action="promote", at=3, who="bob")
    expected = store.moves()
    with store._engine.begin() as connection:
        for line in ("drop table moves", "drop table blocks",
                     "update schema_version set version = 1"):  # fmt: skip
            connection.exec_driver_sql(line)
    with Store.open(f"sqlite:///{tmp_path}/cpacman.db") as migrated:
        assert migrated.moves() == expected
        assert migrated.blocks() == []


def test_how_hosts_ended_and_whether_a_gate_looked(store: Store) -> None:
    """A level that passed without findings was looked at by nobody; only ended hosts are told."""
    for number, level in enumerate(("canary", "rest")):
        header = {"id": f"r-{level}", "plan": "p-1", "class": "testing", "state": "running",
                  "who": "me", "owner": "here"}  # fmt: skip
        hosts = [(f"{level}{n}", level, "t-1") for n in range(2)]
        store.start_rollout(header, hosts, at=number, levels=[(level, {})])
        store.end_host(f"r-{level}", f"{level}0", expected="waiting", outcome="applied",
                       at=5.0 + number, who="me")  # fmt: skip
        if level == "canary":
            store.put_findings("r-canary", level, [{"check": "x"}], at=6, who="me")
        store.move_level(f"r-{level}", level, expected="waiting", state="passed", at=7)
    rows = [(one.host, one.outcome, one.at, one.healthy) for one in store.ended("testing")]
    assert rows == [("canary0", "applied", 5.0, True), ("rest0", "applied", 6.0, False)]
    assert store.ended("production") == [] and store.ended("testing", since=6)[0].host == "rest0"
