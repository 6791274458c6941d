"""What follows a transaction: services restarted and hosts rebooted, by policy, in order, once."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpacman.model import Outcome
from cpacman.rollout import restarts
from cpacman.rollout.machine import HostState, RolloutState
from cpacman.rollout.restarts import Need, Restarts, need_of
from cpacman.rollout.windows import Opening
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.test_driver import Killed, go_on_until, resume
from tests.unit.rollout.world import World, level

KERNEL = {"reboot": ["kernel-core-6-1.x86_64"], "services": ["httpd.service (7 8)"]}
HTTPD = {"services": ["httpd.service (7 8)", "bash (9)"]}
REBOOT = Restarts(reboot="needed")
SERVICES = Restarts(services="needed")


def fleet(tmp_path: Path, count: int = 3, **host: object) -> World:
    """Hosts that all behave alike."""
    return World(tmp_path, {f"web{n}": FakeHost(**host) for n in range(1, count + 1)})  # type: ignore[arg-type]


def findings(world: World, host: str) -> str:
    """What the database has of a host's findings."""
    return next(row.findings or "" for row in world.store.rollout("r-1")[1] if row.host == host)


def journal(world: World) -> list[tuple[str, str | None]]:
    """Action and host of each entry."""
    return [(one["action"], one["host"]) for one in world.store.history()]


@pytest.mark.parametrize(
    ("policy", "found", "need"),
    [
        (Restarts(), KERNEL, Need.NOTHING),
        (REBOOT, KERNEL, Need.REBOOT),
        (REBOOT, HTTPD, Need.NOTHING),
        (Restarts(reboot="always"), {}, Need.REBOOT),
        (SERVICES, KERNEL, Need.SERVICES),
        (SERVICES, {}, Need.NOTHING),
        (Restarts(services="listed", names=("http*",)), HTTPD, Need.SERVICES),
        (Restarts(services="listed", names=("nginx.service",)), HTTPD, Need.NOTHING),
        (
            Restarts(services="listed", names=("nginx.service",)),
            {"services": ["+3"]},
            Need.SERVICES,
        ),
        (Restarts(services="needed", reboot="needed"), KERNEL, Need.REBOOT),
        (Restarts(services="listed", names=("httpd",)), HTTPD, Need.SERVICES),
        (Restarts(services="listed", names=("bash.service",)), HTTPD, Need.SERVICES),
        (Restarts(services="listed", names=("http",)), HTTPD, Need.NOTHING),
    ],
)
def test_what_is_needed(policy: Restarts, found: dict[str, list[str]], need: Need) -> None:
    """Policy and findings decide; a reboot makes restarts needless."""
    assert need_of(policy, found) is need


def test_nothing_follows_by_itself(tmp_path: Path) -> None:
    """Without a policy nothing is restarted; what the host needs is kept."""
    world = fleet(tmp_path, findings=KERNEL)
    assert world.run().state is RolloutState.DONE
    assert not {"reboot", "restart"} & {function for function, _ in world.transport.calls}
    assert "kernel-core" in findings(world, "web1")


def test_reboot_is_confirmed_by_another_boot(tmp_path: Path) -> None:
    """The host is applied when it is back, in another boot, with its packages."""
    world = fleet(tmp_path, findings=KERNEL, away=4)
    end = world.run(level("all", "web1", "web2", "web3", restarts=REBOOT, around=("drain",)))
    assert end.state is RolloutState.DONE
    assert set(world.outcomes.values()) == {("applied", None)}
    assert [(one.boots, one.told_to_reboot) for one in world.transport.hosts.values()] == [
        (2, 1)
    ] * 3
    assert "kernel" not in findings(world, "web1"), "nothing is left to do"
    assert ("installed", "web1") in journal(world) and ("reboot", "web1") in journal(world)
    assert [side for side, _, who in world.gates.done if who == "web1"] == ["before", "after"]
    changed = [one for one in world.store.history(package="a") if one["host"] == "web1"]
    assert len(changed) == 1, "what was changed is in the journal once"


def test_services_are_restarted(tmp_path: Path) -> None:
    """By one order; what is done is told."""
    world = fleet(tmp_path, 1, findings=HTTPD)
    world.run(level("all", "web1", restarts=SERVICES))
    assert world.outcomes == {"web1": ("applied", None)}
    (names,) = world.transport.hosts["web1"].restarts.values()
    assert names == ["*"] and "httpd" not in findings(world, "web1")
    row = world.store.rollout("r-1")[1][0]
    assert row.detail == "restarted httpd.service bash"


def test_listed_services_only(tmp_path: Path) -> None:
    """The host is told which ones."""
    world = fleet(tmp_path, 1, findings=HTTPD)
    world.run(level("all", "web1", restarts=Restarts(services="listed", names=("httpd*",))))
    assert list(world.transport.hosts["web1"].restarts.values()) == [["httpd*"]]


def test_a_service_that_stays_down_is_a_failure(tmp_path: Path) -> None:
    """It counts, and nobody else starts; the packages are in the journal all the same."""
    world = fleet(tmp_path, findings=HTTPD, broken=("httpd.service",))
    end = world.run(
        level("canary", "web1", restarts=SERVICES), level("rest", "web2", "web3")
    )  # fmt: skip
    assert end.state is RolloutState.HALTED and world.outcomes["web1"] == ("failed", "restart")
    assert world.transport.hosts["web2"].started == 0
    assert [one["host"] for one in world.store.history(package="a")] == ["web1"]


def test_a_host_that_does_not_come_back(tmp_path: Path) -> None:
    """After its time it has failed, and nobody else starts; a retry orders the reboot again."""
    world = fleet(tmp_path, findings=KERNEL, away=-1)
    policy = Restarts(reboot="needed", within=120)
    made = world.begin(level("canary", "web1", restarts=policy), level("rest", "web2", "web3"))
    assert world.go_on(made).state is RolloutState.HALTED
    assert world.outcomes["web1"] == ("failed", "reboot-timeout")
    assert world.transport.hosts["web2"].started == 0
    assert 120 < world.clock() - world.transport.hosts["web1"].rebooted_at < 400

    host = world.transport.hosts["web1"]
    host.asked_away, host.away, host.ended = 0, 1, 2
    resume(world, "web1")
    world.go_on(made)
    assert world.outcomes["web1"] == ("applied", None) and host.boots == 3
    assert [one["host"] for one in world.store.history(package="a")].count("web1") == 1


@pytest.mark.parametrize("fault", ["order", "expired", "no-door"])
def test_a_host_that_refuses_to_reboot(tmp_path: Path, fault: str) -> None:
    """What it says is the reason of its failure."""
    world = fleet(tmp_path, 1, findings=KERNEL, faults={"reboot": fault})
    world.run(level("all", "web1", restarts=REBOOT))
    assert world.outcomes == {"web1": ("failed", "reboot")}
    assert fault in (world.store.rollout("r-1")[1][0].detail or "")


def test_a_command_that_does_not_reboot(tmp_path: Path) -> None:
    """Its words come with the report."""
    world = fleet(tmp_path, 1, findings=KERNEL, stuck="inhibited")
    world.run(level("all", "web1", restarts=REBOOT))
    assert world.outcomes == {"web1": ("failed", "reboot")}
    assert "inhibited" in (world.store.rollout("r-1")[1][0].detail or "")


def test_the_order_that_was_lost_is_sent_again(tmp_path: Path) -> None:
    """A host that knows of nothing hears it until it does, and reboots once."""
    world = fleet(tmp_path, 1, findings=KERNEL, faults={"reboot": "unreachable"})
    host = world.transport.hosts["web1"]

    def mend() -> bool:
        if world.transport.calls.count(("reboot", "web1")) >= 3:
            host.faults.clear()
        return False

    world.stopping = mend
    world.run(level("all", "web1", restarts=REBOOT))
    assert world.outcomes == {"web1": ("applied", None)} and host.boots == 2


def test_a_host_that_rebooted_by_itself_is_left_alone(tmp_path: Path) -> None:
    """Its report says that the boot of its transaction is over."""
    world = fleet(tmp_path, 1, findings=KERNEL, boots=5)
    world.run(level("all", "web1", restarts=Restarts(services="needed", reboot="always")))
    assert world.outcomes == {"web1": ("applied", None)}
    assert world.transport.hosts["web1"].told_to_reboot == 0
    assert "kernel" not in findings(world, "web1")


def test_rebooting_hosts_count_as_in_flight(tmp_path: Path) -> None:
    """The bound of the level holds for who applies and who is away together."""
    world = World(
        tmp_path,
        {f"web{n}": FakeHost(polls=n % 3, findings=KERNEL, away=n % 4) for n in range(12)},
    )
    most, seen = [0], set()

    def watch() -> bool:
        rows = world.store.rollout("r-1")[1] if world.store.rollouts() else []
        busy = [row.state for row in rows if row.state in ("applying", "installed", "rebooting")]
        most.append(len(busy))
        seen.update(busy)
        return False

    world.stopping = watch
    world.run(level("all", *world.transport.hosts, concurrency=3, restarts=REBOOT))
    assert max(most) == 3 and "rebooting" in seen
    assert set(world.outcomes.values()) == {("applied", None)}


def test_no_reboot_outside_of_the_window(tmp_path: Path) -> None:
    """Who applied as it closed waits for the next one, locked, and reboots then."""
    world = fleet(tmp_path, findings=KERNEL)
    opens: list[float] = []

    def opening() -> Opening:
        if any(host.started for host in world.transport.hosts.values()) and not opens:
            opens.append(world.clock() + 5000)
        if opens and world.clock() < opens[0]:
            until = datetime.datetime.fromtimestamp(opens[0], datetime.timezone.utc)
            return Opening(False, "outside window x", until)
        return Opening(True)

    world.gates.open, world.patience = opening, 60.0
    world.transport.hosts["web2"].polls = 3
    made = world.begin(level("all", "web1", "web2", "web3", restarts=REBOOT, around=("drain",)))
    assert world.go_on(made).state is RolloutState.WAITING
    states = {row.state for row in world.store.rollout("r-1")[1]}
    assert states == {"installed"} and world.store.locked_hosts()
    done = [side for side, _, who in world.gates.done if who == "web1"]
    assert done == ["before", "after"], "nobody is drained until the next window"
    world.slept += 6000
    resume(world)
    assert world.go_on(made).state is RolloutState.DONE
    assert all(host.rebooted_at >= opens[0] for host in world.transport.hosts.values())
    done = [side for side, _, who in world.gates.done if who == "web1"]
    assert done == ["before", "after", "before", "after"]
    assert set(world.outcomes.values()) == {("applied", None)}


def halt_before_reboots(world: World) -> Callable[..., bool]:
    """Let somebody wish for a halt just before the order to reboot; return what orders."""
    sent = world.store.order_hosts

    def order(*args: object, **more: object) -> bool:
        if more["state"] == "rebooting":
            world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")
        return sent(*args, **more)  # type: ignore[arg-type]

    world.store.order_hosts = order  # type: ignore[method-assign]
    return sent


def test_what_is_owed_is_followed_up_within_the_bound(tmp_path: Path) -> None:
    """However many hosts are owed a reboot, no more are away at once than the level allows."""
    world = fleet(tmp_path, 6, findings=KERNEL, away=2)
    sent, names = halt_before_reboots(world), list(world.transport.hosts)
    made = world.begin(level("all", *names, restarts=REBOOT))
    assert world.go_on(made).state is RolloutState.HALTED
    assert set(world.outcomes.values()) == {("applied", "owed")}
    world.store.order_hosts = sent  # type: ignore[method-assign]
    resume(world, *names)
    most = []

    def watch() -> bool:
        most.append(sum(row.state == "rebooting" for row in world.store.rollout("r-1")[1]))
        return False

    world.stopping = watch
    narrow = made._replace(levels=(level("all", *names, concurrency=2, restarts=REBOOT),))
    assert world.go_on(narrow).state is RolloutState.DONE
    assert max(most) == 2 and set(world.outcomes.values()) == {("applied", None)}


def test_a_halt_stops_reboots_too(tmp_path: Path) -> None:
    """Who was told is waited for, nobody else is told; what is owed is followed up by a resume."""
    world = fleet(tmp_path, findings=KERNEL, polls=2)
    sent = halt_before_reboots(world)
    made = world.begin(level("all", "web1", "web2", "web3", restarts=REBOOT, around=("drain",)))
    assert world.go_on(made).state is RolloutState.HALTED
    assert set(world.outcomes.values()) == {("applied", "owed")}
    assert all(host.told_to_reboot == 0 for host in world.transport.hosts.values())
    assert world.store.locked_hosts() == {}

    world.store.order_hosts = sent  # type: ignore[method-assign]
    resume(world, *world.transport.hosts)
    world.gates.done.clear()
    assert world.go_on(made).state is RolloutState.DONE
    assert set(world.outcomes.values()) == {("applied", None)}
    assert [side for side, _, who in world.gates.done if who == "web1"] == ["before", "after"]
    assert len(world.store.history(package="a")) == 3


def test_who_cannot_be_drained_again_is_not_rebooted(tmp_path: Path) -> None:
    """Its packages are there; what is owed is named."""
    world = fleet(tmp_path, 1, findings=KERNEL)
    made = world.begin(level("all", "web1", restarts=REBOOT, around=("drain",)))
    world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")
    world.go_on(made)
    world.store.reopen_hosts("r-1", ["web1"], at=1.0, who="me", action="resume")
    resume(world)
    waits: list[int] = []

    def opening() -> Opening:
        # From the moment on at which it applied the window is closed, so another process goes on.
        if any(row.state == "installed" for row in world.store.rollout("r-1")[1]) and not waits:
            waits.append(1)
            return Opening(False, "closed")
        return Opening(True)

    world.gates.open = opening
    assert world.go_on(made).state is RolloutState.PAUSED
    world.gates.bad_action = {"web1"}
    resume(world)
    world.go_on(made)
    assert world.outcomes == {"web1": ("applied", "owed")}
    assert world.transport.hosts["web1"].told_to_reboot == 0


@pytest.mark.parametrize(
    "said", [None, 7, [], {}, {"number": "1.0"}, {"number": "1.0", "state": "done", "units": 7}]
)
def test_a_host_may_say_anything(said: object) -> None:
    """What is not of the form is no answer, or names nothing; it breaks nobody's rollout."""
    report = {"outcome": "applied", "boot_id": "b", "ended_boot_id": "b", "packages": "a"}
    report |= {"restart": said, "reboot": said}  # type: ignore[dict-item]
    for state in (HostState.RESTARTING, HostState.REBOOTING):
        found = restarts.ending_of(state, report, boot="b", since=1.0, after="a")
        assert found is None or found.detail == ""
        restarts.is_aware(state, report, boot="b", since=1.0)


def test_a_reboot_that_loses_packages_is_a_failure(tmp_path: Path) -> None:
    """Back with other packages than the plan's is not good."""
    said = restarts.ending_of(
        HostState.REBOOTING,
        {"outcome": "applied", "boot_id": "b2", "ended_boot_id": "b1", "packages": "other"},
        boot="b1", since=1.0, after="wanted",
    )  # fmt: skip
    assert said is not None and (said.outcome, said.code) == (Outcome.FAILED, "differs")


@pytest.mark.parametrize("seed", range(40))
def test_killed_anywhere_reboots_nobody_twice(tmp_path: Path, seed: int) -> None:
    """Whenever it dies, the next process goes on: one transaction, one reboot or restart each."""
    chance = random.Random(seed)
    hosts = {
        f"web{n}": FakeHost(
            polls=chance.randrange(3), findings=chance.choice([KERNEL, HTTPD]),
            away=chance.randrange(4),
        )
        for n in range(6)
    }  # fmt: skip
    world = World(tmp_path, hosts)
    both = Restarts(services="needed", reboot="needed", within=2000)
    names = list(hosts)
    made = world.begin(
        level("canary", *names[:2], soak=30.0, concurrency=1, around=("drain",), restarts=both),
        level("rest", *names[2:], concurrency=2, restarts=both),
    )
    for _ in range(80):
        try:
            go_on_until(world, made, [chance.randrange(1, 40)])
            break
        except Killed:
            pass
    assert world.state == "done"
    assert set(world.outcomes.values()) == {("applied", None)}
    for host in hosts.values():
        assert len(host.applied) == 1
        kernel = host.findings is KERNEL
        assert host.boots == (2 if kernel else 1)
        assert len(host.restarts) == (0 if kernel else 1)
    drained = {who for side, _, who in world.gates.done if side == "before"}
    assert drained <= {who for side, _, who in world.gates.done if side == "after"}


@pytest.mark.parametrize("policy", [REBOOT, SERVICES])
def test_an_order_that_was_lost_is_not_repeated_after_a_halt(
    tmp_path: Path, policy: Restarts
) -> None:
    """Nobody reboots or restarts after the halt for whom it came too late: that is owed."""
    verb = "reboot" if policy is REBOOT else "restart"
    world = fleet(tmp_path, 2, findings={**KERNEL, **HTTPD}, faults={verb: "unreachable"})
    hosts = world.transport.hosts

    def halt() -> bool:
        told = [name for function, name in world.transport.calls if function == verb]
        if told and world.store.rollout_row("r-1")["wish"] is None:
            world.store.wish_rollout("r-1", "halt", at=1.0, who="alice")
            for host in hosts.values():
                host.faults.clear()
        return False

    world.stopping = halt
    made = world.begin(level("all", *hosts, restarts=policy))
    assert world.go_on(made).state is RolloutState.HALTED
    assert set(world.outcomes.values()) == {("applied", restarts.OWED)}
    assert not any(host.told_to_reboot or host.restarts for host in hosts.values())

    world.stopping = lambda: False
    resume(world, *hosts)
    assert world.go_on(made).state is RolloutState.DONE
    assert set(world.outcomes.values()) == {("applied", None)}


def test_nobody_is_given_up_while_an_order_may_reach_it(tmp_path: Path) -> None:
    """Its time is over before the order's is: whoever comes next must not be rebooted under."""
    world = fleet(tmp_path, 1, findings=KERNEL, faults={"reboot": "unreachable"})
    told: list[float] = []
    call = world.transport.call

    def watch(function: str, requests: Any, *, timeout: float) -> Any:
        if function == "reboot":
            told.append(json.loads(requests["web1"]["order"])["expires"])
        return call(function, requests, timeout=timeout)

    world.transport.call = watch  # type: ignore[method-assign]
    world.run(level("all", "web1", restarts=Restarts(reboot="needed", within=30)))
    assert world.outcomes == {"web1": ("failed", "reboot-timeout")}
    ended = world.store.rollout("r-1")[1][0].updated
    assert len(told) > 1 and ended > max(told)


def test_the_failure_of_an_earlier_order_is_no_answer() -> None:
    """A reboot that is ordered again is not taken for failed by what became of the first order."""
    told = {"outcome": "applied", "packages": "x", "boot_id": "b", "ended_boot_id": "b"}
    state, since = HostState.REBOOTING, 7.0
    for number, aware in ((restarts.number_of(5.0), False), (restarts.number_of(since), True)):
        report = {**told, "reboot": {"boot_id": "b", "number": number, "error": "inhibited"}}
        assert restarts.is_aware(state, report, boot="b", since=since) is aware
        ending = restarts.ending_of(state, report, boot="b", since=since, after="x")
        assert (ending is not None and ending.outcome is Outcome.FAILED) is aware


def test_a_budget_that_a_dead_process_spent_stops_reboots(tmp_path: Path) -> None:
    """It died between a host's failure and the look at the budget: nobody is rebooted after it."""
    world = fleet(tmp_path, 2, findings=KERNEL)
    world.transport.hosts["web2"].report = {"outcome": "failed", "code": "scriptlet"}
    made = world.begin(level("all", "web1", "web2", restarts=REBOOT))
    end = world.store.end_host

    def die(*given: Any, **named: Any) -> None:
        end(*given, **named)
        raise Killed

    world.store.end_host = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        world.go_on(made)
    world.store.end_host = end  # type: ignore[method-assign]
    assert {row.state for row in world.store.rollout("r-1")[1]} == {"installed", "ended"}
    assert world.go_on(made).state is RolloutState.HALTED
    assert world.outcomes == {"web1": ("applied", restarts.OWED), "web2": ("failed", "scriptlet")}
    assert world.transport.hosts["web1"].told_to_reboot == 0
