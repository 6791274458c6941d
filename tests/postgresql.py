"""A throw-away PostgreSQL server: Debian's, on a socket of its own, gone with its directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

USER = "postgres"
PATIENTLY = ("-w", "-t", "600")


class Server:
    """A running server that nobody reaches but through its socket.

    Args:
        root: its directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made = 0

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}@/{name}?host={self.root}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self._made += 1
        name = f"t{self._made}"
        engine = sa.create_engine(
            self.url("postgres").replace("postgresql:", "postgresql+psycopg:"),
            isolation_level="AUTOCOMMIT",
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self.url(name)

    def stop(self, how: str = "immediate") -> None:
        """Stop it; `immediate` is as if the power had gone."""
        _run(self.root, "pg_ctl", "-D", f"{self.root}/data", "-m", how, *PATIENTLY, "stop")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self.root} -c listen_addresses= -c max_connections=40"
        where = ("-D", f"{self.root}/data", "-l", f"{self.root}/log", "-o", options)
        _run(self.root, "pg_ctl", *where, *PATIENTLY, "start")


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server of its own and throw it away afterwards."""
    # Below /tmp itself: the path of a socket may be no longer than 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="cpacman-pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            shutil.chown(root, USER, USER)
        _run(root, "initdb", "-D", f"{root}/data", "-A", "trust", "-U", USER, "-E", "UTF8",
             "--locale=C", "--no-sync")  # fmt: skip
        server = Server(root)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root)


def _run(root: Path, program: str, *arguments: str) -> None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    assert found, "PostgreSQL is not installed, run: tools/system-packages"
    # The server refuses to run as root, and keeps what it inherits open: nothing of ours.
    as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    with (root.parent / f"{root.name}.out").open("w+") as out:
        Path(out.name).unlink()
        done = subprocess.run(
            [*as_user, str(found[-1]), *arguments],
            cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
        )  # fmt: skip
        out.seek(0)
        assert done.returncode == 0, out.read()
