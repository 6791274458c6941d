"""The decorator of runner functions: what people type, and what they get when it is wrong."""

from __future__ import annotations

import inspect

import pytest

from cpacman.arguments import Asked, Names, Sel, listed
from cpacman.commands.fleet import Selection
from cpacman.doors import runner
from cpacman.errors import ConfigError, Problem
from cpacman.model import Request


@runner
def plan(tgt: str | None = None, *, class_: Names = None, now: bool = False, since: str = ""):
    """Plan things."""
    if tgt == "bug":
        raise KeyError("oops")
    if tgt == "config":
        raise ConfigError([Problem("levels[2].match", "is empty", "name a field")])
    if tgt == "late":
        return {"plan": {"hosts": {}}, "retcode": 3}
    return {"plan": {"class": class_, "now": now, "tgt": tgt}}


def test_result_has_the_shape_that_salt_counts_as_success() -> None:
    """The data holds `result` and no `retcode`, else Salt would call it a failure."""
    answer = plan(**{"class": "production"})
    assert answer["data"]["plan"]["class"] == "production"
    assert answer["data"]["plan"]["result"] is True
    assert set(answer) == {"data", "outputter"} and "retcode" not in answer["data"]


def test_retcode_is_kept() -> None:
    """A command that did not get everything done says so with its code."""
    answer = plan("late")["data"]
    assert answer["retcode"] == 3 and answer["plan"]["result"] is False


def test_errors_are_clean() -> None:
    """Our errors become problems with their paths and a non-zero code, never a traceback."""
    answer = plan("config")["data"]
    assert answer["retcode"] == 2
    assert answer["error"]["problems"] == [
        {"path": "levels[2].match", "message": "is empty", "mend": "name a field"}
    ]


def test_bugs_fail_and_say_that_they_are_bugs() -> None:
    """What escapes is a bug report with the traceback, and fails."""
    answer = plan("bug")["data"]
    assert answer["retcode"] == 1 and "KeyError" in answer["bug"]["traceback"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"clas": "x"}, "did you mean class=?"),
        ({"class": 7}, "was read as the number 7"),
        ({"class": ["a", 1.1]}, "was read as the number 1.1"),
        ({"since": 1320}, "was read as the number 1320"),
        ({"now": "yes please"}, "neither True nor False"),
        ({"zzz": 1}, "known are: tgt, class, now, since"),
        ({"class": ["a", None]}, "was read as the NoneType None"),
        ({"class": ""}, "is empty"),
        ({"class": " , "}, "is empty"),
        ({"class": []}, "is empty"),
        ({"class": [""]}, "is empty"),
        ({"tgt": ""}, "is empty"),
        ({"since": " "}, "is empty"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict, message: str) -> None:
    """A misspelt name gets the nearest one; what YAML made of a value is told."""
    answer = plan(**kwargs)["data"]
    assert answer["retcode"] == 2
    assert message in str(answer["error"]["problems"])


def test_an_empty_reason_is_none() -> None:
    """What selects nothing may be empty: a script passes on what it was given."""

    @runner
    def promote(*, reason: str | None = None, ticket: str | None = None):
        """Promote things."""
        return {"promote": {"reason": reason}}

    assert promote(reason="", ticket="")["data"]["promote"]["result"] is True


def test_every_wrong_argument_is_named_at_once() -> None:
    """Two mistakes are two problems."""
    assert len(plan(clas="x", nowt=True)["data"]["error"]["problems"]) == 2


def test_too_many_positional_arguments() -> None:
    """A second target is a mistake, not silently something else."""
    assert plan("web1", "web2")["data"]["retcode"] == 2


@runner
def several(*specs: str, test: bool = False):
    """Take any number of words."""
    return {"several": {"specs": list(specs), "test": test}}


def test_any_number_of_words() -> None:
    """Each is checked by itself; they have no name of their own."""
    assert several("a", "b", test=True)["data"]["several"]["specs"] == ["a", "b"]
    assert "was read as the number 7" in str(several("a", 7)["data"]["error"]["problems"])
    assert "known are: test" in str(several(specs="a")["data"]["error"]["problems"])


def test_salt_sees_the_outer_signature() -> None:
    """With the inner one Salt would print its own message for a misspelt argument and exit 0."""
    assert inspect.getfullargspec(plan).varkw == "kwargs"
    assert plan.__doc__ == "Plan things." and plan.__name__ == "plan"


@runner
def grouped(sel: Sel, *, owed: bool = False, asked: Asked):
    """Take what several functions take."""
    selection, request = sel.selection(owed=owed), asked.request(reasons=False)
    return {"grouped": {"selection": selection._asdict(), "request": request}}


def test_members_of_a_group_are_typed_one_by_one() -> None:
    """A function that takes a group is called as if it named each of its members."""
    typed = {"class": "production", "owed": True, "cve": "CVE-1,CVE-2", "security": True}
    body = grouped("web*", "glob", **typed)["data"]["grouped"]
    assert body["selection"] == {
        **Selection()._asdict(), "tgt": "web*", "class_": "production", "owed": True,
    }  # fmt: skip
    assert body["request"] == Request(advisory=("CVE-1", "CVE-2"), security=True, reasons=False)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {"clas": "x"}, "did you mean class=?"),
        ((), {"level": 7}, "was read as the number 7"),
        ((), {"sync": "yes"}, "neither True nor False"),
        ((), {"meta": ""}, "is empty"),
        ((), {"sel": "web1"}, "there is no such argument"),
        (("web1", "glob", "production"), {}, "one argument too many"),
        (("web1",), {"tgt": "web2"}, "is given twice"),
    ],
)
def test_mistakes_in_a_group_are_named(args: tuple, kwargs: dict, message: str) -> None:
    """Members are checked as other arguments are, and a group is no name that anybody types."""
    answer = grouped(*args, **kwargs)["data"]
    assert answer["retcode"] == 2
    assert message in str(answer["error"]["problems"])


def test_lists_as_people_type_them() -> None:
    """Commas, a YAML list or nothing."""
    assert listed("a, b,") == ("a", "b")
    assert listed(["a"]) == ("a",)
    assert listed(None) == ()
