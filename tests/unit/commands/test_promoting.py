"""Promotion: whole and in part, proved on the hosts first, refused and forced."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.commands import blocking
from cpacman.commands.looking import history
from cpacman.commands.membership import retire
from cpacman.commands.pointing import revert
from cpacman.commands.promoting import promote
from cpacman.commands.snapshots import snapshot
from cpacman.depot.partial import Wanted
from cpacman.depot.snapshot import load_snapshot, snapshot_ids
from cpacman.errors import ConflictError, SafetyError, UsageError
from cpacman.model import Request
from cpacman.report.screens import render
from tests.unit.commands.world import World

ONE = ("app-1-1.noarch", "lib-1-1.noarch", "tool-1-1.noarch", "agent-1-1.noarch")
TWO = ("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch", "agent-2-1.noarch",
       "helper-2-1.noarch")  # fmt: skip
HOUR = 3600.0


@pytest.fixture
def ready(world: World) -> World:
    """All three classes hold generation 1; development holds 2; a host of each class has 1."""
    world.mirror(*ONE)
    for number, class_ in enumerate(("development", "testing", "production")):
        world.host(f"host{number}", class_, *ONE)
    snapshot(world.context())
    for to in ("testing", "production"):
        run(world, to)
    world.mirror(*ONE, *TWO, advisories={"A-2026:1": ["lib-2-1.noarch"]})
    snapshot(world.context())
    return world


def run(world: World, to: str = "testing", **arguments: Any) -> dict[str, Any]:
    """Promote and return the answer for the one channel, with `retcode`."""
    answer = promote(world.context(), to, **arguments)
    return {**answer["promote"]["channels"]["el9"], "retcode": answer["retcode"], "all": answer}


def has(world: World, class_: str) -> set[str]:
    """Return what the snapshot of a class has, without generation 1."""
    found = load_snapshot(world.context().settings.depot, world.held(class_))
    return {one.nevra for one in found.packages} - set(ONE)


def test_whole_with_its_proof(ready: World) -> None:
    """A test says what would happen to whom and moves nothing; the same is then done."""
    before, depot = ready.held("testing"), snapshot_ids(ready.context().settings.depot)
    told = run(ready, test=True)
    proof = told["proof"]
    assert (proof["hosts"], proof["change"], proof["same"]) == (1, 1, 0)
    assert proof["failed"] == {} and proof["newly_held"] == []
    (group,) = proof["groups"]
    assert {one["nevra"] for one in group["actions"]} == set(TWO)
    assert proof["wire"] == proof["distinct"] == group["size"] > 0
    assert (told["updated"], told["added"], told["removed"], told["advisories"]) == (4, 1, 0, 1)
    assert ready.held("testing") == before
    assert snapshot_ids(ready.context().settings.depot) == depot
    assert run(ready)["retcode"] == 0
    assert ready.held("testing") == ready.held("development") == told["id"]
    assert run(ready)["new"] is False


def test_what_the_class_before_held_earlier(ready: World) -> None:
    """An older one by its id, or by a date: no class is skipped by that."""
    old = ready.held("testing")
    ready.later(10 * 24 * HOUR)
    run(ready)
    first = ready.held("development")
    ready.mirror("lib-3-1.noarch", *ONE)
    ready.later(10 * 24 * HOUR)
    snapshot(ready.context())
    assert run(ready, until="3d", test=True)["id"] == first
    assert run(ready, snapshot=first[:14], test=True)["id"] == first
    assert run(ready, "production", snapshot=old, test=True)["skipped"] == []
    with pytest.raises(UsageError, match="by then"):
        run(ready, until="2001-01-01", test=True)
    with pytest.raises(UsageError, match="give one of them"):
        run(ready, until="3d", snapshot=first)


def test_skipping_a_class_is_said_and_journaled(ready: World) -> None:
    """What testing never held reaches production by force and with a reason only."""
    new = ready.held("development")
    refused = run(ready, "production", snapshot=new)
    assert refused["retcode"] == 1 and refused["skipped"] == ["testing"]
    assert "testing never held" in refused["refused"][0]["message"]
    assert ready.held("production") != new
    with pytest.raises(UsageError, match="needs a reason"):
        run(ready, "production", snapshot=new, force=True)
    done = run(ready, "production", snapshot=new, force=True, reason="zero day", ticket="CHG1")
    assert done["retcode"] == 0 and ready.held("production") == new
    entry = ready.store.history()[-1]
    assert (entry["reason"], entry["ticket"], entry["detail"]["skipped"]) == (
        "zero day", "CHG1", ["testing"]
    )  # fmt: skip
    assert "testing never held" in entry["detail"]["forced"][0]
    told = render(history(ready.context(), ticket="CHG1"))
    assert "zero day" in told and "SKIPS testing" in told and "FORCED past el9: testing" in told


# ---- in part ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "comes"),
    [
        (Wanted(packages=("tool",)), {"tool-2-1.noarch"}),
        # With what it needs, and what that needs.
        (Wanted(packages=("app",)), {"app-2-1.noarch", "lib-2-1.noarch"}),
        (Wanted(packages=("agent-2*",)), {"agent-2-1.noarch", "helper-2-1.noarch"}),
        (Wanted(advisories=("A-2026:1",)), {"lib-2-1.noarch"}),
        # All but some, and so without what can't do without those.
        (Wanted(exclude=("tool",)), set(TWO) - {"tool-2-1.noarch"}),
        (Wanted(exclude=("lib",)),
         {"tool-2-1.noarch", "agent-2-1.noarch", "helper-2-1.noarch"}),
    ],
)  # fmt: skip
def test_in_part(ready: World, wanted: Wanted, comes: set[str]) -> None:
    """The new snapshot has what was chosen, its lineage, and what a test has told of it."""
    held, source = ready.held("testing"), ready.held("development")
    told = run(ready, wanted=wanted, test=True)
    assert len(snapshot_ids(ready.context().settings.depot)) == 2
    done = run(ready, wanted=wanted)
    assert done["retcode"] == 0, done["refused"]
    assert has(ready, "testing") == comes
    assert told["id"] == done["id"] == ready.held("testing")
    made = load_snapshot(ready.context().settings.depot, done["id"])
    assert made.lineage is not None and made.lineage.how == wanted.how
    assert set(made.lineage.parents) == {held, source}
    assert {row["id"] for row in ready.store.snapshots()} == {held, source, made.id}
    assert ready.store.history()[-1]["detail"]["how"] == wanted.how


def test_one_repository_of_several(world: World) -> None:
    """The agent moves without the distribution."""
    world.repositories(base={}, extra={})
    for generation in (1, 2):
        world.mirror(f"lib-{generation}-1.noarch", f"tool-{generation}-1.noarch")
        agent = [
            f"agent-{generation}-1.noarch",
            *(["helper-2-1.noarch"] if generation == 2 else []),
        ]
        world.mirror(*agent, name="extra")
        snapshot(world.context())
        if generation == 1:
            run(world)
    run(world, wanted=Wanted(repositories=("extra",)))
    found = load_snapshot(world.context().settings.depot, world.held("testing"))
    assert {one.nevra for one in found.packages} == {
        "lib-1-1.noarch", "tool-1-1.noarch", "agent-2-1.noarch", "helper-2-1.noarch",
    }  # fmt: skip


def test_part_needs_what_hosts_need(ready: World) -> None:
    """A host's own package needs the old one: what it needs to follow comes, too."""
    ready.mirror(*ONE, *TWO, "plugin-2-1.noarch")
    snapshot(ready.context())
    told = run(ready, wanted=Wanted(packages=("lib",)), test=True)
    assert told["part"]["needs"] == [] and told["refused"] == []
    told = run(ready, wanted=Wanted(packages=("plugin",)), test=True)
    assert told["part"]["needs"] == ["app-2-1.noarch", "lib-2-1.noarch"]


def test_excluded_never_comes_and_is_told(ready: World) -> None:
    """What was named can't do without what was excluded: refused, with the cause."""
    wanted = Wanted(packages=("app",), exclude=("lib",))
    refused = run(ready, wanted=wanted)
    assert refused["retcode"] == 1
    assert any("app-2-1.noarch needs lib >= 2" in p["message"] for p in refused["refused"])
    assert has(ready, "testing") == set()


@pytest.mark.parametrize(
    "wanted",
    [Wanted(packages=("nowhere",)), Wanted(advisories=("A-9",)), Wanted(repositories=("x",)),
     Wanted(exclude=("nowhere",))],
)  # fmt: skip
def test_what_names_nothing(ready: World, wanted: Wanted) -> None:
    """A word that means nothing is a mistake, never an empty promotion."""
    with pytest.raises(UsageError):
        run(ready, wanted=wanted)


def test_part_of_nothing(world: World) -> None:
    """A class that holds nothing takes a whole snapshot first."""
    world.mirror(*ONE)
    snapshot(world.context())
    with pytest.raises(UsageError, match="holds nothing yet"):
        run(world, wanted=Wanted(packages=("lib",)))


# ---- refused by the proof --------------------------------------------------------------------


def test_host_that_fails_refuses(ready: World) -> None:
    """A host that could not be planned is named with why; force with a reason goes on."""
    ready.host("host1", "testing", *ONE)
    ready.hosts.add("host9")
    ready.members["host9"] = {"class": "testing"}
    ready.host("host9", "testing", "app-1-1.noarch", "lib-1-1.noarch", "lib-1-1.noarch")
    refused = run(ready)
    assert refused["retcode"] == 1 and set(refused["proof"]["failed"]) == {"host9"}
    assert ready.held("testing") != refused["id"]
    screen = render(refused["all"])
    assert "1 FAIL (host9" in screen and "REFUSED" in screen and "force=True reason=" in screen
    forced = run(ready, force=True, reason="host9 is going away")
    assert forced["retcode"] == 0 and ready.held("testing") == forced["id"]
    assert "host9" in ready.store.history()[-1]["detail"]["forced"][0]


def test_newly_held_package_refuses(ready: World) -> None:
    """What would be held and is not now is named; what was held before is no news."""
    ready.host("host1", "testing", *ONE, "twin-1-1.noarch")
    ready.mirror(*ONE, *TWO, "twin-2-1.x86_64", "twin-1-1.noarch")
    snapshot(ready.context())
    refused = run(ready)
    assert [one["nevra"] for one in refused["proof"]["newly_held"]] == ["twin-1-1.noarch"]
    assert refused["retcode"] == 1 and "held newly on 1 host," in refused["refused"][0]["message"]
    assert run(ready, wanted=Wanted(exclude=("twin",)))["retcode"] == 0
    run(ready, force=True, reason="known")
    ready.mirror(*ONE, *TWO, "twin-2-1.x86_64", "lib-3-1.noarch")
    snapshot(ready.context())
    assert run(ready)["retcode"] == 0


def test_old_inventory_is_named(ready: World) -> None:
    """A host that can't be asked is planned from what it last said, and named with its age."""

    ready.now += 5 * HOUR
    answer = promote(ready.context(), "testing", test=True)["promote"]
    assert answer["channels"]["el9"]["proof"]["stale"] == {"host1": 5 * HOUR}
    assert answer["channels"]["el9"]["proof"]["change"] == 1


# ---- safeguards and blocks -------------------------------------------------------------------


def test_ticket_that_a_class_demands(ready: World) -> None:
    """Without one that fits nothing is promoted, by no force."""
    ready.section["classes"] = ["development", {"testing": {"ticket": "CHG[0-9]{4}"}}, "production"]
    for ticket in (None, "CHG1", "xCHG1234"):
        with pytest.raises(SafetyError, match="testing wants one that fits"):
            run(ready, force=True, reason="r", ticket=ticket)
    assert run(ready, ticket="CHG1234")["retcode"] == 0


def test_nothing_is_promoted_in_a_freeze(ready: World) -> None:
    """Not even by force."""
    ready.section["freeze"] = [
        {"from": "1990-01-01", "until": "2999-01-01", "classes": ["testing"], "reason": "audit"}
    ]
    with pytest.raises(SafetyError, match="frozen: audit"):
        run(ready, force=True, reason="r")


def test_who_may_promote(ready: World) -> None:
    """A class whose promoters are named takes nothing from others, root included."""
    ready.section["access"] = {"promote": {"testing": ["nobody-knows"]}}
    with pytest.raises(SafetyError, match="may not promote testing"):
        run(ready, force=True, reason="r")


def test_blocked_things(ready: World) -> None:
    """A blocked snapshot is never promoted; a blocked version is told, and refused if named."""
    blocking.block(ready.context(), ["lib-2-1"], reason="crashes")
    refused = run(ready, wanted=Wanted(packages=("lib",)))
    assert (
        refused["retcode"] == 1 and "was named and is blocked" in refused["refused"][0]["message"]
    )
    told = run(ready, wanted=Wanted(exclude=("app",)))
    assert told["retcode"] == 0 and told["blocked"] == {"lib-2-1.noarch": "lib-2-1"}
    blocking.block(ready.context(), [ready.held("development")], reason="half a mirror")
    with pytest.raises(SafetyError, match="is blocked: half a mirror"):
        run(ready, force=True, reason="r")


# ---- repositories for some classes -----------------------------------------------------------


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(exclude=("lib",)), Wanted(packages=("tool",))])
def test_limited_repository_enters_where_it_is_named(ready: World, wanted: Wanted) -> None:
    """It travels unseen through the class before, and is there for the hosts of the first named."""
    ready.repositories(base={}, edr={"classes": ["production"]})
    ready.mirror("helper-2-1.noarch", "needy-2-1.noarch", name="edr")
    ready.mirror(*ONE, "tool-2-1.noarch", "lib-2-1.noarch")
    snapshot(ready.context())
    told = run(ready, wanted=wanted)
    assert told["retcode"] == 0, told["refused"]
    assert not any("helper" in a["nevra"] for g in told["proof"]["groups"] for a in g["actions"])
    if wanted == Wanted():
        assert run(ready, "production", test=True)["entering"] == ["edr"]
    with pytest.raises(UsageError, match="names nothing"):
        run(ready, wanted=Wanted(packages=("helper",)))
    with pytest.raises(UsageError, match="is for production only"):
        run(ready, wanted=Wanted(repositories=("edr",)))


# ---- evidence --------------------------------------------------------------------------------


@pytest.fixture
def strict(ready: World) -> World:
    """Production demands two hosts for two days; testing has three of them, and holds 2."""
    for number in (4, 5):
        ready.host(f"host{number}", "testing", *ONE)
    run(ready)
    rule = {"min_hosts": 2, "soak": "48h", "max_failures": 0}
    ready.section["classes"] = ["development", "testing", {"production": {"evidence": rule}}]
    return ready


def lacks(told: dict[str, Any]) -> list[str]:
    """What is missing, as it is told."""
    return [one["message"] for one in told["refused"]]


def test_evidence_of_a_whole_snapshot(strict: World) -> None:
    """Hosts first, then time, then a host that stands failed; met in the end."""
    assert lacks(run(strict, "production")) == ["hosts 0 of 2", "soak 0 s of 2 d"]
    strict.roll("testing", {"host1": "skipped", "host5": "failed"})
    strict.later(31 * HOUR)
    told = run(strict, "production", test=True)
    assert lacks(told) == ["hosts 1 of 2", "soak 0 s of 2 d", "failures 1 of 0: host5"]
    strict.roll("testing")
    strict.later(17 * HOUR)
    told = run(strict, "production")
    assert lacks(told) == ["soak 17 h of 2 d"]
    assert told["evidence"]["when"] == strict.now + 31 * HOUR
    strict.later(31 * HOUR)
    assert run(strict, "production")["retcode"] == 0


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("how", ["retired", "moved", "forgotten"])
def test_failure_stands_when_the_host_leaves(strict: World, how: str, part: bool) -> None:
    """Whoever failed at what was applied is no evidence less for being scrapped or moved since."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 1}
    strict.roll("testing", {"host1": "failed", "host4": "refused"})
    if how == "retired":
        retire(strict.context(), ["host1", "host4"])
    for host in ("host1", "host4"):
        if how == "moved":
            strict.host(host, "development", *ONE)
        elif how == "forgotten":
            strict.hosts.discard(host)
    wanted = Wanted(packages=("tool",)) if part else Wanted()
    told = run(strict, "production", wanted=wanted, test=True)
    assert lacks(told) == ["failures 1 of 0: host1"]


def test_nobody_fails_for_ever(strict: World) -> None:
    """A host that was mended before it left stands failed no more, and proves nothing either."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 2}
    strict.roll("testing", {"host1": "failed", "host4": "skipped"})
    strict.roll("testing", {"host4": "skipped"})
    retire(strict.context(), ["host1"])
    assert lacks(run(strict, "production", test=True)) == ["hosts 1 of 2"]


def test_nothing_to_change_proves_nothing(strict: World) -> None:
    """Hosts that had it all before are no evidence."""
    for number in (1, 4, 5):
        strict.host(f"host{number}", "testing", *TWO)
    strict.roll("testing")
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 1}
    assert lacks(run(strict, "production")) == ["hosts 0 of 1"]


def test_evidence_of_a_part(strict: World) -> None:
    """Each version that comes needs its own, from whatever rollout brought it."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 3}
    strict.roll("testing", {"host4": "skipped"})
    told = run(strict, "production", wanted=Wanted(packages=("app",)), test=True)
    assert set(told["evidence"]["verdicts"]) == {"app-2-1.noarch", "lib-2-1.noarch"}
    assert lacks(told) == ["hosts 2 of 3", "hosts 2 of 3"]
    # Another snapshot brings the same versions to the third host.
    strict.mirror(*ONE, *TWO, "lib-3-1.noarch")
    snapshot(strict.context())
    run(strict, wanted=Wanted(exclude=("lib-3*",)))
    strict.roll("testing")
    assert run(strict, "production", wanted=Wanted(packages=("app",)))["retcode"] == 0


@pytest.mark.parametrize(
    "narrow",
    [
        Request(remove=("tool",)),
        Request(upgrade=("tool",)),
        Request(exclude=("lib", "app")),
        Request(lock=("lib", "app")),
        Request(advisory=("A-2026:1",)),
    ],
)
def test_part_of_a_snapshot_proves_nothing_of_the_whole(strict: World, narrow: Request) -> None:
    """Hosts that were given less on purpose did not run the snapshot; one that failed did fail."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 1}
    strict.roll("testing", {"host1": "failed"}, narrow)
    assert lacks(run(strict, "production")) == ["hosts 0 of 1", "failures 1 of 0: host1"]
    strict.roll("testing")
    assert run(strict, "production")["retcode"] == 0


def test_rollouts_may_leave_out_what_the_promotion_does(strict: World) -> None:
    """All but some is proved by rollouts of all but some of that."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 3}
    strict.roll("testing", request=Request(exclude=("tool",)))
    assert lacks(run(strict, "production")) == ["hosts 0 of 3"]
    assert run(strict, "production", wanted=Wanted(exclude=("tool",)))["retcode"] == 0


@pytest.mark.parametrize("other", [Request(upgrade=("old",)), Request(exclude=("tool",))])
def test_failure_stands_when_something_else_has_nothing_to_do(
    strict: World, other: Request
) -> None:
    """That a host needs nothing of another request says nothing of the version that failed."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 0}
    strict.host("host1", "testing", "tool-1-1.noarch", "old-1-1.noarch")
    tool = Wanted(packages=("tool",))
    strict.roll("testing", {"host1": "failed"})
    strict.roll("testing", request=other)
    assert lacks(run(strict, "production", wanted=tool, test=True)) == ["failures 1 of 0: host1"]
    strict.roll("testing", {"host1": "unchanged"})  # it has it after all
    assert run(strict, "production", wanted=tool)["retcode"] == 0


def test_failure_stands_when_the_class_went_back(strict: World) -> None:
    """A class that was taken back needs nothing, which is no success of what failed."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 0}
    bad = strict.held("testing")
    strict.roll("testing", dict.fromkeys(("host1", "host4", "host5"), "failed"))
    revert(strict.context(), "testing")
    strict.roll("testing")
    told = run(strict, "production", snapshot=bad, wanted=Wanted(packages=("tool",)), test=True)
    assert lacks(told) == ["failures 3 of 0: host1 host4 host5"]


def test_what_the_class_before_could_not_have_needs_no_evidence(strict: World) -> None:
    """A repository that passes over the class before is never asked to be proved there."""
    strict.repositories(base={}, edr={"classes": ["development", "production"]})
    strict.mirror("fresh-2-1.noarch", name="edr")
    snapshot(strict.context())
    run(strict)
    told = run(strict, "production", wanted=Wanted(repositories=("edr",)))
    assert told["retcode"] == 0 and told["evidence"]["demanded"] is None


def test_each_of_two_builds_of_one_name_proves_itself(strict: World) -> None:
    """Two repositories with one NEVRA and different bytes: one has run, the other has not."""
    strict.section["classes"][2]["production"]["evidence"] = {"min_hosts": 1}
    strict.repositories(base={}, other={})
    strict.mirror(*ONE, "tool-2-1.noarch")
    strict.mirror("tool-1-1.noarch", name="other")
    strict.rebuild("tool-2-1.noarch", name="other")
    snapshot(strict.context())
    run(strict)
    strict.roll("testing")
    told = run(strict, "production", wanted=Wanted(packages=("tool-2",)), test=True)
    assert len(told["evidence"]["verdicts"]) == 2
    assert lacks(told) == ["hosts 0 of 1"]


def test_what_never_ran_together_is_listed(strict: World) -> None:
    """Versions that no testing host has, and those that none has at once."""
    strict.host("host1", "testing", "app-2-1.noarch", "lib-2-1.noarch")
    strict.host("host4", "testing", "tool-2-1.noarch")
    strict.host("host5", "testing", "tool-1-1.noarch")
    rows = run(strict, "production", test=True)["evidence"]["untested"]
    found = {tuple(one["packages"]) for one in rows}
    assert ("agent-2-1.noarch",) in found and ("helper-2-1.noarch",) in found
    assert ("app-2-1.noarch", "tool-2-1.noarch") in found
    assert ("app-2-1.noarch", "lib-2-1.noarch") not in found


def test_what_enters_here_needs_no_evidence(strict: World) -> None:
    """A repository of production alone could not be shown by testing."""
    strict.repositories(base={}, edr={"classes": ["production"]})
    strict.mirror("kernel-core-2-1.noarch", name="edr")
    strict.mirror(*ONE, *TWO, advisories={"A-2026:1": ["lib-2-1.noarch"]})
    snapshot(strict.context())
    run(strict)
    run(strict, "production", force=True, reason="first")
    strict.mirror("kernel-core-2-1.noarch", "kernel-core-1-1.noarch", name="edr")
    snapshot(strict.context())
    run(strict)
    told = run(strict, "production")
    assert told["retcode"] == 0 and told["evidence"]["demanded"] is None


def test_unmet_evidence_is_forced_with_a_reason(strict: World) -> None:
    """The screen says what is missing and the way out; the journal what was overridden."""
    strict.roll("testing")
    strict.later(1800)
    told = run(strict, "production", test=True)
    screen = render(told["all"])
    assert "soak 30 min of 2 d" in screen and "TEST, nothing done" in screen
    assert run(strict, "production", force=True, reason="zero day")["retcode"] == 0
    forced = strict.store.history()[-1]["detail"]["forced"]
    assert any("soak 30 min of 2 d" in one for one in forced)


# ---- two at once -----------------------------------------------------------------------------


def test_pointer_that_moved_meanwhile(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who proved against another state of the class is told, and nothing moves."""
    from cpacman.commands import promoting

    real = promoting._move_of

    def late(*arguments: Any) -> Any:
        move = real(*arguments)
        ready.store.point("testing", "el9", "s-other", expected=move.expected, action="promote",
                          at=ready.now, who="bob")  # fmt: skip
        return move

    monkeypatch.setattr(promoting, "_move_of", late)
    with pytest.raises(ConflictError, match="somebody moved it meanwhile"):
        run(ready)
    assert ready.held("testing") == "s-other"
