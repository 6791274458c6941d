"""Databases of every version before come to the newest schema, with all that is in them."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cpacman.errors import CpacmanError
from cpacman.store import SCHEMA_VERSION, Store
from cpacman.store.connect import engine_of
from tests.unit.store import dumps
from tests.unit.store.samples import fill

VERSIONS = range(1, SCHEMA_VERSION + 1)


def schema_of(url: str) -> dict[str, Any]:
    """What a database says of its tables; SQLite's types by what they hold."""
    engine = engine_of(url)
    look = sa.inspect(engine)

    def kind(type_: sa.types.TypeEngine[Any]) -> str:
        return type_.python_type.__name__ if engine.dialect.name == "sqlite" else str(type_)

    found = {
        name: {
            "columns": {
                c["name"]: (kind(c["type"]), c["nullable"]) for c in look.get_columns(name)
            },
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "indexes": sorted(
                (str(one["name"]), tuple(one["column_names"]), bool(one["unique"]))
                for one in look.get_indexes(name)
            ),
            "references": [one["referred_table"] for one in look.get_foreign_keys(name)],
        }
        for name in look.get_table_names()
    }
    engine.dispose()
    return found


@pytest.mark.parametrize("dialect", dumps.DIALECTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_left_its_dump(version: int, dialect: str) -> None:
    """Who changes the schema keeps what it was: python -m tests.unit.store.dumps."""
    assert dumps.path_of(version, dialect).is_file()


@pytest.fixture
def fresh_schema(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The schema of a new database of the same kind."""
    other = f"sqlite:///{tmp_path}/other.db"
    if not url.startswith("sqlite"):
        other = request.getfixturevalue("server").new_database()
    Store.open(other).close()
    return schema_of(other)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_database_comes_forward(
    url: str, version: int, tmp_path: Path, fresh_schema: dict[str, Any]
) -> None:
    """Its schema is that of a new one, what was in it is there, and it can be written."""
    (tmp_path / "state").mkdir(exist_ok=True)
    dumps.restore(url, version)
    with Store.open(url) as store:
        assert schema_of(url) == fresh_schema
        assert store.pointers()[("testing", "el9")]["snapshot"] == "s-1"
        assert [p.name for p in store.inventories(["web1"])["web1"].packages] == ["a", "b"]
        assert store.plan("p-123").plan.hosts == {"web1": "t-1"}
        assert [h.outcome for h in store.rollout("r-1")[1]] == ["applied"]
        assert store.next_sequence("web1", at=1.0) == 8
        before = len(store.history())
        store.record("note", "x", at=9.0, who="me")
        assert len(store.history()) == before + 1
    with Store.open(url) as again:
        assert len(again.history()) == before + 1


def test_whom_a_rollout_reached_is_a_member(url: str, tmp_path: Path) -> None:
    """A fleet that was looked after before there were members goes on without a word."""
    (tmp_path / "state").mkdir(exist_ok=True)
    dumps.restore(url, 1)
    with Store.open(url) as store:
        (member,) = store.members().values()
    assert (member.host, member.state, member.class_) == ("web1", "member", "all")
    assert (member.key, member.machine) == ("", "")


def test_the_newest_dump_is_the_newest_schema(
    url: str, tmp_path: Path, fresh_schema: dict[str, Any]
) -> None:
    """A table that was changed without a step of its own is found here."""
    (tmp_path / "state").mkdir(exist_ok=True)
    dumps.restore(url, SCHEMA_VERSION)
    assert schema_of(url) == fresh_schema


def test_a_step_that_fails_leaves_the_database_as_it_was(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are one transaction, tables that they made included."""

    def half(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (a integer)")
        connection.exec_driver_sql("SELECT no_such_thing")

    (tmp_path / "state").mkdir(exist_ok=True)
    dumps.restore(url, 1)
    before = schema_of(url)
    monkeypatch.setattr("cpacman.store.migrations.STEPS", (half,))
    with pytest.raises(CpacmanError, match="no_such_thing"):
        Store.open(url)
    assert schema_of(url) == before
    monkeypatch.undo()
    Store.open(url).close()


def _open(url: str) -> int:
    with Store.open(url) as store:
        return len(store.history())


def test_several_open_a_new_database_at_once(url: str) -> None:
    """One makes the schema, the others find it made."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_open, [url] * 6) == [0] * 6
    with Store.open(url) as store:
        fill(store)
