"""Windows for sending and for changing, and hosts that have one of their own."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from cpacman.rollout.machine import RolloutState
from cpacman.rollout.windows import Opening
from cpacman.transport.fake import FakeHost
from tests.unit.rollout.test_driver import resume
from tests.unit.rollout.world import World, level


class Caching(World):
    """Hosts that keep what they were sent, and note when."""

    def __init__(self, tmp_path: Path, *names: str) -> None:
        super().__init__(tmp_path, {name: FakeHost() for name in names})
        self.sent: dict[str, list[float]] = {}
        plain = self.transport.call

        def call(function, requests, *, timeout):  # type: ignore[no-untyped-def]
            for answer in plain(function, requests, timeout=timeout):
                if function == "begin" and answer.host in self.sent:
                    answer = answer._replace(value={**answer.value, "missing": []})
                yield answer

        push = self.transport.push

        def pushed(session, needs, read, progress):  # type: ignore[no-untyped-def]
            for host in needs:
                self.sent.setdefault(host, []).append(self.clock())
            return push(session, needs, read, progress)

        self.transport.call = call  # type: ignore[method-assign]
        self.transport.push = pushed  # type: ignore[method-assign]

    def window(self, *spans: tuple[float, float]) -> Callable[[], Opening]:
        """What is open in these spans of the world's clock."""

        def opening() -> Opening:
            now = self.clock()
            if any(start <= now < end for start, end in spans):
                return Opening(True)
            ahead = [start for start, _ in spans if start > now]
            zone = datetime.timezone.utc
            until = datetime.datetime.fromtimestamp(min(ahead), zone) if ahead else None
            return Opening(False, "outside window w", until)

        return opening


@pytest.fixture
def world(tmp_path: Path) -> Caching:
    """Two hosts in one level."""
    return Caching(tmp_path, "web1", "web2")


def started(world: World) -> dict[str, float]:
    """Host -> when it was told to start; all of them once."""
    assert {host.started for host in world.transport.hosts.values()} == {1}
    return {name: host.started_at for name, host in world.transport.hosts.items()}


def test_sent_in_one_window_and_changed_in_another(world: Caching) -> None:
    """Bytes go at night; hosts start at the weekend, when nothing is sent any more."""
    world.gates.send = world.window((2000, 3000))
    world.gates.open = world.window((9000, 10000))
    assert world.run().state is RolloutState.DONE
    assert all(2000 <= at < 3000 for times in world.sent.values() for at in times)
    assert {len(times) for times in world.sent.values()} == {1}
    assert all(9000 <= at < 10000 for at in started(world).values())


def test_what_was_not_sent_waits_for_its_window(world: Caching) -> None:
    """One has its bytes and starts; the other has to be sent them, and starts after that."""
    world.sent["web1"] = []
    world.gates.send = world.window((5000, 6000))
    world.gates.open = world.window((1000, 2000), (8000, 9000))
    assert world.run().state is RolloutState.DONE
    times = started(world)
    assert times["web1"] < 2000 and 8000 <= times["web2"] < 9000
    assert [5000 <= at < 6000 for at in world.sent["web2"]] == [True]


def test_nothing_is_sent_twice_by_a_process_that_goes_on(world: Caching) -> None:
    """The first one leaves it waiting; the second one asks anew, and finds it there."""
    world.gates.send = world.window((1000, 2000))
    world.gates.open = world.window((9000, 10000))
    world.patience = 60.0
    made = world.begin()
    end = world.go_on(made)
    assert (end.state, end.until) == (RolloutState.WAITING, 9000.0)
    assert set(world.sent) == {"web1", "web2"} and not world.transport.hosts["web1"].started
    world.slept += 9100 - world.clock()
    resume(world)
    assert world.go_on(made).state is RolloutState.DONE
    assert {len(times) for times in world.sent.values()} == {1} and len(started(world)) == 2


def test_a_host_has_its_own_window(world: Caching) -> None:
    """The other one starts at once; it waits, and the level with it."""
    world.gates.own["web2"] = world.window((4000, 5000))
    assert world.run(level("all", "web1", "web2"), level("rest")).state is RolloutState.DONE
    times = started(world)
    assert times["web1"] < 1200 and 4000 <= times["web2"] < 5000


def test_a_window_that_never_opens_for_a_host(world: Caching) -> None:
    """The others are done; then somebody has to look."""
    world.gates.own["web2"] = lambda: Opening(False, "there is no window 'sap'")
    end = world.run()
    assert end.state is RolloutState.PAUSED and "there is no window 'sap'" in end.why
    assert world.outcomes["web1"] == ("applied", None)
    assert world.transport.hosts["web2"].started == 0
