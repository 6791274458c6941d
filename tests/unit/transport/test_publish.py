"""The rules of the publish transport that need no Salt: who may hear, and what an answer is."""

from __future__ import annotations

import pytest

from cpacman.transport.port import Answer, read_answer
from cpacman.transport.publish import PublishTransport, _grouped, _without_twins
from cpacman.transport.pushing import Limits

FLEET = [f"web{n}" for n in range(10)]


def transport(opts: dict, filtered: list[str], share: float = 0.8) -> PublishTransport:
    """The transport of a master with ten hosts."""
    return PublishTransport(
        opts, who="me", connected=lambda: FLEET, filtered=lambda: filtered, share=share,
        limits=Limits(1, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("opts", "filtered", "targets", "allowed"),
    [
        ({"zmq_filtering": True}, FLEET, FLEET[:1], True),
        ({"zmq_filtering": True}, FLEET[:1], FLEET[:1], False),
        ({"zmq_filtering": True}, FLEET[1:], FLEET[:1], True),
        ({"zmq_filtering": True}, [], FLEET[:1], False),
        ({"zmq_filtering": False}, FLEET, FLEET[:1], False),
        ({}, [], FLEET[:7], False),
        ({}, [], FLEET[:8], True),
        ({}, [], FLEET, True),
        ({"transport": "tcp"}, [], FLEET[:1], True),
    ],
)
def test_bytes_for_few_are_not_sent_to_many(opts, filtered, targets, allowed) -> None:
    """Without filtering a push is refused, unless the targets are most of what would hear it.

    A host that never said that it filters is taken to hear everything.
    """
    problems = transport(opts, filtered).check(targets)
    assert bool(problems) is not allowed
    assert all("zmq_filtering: True" in problem.mend for problem in problems)


def test_the_share_is_configured() -> None:
    """How many of those that hear it must be targets is a setting."""
    assert not transport({}, [], share=0.5).check(FLEET[:5])
    assert transport({}, [], share=0.5).check(FLEET[:4])
    assert transport({}, [], share=1.0).check(FLEET[:9])


def test_equal_arguments_share_a_load() -> None:
    """Hosts that get the same arguments are in one load, in a stable order."""
    groups = _grouped({"b": {"x": 1}, "a": {"x": 1}, "c": {"x": 2}})
    assert groups == [({"x": 1}, ["a", "b"]), ({"x": 2}, ["c"])]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"started": True}, ""),
        ({"error": {"code": "space", "message": "full"}}, "space"),
        ({"error": "text"}, "garbled"),
        ({"error": {"code": "unreachable", "message": "I am not here"}}, "garbled"),
        ({"error": {"code": "transport", "message": "no way"}}, "garbled"),
        ({"error": {"code": "\x1b[2J", "message": "x" * 100_000}}, "garbled"),
        ("'cpacman.begin' is not available.", "no-door"),
        ("Traceback ...", "garbled"),
        (None, "garbled"),
        ([], "garbled"),
    ],
)
def test_whatever_a_host_returns_becomes_an_answer(value, code) -> None:
    """What is no plain answer is an error of that host; a missing module names the mend."""
    answer = read_answer("web1", "begin", value)
    assert answer.code == code and bool(answer.error) is bool(code)
    assert len(answer.error) < 3000
    assert code != "no-door" or "saltutil.sync_modules" in answer.error


def test_twins_are_one_error() -> None:
    """Two answers to one call under one id are no answer at all."""
    found = list(_without_twins([Answer("a", {}), Answer("b", {}), Answer("a", {})]))
    assert [(one.host, one.code) for one in found] == [("a", "twins"), ("b", "")]
