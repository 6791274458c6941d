"""What the console shows while it works, and that an interrupted plan goes on where it was."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpacman.cli import main
from cpacman.planner import plan
from cpacman.report.terminal import Terminal
from tests.unit.cli.test_cli import make_inventory, make_repository

HOSTS = 12


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Screen(io.StringIO):
    """A stream that is a terminal, or is none."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it is one."""
        return self._terminal


def test_the_line_on_a_terminal() -> None:
    """A new stage is shown at once, the same one now and then, without anything that steers."""
    now = [0.0]
    screen = Screen(terminal=True)
    shown = Terminal(screen, clock=lambda: now[0])
    for moment, done in ((0.0, 0), (0.05, 1), (0.2, 2)):
        now[0] = moment
        shown.progress("planning", done, 9, "hosts")
    shown.progress("reading\x1b[2J", 1, 1)
    assert screen.getvalue().split("\r\x1b[K")[1:] == [
        "planning 0 of 9 hosts", "planning 2 of 9 hosts", "reading?[2J 1 of 1",
    ]  # fmt: skip
    shown.clear()
    shown.clear()
    shown.line("done")
    assert screen.getvalue().endswith("1 of 1\r\x1b[Kdone\n")


def test_nothing_where_there_is_no_terminal() -> None:
    """In a pipe, a log or cron's mail errors stay the only lines."""
    screen = Screen(terminal=False)
    shown = Terminal(screen)
    shown.progress("planning", 1, 2, "hosts")
    shown.line("x")
    shown.clear()
    assert screen.getvalue() == ""


@pytest.fixture
def fleet(tmp_path: Path) -> list[str]:
    """The console's words for a plan of hosts that all differ."""
    repo = make_repository(tmp_path / "base", *(f"app{n}-2-1.noarch" for n in range(HOSTS)))
    (tmp_path / "hosts").mkdir()
    for n in range(HOSTS):
        make_inventory(tmp_path / "hosts" / f"h{n:02}.json", f"app{n}-1-1.noarch")
    return ["plan", "--repo", f"base={repo}", "--inventory", str(tmp_path / "hosts")]


def test_progress_on_a_real_terminal(fleet: list[str]) -> None:
    """Standard error that is a terminal gets the line, standard output only the plan."""
    ours, theirs = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-m", "cpacman", *fleet], stdout=subprocess.PIPE, stderr=theirs, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "reading base: 0 of 1 repositories" in shown
    assert "planning" in shown and f"of {HOSTS} hosts" in shown
    assert shown.endswith("\r\x1b[K")
    assert run.stdout.startswith(b"plan p-") and b"\x1b" not in run.stdout


def test_an_interrupted_plan_goes_on(
    fleet: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with 1 and one word; the next plan solves only the rest."""
    for place in ("cpacman.planner.fleet.FEW", "cpacman.planner.plan.FEW"):
        monkeypatch.setattr(place, 0)
    monkeypatch.setattr("cpacman.planner.fleet.LONGEST", 2)
    monkeypatch.setattr("cpacman.planner.fleet.cpus", lambda: 1)
    solved = []
    real = plan._solve

    def solve(universe: Any, inventory: Any, *rest: Any) -> Any:
        solved.append(inventory.host)
        return real(universe, inventory, *rest)

    def interrupt(_self: Terminal, what: str, done: int, _total: int, _unit: str = "") -> None:
        if what == "planning" and done >= HOSTS // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(plan, "_solve", solve)
    with monkeypatch.context() as patched:
        patched.setattr(Terminal, "progress", interrupt)
        assert main(fleet) == 1
    assert capfd.readouterr() == ("", "interrupted\n")
    before = len(solved)
    assert HOSTS // 2 <= before < HOSTS
    assert main(fleet) == 0
    assert len(solved) == HOSTS
    first = capfd.readouterr().out
    assert main(fleet) == 0 and len(solved) == HOSTS
    assert capfd.readouterr().out == first
