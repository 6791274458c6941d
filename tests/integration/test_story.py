"""Ten hosts in three classes and three levels: what an operator lives through with a release.

One lab, whose master runs the engine. What takes longer runs with `CPACMAN_CHAOS=1` (`make chaos`).
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, rpms
from tests.integration.fleet import TIMES, Answer, Fleet
from tests.integration.test_engine import MASTER, state_of, wait

CLASSES = {"dev": "development", "test": "testing", "prod": "production"}
RINGS = {"dev1": 0, "dev2": 1, "dev3": 2, "test1": 0, "test2": 1, "test3": 2,
         "prod1": 0, "prod2": 1, "prod3": 2, "prod4": 2}  # fmt: skip
MEMBERS = {
    name: {"class": CLASSES[name.rstrip("0123456789")], "meta": {"ring": ring}}
    for name, ring in RINGS.items()
}
OLD, NEW = "webapp-1.0-1.noarch", "webapp-1.1-1.noarch"
NEEDS_OLD = {"salt": "cmd.retcode", "args": ["rpm -q webapp-1.0"], "expect": 0}
"""The service that lives on webapp: the new version breaks it."""
IS_INSTALLED = {"salt": "cmd.retcode", "args": ["rpm -q webapp"], "expect": 0}
WHOLE = os.environ.get("CPACMAN_CHAOS") == "1"
GATES: list[tuple[dict[str, Any], str, str]] = [
    ({"salt": "test.sleep", "args": [60], "timeout": "4s"}, "paused", "no answer in 4 s"),
    ({"salt": "no.such_function"}, "paused", "is not available"),
    ({"salt": "test.exception"}, "paused", "the check failed"),
    ({"salt": "cmd.run", "args": ["true"]}, "paused", "no answer"),
    ({"salt": "cmd.run", "args": ["echo True"]}, "halted", "answered 'True', not True"),
    ({"salt": "cmd.run_all", "args": ["exit 0"]}, "halted", "answered {"),
]
"""A check that wants True and hangs, errs, says nothing or lies -> where that leaves a rollout."""


@pytest.fixture(scope="module")
def ten() -> Iterator[Lab]:
    """A lab of ten hosts."""
    with Lab(sorted(RINGS), master=MASTER) as started:
        yield started


@pytest.fixture
def fleet(ten: Lab) -> Iterator[Fleet]:
    """Three classes, inventories and a first snapshot."""
    fleet = Fleet(ten)
    # Mirrors keep what they had: what a host has can be brought back.
    rpms.repository(fleet.mirror, (*rpms.OLD, *rpms.NEW))
    fleet.members(MEMBERS)
    configure(fleet, NEEDS_OLD)
    yield fleet.ready()
    ten.reset()


def configure(fleet: Fleet, check: dict[str, Any], soak: str = "0s", **more: Any) -> None:
    """Three levels; the canary has a gate of one check, and may soak."""
    fleet.configure(
        classes=list(CLASSES.values()),
        levels=[
            {"canary": {"match": "ring:0", "gate": "web", "soak": soak}},
            {"early": {"match": "ring:1"}},
            "rest",
        ],
        gates={"web": [{"service": {"timeout": "60s", **check}}]},
        **more,
    )


def webapps(fleet: Fleet, *hosts: str) -> list[str]:
    """The version of webapp on each host."""
    found = (fleet.lab.host(host).packages() for host in hosts)
    return [next(one for one in names if one.startswith("webapp-")) for names in found]


def deploy(fleet: Fleet, class_: str = "development", **more: Any) -> Answer:
    """Plan a class and deploy that."""
    plan = fleet.plan(**{"class": class_})["plan_id"]
    return fleet.run("deploy", plan=plan, **more)


def test_a_release_that_breaks_a_service(fleet: Fleet) -> None:
    """It stops at the canary, is taken back, stays out by one command; the rest of it goes on."""
    before = {host: fleet.lab.host(host).packages() for host in ("dev1", "dev2", "dev3")}
    broken = deploy(fleet)
    body = broken["rollout"]
    assert (broken.code, body["state"]) == (4, "halted"), broken.text
    assert "level canary: gate web fail after" in body["why"]
    assert broken.outcomes() == {
        "dev1": ("applied", None), "dev2": ("skipped", "halted"), "dev3": ("skipped", "halted"),
    }  # fmt: skip
    assert webapps(fleet, "dev1") == [NEW]
    for host in ("dev2", "dev3"):
        assert fleet.lab.host(host).packages() == before[host], "nothing beyond the canary"

    back = fleet.run("rollback", rollout=body["id"], now=True, reason="the service is down")
    assert back["rollout"]["hosts"]["dev1"]["outcome"] == "applied", back.text
    assert fleet.lab.host("dev1").packages() == before["dev1"]

    assert fleet.run("block", NEW, reason="breaks the service").code == 0
    plan = fleet.plan()
    actions = [a["nevra"] for one in plan["transactions"].values() for a in one["actions"]]
    assert NEW not in actions and actions, "the rest of the release stays"
    good = fleet.run("deploy", plan=plan["plan_id"])
    assert (good.code, good["rollout"]["state"]) == (0, "done"), good.text
    assert webapps(fleet, "dev1", "dev2", "dev3") == [OLD] * 3
    assert all("newtool-2.0-1.noarch" in fleet.lab.host(h).packages() for h in before)
    assert webapps(fleet, "test1", "prod1") == [OLD] * 2, "no other class heard of it"


@pytest.mark.timeout(900)
def test_a_gate_that_says_nothing_good(fleet: Fleet) -> None:
    """It hangs, errs, is silent or lies: nobody beyond the canary, however often one goes on."""
    number = ""
    for check, state, why in GATES if WHOLE else (GATES[0], GATES[4]):
        configure(fleet, {**check, "expect": True, "when": ["after"]})
        answer = fleet.run("resume", number) if number else deploy(fleet)
        body = answer["rollout"]
        number, verdict = body["id"], "fail" if state == "halted" else "inconclusive"
        assert (answer.code, body["state"]) == (4 if state == "halted" else 0, state), answer.text
        assert f"level canary: gate web {verdict} after" in body["why"]
        (finding,) = body["gates"]["canary"]["findings"]
        assert (finding["host"], finding["verdict"]) == ("dev1", verdict)
        assert why in finding["detail"], check
        assert webapps(fleet, "dev1", "dev2", "dev3") == [NEW, OLD, OLD]
    configure(fleet, IS_INSTALLED)
    done = fleet.run("resume", number)
    assert (done.code, done["rollout"]["state"]) == (0, "done"), done.text
    assert webapps(fleet, "dev1", "dev2", "dev3") == [NEW] * 3


@pytest.mark.timeout(900)
@pytest.mark.skipif(not WHOLE, reason="CPACMAN_CHAOS=1 runs it")
def test_a_release_through_mishaps(fleet: Fleet) -> None:
    """A second operator, a master that dies, a host that is away, a freeze in the middle."""
    configure(fleet, IS_INSTALLED, soak="8s")
    for class_ in ("testing", "production"):
        assert fleet.run("promote", to=class_, reason="tested").code == 0
    for host in ("prod2", "prod3"):
        fleet.lab.host(host).write("/etc/fickle.sleep", "6")
    number = deploy(fleet, "production", background=True)["rollout"]["id"]

    wait(lambda: level(fleet, number, "canary") == "soaking")
    second = fleet.run("deploy", plan=state_of(fleet, number)["plan"])
    assert second.code != 0 and "is being changed by rollout" in second.problems()
    kill(fleet)
    fleet.lab.host("prod4").link_down()

    wait(lambda: state_of(fleet, number)["hosts"]["prod2"]["state"] == "applying")
    thaw = freeze(fleet, IS_INSTALLED, 30)
    wait(lambda: level(fleet, number, "early") == "passed")
    time.sleep(3)
    frozen = state_of(fleet, number)
    assert time.time() < thaw
    assert frozen["hosts"]["prod2"]["outcome"] == "applied", "who ran was let finish"
    assert frozen["hosts"]["prod3"]["state"] == "waiting" and webapps(fleet, "prod3") == [OLD]

    done = wait(lambda: (s := state_of(fleet, number))["state"] == "done" and s)
    assert time.time() >= thaw
    outcomes = {host: (one["outcome"], one["code"]) for host, one in done["hosts"].items()}
    assert outcomes.pop("prod4") == ("skipped", "unreachable")
    assert set(outcomes.values()) == {("applied", None)}
    assert webapps(fleet, "prod1", "prod2", "prod3") == [NEW] * 3

    fleet.lab.host("prod4").link_up()
    fleet.lab.wait_for_answers()
    again = fleet.run("retry", number)
    assert (again["rollout"]["state"], webapps(fleet, "prod4")) == ("done", [NEW]), again.text


@pytest.mark.timeout(900)
@pytest.mark.skipif(not WHOLE, reason="CPACMAN_CHAOS=1 runs it")
def test_a_host_that_forges_its_reports(fleet: Fleet) -> None:
    """It installs nothing and says that it did, with a signature that is not its own: not heard."""
    configure(fleet, IS_INSTALLED, transport={**TIMES, "apply": "8s"})
    host = fleet.lab.host("dev1")
    host.write(DOOR, host.read(DOOR) + FORGED)
    fleet.lab.salt("dev1", "saltutil.refresh_modules")
    wait(lambda: "forged" in str(fleet.lab.salt("dev1", "cpacman.apply", "x", "y", "z").data))
    body = deploy(fleet)["rollout"]
    assert body["state"] == "halted" and "failed 1 > 0" in body["why"]
    assert (body["hosts"]["dev1"]["outcome"], webapps(fleet, "dev1")) == ("silent", [OLD])
    assert webapps(fleet, "dev2", "dev3") == [OLD, OLD]


DOOR = "/var/cache/salt/minion/extmods/modules/cpacman.py"
FORGED = """

def apply(session, order, signature):
    return {"started": True, "by": "forged"}


def result(session, nonce):
    agent = _agent()
    path, manifest = agent.load_session(_settings(), session)
    report = {key: manifest[key] for key in ("plan", "session", "host")}
    report.update(nonce=nonce, state="done", outcome="applied", packages=manifest["after"], ended=1)
    return {"report": agent.canonical(report), "signature": "Zm9yZ2Vk" * 40}
"""
"""What somebody who took a host over, but not its key, would add to its door."""


def kill(fleet: Fleet) -> None:
    """Kill -9 the master and all its processes, the engine's among them, and start it again."""
    fleet.lab.kill_master()
    fleet.lab.start_master()


def level(fleet: Fleet, number: str, name: str) -> str:
    """The state of a level."""
    return str(state_of(fleet, number)["gates"][name]["state"])


def freeze(fleet: Fleet, check: dict[str, Any], seconds: float) -> float:
    """Let nothing start for a while, from now on; return until when."""
    now = datetime.datetime.now(datetime.timezone.utc)
    until = now + datetime.timedelta(seconds=seconds)
    frozen = {"from": now.isoformat(), "until": until.isoformat(), "reason": "closing the books"}
    configure(fleet, check, soak="8s", freeze=[frozen])
    return until.timestamp()
