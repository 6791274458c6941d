"""The story of a change from mirror to production: proved, shown, in part, refused and forced."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from lab import Lab, rpms
from tests.integration.fleet import CHANNEL, Fleet

MEMBERS = {
    "web1": {"class": "development"},
    "web2": {"class": "testing"},
    "db1": {"class": "production"},
}
EVIDENCE = {"min_hosts": 1, "soak": "30m", "max_failures": 0}
NEW = set(rpms.NEW)
WAYS: dict[str, dict[str, Any]] = {
    "plan": {},
    "named upgrade": {"upgrade": "webapp"},
    "named install": {"install": "newtool"},
    "named version": {"install": "webapp-1.1"},
    "dependency": {"install": "libwebapp"},
    "obsoletes": {"upgrade": "oldtool"},
    "sync": {"sync": True},
    "advisory": {"advisory": rpms.ADVISORY},
}


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """Three classes of one host each; all of them hold the mirror as it was at first."""
    made = Fleet(clean_lab)
    made.members(MEMBERS)
    stage(made, None)
    refill(made, rpms.OLD)
    assert made.run("refresh", "*").code == 0
    assert made.run("snapshot").code == 0
    assert made.run("promote", to="testing").code == 0
    assert made.run("seed", **{"class": "production", "from_class": "testing"}).code == 0
    return made


def stage(fleet: Fleet, evidence: Any) -> None:
    """Configure the classes, with what production demands."""
    production = {"production": {"evidence": evidence} if evidence else {}}
    fleet.configure(classes=["development", "testing", production], levels=["all"])


def refill(fleet: Fleet, nevras: Any) -> None:
    """Let the upstream mirror be something else from now on: old files and metadata are gone."""
    shutil.rmtree(fleet.mirror)
    rpms.repository(fleet.mirror, nevras)


def deploy(fleet: Fleet, class_: str) -> tuple[str, str | None]:
    """Deploy to a class at once and return how its one host ended."""
    answer = fleet.run("deploy", **{"class": class_, "now": True})
    ((_, ended),) = answer.outcomes().items()
    return ended


def promoted(fleet: Fleet, **arguments: Any) -> tuple[int, dict[str, Any]]:
    """Promote to production and return the code and what was said of the channel."""
    answer = fleet.run("promote", to="production", **arguments)
    return answer.code, answer["promote"]["channels"][CHANNEL]


def held(fleet: Fleet, class_: str) -> str:
    """What a class points at."""
    return str(fleet.run("status")["status"]["board"][CHANNEL][class_]["snapshot"])


def installed(fleet: Fleet, host: str) -> set[str]:
    """What the host's own database says, of what the mirror ever had."""
    return set(fleet.lab.host(host).packages()) & (NEW | set(rpms.OLD))


def test_the_story(fleet: Fleet) -> None:
    """From a mirror that is rewritten under our feet to production, with all that may stop it."""
    first = held(fleet, "production")
    refill(fleet, rpms.NEW)
    assert fleet.run("snapshot").code == 0
    newer = held(fleet, "development")
    # Upstream takes everything back; what the snapshot names is kept.
    refill(fleet, rpms.OLD[:1])
    assert deploy(fleet, "development") == ("applied", None)
    assert fleet.run("promote", to="testing", force=True, reason="jlib stays").code == 0
    assert held(fleet, "testing") == newer
    assert deploy(fleet, "testing") == ("applied", None)
    assert installed(fleet, "web2") == installed(fleet, "web1") >= {"webapp-1.1-1.noarch"}

    # What is in testing alone reaches production by no way of planning.
    for way, asked in WAYS.items():
        answer = fleet.run("plan", **{"class": "production", **asked})
        plan = answer.data.get("plan", {"transactions": {}})
        got = {a["nevra"] for t in plan["transactions"].values() for a in t["actions"]}
        assert not got & NEW, way
    stolen = fleet.run("plan", **{"class": "testing"})["plan"]
    assert not stolen["hosts"].keys() & {"db1"}

    # The proof: jlib would be held newly. The evidence: it did not run for long enough.
    stage(fleet, EVIDENCE)
    code, told = promoted(fleet, test=True)
    assert code == 1 and held(fleet, "production") == first
    assert [one["nevra"] for one in told["proof"]["newly_held"]] == ["jlib-1.0-1.noarch"]
    assert any(p["message"].startswith("soak") for p in told["refused"])
    assert told["evidence"]["verdicts"][newer]["hosts"] == 1
    code, told = promoted(fleet, exclude="jlib")
    assert code == 1 and [p["message"][:4] for p in told["refused"]] == ["soak"]

    # In part, with what it needs; each version that comes ran in testing.
    stage(fleet, {"min_hosts": 1})
    code, told = promoted(fleet, packages="webapp")
    assert code == 0, told["refused"]
    assert told["part"]["needs"] == ["libwebapp-1.0-1.x86_64"]
    before = installed(fleet, "db1")
    assert deploy(fleet, "production") == ("applied", None)
    assert installed(fleet, "db1") - before == {"webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64"}
    assert "newtool-2.0-1.noarch" not in installed(fleet, "db1")
    lineage = fleet.run("show", held(fleet, "production"))["snapshot"]["lineage"]
    assert lineage == {"parents": [first, newer], "how": "packages: webapp"}

    # A version nobody below ran is refused, whatever it is.
    code, told = promoted(fleet, packages="hugedata")
    assert code == 1 and told["refused"][0]["message"] == "hosts 0 of 1"

    # Override with a reason, and the journal has it all.
    code, told = promoted(fleet, force=True, reason="jlib stays noarch", ticket="CHG7")
    assert code == 0 and held(fleet, "production") == newer
    assert deploy(fleet, "production") == ("applied", None)
    assert installed(fleet, "db1") == installed(fleet, "web2")
    entries = fleet.run("history", ticket="CHG7")["history"]["entries"]
    assert [(e["action"], e["reason"]) for e in entries] == [("promote", "jlib stays noarch")]
    assert "jlib-1.0-1.noarch: would be held newly" in entries[0]["detail"]["forced"][0]
    told = [e["action"] for e in fleet.run("history")["history"]["entries"]
            if e["action"] in ("snapshot", "promote", "seed", "revert", "block")]  # fmt: skip
    assert told[-3:] == ["snapshot", "promote", "promote"]


def test_bad_version_is_blocked_and_the_class_goes_back(fleet: Fleet) -> None:
    """Blocked everywhere by one command; after the way back hosts that have it are ahead."""
    refill(fleet, [*rpms.OLD, "webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64"])
    fleet.run("snapshot")
    fleet.run("promote", to="testing")
    assert deploy(fleet, "testing") == ("applied", None)
    late = fleet.run("plan", **{"class": "development"})["plan"]["plan_id"]
    blocked = fleet.run("block", "webapp-1.1", reason="loses sessions")
    assert blocked["block"]["blocks"][0]["hosts"] == {"web2": ["webapp-1.1-1.noarch"]}
    refused = fleet.run("deploy", plan=late)
    assert refused.code == 1 and "blocked (webapp-1.1): loses sessions" in refused.problems()
    plan = fleet.run("plan", **{"class": "development"})["plan"]
    (transaction,) = plan["transactions"].values()
    assert transaction["actions"] == []
    assert [h["reason"] for h in transaction["held"] if "webapp" in h["nevra"]] == ["blocked"]
    assert fleet.run("revert", **{"class": "testing", "reason": "webapp"}).code == 0
    hosts = fleet.run("status")["status"]["hosts"]
    assert hosts["web2"]["state"] == "ahead"
    board = fleet.seen("status").stdout
    assert "1 ahead" in board and "development" in board
    assert "loses sessions" in fleet.seen("blocks").stdout
