"""Promotions that need others to agree: forced ones, and those under a profile that says so."""

from __future__ import annotations

import getpass
from typing import Any

import pytest

from cpacman.commands.promoting import promote
from cpacman.commands.steering import approve
from cpacman.depot.partial import Wanted
from cpacman.errors import InputError, SafetyError
from cpacman.report.screens import render
from tests.unit.commands.test_promoting import TWO, has, ready, strict  # noqa: F401
from tests.unit.commands.world import World


@pytest.fixture
def board(strict: World) -> World:  # noqa: F811
    """Production demands two hosts, which it has not, and one approver."""
    strict.section["classes"][2]["production"]["approvers"] = 1
    return strict


def ask(world: World, who: str = "ann", **arguments: Any) -> dict[str, Any]:
    """Promote to production by force, as somebody; return what is answered."""
    terms = {"force": True, "reason": "log4j", **arguments}
    return promote(world.context(who), "production", **terms)


def agree(world: World, who: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Approve of what an answer tells, as somebody."""
    return approve(world.context(who), answer["promote"]["approvals"]["id"][:8])


def test_forced_promotion_waits_for_somebody_else(board: World) -> None:
    """Refused, with how to agree; who asks can't; then the same command goes through, journaled."""
    before = board.held("production")
    told = ask(board)
    assert told["retcode"] == 1 and board.held("production") == before
    number = told["promote"]["approvals"]["id"]
    assert told["promote"]["approvals"] == {"id": number, "needed": 1, "by": []}
    text = render(told)
    assert "NOT DONE" in text and "FORCED" not in text
    assert "REFUSED   approvals: approved by 0 of 1, other than who asks" in text
    assert f"mend: salt-run cpacman.approve {number[:14]}" in text
    with pytest.raises(SafetyError, match="ann asked for it"):
        agree(board, "ann", told)
    agreed = agree(board, "bob", told)
    assert agreed["approve"]["by"] == ["bob"] and agreed["approve"]["new"]
    assert "promotion to production of el9 s-" in render(agreed)
    assert not agree(board, "bob", told)["approve"]["new"]
    assert ask(board)["retcode"] == 0 and has(board, "production") == set(TWO)
    entries = {one["action"]: one for one in board.store.history()}
    assert entries["ask"]["detail"]["channels"] == {"el9": board.held("production")}
    assert entries["promote"]["detail"]["approved"] == ["bob"]
    assert "evidence" in entries["promote"]["detail"]["forced"][0]


def test_who_promotes_does_not_count(board: World) -> None:
    """Bob agreed with ann; promoting himself he lacks somebody again, and can't be it any more."""
    agree(board, "bob", ask(board))
    told = ask(board, "bob")
    assert told["promote"]["approvals"]["by"] == [] and told["retcode"] == 1
    assert ask(board)["retcode"] == 1, "bob asks for it himself by now"
    agree(board, "cid", told)
    assert ask(board, "bob")["retcode"] == 0


def test_what_is_approved_of_is_the_very_content(board: World) -> None:
    """A part of it is something else, and so is it in another class."""
    whole, part = ask(board), ask(board, wanted=Wanted(packages=("tool",)))
    assert whole["promote"]["approvals"]["id"] != part["promote"]["approvals"]["id"]
    agree(board, "bob", part)
    assert ask(board)["retcode"] == 1
    assert ask(board, wanted=Wanted(packages=("tool",)))["retcode"] == 0
    assert has(board, "production") == {"tool-2-1.noarch"}


def test_nobody_is_asked_in_vain(board: World) -> None:
    """Not by a test, nor where force goes over nothing, nor where the class holds it already."""
    told = ask(board, test=True)
    assert told["promote"]["refused"] and "mend: the same without test=True asks" in render(told)
    with pytest.raises(InputError, match="nobody asked"):
        agree(board, "bob", told)
    board.section["classes"][2]["production"].pop("evidence")
    assert ask(board)["retcode"] == 0
    assert ask(board)["retcode"] == 0
    assert "ask" not in dict(board.journal())


def test_profile_names_its_own_approvers(board: World) -> None:
    """They agree to every promotion with it, forced or not; none at all may be said, too."""
    board.section["profiles"] = {
        "emergency": {"evidence": {"min_hosts": 0}, "approvers": 2},
        "alone": {"approvers": 0},
    }
    terms = {"force": False, "profile": "emergency"}
    told = ask(board, **terms)
    assert told["promote"]["approvals"]["needed"] == 2 and told["retcode"] == 1
    for who in ("bob", "cid"):
        assert ask(board, **terms)["retcode"] == 1
        agree(board, who, told)
    assert ask(board, **terms, test=True)["retcode"] == 0
    assert ask(board, profile="alone")["retcode"] == 0


def test_only_who_may_approves(board: World) -> None:
    """`access` says who that is."""
    told = ask(board)
    board.section["access"] = {"approve": {"production": [getpass.getuser()]}}
    with pytest.raises(SafetyError, match="bob may not approve production"):
        agree(board, "bob", told)
    agree(board, getpass.getuser(), told)
    assert ask(board)["retcode"] == 0


def test_one_person_by_two_logins(board: World) -> None:
    """Ann under sudo is ann: who asks does not agree with herself."""
    told = ask(board, "sudo_ann")
    with pytest.raises(SafetyError, match="ann asked for it"):
        agree(board, "ann", told)
    agree(board, "sudo_bob", told)
    assert ask(board, "bob")["promote"]["approvals"]["by"] == []
