"""Moves of pointers and the block list: whole or not at all, and never forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def _end_level(store: Store, level: str, gates: Sequence[Mapping[str, str]]) -> None:
    """Let one of two hosts of a level end in a rollout of that name, after these findings."""
    header = {"id": f"r-{level}", "plan": "p-1", "class": "testing", "state": "running",
              "who": "me", "owner": "here"}  # fmt: skip
    hosts = [(f"{level}{n}", level, "t-1") for n in range(2)]
    store.start_rollout(header, hosts, at=1, levels=[(level, {})])
    store.end_host(f"r-{level}", f"{level}0", expected="waiting", outcome="applied", at=5, who="me")
    for one in gates:
        row = {"check": "x", "host": "", "verdict": "pass", **one}
        soak = row["when"] == "soak"
        store.put_findings(f"r-{level}", level, [row], at=6, who="me", add=soak)
    store.move_level(f"r-{level}", level, expected="waiting", state="passed", at=7)


@pytest.mark.parametrize(
    ("gates", "healthy"),
    [
        ([], False),
        ([{"when": "before"}], False),
        ([{"when": "after"}], True),
        ([{"when": "before"}, {"when": "soak"}], True),
        ([{"when": "after", "host": "a0"}], True),
        ([{"when": "after", "host": "a1"}], False),
        # What looked before the soak counts on when other checks look in it.
        ([{"when": "after", "host": "a0"}, {"when": "soak", "host": "a1"}], True),
        ([{"when": "after"}, {"when": "soak", "check": "y", "verdict": "fail"}], False),
        ([{"when": "after"}, {"when": "soak", "verdict": "inconclusive"}], False),
        ([{"when": "after"}, {"when": "before"}], False),
    ],
)
def test_whether_a_gate_found_a_host_well(
    store: Store, gates: list[dict[str, str]], healthy: bool
) -> None:
    """Only a check after the change, of the host or of all, and none that was passed by force."""
    _end_level(store, "a", gates)
    assert [(one.host, one.healthy) for one in store.ended("testing")] == [("a0", healthy)]


def test_a_check_that_need_not_pass_spoils_no_health(store: Store) -> None:
    """But by itself it shows none either."""
    row = {"check": "x", "host": "", "verdict": "pass", "when": "after", "required": True}
    rows = [row, {**row, "check": "y", "verdict": "fail", "required": False}]
    for level, findings in (("a", rows), ("b", rows[1:])):
        _end_level(store, level, [])
        store.put_findings(f"r-{level}", level, findings, at=8, who="me")
    assert [(one.host, one.healthy) for one in store.ended()] == [("a0", True), ("b0", False)]


def test_how_hosts_ended(store: Store) -> None:
    """Only ended hosts are told, of one class, since a moment."""
    _end_level(store, "canary", [])
    assert [(one.host, one.outcome, one.at) for one in store.ended("testing", since=5)] == [
        ("canary0", "applied", 5.0)
    ]
    assert store.ended("production") == [] and store.ended("testing", since=6) == []
