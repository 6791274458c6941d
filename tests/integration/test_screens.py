"""What a person sees without changing a host: plans, screens, and every mistake told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from cpacman.model import Plan
from lab import Lab, rpms
from tests.integration.fleet import CHANNEL, MEMBERS, Fleet


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[Fleet]:
    """One fleet with inventories and a snapshot for all tests of this file."""
    yield Fleet(lab).ready()
    lab.reset()


@pytest.fixture
def fleet(shared: Fleet) -> Iterator[Fleet]:
    """The fleet; its configuration is put back after the test."""
    yield shared
    shared.members(MEMBERS)
    shared.configure()


def test_plan_document_is_the_documented_one(fleet: Fleet) -> None:
    """The JSON of `plan` converts to the format's types, with a digest for all that is pushed."""
    document = fleet.plan()
    plan = msgspec.convert(document, Plan)
    (transaction,) = plan.transactions.values()
    actions = {action.name: action for action in transaction.actions}
    assert re.fullmatch(r"p-[0-9a-f]{64}", plan.plan_id)
    assert actions["webapp"].advisories == (rpms.ADVISORY,)
    assert (actions["libwebapp"].action, actions["libwebapp"].reason) == ("install", "dependency")
    assert (actions["newtool"].action, actions["newtool"].from_) == (
        "obsolete", "oldtool-1.0-1.noarch",
    )  # fmt: skip
    assert all(re.fullmatch(r"[0-9a-f]{64}", action.sha256 or "") for action in actions.values())
    assert [(held.nevra, held.reason) for held in transaction.held] == [
        ("jlib-1.0-1.noarch", "arch")
    ]
    assert "arch_change" in transaction.held[0].detail
    assert document["snapshots"][CHANNEL].startswith("s-")


def test_screens_lead_on(fleet: Fleet) -> None:
    """A plan's table names what changes and ends with the command that carries it out."""
    shown = fleet.seen("plan", **{"class": "development"}).stdout
    assert "webapp" in shown and "1.0-1 -> 1.1-1" in shown and "jlib" in shown
    assert re.search(r"next: salt-run cpacman.deploy plan=p-[0-9a-f]{12}", shown)


def test_named_packages_only(fleet: Fleet) -> None:
    """A named upgrade takes that package and what it needs, a named install is new."""
    plan = fleet.plan(upgrade="webapp", install="hugedata")
    (transaction,) = plan["transactions"].values()
    assert {a["name"]: a["action"] for a in transaction["actions"]} == {
        "webapp": "upgrade", "libwebapp": "install", "hugedata": "install",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("deploy", {}, "nothing is deployed by default"),
        ("plan", {"clas": "development"}, "did you mean class="),
        ("plan", {"class": "developmnt"}, "development"),
        ("plan", {"tgt": "nobody*"}, "matches no host"),
        ("plan", {}, "name one: class="),
        ("deploy", {"plan": "p-00000000"}, "there is no plan p-00000000"),
        ("deploy", {"plan": "production"}, "no id of a plan"),
        ("show", {"id": "s-0000"}, "s-0000"),
        ("promote", {"to": "development"}, "development"),
        ("promote", {"to": "prodution"}, "production"),
        ("refresh", {}, "name the hosts"),
        ("history", {"since": "yesterday"}, "no time"),
    ],
)
def test_mistakes_are_told(fleet: Fleet, function: str, arguments: dict, message: str) -> None:
    """A mistake ends with 2 and a message that leads on; nothing is a traceback."""
    answer = fleet.run(function, **arguments)
    assert answer.code == 2
    assert message in answer.problems()


def test_broken_configuration_is_told_at_once(fleet: Fleet) -> None:
    """All problems of the configuration come together, each with its path."""
    fleet.configure(levels=[{"canary": {"match": "ring"}}], classes=["a", "a"], budgett={})
    answer = fleet.run("plan", **{"class": "development"})
    assert answer.code == 2
    for path in ("levels[0].match", "classes[1]", "budgett"):
        assert path in answer.problems()


def test_broken_host_files_are_told(fleet: Fleet) -> None:
    """Broken YAML and an unknown class name their file and place."""
    fleet.members("web1: {class: [")
    assert "all.yaml:1" in fleet.run("status").problems()
    fleet.members({"web1": {"class": "developmnt"}})
    assert "did you mean 'development'" in fleet.run("status").problems()
