"""Rollouts in the background on a real master: soaks, gates, a killed master, forged events."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Lab
from tests.integration.fleet import Fleet

CHECKOUT = Path(__file__).resolve().parents[2]
REACTOR = CHECKOUT / "reactor.example"
MASTER = {
    "engines": [{"cpacman": {"interval": 1}}],
    "reactor": [
        {"cpacman/mirror/changed": [str(REACTOR / "mirror.sls")]},
        {"cpacman/rollout/*/halted": [str(REACTOR / "halted.sls")]},
        {"salt/minion/*/start": [str(REACTOR / "host-back.sls")]},
    ],
}


@pytest.fixture(scope="module")
def engine_lab() -> Iterator[Lab]:
    """A lab whose master runs the engine and the example reactors."""
    with Lab(["web1", "web2"], master=MASTER) as started:
        yield started


@pytest.fixture
def fleet(engine_lab: Lab) -> Iterator[Fleet]:
    """A configured fleet with inventories and a first snapshot."""
    yield Fleet(engine_lab).ready()
    engine_lab.reset()


def wait(check: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.5)
    return found


def state_of(fleet: Fleet, number: str) -> dict[str, Any]:
    """The rollout as it stands."""
    return dict(fleet.run("rollout", number)["rollout"])


def test_background_rollout_with_gate_and_soak_survives_the_master(fleet: Fleet) -> None:
    """The canary passes its gate and soaks; the master dies meanwhile; the rest follows."""
    fleet.configure(
        levels=[
            {"canary": {"match": "ring:0", "gate": "web", "soak": "15s"}},
            "rest",
        ],
        gates={
            "web": [
                {"ping": {"salt": "test.ping", "when": ["before", "after", "soak"], "every": "2s"}},
                {"installed": {"salt": "cmd.retcode", "args": ["rpm -q webapp"], "expect": 0}},
                {"master": {"master": "test -n {host}"}},
            ]
        },
    )
    plan = fleet.plan()
    begun = fleet.run("deploy", plan=plan["plan_id"], background=True)
    assert (begun.code, begun["rollout"]["state"]) == (0, "running")
    number = begun["rollout"]["id"]
    wait(lambda: state_of(fleet, number)["gates"]["canary"]["state"] == "soaking")
    fleet.lab.kill_master()
    fleet.lab.start_master()
    done = wait(lambda: (s := state_of(fleet, number))["state"] == "done" and s)
    assert {h: one["outcome"] for h, one in done["hosts"].items()} == {
        "web1": "applied", "web2": "applied",
    }  # fmt: skip
    assert {f["verdict"] for f in done["gates"]["canary"]["findings"]} == {"pass"}
    assert "webapp-1.1-1.noarch" in fleet.lab.host("web2").packages()


def test_failing_gate_halts_and_calls_somebody(fleet: Fleet) -> None:
    """Nobody beyond the canary is touched, and the example reactor passes the word on."""
    fleet.configure(
        levels=[{"canary": {"match": "ring:0", "gate": "web"}}, "rest"],
        gates={"web": [{"up": {"salt": "cmd.retcode", "args": ["false"], "expect": 0}}]},
    )
    number = fleet.run("deploy", plan=fleet.plan()["plan_id"], background=True)["rollout"]["id"]
    halted = wait(lambda: (s := state_of(fleet, number))["state"] == "halted" and s)
    assert "gate web fail" in halted["why"]
    assert halted["hosts"]["web2"]["outcome"] == "skipped"
    assert "webapp-1.0-1.noarch" in fleet.lab.host("web2").packages()
    entries = fleet.run("history")["history"]["entries"]
    assert any(e["action"] == "gate" and e["subject"] == number for e in entries)


def test_chain_through_two_classes_survives_the_master(fleet: Fleet) -> None:
    """The engine dies while the evidence soaks; the next class follows, and a console watches."""
    fleet.members({"web1": {"class": "development"}, "web2": {"class": "production"}})
    fleet.configure(
        classes=[
            {"development": {}},
            {"production": {"evidence": {"min_hosts": 1, "soak": "30s"}}},
        ],
        levels=["all"],
        membership={"hosts_d": str(fleet.lab.path("hosts.d")), "on_new": "accept"},
    )
    begun = fleet.run("deploy", classes="all", levels="all", now=True, background=True)
    number = begun["chain"]["id"]
    stands = wait(lambda: (c := fleet.run("rollout", number)["chain"])["state"] == "waiting" and c)
    assert "soak" in stands["why"] and stands["until"]
    assert "webapp-1.0-1.noarch" in fleet.lab.host("web2").packages()
    fleet.lab.kill_master()
    fleet.lab.start_master()
    database = f"sqlite:///{fleet.lab.path('state', 'cpacman.db')}"
    console = [sys.executable, "-m", "cpacman", "watch", number, "--database", database]
    watched = subprocess.run(console, capture_output=True, text=True, timeout=180, check=False)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert "DONE  development -> production" in watched.stdout
    assert "webapp-1.1-1.noarch" in fleet.lab.host("web2").packages()


def test_event_wakes_and_decides_nothing(fleet: Fleet) -> None:
    """A host's forged event leads to a look at the mirrors, and to no rollout or promotion."""
    fleet.configure(engine={"settle": "1s"})
    before = fleet.run("status")["status"]["board"]
    forged = {"plan": "p-1", "class": "production", "state": "done"}
    tags = ("cpacman/mirror/changed", "cpacman/rollout/r-1/done", "cpacman/promote/production")
    for tag in (*tags, "salt/minion/web9/start"):
        sent = fleet.lab.salt("web1", "event.send", tag, json.dumps(forged))
        assert sent.returncode == 0
    wait(lambda: "snapshot" in jobs(fleet) and "late" in jobs(fleet, "wanted > 0"))
    assert fleet.run("rollouts")["rollouts"]["rollouts"] == []
    board = fleet.run("status")["status"]["board"]
    snapshots = {c: {k: v["snapshot"] for k, v in row.items()} for c, row in board.items()}
    assert snapshots == {c: {k: v["snapshot"] for k, v in row.items()} for c, row in before.items()}


def jobs(fleet: Fleet, which: str = "result = 'ok'") -> list[str]:
    """The jobs that the engine ran to their end, or others."""
    import sqlite3

    path = fleet.lab.path("state", "cpacman.db")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return [row[0] for row in database.execute(f"SELECT name FROM jobs WHERE {which}")]
