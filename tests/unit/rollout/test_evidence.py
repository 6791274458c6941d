"""Evidence: what rollouts have shown, what is missing, and when it will be there."""

from __future__ import annotations

import pytest

from cpacman.config.values import Amount
from cpacman.model import Outcome
from cpacman.rollout.evidence import SIGNS, Event, Rule, Sign, judge, span, states, untested

HOUR = 3600.0
NOW = 100 * HOUR


def events(text: str) -> list[Event]:
    """Return events from `host sign hour [healthy]`, separated by commas."""
    rows = [row.split() for row in text.split(",") if row.strip()]
    return [
        Event(host, float(hour) * HOUR, Sign(sign), bool(more)) for host, sign, hour, *more in rows
    ]


STRICT = Rule(min_hosts=2, soak=48 * HOUR)


@pytest.mark.parametrize(
    ("rule", "story", "hosts", "lacks", "when"),
    [
        (STRICT, "", 0, ["hosts 0 of 2", "soak 0 s of 2 d"], None),
        (STRICT, "a ran 10", 1, ["hosts 1 of 2", "soak 0 s of 2 d"], None),
        (STRICT, "a ran 10, b ran 20", 2, [], None),
        (STRICT, "a ran 10, b ran 52", 2, [], None),
        (STRICT, "a ran 10, b ran 69", 2, ["soak 31 h of 2 d"], 117 * HOUR),
        # One that leaves before its time proves nothing; one that stayed long enough does.
        (STRICT, "a ran 10, b ran 20, b left 30", 1, ["hosts 1 of 2", "soak 0 s of 2 d"], None),
        (STRICT, "a ran 10, b ran 20, b left 70", 2, [], None),
        (STRICT, "a ran 10, b ran 20, b left 30, b ran 40", 2, [], None),
        # The last word counts, and whoever failed is not running it.
        (STRICT, "a ran 10, b ran 20, c failed 20", 2, ["failures 1 of 0: c"], None),
        (STRICT, "a ran 10, b ran 20, c failed 20, c ran 21", 3, [], None),
        (STRICT, "a ran 10, b ran 20, c failed 20, c settled 21", 2, [], None),
        (STRICT, "a ran 10, b ran 20, b failed 30", 1,
         ["hosts 1 of 2", "soak 0 s of 2 d", "failures 1 of 0: b"], None),
        # Nothing to change proves nothing.
        (Rule(), "a settled 10, b settled 20", 0, ["hosts 0 of 1"], None),
        (Rule(), "a ran 99", 1, [], None),
        (Rule(min_hosts=0), "", 0, [], None),
        # A soak alone is that of the first host.
        (Rule(min_hosts=0, soak=48 * HOUR), "", 0, ["soak 0 s of 2 d"], None),
        (Rule(min_hosts=0, soak=48 * HOUR), "a ran 90", 1, ["soak 10 h of 2 d"], 138 * HOUR),
        # A share is of all hosts that were told, rounded down.
        (Rule(max_failures=Amount(50, percent=True)), "a ran 1, b failed 1", 1, [], None),
        (Rule(max_failures=Amount(40, percent=True)), "a ran 1, b failed 1", 1,
         ["failures 1 of 0: b"], None),
        # Health is unknown where no gate looked, and as many hosts have to have it.
        (Rule(health=True), "a ran 1", 1,
         ["health passed on 0 of 1 hosts, by a gate of their level"], None),
        (Rule(min_hosts=2, health=True), "a ran 1 healthy, b ran 1", 2,
         ["health passed on 1 of 2 hosts, by a gate of their level"], None),
        (Rule(min_hosts=2, health=True), "a ran 1 healthy, b ran 1, b ran 3 healthy", 2, [], None),
        (Rule(health=True), "a ran 1 healthy, a left 2, a ran 3", 1,
         ["health passed on 0 of 1 hosts, by a gate of their level"], None),
        (Rule(soak=48 * HOUR, health=True), "a ran 90", 1,
         ["soak 10 h of 2 d", "health passed on 0 of 1 hosts, by a gate of their level"], None),
    ],
)  # fmt: skip
def test_judge(rule: Rule, story: str, hosts: int, lacks: list[str], when: float | None) -> None:
    """Each rule by itself and together, with what is missing and when time alone brings it."""
    found = judge(rule, events(story), NOW)
    assert [lack.what for lack in found.lacks] == lacks
    assert (found.hosts, found.when, found.met) == (hosts, when, not lacks)


def test_order_of_events_is_that_of_time() -> None:
    """Rows in any order say the same."""
    story = events("a ran 10, b ran 20, c failed 20, c ran 21, b left 30")
    assert judge(STRICT, story, NOW) == judge(STRICT, story[::-1], NOW)


def test_every_outcome_has_its_sign_but_skipped() -> None:
    """Who was never told to start shows nothing; a new outcome has to be thought of."""
    assert {one.value for one in Outcome} - set(SIGNS) == {"skipped"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (1800, "30 min"), (111_600, "31 h"), (172_800, "2 d"),
     (180_000, "50 h")],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    """A span is told in days only when it is whole days."""
    assert span(seconds) == text


def test_what_never_ran_together() -> None:
    """Single versions first, then pairs of those that ran apart; hosts of all groups counted."""
    coming = [(frozenset({"a", "b", "c", "x"}), 18), (frozenset({"a", "b"}), 2)]
    ran = [frozenset({"a", "z"}), frozenset({"b", "c"})]
    assert untested(coming, ran) == [(("x",), 18), (("a", "b"), 20), (("a", "c"), 18)]
    assert untested(coming, [frozenset({"a", "b", "c", "x"})]) == []
    assert untested([], ran) == []


def test_states_follow_the_rollouts() -> None:
    """What came is there until it leaves; two rollouts of a host are two states of it."""
    rows = [
        ("web1", "r-1", "a-1", None), ("web1", "r-1", "b-1", None), ("web2", "r-1", "a-1", "a-0"),
        ("web1", "r-2", "a-2", "a-1"), ("web1", "r-2", None, "b-1"),
    ]  # fmt: skip
    assert states(rows) == [{"a-1", "b-1"}, {"a-1"}, {"a-2"}]
