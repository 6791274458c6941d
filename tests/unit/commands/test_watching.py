"""Watching rollouts from the database: lines, a block on a terminal, a document, exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpacman.cli import main
from cpacman.commands import steering
from cpacman.commands.access import ENGINE
from cpacman.commands.fleet import Selection
from cpacman.commands.watching import Watch, watch
from cpacman.report.watching import block, one_line
from cpacman.rollout.view import view_of
from tests.unit.commands.test_controlling import Stage
from tests.unit.commands.test_ticking import run_due
from tests.unit.commands.world import World


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts, two levels; the canary soaks for two hours."""
    made = Stage(world)
    made.level("canary", soak="2h", gate="web")
    return made


def url(stage: Stage) -> str:
    """The database's."""
    return f"sqlite:///{stage.world.base}/state/cpacman.db"


def looking(stage: Stage, number: str | None = None) -> Watch:
    """A watch by the world's clock."""
    return Watch(stage.world.store, number, lambda: stage.world.now)


def going_on(stage: Stage) -> Any:
    """Time that passes while one watches, in which the engine does its work."""

    def sleep(seconds: float) -> None:
        stage.world.later(1200)
        run_due(stage)

    return sleep


def test_how_far_it_is(stage: Stage) -> None:
    """Levels with their hosts by outcome, gate and soak; where it stands; what it waits for."""
    body = stage.deploy(background=True)
    run_due(stage)
    (view,) = looking(stage, body["id"]).look()["rollouts"]
    assert (view["at"], view["done"], view["total"]) == ("canary", 1, 3)
    assert view["levels"][0]["counts"] == {"applied": 1}
    assert view["levels"][1]["counts"] == {"waiting": 2}
    lines = block(view)
    assert "[1/2 canary] 1/3  33 %" in lines[0] and "WAITING (level canary: soaking)" in lines[0]
    assert (
        lines[1].startswith("canary  1:  applied 1") and "gate web passed, soaks until" in lines[1]
    )
    assert lines[2].split() == ["rest", "2:", "waiting", "2", "waiting", "for", "canary"]


def test_bytes_rate_and_time_left(stage: Stage) -> None:
    """Of the push as it was noted a moment ago, and at the pace of the level's hosts so far."""
    store, number = stage.world.store, stage.deploy()["id"]
    row = {**store.rollout_row(number), "state": "running", "ended": None}
    note = {"done": 30_000_000, "total": 90_000_000, "since": 100.0, "at": 110.0}
    row["progress"] = json.dumps(note)
    told = one_line(view_of(store, row, 111.0))
    assert "30.0 of 90.0 MB  3.0 MB/s, 20 s left" in told
    assert "MB" not in one_line(view_of(store, row, 200.0)), "a note of the past is none"
    assert store.rollout_row(number)["progress"] is not None, "a push leaves its note"


def test_lines_where_there_is_no_terminal(stage: Stage) -> None:
    """One whenever something changed; at the end what failed first, and what to type."""
    stage.transport.hosts["web3"].report = {"outcome": "refused", "code": "space", "detail": "full"}
    body = stage.deploy(background=True)
    out = io.StringIO()
    code = watch(looking(stage), out, interval=1, sleep=going_on(stage))
    lines = out.getvalue().splitlines()
    assert code == 4 and "\x1b" not in out.getvalue()
    assert lines[0].startswith(body["id"][:14]) and "0/3  0 %" in lines[0]
    assert "soaking" in lines[1] and len([one for one in lines if "soaking" in one]) == 1
    end = next(number for number, one in enumerate(lines) if " HALTED " in one)
    assert lines[end + 1] == "REFUSED  web3  full: NOTHING CHANGED"
    assert "cpacman.retry" in lines[-1]


def test_a_block_on_a_terminal(stage: Stage) -> None:
    """Drawn over itself, and gone before the summary."""
    stage.deploy(background=True)
    out = Screen()
    assert watch(looking(stage), out, interval=1, sleep=going_on(stage)) == 0
    assert out.getvalue().count("\x1b[3A") > 3 and "\x1b[3A\x1b[J" in out.getvalue()
    assert out.getvalue().rpartition("\x1b[J")[2].splitlines()[0].endswith("by alice")


def test_a_chain_and_its_rollouts(stage: Stage) -> None:
    """The chain's line, and the rollout of the class at which it stands, until it is over."""
    stage.world.host("test1", "testing", "app-1-1.noarch", "lib-1-1.noarch")
    stage.transport.hosts["test1"] = type(stage.transport.hosts["web1"])()
    answer = steering.deploy(
        stage.context(), Selection(), classes=("development", "testing"), now=True, background=True
    )
    out, found = io.StringIO(), looking(stage, answer["chain"]["id"])
    assert watch(found, out, interval=1, sleep=going_on(stage)) == 0
    assert "DONE  development -> testing" in out.getvalue()
    rows = stage.world.store.rollouts()
    assert [row["state"] for row in rows] == ["done", "done"] and rows[0]["who"] != ENGINE
    steering.deploy(stage.context(), Selection(), classes=("testing",), now=True, background=True)
    run_due(stage)
    assert len(looking(stage).look()["rollouts"]) <= 1, "one of a chain is not told twice"


def test_the_console(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By a configuration or a URL, without Salt; json is one document; errors are lines."""
    body = stage.deploy(background=True)
    config = tmp_path / "cpacman.yaml"
    config.write_text(yaml.safe_dump({"cpacman": stage.world.section}))
    assert main(["watch", "--config", str(config), "--format", "json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in seen["rollouts"]] == [body["id"]] and seen["chains"] == []
    run_due(stage)
    steering.halt(stage.context(), body["id"])
    assert main(["watch", body["id"][:8], "--database", url(stage)]) == 4
    assert "HALTED" in capsys.readouterr().out
    assert main(["watch", "--database", url(stage)]) == 0
    assert capsys.readouterr().out == "no rollout is open\n"
    assert main(["watch", "r-99999", "--database", url(stage)]) == 2
    assert main(["watch", "--database", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "is not there" in capsys.readouterr().err and not (tmp_path / "none.db").exists()
    assert main(["watch", "--database", url(stage), "--interval", "0"]) == 2


def test_a_database_of_another_version_is_left_alone(stage: Stage) -> None:
    """Who looks brings no schema forward."""
    import sqlite3

    path = stage.world.base / "state" / "cpacman.db"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE schema_version SET version = 3")
    assert main(["watch", "--database", url(stage)]) == 1
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT version FROM schema_version").fetchall() == [(3,)]
