"""The loop of a push, against simulated hosts and a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from cpacman.transport import pushing
from cpacman.transport.channel import Event, packed
from cpacman.transport.port import UNREACHABLE, Answer
from cpacman.transport.pushing import Limits, Push, pace_of
from cpacman.transport.throttle import Throttle

MIB = 2**20
SHA = "a" * 64


class Network:
    """Hosts that acknowledge after a while, on a clock that only moves when somebody waits.

    Args:
        delays: host -> seconds from a load to its acknowledgement; None never does.
    """

    def __init__(self, delays: Mapping[str, float | None]) -> None:
        self.now = 0.0
        self.delays = dict(delays)
        self.sent: list[tuple[float, tuple[str, ...], int]] = []
        self.coming: list[tuple[float, str, str]] = []
        self.lost: set[tuple[str, int]] = set()
        self.waiting: dict[str, int] = dict.fromkeys(delays, 0)
        self.most: dict[str, int] = dict.fromkeys(delays, 0)
        self.answer: Callable[[str], object] = lambda host: {"got": []}

    def publish(
        self,
        function: str,
        hosts: Sequence[str],
        arguments: Mapping[str, object],
        extra: Mapping[str, object] | None = None,
        data: Sequence[bytes] = (),
    ) -> str:
        """Take a load; each host will say when it has it."""
        assert function == "receive" and extra is not None
        number = len(self.sent)
        self.sent.append((self.now, tuple(hosts), sum(map(len, data))))
        for host in hosts:
            self.waiting[host] += 1
            self.most[host] = max(self.most[host], self.waiting[host])
            delay = self.delays[host]
            if delay is not None and (host, number) not in self.lost:
                self.coming.append((self.now + delay, host, str(number)))
        return str(number)

    def wait(self, seconds: float) -> Event | None:
        """Let time pass until the next acknowledgement, or as long as it may."""
        self.coming.sort()
        if self.coming and self.coming[0][0] <= self.now + seconds:
            at, host, jid = self.coming.pop(0)
            self.now = max(self.now, at)
            self.waiting[host] -= 1
            return Event(jid, host, self.answer(host))
        self.now += seconds
        return None


def push(
    network: Network, needs: Mapping[str, int], throttle: Throttle | None = None, stall: float = 30
) -> dict[str, Answer]:
    """Push so many MiB to each host in chunks of one MiB, three in flight."""
    limits = Limits(MIB, 3, stall, throttle or Throttle())
    run = Push(
        network, "s", {host: [(SHA, 0, size * MIB)] for host, size in needs.items()},
        lambda sha256, offset, length: bytes(length), lambda step: None, limits,
        clock=lambda: network.now,
    )  # fmt: skip
    return {answer.host: answer for answer in run.run()}


def took(network: Network, host: str) -> float:
    """When the last chunk was sent to a host."""
    return max(at for at, hosts, _ in network.sent if host in hosts)


def test_a_chunk_is_published_once_for_all() -> None:
    """Hosts that lack the same get it in the same loads."""
    network = Network(dict.fromkeys("abc", 0.1))
    assert not any(answer.code for answer in push(network, dict.fromkeys("abc", 10)).values())
    assert [hosts for _, hosts, _ in network.sent] == [("a", "b", "c")] * 10


def test_a_stopped_host_slows_nobody_and_holds_one_window() -> None:
    """It is waited for once, gets no more than a window, and is given up when it stays silent."""
    alone = Network({"a": 0.1, "b": 0.1})
    push(alone, {"a": 100, "b": 100})
    network = Network({"a": 0.1, "b": 0.1, "dead": None})
    found = push(network, {"a": 100, "b": 100, "dead": 100})
    assert (found["a"].code, found["b"].code, found["dead"].code) == ("", "", UNREACHABLE)
    assert took(network, "a") <= took(alone, "a") + pushing.PATIENCE + 1
    assert network.most["dead"] <= 4, "a window, and one more to see if it is there"


def test_a_slow_host_gets_all_in_the_end() -> None:
    """It leaves the target list while it is behind; gaps are sent again to it alone."""
    network = Network({"a": 0.1, "slow": 1.5})
    found = push(network, {"a": 40, "slow": 40})
    assert not found["a"].code and not found["slow"].code
    assert took(network, "a") < 10 < took(network, "slow")
    assert network.most["slow"] <= 3
    assert sum(("slow" in hosts) for _, hosts, _ in network.sent) == 40, "nothing goes twice"


def test_a_lost_chunk_is_sent_again_to_whom_it_misses() -> None:
    """A load that never arrived is repeated for that host only, after the stall."""
    for size, lost in ((5, 4), (60, 2)):
        network = Network({"a": 0.1, "b": 0.1})
        network.lost = {("b", lost)}
        found = push(network, {"a": size, "b": size}, stall=3)
        assert not found["a"].code and not found["b"].code
        assert [hosts for _, hosts, _ in network.sent].count(("b",)) == 1


def test_a_host_that_comes_back_is_served() -> None:
    """An acknowledgement that comes after it was given up takes the host in again."""
    network = Network({"a": 0.5, "b": 0.5})
    delays = iter([20.0, 20.0, 20.0])
    original = network.publish

    def publish(function, hosts, arguments, extra=None, data=()):
        network.delays["b"] = next(delays, 0.5) if "b" in hosts else 0.5
        return original(function, hosts, arguments, extra, data)

    network.publish = publish  # type: ignore[method-assign]
    found = push(network, {"a": 200, "b": 200}, stall=10)
    assert not found["a"].code and not found["b"].code


def test_a_refusal_ends_a_host_and_no_other() -> None:
    """What a door says no to is that host's answer."""
    network = Network({"a": 0.1, "full": 0.1})
    network.answer = lambda host: (
        {"error": {"code": "space", "message": "full"}} if host == "full" else {}
    )
    found = push(network, {"a": 10, "full": 10})
    assert (found["a"].code, found["full"].code) == ("", "space")
    assert network.most["full"] <= 3


def test_what_is_under_way_is_bounded_for_any_number_of_hosts() -> None:
    """With many hosts chunks get smaller, and then hosts take turns."""
    limits = Limits(16 * MIB, 3)
    for hosts in (1, 2, 10, 33, 500):
        pace = pace_of(limits, hosts)
        assert pace.chunk * pace.window * pace.at_once <= pushing.UNDER_WAY
        assert pace.chunk >= pushing.LEAST_CHUNK
    assert pace_of(limits, 1) == (16 * MIB - pushing.HEADROOM, 3, 1)


def test_more_hosts_than_at_once_all_get_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts come in as others finish; one that is stuck keeps nobody out."""
    monkeypatch.setattr(pushing, "UNDER_WAY", 32 * MIB)
    names = [f"h{n:02}" for n in range(20)]
    network = Network({name: (None if name == "h03" else 0.1) for name in names})
    found = push(network, dict.fromkeys(names, 5))
    assert [name for name, answer in found.items() if answer.code] == ["h03"]
    for at, _, _ in network.sent:
        assert at < 20


def test_caps_hold_per_host_and_in_all() -> None:
    """Ten MiB at one a second take ten seconds; so do ten hosts with ten in all."""
    network = Network({"a": 0.01})
    push(network, {"a": 10}, Throttle(None, MIB, clock=lambda: network.now))
    assert 9 <= network.now <= 11
    names = [f"h{n}" for n in range(10)]
    network = Network(dict.fromkeys(names, 0.01))
    push(network, dict.fromkeys(names, 1), Throttle(MIB, None, clock=lambda: network.now))
    assert 9 <= network.now <= 11


def test_a_load_is_packed_as_salt_packs_it() -> None:
    """What minions unpack is the same, whatever the size of the data and however it is cut."""
    import salt.payload

    for size in (1, 31, 32, 255, 256, 70_000):
        data = (b"\xff" + bytes(range(256))) * 300
        parts = [data[:size], data[size : 2 * size]]
        load = {"fun": "x", "tgt": ["a"], "cpacman": {"session": "s", "data": b""}}
        text = packed(load, parts, salt.payload.dumps)
        assert load["cpacman"]["data"] == b"", "not packed twice"
        found = salt.payload.loads(text)
        assert found["cpacman"] == {"session": "s", "data": b"".join(parts)}
        assert found["tgt"] == ["a"]
    swapped = {"cpacman": {"data": b"", "session": "s"}, "fun": "x"}
    found = salt.payload.loads(packed(swapped, [b"\xff\xfe"], salt.payload.dumps))
    assert found["cpacman"]["data"] == b"\xff\xfe", "packed whole where it does not come last"
