"""Restarts and reboots as people meet them: foretold, halted, resumed, tried again, recovered."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from cpacman.commands import collecting, controlling, deploying, resuming
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.errors import SafetyError
from cpacman.model import Request
from cpacman.report import screens
from tests.unit.commands.test_controlling import Stage, look, outcomes
from tests.unit.commands.world import World

KERNEL = {"reboot": ["kernel-core-6-1.x86_64"]}


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts in two levels that all want a reboot after it."""
    stage = Stage(world)
    for host in stage.transport.hosts.values():
        host.findings = KERNEL
    return stage


def policy(stage: Stage, **keys: Any) -> None:
    """Set the fleet's restarts."""
    stage.world.section["restarts"] = keys


def boots(stage: Stage) -> dict[str, int]:
    """Host -> in which boot it is."""
    return {name: host.boots for name, host in sorted(stage.transport.hosts.items())}


def test_canaries_reboot_before_the_next_level(stage: Stage) -> None:
    """The level's policy; the rest keeps running what it runs, and is named."""
    stage.level("canary", restarts={"reboot": "needed"})
    body = stage.deploy()
    assert (body["state"], set(outcomes(body).values())) == ("done", {("applied", None)})
    assert boots(stage) == {"web1": 2, "web2": 1, "web3": 1}
    calls = stage.transport.calls
    assert calls.index(("reboot", "web1")) < calls.index(("apply", "web2"))
    text = screens.render({"rollout": body})
    assert "REBOOT for kernel-core-6-1.x86_64: web2 web3" in text


def test_a_canary_that_stays_away_halts_and_recovers(stage: Stage) -> None:
    """It counts as a failure; when it is back `recover` says how it is."""
    policy(stage, reboot="needed", within="60s")
    host = stage.transport.hosts["web1"]
    host.away = -1
    body = stage.deploy()
    assert body["state"] == "halted" and outcomes(body)["web1"] == ("failed", "reboot-timeout")
    assert stage.started == {"web1": 1, "web2": 0, "web3": 0}
    host.asked_away = 0
    found = collecting.recover(stage.context(), Selection(), rollout=body["id"])["recover"]["hosts"]
    assert (found["web1"]["before"], found["web1"]["outcome"]) == ("failed", "applied")
    assert host.told_to_reboot == 1
    again = resuming.resume(stage.context(), body["id"])["rollout"]
    assert again["state"] == "done" and boots(stage) == {"web1": 2, "web2": 2, "web3": 2}


def test_a_reboot_that_was_refused_is_tried_again(stage: Stage) -> None:
    """In the same session: the packages are there, only the reboot is to follow."""
    policy(stage, reboot="needed")
    host = stage.transport.hosts["web1"]
    host.faults["reboot"] = "order"
    body = stage.deploy()
    assert outcomes(body)["web1"] == ("failed", "reboot")
    host.faults.clear()
    again = resuming.retry(stage.context(), body["id"], host=["web1"])["rollout"]
    assert outcomes(again)["web1"] == ("applied", None) and host.boots == 2
    assert again["hosts"]["web1"]["attempt"] == 1 and host.started == 1
    assert len(stage.world.store.history(host="web1", package="app")) == 1


def test_what_a_halt_stopped_is_owed_and_resumed(stage: Stage) -> None:
    """The screen names it, and the command that goes on with it."""
    policy(stage, reboot="needed")
    host = stage.transport.hosts["web1"]
    host.faults["reboot"] = "unreachable"

    def halt(seconds: float) -> None:
        stage.world.now += seconds
        row = stage.world.store.rollouts()[0]
        if row["wish"] is None and not any(
            one["state"] == "rebooting" for one in look(stage, row["id"])["hosts"].values()
        ):
            stage.world.store.wish_rollout(row["id"], "halt", at=1.0, who="bob")

    host.polls = 1
    stage._sleep = halt  # type: ignore[method-assign]
    body = stage.deploy()
    assert (body["state"], outcomes(body)["web1"]) == ("halted", ("applied", "owed"))
    text = screens.render({"rollout": body})
    assert "OWED     web1  halted by an operator: ITS PACKAGES ARE THERE" in text
    assert f"salt-run cpacman.resume {body['id'][:14]}" in text
    host.faults.clear()
    stage._sleep = Stage._sleep.__get__(stage)  # type: ignore[method-assign]
    again = resuming.resume(stage.context(), body["id"])["rollout"]
    assert set(outcomes(again).values()) == {("applied", None)}
    assert boots(stage) == {"web1": 2, "web2": 2, "web3": 2}


def test_a_dead_driver_s_reboots_are_collected(stage: Stage) -> None:
    """The next command ends who is back, waits for who may still come, and orders nothing."""
    policy(stage, reboot="needed", within="5m")
    stage.world.section["levels"] = ["all"]
    store = stage.world.store
    away, installed = stage.transport.hosts["web1"], stage.transport.hosts["web2"]
    away.away, installed.polls = -1, 10**6

    def die(seconds: float) -> None:
        stage.world.now += seconds
        if away.told_to_reboot:
            raise KeyboardInterrupt

    stage._sleep = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stage.deploy()
    stage._sleep = Stage._sleep.__get__(stage)  # type: ignore[method-assign]
    number = store.rollouts()[0]["id"]
    nobody = f"{socket.gethostname()}:1:1"
    store.own_rollout(number, seen=store.rollouts()[0]["owner"], owner=nobody)
    installed.polls = 0
    collecting.close_abandoned(stage.context())
    body = look(stage, number)
    assert body["hosts"]["web1"]["state"] == "rebooting" and body["state"] == "running"
    assert body["hosts"]["web2"]["code"] == "owed" and installed.told_to_reboot == 0
    text = screens.render({"rollout": body})
    assert "REBOOTING  web1\n" in text and "1 rebooting" in text
    away.asked_away = 0
    collecting.close_abandoned(stage.context())
    body = look(stage, number)
    assert outcomes(body)["web1"] == ("applied", None) and body["state"] == "halted"
    again = resuming.resume(stage.context(), number)["rollout"]
    assert outcomes(again)["web2"] == ("applied", None) and installed.boots == 2


def test_recovering_who_is_still_away_changes_nothing(stage: Stage) -> None:
    """It says nothing, so it stays failed; it is asked again the next time."""
    policy(stage, reboot="always", within="60s")
    stage.transport.hosts["web1"].away = -1
    body = stage.deploy()
    for _ in range(2):
        again = collecting.recover(stage.context(), Selection(), rollout=body["id"])
        found = again["recover"]["hosts"]["web1"]
        assert (found["outcome"], found["code"]) == ("failed", "reboot-timeout")


def test_plans_foretell(stage: Stage) -> None:
    """Who will be rebooted and who has services restarted, by level; a reboot that is left out."""
    world = stage.world
    world.mirror("app-2-1.noarch", "lib-2-1.noarch", "kernel-core-2-1.noarch")
    world.host("web1", "development", "app-1-1.noarch", "lib-1-1.noarch", "kernel-core-1-1.noarch",
               ring=0)  # fmt: skip
    snapshot(world.context())

    def rows() -> list[tuple[str, str, list[str]]]:
        body = plan(stage.context(), Selection(class_="development"), request=Request())["plan"]
        text = screens.render({"plan": body})
        assert all(" ".join(one["hosts"]) in text for one in body["follows"])
        return [(one["what"], one["policy"], one["hosts"]) for one in body["follows"]]

    assert rows() == [("stays", "never", ["web1"])]
    policy(stage, services="needed", reboot="needed")
    assert rows() == [("reboot", "needed", ["web1"]), ("restart", "needed", ["web2", "web3"])]
    stage.level("canary", restarts={"reboot": "never", "services": "listed", "list": "httpd*"})
    assert rows() == [
        ("restart", "listed", ["web1"]), ("restart", "needed", ["web2", "web3"]),
        ("stays", "never", ["web1"]),
    ]  # fmt: skip
    tried = deploying.deploy(stage.context(), Selection(), plan=stage.plan(), test=True)["plan"]
    assert tried["test"] and len(tried["follows"]) == 3


def test_hosts_that_are_away_are_not_skipped(stage: Stage) -> None:
    """Who is told to reboot has started, so it is too late to leave it out."""
    policy(stage, reboot="needed")
    host = stage.transport.hosts["web1"]
    host.away = 3
    refused: list[str] = []

    def skip(seconds: float) -> None:
        stage.world.now += seconds
        row = stage.world.store.rollouts()[0]
        if look(stage, row["id"])["hosts"]["web1"]["state"] == "rebooting" and not refused:
            with pytest.raises(SafetyError, match="web1: is rebooting already"):
                controlling.skip(stage.context(), row["id"], ["web1"])
            refused.append("web1")

    stage._sleep = skip  # type: ignore[method-assign]
    assert stage.deploy()["state"] == "done" and refused
