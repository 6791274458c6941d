"""Full disks, killed writers, damage: no committed decision is lost, and what is wrong is told."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpacman.errors import CpacmanError
from cpacman.store import Store
from cpacman.store.connect import engine_of
from tests.postgresql import Server, running_server
from tests.unit.store.samples import fill

WRITER = """
import sys
from cpacman.store import Store
with Store.open(sys.argv[1]) as store:
    for number in range(int(sys.argv[2]), 10**6):
        detail = {"text": "x" * int(sys.argv[3])}
        store.point("c", "el9", f"s-{number}", expected=f"s-{number - 1}" if number else None,
                    action="promote", at=number, who="me")
        print(number, flush=True)
"""

FULL = """
import sys
from pathlib import Path
from cpacman.errors import CpacmanError
from cpacman.store import Store
folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(300_000))
committed = 0
with Store.open(f"sqlite:///{folder}/cpacman.db") as store:
    try:
        while True:
            store.record("note", f"{committed}", at=1.0, who="me", detail={"text": "x" * 5000})
            committed += 1
    except CpacmanError as error:
        (problem,) = error.problems
        print(problem)
    assert 0 < committed < 1000, committed
    assert len(store.history(limit=10**6)) == committed, "reading goes on"
    try:
        store.record("note", "again", at=1.0, who="me", detail={"text": "x" * 5000})
        raise SystemExit("there was room")
    except CpacmanError:
        pass
with Store.open(f"sqlite:///{folder}/cpacman.db") as store:
    assert len(store.history(limit=10**6)) == committed
ballast.unlink()
with Store.open(f"sqlite:///{folder}/cpacman.db") as store:
    store.record("note", "after", at=1.0, who="me")
    subjects = [entry["subject"] for entry in store.history(limit=10**6)]
    assert subjects == [*map(str, range(committed)), "after"], subjects
"""


NEW = """
import sys
from pathlib import Path
from cpacman.errors import CpacmanError
from cpacman.store import Store
folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(1_000_000))
try:
    Store.open(f"sqlite:///{folder}/cpacman.db")
    raise SystemExit("there was room")
except CpacmanError as error:
    (problem,) = error.problems
    print(problem)
ballast.unlink()
Store.open(f"sqlite:///{folder}/cpacman.db").close()
"""


def _on_small_disk(folder: Path, size: str, code: str) -> str:
    """Run a program on a file system of its own; return what it said."""
    mount = f"mount -t tmpfs -o size={size} none {folder}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec {sys.executable} -c "$CODE" {folder}'],
        env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """On a file system of 1 MB: the step that does not fit is refused, all before it stay."""
    said = _on_small_disk(tmp_path, "1m", FULL)
    assert "full" in said and "make room" in said


def test_a_full_disk_when_the_database_is_made(tmp_path: Path) -> None:
    """Without room for the schema it is refused with a way out, and is not half there."""
    assert "make room" in _on_small_disk(tmp_path, "1m", NEW)


def test_killed_writers_lose_nothing(url: str) -> None:
    """kill -9 at any moment: what was said to be committed is there, in one unbroken chain."""
    seed = int(os.environ.get("CPACMAN_SEED", "7"))
    chance = random.Random(seed)
    said = -1
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(said + 1), "100"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as writer:  # fmt: skip
            line = writer.stdout.readline()
            assert line, writer.stderr.read()
            time.sleep(chance.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            last = (line + writer.stdout.read()).rpartition("\n")[0].splitlines()[-1]
        with Store.open(url) as store:
            moves = [e["detail"] for e in store.history(limit=10**6)]
            numbers = [int(m["to"][2:]) for m in moves]
            assert numbers == list(range(len(numbers))), f"seed {seed}"
            assert int(last) <= numbers[-1] <= int(last) + 1, f"seed {seed}"
            assert store.pointers()[("c", "el9")]["snapshot"] == moves[-1]["to"]
            said = numbers[-1]


def test_a_server_without_power_loses_nothing() -> None:
    """PostgreSQL stopped at once, in mid-work: all that was committed is there afterwards."""
    with running_server() as server:
        url = server.new_database()
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, "0", "100"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as writer:  # fmt: skip
            assert writer.stdout.readline() == "0\n"
            server.stop()
            said = writer.stdout.read().splitlines()
            error = writer.stderr.read()
        assert "CpacmanError" in error and "SELECT" not in error.splitlines()[-1]
        with pytest.raises(CpacmanError, match="is the server up"):
            Store.open(url)
        server.start()
        with Store.open(url) as store:
            assert len(store.history(limit=10**6)) >= len(said) + 1


def test_an_operator_is_told_of_a_lost_server(server: Server) -> None:
    """An open store whose server went away says so, without a password."""
    url = server.new_database().replace("postgres@", "postgres:secret@")
    with Store.open(url) as store:
        engine = engine_of(url)
        with engine.connect() as connection, pytest.raises(Exception, match="terminating"):
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        engine.dispose()
        store.record("note", "x", at=1.0, who="me")
    with pytest.raises(CpacmanError) as caught:
        Store.open(url.replace("/t", "/no"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: str) -> None:
    """A damaged SQLite file is named, with a way out; it is never an empty answer."""
    path = tmp_path / "cpacman.db"
    with Store.open(f"sqlite:///{path}") as store:
        fill(store)
        for number in range(400):
            store.record("note", f"{number}", at=1.0, who="me", detail={"text": "x" * 500})
    data = bytearray(path.read_bytes())
    if damage == "head":
        data[:16] = bytes(16)
    elif damage == "middle":
        for start in range(4096, len(data), 4096):
            data[start : start + 100] = b"\xff" * 100
    else:
        data = bytearray(b"something else\n" * 1000)
    path.write_bytes(bytes(data))
    with pytest.raises(CpacmanError) as caught, Store.open(f"sqlite:///{path}") as store:
        store.history(limit=10**6)
    (problem,) = caught.value.problems
    assert str(path) in problem.path and ".recover" in problem.mend


def test_a_database_that_may_not_be_written(tmp_path: Path) -> None:
    """Where the state directory can't be made, it is an error with a way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CpacmanError, match="make its directory"):
        Store.open(f"sqlite:///{tmp_path}/file/state/cpacman.db")


def test_database_is_private(tmp_path: Path) -> None:
    """Nobody but the owner reads the database or its folder."""
    Store.open(f"sqlite:///{tmp_path}/state/cpacman.db").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/cpacman.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:secret@h/db", "postgresql+nope://h/db"])
def test_a_url_of_no_use(url: str) -> None:
    """What is no URL, or of another kind of database, is refused without its password."""
    with pytest.raises(CpacmanError) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)
