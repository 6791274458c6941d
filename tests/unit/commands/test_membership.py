"""Who is a member: nobody gets anything before somebody, or a rule, accepted it as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands.adopting import adopt
from cpacman.commands.board import status
from cpacman.commands.fleet import Selection, place_all
from cpacman.commands.hosts import hosts
from cpacman.commands.membership import accept, retire
from cpacman.commands.planning import plan
from cpacman.commands.promoting import promote
from cpacman.commands.retention import prune
from cpacman.commands.snapshots import snapshot
from cpacman.errors import HostError, Problem, SafetyError, UsageError
from cpacman.fleet.placing import Placement
from cpacman.model import Request
from tests.unit.commands.world import World

HOLD = {"on_new": "hold"}


@pytest.fixture
def fleet(world: World) -> World:
    """Two development hosts that can be updated, one of production, all of them accepted."""
    rules(world)
    world.mirror("lib-2-1.noarch", "tool-3-1.noarch")
    for name in ("dev1", "dev2"):
        world.host(name, "development", "lib-1-1.noarch")
    world.host("prod1", "production", "lib-1-1.noarch")
    taken = snapshot(world.context())["snapshot"]["channels"]["el9"]["id"]
    for class_ in ("testing", "production"):
        world.store.point(class_, "el9", taken, expected=None, action="t", at=1, who="me")
    accept(world.context(), ["*"])
    return world


def rules(world: World, **values: Any) -> None:
    """Set the rules of membership; what is not said is held."""
    kept = {k: v for k, v in world.section["membership"].items() if k in ("hosts_d", "sources")}
    world.section["membership"] = {**kept, **values}


def planned(world: World, class_: str = "development", **selection: Any) -> dict[str, Any]:
    """Plan a class, and return the document with what is around it."""
    wanted = Selection(class_=class_, **selection)
    return plan(world.context(), wanted, request=Request(), refresh="none")["plan"]


def states(world: World) -> dict[str, str]:
    """Host -> the state that the list shows."""
    rows = hosts(world.context(), Selection(), states=())["hosts"]["hosts"]
    return {name: row["state"] for name, row in rows.items()}


def move(world: World, name: str, class_: str) -> None:
    """Let a host's entry name another class."""
    world.host(name, class_, "lib-1-1.noarch")


def test_a_new_host_waits(fleet: World) -> None:
    """It stands under NOT PLANNED with the command that accepts it, and then is planned."""
    fleet.host("dev3", "development", "lib-1-1.noarch")
    first = planned(fleet)
    assert set(first["hosts"]) == {"dev1", "dev2"}
    failure = first["failed"]["dev3"]
    assert failure["error"] == "not-accepted"
    assert "salt-run cpacman.accept hosts=dev3" in failure["causes"][0]
    assert states(fleet)["dev3"] == "new"
    assert status(fleet.context())["status"]["hosts"]["dev3"]["state"] == "new"
    accept(fleet.context("alice"), ["dev3"], ticket="CHG1")
    assert set(planned(fleet)["hosts"]) == {"dev1", "dev2", "dev3"}
    entries = fleet.store.history(host="dev3")
    assert [(e["action"], e["who"], e["ticket"]) for e in entries] == [
        ("new", "me", None), ("accept", "alice", "CHG1"),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["keys", "machines"])
def test_a_rebuilt_host_waits(fleet: World, what: str) -> None:
    """Another Salt key, or another machine-id, is another machine under an old name."""
    getattr(fleet, what)["dev1"] = "another"
    move(fleet, "dev1", "development")
    body = planned(fleet)
    assert set(body["hosts"]) == {"dev2"}
    words = {"keys": "another Salt key", "machines": "another machine-id"}[what]
    assert words in body["failed"]["dev1"]["causes"][0]
    assert states(fleet)["dev1"] == "rebuilt"
    accept(fleet.context(), ["dev*"])
    assert set(planned(fleet)["hosts"]) == {"dev1", "dev2"}


def test_a_machine_id_that_is_not_told_any_more(fleet: World) -> None:
    """What was known and is not known now is no proof of being the same."""
    fleet.machines["dev1"] = ""
    move(fleet, "dev1", "development")
    assert planned(fleet)["failed"]["dev1"]["error"] == "not-accepted"


def test_a_moved_host_waits_and_is_shown(fleet: World) -> None:
    """Journaled once, held until accepted, and then told by the next plan, once."""
    move(fleet, "dev1", "testing")
    for _ in range(2):
        body = planned(fleet, "testing")
        assert "moved: development -> testing" in body["failed"]["dev1"]["causes"][0]
    assert [e["action"] for e in fleet.store.history(host="dev1")] == ["accept", "moved"]
    fleet.now += 60
    accept(fleet.context("alice"), ["dev1"])
    told = "moved: dev1 development -> testing, accepted by alice"
    fleet.now += 60
    assert told in planned(fleet, "testing")["warnings"]
    assert told in planned(fleet, "development")["warnings"]
    fleet.now += 60
    assert told not in planned(fleet, "testing")["warnings"]
    (entry,) = [e for e in fleet.store.history(host="dev1") if e["action"] == "moved"]
    assert (entry["detail"]["from"], entry["detail"]["to"]) == ("development", "testing")


def test_a_host_that_moves_back_needs_nothing(fleet: World) -> None:
    """What was a slip, and is mended, is journaled, and the host goes on as before."""
    move(fleet, "dev1", "testing")
    planned(fleet, "testing")
    move(fleet, "dev1", "development")
    assert "dev1" in planned(fleet)["hosts"]
    assert [e["action"] for e in fleet.store.history(host="dev1")][-1] == "back"


def test_rules_accept(fleet: World) -> None:
    """With `accept` nobody has to type anything, and the journal names the rule."""
    rules(fleet, on_new="accept", on_move="accept", on_rebuilt="accept")
    move(fleet, "dev1", "testing")
    fleet.host("new1", "testing", "lib-1-1.noarch")
    fleet.keys["prod1"] = "another"
    body = planned(fleet, "testing")
    assert set(body["hosts"]) == {"dev1", "new1"} and not body["failed"]
    assert "moved: dev1 development -> testing, accepted by rule on_move" in body["warnings"]
    assert states(fleet)["prod1"] != "rebuilt"
    rules(fleet)
    assert set(planned(fleet, "testing")["hosts"]) == {"dev1", "new1"}, "kept as accepted"


def test_each_part_of_a_change_needs_its_rule(fleet: World) -> None:
    """A host that is both rebuilt and moved is not accepted by the rule for moves."""
    rules(fleet, on_move="accept")
    fleet.machines["dev1"] = "another"
    move(fleet, "dev1", "testing")
    assert planned(fleet, "testing")["failed"]["dev1"]["error"] == "not-accepted"


def test_a_typo_in_a_glob_moves_nobody(fleet: World) -> None:
    """Many moves at once stop the plans of both classes; a third class is planned as ever."""
    names = [f"many{n}" for n in range(4)]
    for name in names:
        fleet.host(name, "development", "lib-1-1.noarch")
    accept(fleet.context(), ["many*"])
    rules(fleet, on_move="accept", max_moves=3)
    for name in names:
        move(fleet, name, "testing")
    for class_ in ("development", "testing"):
        with pytest.raises(SafetyError, match="4 development -> testing: many0 many1"):
            planned(fleet, class_)
    assert set(planned(fleet, "production")["hosts"]) == {"prod1"}
    with pytest.raises(SafetyError, match="4 hosts changed their class at once"):
        accept(fleet.context(), ["many*"])
    assert states(fleet)["many0"] == "moved"
    accept(fleet.context(), names)
    assert set(names) == set(planned(fleet, "testing")["hosts"])


def test_no_move_without_a_name(fleet: World) -> None:
    """`max_moves: 0` is the strictest: each move is accepted by its name."""
    rules(fleet, max_moves=0)
    move(fleet, "dev1", "testing")
    with pytest.raises(SafetyError):
        accept(fleet.context(), ["dev*"])
    accept(fleet.context(), ["dev1"])
    assert set(planned(fleet, "testing")["hosts"]) == {"dev1"}


def test_accept_in_test_mode_and_of_nobody(fleet: World) -> None:
    """`test=True` changes nothing; a name that fits none is refused, all of them at once."""
    fleet.host("dev3", "development", "lib-1-1.noarch")
    answer = accept(fleet.context(), ["dev*"], test=True)["accept"]
    assert set(answer["hosts"]) == {"dev3"} and answer["unchanged"] == ["dev1", "dev2"]
    assert states(fleet)["dev3"] == "new"
    with pytest.raises(UsageError) as caught:
        accept(fleet.context(), ["nobody", "no*"])
    assert len(caught.value.problems) == 2
    with pytest.raises(UsageError, match="names nobody"):
        accept(fleet.context(), [])


def test_a_host_of_no_class_cannot_be_accepted(fleet: World) -> None:
    """There would be nothing that it is accepted as."""
    fleet.hosts.add("stray")
    with pytest.raises(SafetyError, match="stray: belongs to no class"):
        accept(fleet.context(), ["stray"])


def test_a_member_that_lost_its_class_is_listed(fleet: World) -> None:
    """An entry that vanished must not let a host slip out of its class's plans unseen."""
    del fleet.members["dev1"]
    fleet.host("dev2", "development", "lib-1-1.noarch")
    body = planned(fleet)
    assert "belongs to no class" in body["failed"]["dev1"]["causes"][0]
    assert states(fleet)["dev1"] == "unplaced"


def test_a_pillar_that_does_not_render_is_not_passed_over(fleet: World) -> None:
    """What it would have said is not left to grains: the host stays, listed, in its old class."""
    fleet.section["membership"]["sources"] = ["pillar", "grains"]
    fleet.pillars = {h: {"cpacman": {"class": "development"}} for h in ("dev1", "dev2")}
    assert set(planned(fleet)["hosts"]) == {"dev1", "dev2"}
    fleet.pillars["dev1"] = HostError(Problem("dev1", "its pillar does not render: line 3"))
    body = planned(fleet)
    assert set(body["hosts"]) == {"dev2"}
    assert "does not render" in body["failed"]["dev1"]["causes"][0]


def test_retired_hosts_count_nowhere(fleet: World) -> None:
    """Out of plans, status and targets; the history stays; back only by its own name."""
    fleet.host("dev3", "development", "lib-1-1.noarch")
    retire(fleet.context("bob"), ["dev1"], reason="scrapped")
    assert set(planned(fleet)["hosts"]) == {"dev2"}
    assert "dev1" not in status(fleet.context())["status"]["hosts"]
    assert "dev1" not in states(fleet)
    listed = hosts(fleet.context(), Selection(), states=["retired"])["hosts"]["hosts"]
    assert listed["dev1"]["note"] == "by bob"
    with pytest.raises(UsageError, match="only retired hosts"):
        planned(fleet, tgt="dev1")
    assert fleet.store.history(host="dev1")[-1]["reason"] == "scrapped"
    assert place_all(fleet.context(), ["dev1"]).held["dev1"].state == "retired"
    accept(fleet.context(), ["dev*"])
    assert set(planned(fleet)["hosts"]) == {"dev2", "dev3"}, "a glob does not bring it back"
    accept(fleet.context(), ["dev1"])
    assert set(planned(fleet)["hosts"]) == {"dev1", "dev2", "dev3"}


@pytest.mark.parametrize("most", [20, 1])
def test_retiring_many_at_once_is_forced(fleet: World, most: int) -> None:
    """All that there are, or more than `max_moves` by a glob: with a reason, or each by name."""
    rules(fleet, max_moves=most)
    glob, names = ("*", "dev1 dev2 prod1") if most == 20 else ("dev*", "dev1 dev2")
    for test in (True, False):
        with pytest.raises(SafetyError, match=rf"fits \d hosts: {names}; .*force=True"):
            retire(fleet.context(), [glob], test=test)
    with pytest.raises(UsageError, match="needs a reason"):
        retire(fleet.context(), [glob], force=True)
    assert set(states(fleet)) == {"dev1", "dev2", "prod1"}
    retire(fleet.context(), ["dev1", "dev2"])
    retire(fleet.context(), ["*"], force=True, reason="the data centre burnt down")
    assert states(fleet) == {}


def test_a_retired_host_that_comes_back_is_new(fleet: World) -> None:
    """With another key at once; with the old one once the master had thrown it away."""
    retire(fleet.context(), ["dev1", "dev2"])
    fleet.keys["dev1"] = "another"
    assert states(fleet) == {"dev1": "new", "prod1": "behind"}
    fleet.hosts.discard("dev2")
    planned(fleet, "production")
    fleet.hosts.add("dev2")
    assert states(fleet)["dev2"] == "new"
    assert planned(fleet)["failed"].keys() == {"dev1", "dev2"}


def test_origins_of_another_machine_are_forgotten(fleet: World) -> None:
    """Retired, or accepted as rebuilt by a person or a rule: what came from where is history."""
    change = {"action": "install", "name": "lib", "nevra": "lib-1-1.noarch", "from": None}
    names = ("dev1", "dev2", "prod1")

    def told() -> set[str]:
        return set(fleet.store.origins(names))

    for name in names:
        fleet.store.record("applied", "r-1", at=1.0, who="me", host=name,
                           changes=[{**change, "repository": "elsewhere"}])  # fmt: skip
    retire(fleet.context(), ["dev1"], test=True)
    assert told() == set(names)
    retire(fleet.context(), ["dev1"])
    assert told() == {"dev2", "prod1"}
    fleet.machines["dev2"] = fleet.machines["prod1"] = "another one"
    fleet.host("dev2", "development", "lib-1-1.noarch")
    planned(fleet)
    assert told() == {"dev2", "prod1"}, "nobody has accepted it yet"
    accept(fleet.context(), ["dev2"])
    assert told() == {"prod1"}
    rules(fleet, on_rebuilt="accept")
    fleet.host("prod1", "production", "lib-1-1.noarch")
    planned(fleet, "production")
    assert told() == set()


def test_origins_stay_with_a_host_that_moves(fleet: World) -> None:
    """Another class is no other machine."""
    change = {"action": "install", "name": "lib", "nevra": "lib-1-1.noarch", "from": None}
    fleet.store.record("applied", "r-1", at=1.0, who="me", host="dev1",
                       changes=[{**change, "repository": "elsewhere"}])  # fmt: skip
    move(fleet, "dev1", "production")
    accept(fleet.context(), ["dev1"])
    assert fleet.store.origins(["dev1"]) == {"dev1": {"lib-1-1.noarch": "elsewhere"}}


def test_a_busy_host_is_not_retired(fleet: World) -> None:
    """A rollout that has it comes first."""
    header = {"id": "r-1", "plan": "p-1", "class": "development", "state": "running", "who": "me",
              "owner": "here"}  # fmt: skip
    fleet.store.start_rollout(header, [("dev1", "all", "t-1")], at=1.0)
    with pytest.raises(SafetyError, match="being changed by rollout r-1"):
        retire(fleet.context(), ["dev*"])
    assert retire(fleet.context(), ["dev2"], test=True)["retire"]["hosts"].keys() == {"dev2"}
    assert "dev2" in states(fleet)


def test_what_was_not_known_is_learned(fleet: World) -> None:
    """A member of before there were members is taken as it first shows itself."""
    known = fleet.store.members()["dev1"]
    bare = type(known)(host="dev1", state="member", class_="development")
    fleet.store.put_members([bare], at=1.0, who="me")
    assert "dev1" in planned(fleet)["hosts"]
    assert fleet.store.members()["dev1"].machine == known.machine
    fleet.machines["dev1"] = "another"
    move(fleet, "dev1", "development")
    assert "dev1" in planned(fleet)["failed"]


def test_a_host_that_waits_refuses_no_promotion(fleet: World) -> None:
    """It gets nothing, so the proof names it beside those that count; a retired one not."""
    fleet.host("new1", "production", "lib-1-1.noarch")
    fleet.host("old1", "production", "lib-1-1.noarch")
    retire(fleet.context(), ["old1"])
    fleet.mirror("lib-2-1.noarch", "tool-2-1.noarch")
    snapshot(fleet.context())
    promote(fleet.context(), "testing", force=True, reason="a test")
    row = promote(fleet.context(), "production", test=True)["promote"]["channels"]["el9"]
    assert row["proof"]["hosts"] == 1 and row["proof"]["waiting"] == ["new1"]


def test_adopting_a_fleet(fleet: World) -> None:
    """What no snapshot knows, what is broken and what has no way back is told, then accepted."""
    rules(fleet)
    for name in ("old1", "old2"):
        fleet.host(name, "development", "lib-1-1.noarch", "agent-1-1.noarch")
    fleet.hosts.add("stray")
    answer = adopt(fleet.context(), Selection(class_="development"))["adopt"]
    (group,) = answer["groups"]
    assert group["hosts"] == ["old1", "old2"]
    assert group["unknown"] == ["agent-1-1.noarch", "lib-1-1.noarch"]
    assert group["irreversible"] == ["lib-1-1.noarch"] and not group["not_planned"]
    assert answer["members"] == ["dev1", "dev2"] and not answer["accepted"]
    assert states(fleet)["old1"] == "new", "looking changes nothing"
    done = adopt(fleet.context(), Selection(class_="development"), now=True)["adopt"]
    assert done["accepted"] == ["old1", "old2"]
    assert {"old1", "old2"} <= planned(fleet)["hosts"].keys()
    with pytest.raises(UsageError, match="name the hosts"):
        adopt(fleet.context(), Selection())


def test_adopting_when_snapshots_were_removed(fleet: World) -> None:
    """What prune took is known no more; what lies in the depot still is a way back."""
    rules(fleet)
    fleet.section["retention"] = {"keep": 2, "days": 0}
    for nevras in (("tool-1-1.noarch",), ("lib-1-1.noarch",), ("lib-2-1.noarch",)):
        fleet.later(9000)
        fleet.mirror(*nevras)
        snapshot(fleet.context())
    assert prune(fleet.context())["prune"]["removed"]
    fleet.host("old1", "development", "lib-1-1.noarch", "tool-1-1.noarch")
    (group,) = adopt(fleet.context(), Selection(tgt="old1"))["adopt"]["groups"]
    assert group["unknown"] == ["tool-1-1.noarch"] and group["irreversible"] == []


def test_a_state_that_is_none(fleet: World) -> None:
    """A misspelt state would list nobody: it is refused with the known ones."""
    with pytest.raises(UsageError, match="behind"):
        hosts(fleet.context(), Selection(), states=["behnd"])
    behind = hosts(fleet.context(), Selection(class_="production"), states=["behind"])
    assert set(behind["hosts"]["hosts"]) == {"prod1"}


def test_placements_are_what_they_were(fleet: World) -> None:
    """Where a host belongs is one thing, whether somebody accepted it another."""
    move(fleet, "dev1", "testing")
    placement: Placement = place_all(fleet.context(), ["dev1"]).placements["dev1"]
    assert placement.host.class_ == "testing" and not placement.problems
