"""The caps on bandwidth, on a clock of our own."""

from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from cpacman.config import parse_rate
from cpacman.transport.throttle import LEAST_PIECE, Throttle


class Clock:
    """Seconds that only grow when told."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def send(throttle: Throttle, clock: Clock, hosts: list[str], size: int) -> None:
    """Send once it is allowed."""
    while wait := throttle.wait_for(hosts, size):
        clock.now += wait


def test_no_cap_never_waits() -> None:
    """Without caps nothing waits, and chunks are as large as they may be."""
    throttle = Throttle()
    assert throttle.wait_for(["a"], 10**12) == 0
    assert throttle.wait_for(["a"], 10**12) == 0
    assert throttle.piece(2**24) == 2**24


def test_the_total_counts_every_host() -> None:
    """A chunk for two hosts is twice on the wire."""
    clock = Clock()
    throttle = Throttle(1000, None, clock)
    for _ in range(10):
        send(throttle, clock, ["a", "b"], 500)
    assert clock.now - 100 == 9, "the last one's second is still to come"


def test_each_host_has_its_own() -> None:
    """What one host takes is not taken from another."""
    clock = Clock()
    throttle = Throttle(None, 1000, clock)
    for _ in range(5):
        send(throttle, clock, ["a"], 1000)
    assert clock.now - 100 == 4
    assert throttle.wait_for(["b"], 1000) == 0


def test_idle_time_is_not_saved_up() -> None:
    """After a pause no more than one chunk goes at once."""
    clock = Clock()
    throttle = Throttle(1000, None, clock)
    send(throttle, clock, ["a"], 1000)
    clock.now += 3600
    assert throttle.wait_for(["a"], 1000) == 0
    assert throttle.wait_for(["a"], 1000) == 1


def test_chunks_take_half_a_second_at_most() -> None:
    """So that a cap holds over short times, too, down to a size that is worth a load."""
    assert Throttle(1_000_000, None).piece(2**24) == 500_000
    assert Throttle(1_000_000, None).piece(2**24, hosts=5) == 100_000
    assert Throttle(None, 1_000_000).piece(2**24, hosts=5) == 500_000
    assert Throttle(10, None).piece(2**24) == LEAST_PIECE


@pytest.mark.parametrize(("said", "rate"), [("0", 0), (0, 0), ("50M", 50 * 2**20), (65536, 65536)])
def test_a_cap_is_bytes_in_a_second(said: object, rate: int) -> None:
    """With a unit or without one; 0 is none."""
    assert parse_rate(said) == rate


@pytest.mark.parametrize("said", [50, "10", "1K"])
def test_a_cap_that_nothing_gets_through_is_a_slip(said: object) -> None:
    """Who leaves the unit out is asked for it, and does not wait for ever."""
    with pytest.raises(PydanticCustomError, match="bytes a second"):
        parse_rate(said)
