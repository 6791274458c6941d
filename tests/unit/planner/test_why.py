"""Why a package is, or is not, in a plan: what is told is what the plan did."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cpacman.errors import InputError
from cpacman.model import ActionKind, FailedError, HeldReason, Request
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.why import Fate, Why, explain
from tests.unit.planner.casefile import Case, channel_of, read_sections

TEXT = """
repo base
  httpd-2-1.x86_64
    buildtime: 7
  httpd-3-1.x86_64
  httpd-4-1.x86_64
    requires: nothing-has-it
  httpd-5-1.noarch
  httpd-6-1.x86_64
    vendor: Other
  new-1-1.x86_64
    obsoletes: old
  extra-1-1.x86_64
repo edr noautoupdate
  httpd-7-1.x86_64
repo other
  httpd-2-1.x86_64
    buildtime: 9
installed web1
  httpd-2-1.x86_64
    buildtime: 7
  old-1-1.x86_64
  alone-1-1.x86_64
"""


def channel(tmp_path: Path, text: str = TEXT) -> ChannelInput:
    """Return the input that a case's text describes."""
    return channel_of(Case("", read_sections(text)), tmp_path)


def told(tmp_path: Path, word: str, text: str = TEXT) -> Why:
    """Explain a word."""
    return explain(channel(tmp_path, text), word)


def test_every_candidate_has_its_fate(tmp_path: Path) -> None:
    """Newest first: what is taken, what is held and by which rule, what is there already."""
    found = told(tmp_path, "httpd")
    rows = [(c.nevra, c.repository, c.fate) for c in found.candidates]
    assert rows == [
        ("httpd-7-1.x86_64", "edr", Fate.HELD),
        ("httpd-6-1.x86_64", "base", Fate.HELD),
        ("httpd-5-1.noarch", "base", Fate.HELD),
        ("httpd-4-1.x86_64", "base", Fate.HELD),
        ("httpd-3-1.x86_64", "base", Fate.TAKEN),
        ("httpd-2-1.x86_64", "base", Fate.INSTALLED),
        ("httpd-2-1.x86_64", "other", Fate.INSTALLED),
    ]
    reasons = [c.rules[0].reason for c in found.candidates[:4]]
    assert {"vendor", "arch", "requires"} <= set(reasons)
    assert "nothing-has-it" in found.candidates[3].rules[0].detail
    assert [a.nevra for a in found.actions] == ["httpd-3-1.x86_64"]


def test_it_is_the_plan_that_is_told(tmp_path: Path) -> None:
    """Actions and held packages are those of the plan, to the letter."""
    given = channel(tmp_path)
    plan = plan_hosts([given], request=Request())
    (transaction,) = plan.transactions.values()
    found = explain(given, "httpd")
    assert found.actions == tuple(a for a in transaction.actions if a.name == "httpd")
    assert found.held == tuple(h for h in transaction.held if h.nevra == "httpd-2-1.x86_64")
    assert found.snapshot == plan.snapshots[given.channel]


def test_where_it_was_installed_from(tmp_path: Path) -> None:
    """Of two repositories with one NEVRA the build time tells; else it is from elsewhere."""
    assert told(tmp_path, "httpd").installed[0].repositories == ("base",)
    assert told(tmp_path, "alone").installed[0].repositories == ()


def test_rules_stand_in_order(tmp_path: Path) -> None:
    """A candidate that several rules remove has all of them, each once."""
    text = TEXT + "policy\n  lock: httpd\n  exclude: httpd-6*\n"
    found = told(tmp_path, "httpd", text)
    other = next(c for c in found.candidates if c.nevra == "httpd-6-1.x86_64")
    assert [rule.reason for rule in other.rules] == ["lock", "vendor", "exclude"]
    closed = next(c for c in found.candidates if c.repository == "edr")
    assert closed.rules[0].reason == "lock"
    assert closed.rules[-1].reason == "noautoupdate"


def test_who_replaces_it_is_told(tmp_path: Path) -> None:
    """A package that another one obsoletes is explained with that one."""
    found = told(tmp_path, "old")
    assert [(c.nevra, c.fate) for c in found.candidates] == [("new-1-1.x86_64", Fate.TAKEN)]
    assert [a.action for a in found.actions] == [ActionKind.OBSOLETE]


def test_what_is_not_installed(tmp_path: Path) -> None:
    """A package that nothing asks for is told to be just that."""
    found = told(tmp_path, "extra")
    assert found.installed == ()
    assert [c.fate for c in found.candidates] == [Fate.UNASKED]


def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    """A word that means nothing is an error with the nearest installed name."""
    with pytest.raises(InputError, match=r"htpd: is neither installed.*did you mean httpd\?"):
        told(tmp_path, "htpd")


def test_a_host_that_cannot_be_planned(tmp_path: Path) -> None:
    """Of an inventory that can't be planned from it is told why."""
    given = channel(tmp_path)
    (host,) = given.inventories
    odd = msgspec.structs.replace(host, arch="z80")
    found = explain(msgspec.structs.replace(given, inventories=(odd,)), "httpd")
    assert found.failed is not None
    assert found.failed.error is FailedError.PLATFORM


def test_a_request_that_fails_still_shows_the_candidates(tmp_path: Path) -> None:
    """When a named version can't be had, the rules that forbid it are there."""
    request = Request(upgrade=("httpd-6-1.x86_64",))
    found = explain(channel(tmp_path), "httpd", request=request)
    assert found.failed is not None
    other = next(c for c in found.candidates if c.nevra == "httpd-6-1.x86_64")
    assert other.rules[0].reason == HeldReason.VENDOR.value
