"""What a person sees for each answer of a runner, whatever hosts and repositories put into it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from cpacman.commands.answers import rollout_body
from cpacman.commands.looking import version
from cpacman.doors import failure_of, runner
from cpacman.errors import ConfigError, Problem
from cpacman.model import (
    Action,
    ActionKind,
    FailedError,
    Failure,
    Held,
    HeldReason,
    InventoryRef,
    Plan,
    Reason,
    Request,
    Transaction,
)
from cpacman.report.screens import SCREENS, render
from cpacman.report.text import age, some, table
from cpacman.store import RolloutHost

PLAN_ID = "p-7c41e9000000" + "0" * 52
SNAPSHOT = "s-9a02d1000000" + "0" * 52
BEFORE = "s-41b7c0000000" + "0" * 52
ROLLOUT = "r-1122a00000000000"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e\u2028\x00\x7f"


def upgrade(name: str, old: str, new: str) -> Action:
    """One upgrade of a package of release 1."""
    return Action(
        action=ActionKind.UPGRADE, name=name, epoch=0, version=new, release="1", arch="x86_64",
        nevra_=f"{name}-{new}-1.x86_64", from_=f"{name}-{old}-1.x86_64", repository="baseos",
        sha256="a" * 64, size=2_000_000, advisories=("RHSA-2026:1",), reason=Reason.UPDATE,
    )  # fmt: skip


def plan_answer() -> dict[str, Any]:
    """Three hosts: two that change, one of them held back in something, one not planned."""
    held = Held(
        nevra="tomcat-9.0-1.noarch", candidate="tomcat-9.1-1.x86_64", reason=HeldReason.ARCH,
        detail="only as x86_64",
    )  # fmt: skip
    plan = Plan(
        plan_id=PLAN_ID,
        request=Request(),
        policy="0" * 64,
        snapshots={"el9-x86_64": SNAPSHOT},
        hosts={"web1": "t-1", "web2": "t-2"},
        inventories={h: InventoryRef(digest="sha256:0", cookie="0") for h in ("web1", "web2")},
        transactions={
            "t-1": Transaction(
                actions=(upgrade("openssl", "3.0", "3.1"),), held=(held,), size=2_000_000
            ),
            "t-2": Transaction(),
        },
        failed={"db9": Failure(error=FailedError.REQUIRES, causes=("ora needs libfoo",))},
    )
    body = {"class": "production", "by": "alice", "created": 1.0, "ages": {"web1": 5}}
    return {"result": False, **msgspec.to_builtins(plan), **body}


def rollout_answer(*, state: str = "halted") -> dict[str, Any]:
    """One host of each outcome, and one that has not ended."""
    rows = [
        ("web1", "canary", "applied", None, None),
        ("web2", "canary", "unchanged", None, "nothing to do"),
        ("web3", "rest", "failed", "different", "not installed: openssl-3.1-1.x86_64"),
        ("web4", "rest", "refused", "space", "/var/cache/cpacman: 0 bytes are free"),
        ("web5", "rest", "silent", "silent", "no verified report in time"),
        ("web6", "rest", "skipped", "unreachable", "no answer in 30 s"),
        ("web7", "rest", None, None, None),
    ]
    hosts = [
        RolloutHost(
            host=host, level=level, transaction="t-1", state="ended" if outcome else "applying",
            outcome=outcome, code=code, detail=detail, manifest=None, updated=1.0,
        )
        for host, level, outcome, code, detail in rows
    ]  # fmt: skip
    header = {
        "id": ROLLOUT, "plan": PLAN_ID, "class": "production", "state": state, "who": "alice",
        "reason": None, "ticket": "CHG1", "created": 1.0, "ended": None, "why": None,
        "until": None, "wish": None, "settings": '{"chain": "c-0123456789abcdef"}',
    }  # fmt: skip
    return {"result": False, **rollout_body(header, hosts)}


def chain_answer() -> dict[str, Any]:
    """One that waits before its last class, and has nobody in the second."""
    step = {"class": "development", "rollout": ROLLOUT, "at": 1.0, "state": "done", "why": None,
            "until": None, "plan": PLAN_ID, "hosts": {"applied": 3, "failed": 1}}  # fmt: skip
    return {
        "id": "c-0123456789abcdef", "classes": ["development", "testing", "production"],
        "state": "waiting", "why": "promotion to production refused: soak", "until": 7.0,
        "who": "alice", "reason": None, "ticket": "CHG1", "created": 1.0, "ended": None,
        "alive": None, "rollout": ROLLOUT, "wish": None, "test": False, "levels": [],
        "profile": "", "background": True,
        "steps": [step, {"class": "testing", "rollout": None, "at": 2.0}],
    }  # fmt: skip


def moves() -> dict[str, Any]:
    """Channels whose pointer moved, was set for the first time, and stayed."""
    change = {"added": 3, "updated": 212, "removed": 1}
    none = {"packages": 9, "added": 0, "updated": 0, "removed": 0}
    return {
        "el7-x86_64": {"before": None, "id": BEFORE, "new": True, **none},
        "el8-x86_64": {"before": BEFORE, "id": BEFORE, "new": False, **none},
        "el9-x86_64": {"before": BEFORE, "id": SNAPSHOT, "new": True, **none, **change},
    }


def status_answer() -> dict[str, Any]:
    """Two classes, one of which holds nothing, hosts in all states, one without a place."""
    counts = {"new": 1, "unknown": 1, "behind": 1, "current": 1, "ahead": 2}
    cell = {"snapshot": SNAPSHOT, "previous": BEFORE, "age": 7200, "hosts": counts}
    place = {"class": "development", "level": "canary", "channel": "el9-x86_64"}
    return {
        "result": True,
        "classes": ["development", "production"],
        "board": {
            "el9-x86_64": {"development": cell, "production": {"snapshot": None, "hosts": {}}}
        },
        "hosts": {
            "web1": {**place, "state": "current"},
            "web2": {**place, "state": "behind"},
            "web3": {**place, "state": "unknown"},
        },
        "unplaced": {"db1": ["db1: belongs to no class, so it is never planned"]},
        "rollouts": [
            {"id": ROLLOUT, "class": "production", "state": "waiting", "why": "canary: soaking",
             "until": 90.0, "who": "alice", "created": 1.0, "alive": None, "at": "canary",
             "done": 3, "total": 4, "died": False}
        ],
        "chains": [{k: v for k, v in chain_answer().items() if k != "steps"}],
        "engine": {"owner": "master:7:9", "seen": 96.0, "alive": True,
                   "doing": [{"what": "prune", "since": 95.0}],
                   "failed": [{"what": "refresh", "at": 90.0, "why": "disk is full"}],
                   "next": [{"what": "snapshot", "at": 200.0}]},
        "freeze": {"from": 500.0, "until": 900.0, "classes": ["production"], "reason": "audit"},
        "now": 100.0,
    }  # fmt: skip


def history_answer() -> dict[str, Any]:
    """A host's update, a promotion, and a pin of the plan key."""
    change = {"host": "web1", "action": "upgrade", "name": "openssl",
              "nevra": "openssl-3.1-1.x86_64", "from": "openssl-3.0-1.x86_64"}  # fmt: skip
    empty = {"seq": 1, "at": 1.0, "who": "alice", "host": None, "reason": None, "ticket": None,
             "detail": {}, "changes": []}  # fmt: skip
    moved = {"class": "production", "channel": "el9-x86_64", "from": None, "to": SNAPSHOT}
    return {
        "result": True,
        "package": None,
        "entries": [
            {**empty, "action": "pin", "subject": "sha256:00", "host": "web1"},
            {**empty, "action": "promote", "subject": "production", "detail": moved},
            {**empty, "action": "applied", "subject": ROLLOUT, "host": "web1", "ticket": "CHG1",
             "changes": [change] * 5, "detail": {"code": None, "detail": ""}},
        ],
    }  # fmt: skip


def bug_answer() -> dict[str, Any]:
    """What a runner answers when something escapes it."""

    @runner
    def plan() -> Mapping[str, Any]:
        """Break."""
        raise KeyError("oops")

    return plan()["data"]["bug"]


def error_answer() -> dict[str, Any]:
    """Two problems, one without a mend."""
    problems = [
        Problem("levels[2].match", "is empty", "name a field"),
        Problem("", "nothing is configured"),
    ]
    return failure_of(ConfigError(problems))["data"]["error"]


def why_answer() -> dict[str, Any]:
    """A package with one candidate of each fate, on a host whose plan failed for another one."""
    fates = ("taken", "held", "beaten", "installed", "older", "unasked")
    seen = [
        {"nevra": f"openssl-3.{9 - n}-1.x86_64", "repository": "baseos", "vendor": "V",
         "fate": fate, "rules": []}
        for n, fate in enumerate(fates)
    ]  # fmt: skip
    seen[1]["rules"] = [{"reason": "lock", "detail": "locked by policy[0], SAP note 42"}]
    taken = msgspec.to_builtins(upgrade("openssl", "3.5", "3.9"))
    gone = {"action": "obsolete", "nevra": "new-1-1.noarch", "from": "old-1-1.noarch"}
    return {
        "result": True, "host": "web1", "package": "openssl", "snapshot": SNAPSHOT,
        "installed": [{"nevra": "openssl-3.5-1.x86_64", "vendor": "V", "reason": "user",
                       "repositories": ["baseos"]}],
        "candidates": seen, "actions": [taken, gone], "held": [],
        "failed": {"error": "requires", "causes": ["ora needs libfoo"]},
    }  # fmt: skip


def diff_answer() -> dict[str, Any]:
    """Two hosts with everything that may differ."""
    side = {"id": "web1", "fingerprint": "f" * 64, "packages": 695, "kernel": "5.14.0-503"}
    row = {"name": "openssl", "arch": "x86_64", "before": ["3.0-1"], "after": ["3.1-1", "3.2-1"]}
    return {
        "result": True, "kind": "host", "a": {**side, "modules": ["nodejs:18"]},
        "b": {**side, "id": "web2", "modules": []},
        "added": [{**row, "before": []}], "removed": [{**row, "after": []}], "updated": [row],
    }  # fmt: skip


def advisories_answer() -> dict[str, Any]:
    """A class that lacks two advisories, and one host of which nothing is known."""
    one = {"id": "RHSA-2026:1", "type": "security", "severity": "Important", "title": "t",
           "cves": ["CVE-2026-1"], "packages": ["openssl"], "hosts": 3, "on": ["web1"],
           "issued": 1_770_000_000, "updated": None}  # fmt: skip
    sums = {"advisories": 1, "cves": 1, "hosts": 3}
    body = {"hosts": 4, "affected": 3, "unknown": ["web4"], "severities": {"Important": sums},
            "undated": 1,
            "advisories": [one, {**one, "severity": "", "cves": [], "issued": None}]}  # fmt: skip
    return {"result": True, "classes": {"production": body}, "older_than": "14d"}


def promote_answer() -> dict[str, Any]:
    """A channel that is refused, a first one in part, and one that stays."""
    action = {"action": "upgrade", "nevra": "a-2-1.x86_64", "from": "a-1-1.x86_64"}
    group = {"letter": "A", "hosts": 9, "on": ["web1", "web2", "web3", "web4"], "size": 2_000_000,
             "reboot": True, "actions": [action] * 6}  # fmt: skip
    failed = {"db9": {"error": "requires", "causes": ["ora needs libfoo"]}}
    held = {"nevra": "tomcat-9-1.noarch", "candidate": "tomcat-9-2.x86_64", "reason": "arch",
            "detail": "", "hosts": 2, "on": ["web1", "web2"]}  # fmt: skip
    proof = {"hosts": 11, "change": 9, "same": 1, "stale": {"web9": 9000}, "failed": failed,
             "unplaced": ["x1"], "waiting": ["x2"], "newly_held": [held],
             "groups": [group] * 6, "omitted": 1, "reboots": 9, "wire": 18_000_000,
             "distinct": 2_000_000}  # fmt: skip
    lacks = [{"what": "soak 31 h of 2 d", "when": 1_800_000_000.0}]
    verdict = {"hosts": 5, "failures": 0, "failed": [], "limit": 0, "soaked": 111_600,
               "soak": "2 d", "lacks": lacks}  # fmt: skip
    demanded = {"min_hosts": 3, "soak": 172_800, "max_failures": "0", "health": None}
    pair = {"packages": ["kernel-core-5-1.x86_64", "kmod-lpfc-1-1.x86_64"], "hosts": 18}
    shown = {"demanded": demanded, "met": False, "when": 1_800_000_000.0, "subjects": 1,
             "verdicts": {SNAPSHOT: verdict}, "untested": [pair] * 4,
             "untested_omitted": 0}  # fmt: skip
    refused = [{"path": "db9", "message": "ora needs libfoo", "mend": "exclude=libfoo"}] * 8
    rows = moves()
    for row in rows.values():
        row |= {"advisories": 11, "source": SNAPSHOT, "skipped": [], "part": None, "blocked": {},
                "entering": [], "proof": proof, "evidence": shown, "refused": []}  # fmt: skip
    rows["el9-x86_64"]["refused"] = refused
    rows["el7-x86_64"] |= {
        "part": {"how": "packages: a", "needs": ["b-1-1.x86_64"], "left": ["c-1-1.x86_64"]},
        "skipped": ["testing"], "blocked": {"d-1-1.noarch": "d"}, "entering": ["edr"],
        "evidence": {**shown, "subjects": 2, "verdicts": {"a": verdict, "b": verdict}},
    }  # fmt: skip
    return {"result": False, "from": "testing", "to": "production", "test": True,
            "forced": False, "refused": True, "channels": rows}  # fmt: skip


def pointed_answer() -> dict[str, Any]:
    """Channels that moved, were filled, and stayed."""
    rows = moves()
    for row in rows.values():
        row["skipped"] = ["testing"] if row["before"] is None else []
    return {"result": True, "class": "production", "test": False, "channels": rows}


def blocks_answer() -> dict[str, Any]:
    """One of each kind: one that hosts have, one that is over, one that nobody knows."""
    row = {"reason": "crashes", "until": None, "who": "alice", "since": 1.0, "holds": True,
           "known": True, "hosts": {}}  # fmt: skip
    return {
        "result": True,
        "test": False,
        "blocks": [
            {**row, "spec": "httpd-2-1", "kind": "nevra", "hosts": {"web1": ["httpd-2-1.x86_64"]}},
            {**row, "spec": SNAPSHOT, "kind": "snapshot", "holds": False, "until": "2026-01-01"},
            {**row, "spec": "A-1", "kind": "advisory", "known": False},
        ],
    }


def hosts_answer() -> dict[str, Any]:
    """Two hosts, one of which waits."""
    row = {"class": "testing", "level": "rest", "channel": "el9", "since": 1.0, "note": ""}
    return {
        "result": True,
        "states": [],
        "hosts": {
            "web1": {**row, "state": "behind", "age": 7200},
            "web9": {**row, "state": "moved", "age": None, "note": "moved: testing -> production"},
        },
    }


def listed(needed: list[str], how: str | None) -> dict[str, Any]:
    """A snapshot as lists show it."""
    lineage = {"parents": [BEFORE, SNAPSHOT], "how": how} if how else None
    return {
        "id": SNAPSHOT, "channel": "el9", "created": 1_800_000_000, "who": "alice",
        "packages": 9, "lineage": lineage, "needed": needed,
    }  # fmt: skip


def damage(source: str) -> dict[str, Any]:
    """A damaged file of the depot."""
    return {
        "path": "/depot/files/ab/abcd", "what": "a-1-1.noarch", "fault": "altered",
        "snapshots": [SNAPSHOT], "classes": ["production"], "source": source,
    }  # fmt: skip


ANSWERS: dict[str, Callable[[], dict[str, Any]]] = {
    "error": error_answer,
    "bug": bug_answer,
    "plan": plan_answer,
    "rollout": rollout_answer,
    "hostkeys": lambda: {
        "result": True,
        "hosts": {
            "web1": {"address": "10.0.0.1:22", "state": "new", "keys": ["SHA256:abc (ED25519)"]},
            "web2": {"address": "10.0.0.2:22", "state": "silent", "keys": []},
        },
    },
    "chain": chain_answer,
    "help": lambda: {"command": None, "commands": {"plan": "Work out what each gets"}, "text": ""},
    "drift": lambda: {
        "hosts": {"web1": {"state": "drifted", "rollout": "r-1", "note": "", "added": ["a-1-1.x"],
                           "removed": ["b-1-1.x"]},
                  "web2": {"state": "equal", "rollout": "r-1", "note": "", "added": [],
                           "removed": []}}
    },
    "compliance": lambda: {
        "result": False,
        "hosts": {
            "web1": {"state": "equal", "plan": PLAN_ID, "session": "r-1", "code": "", "error": ""},
            "web2": {"state": "differs", "plan": PLAN_ID, "session": "r-1", "code": "",
                     "error": ""},
            "db1": {"state": "failed", "plan": "", "session": "", "code": "unreachable",
                    "error": "no answer in 30 s"},
        },
    },
    "rollouts": lambda: {
        "result": True, "active": False,
        "chains": [
            {k: v for k, v in chain_answer().items() if k not in ("steps", "levels", "settings")}
        ],
        "rollouts": [
            {"id": ROLLOUT, "plan": PLAN_ID, "class": "production", "state": "paused",
             "why": "level canary: gate web inconclusive after", "until": None, "who": "alice",
             "created": 1.0, "alive": None},
        ],
    },
    "halt": lambda: {
        "result": True,
        "rollouts": [{"id": ROLLOUT, "in_flight": ["web1", "web2"], "state": "halted"}],
    },
    "stage": lambda: {
        "result": False, "plan": PLAN_ID, "test": False, "bytes": 2_000_000,
        "hosts": {
            "web1": {"state": "staged", "code": "", "detail": ""},
            "web2": {"state": "skipped", "code": "unreachable", "detail": "no answer in 30 s"},
        },
    },
    "wake": lambda: {"result": True, "engine": False, "settle": 60},
    "skip": lambda: {"result": True, "id": ROLLOUT, "hosts": ["web1", "web2"]},
    "approve": lambda: {
        "result": True, "id": ROLLOUT, "new": True, "by": ["bob"], "state": "paused",
    },
    "refresh": lambda: {
        "result": False,
        "hosts": {
            "web1": {"state": "new", "packages": 695, "code": "", "error": ""},
            "web2": {"state": "unchanged", "packages": 0, "code": "", "error": ""},
            "db1": {"state": "failed", "packages": 0, "code": "unreachable", "error": "no answer"},
        },
    },
    "key": lambda: {
        "result": True, "test": False, "rotated": True, "fingerprint": "sha256:b",
        "public": "b64", "previous": [{"fingerprint": "sha256:a", "until": 1}],
        "hosts": {"sha256:a": ["web1"], "sha256:b": ["web2", "web3"]},
    },
    "recover": lambda: {
        "result": True,
        "test": False,
        "hosts": {
            "web1": {"rollout": "r-1122a", "before": "silent", "back": "", "level": "rest",
                     "state": "ended",
                     "outcome": "applied", "code": None, "detail": "", "transaction": "t-1"},
            "web2": {"rollout": "r-1122a", "before": "failed", "back": "no way",
                     "level": "rest", "state": "ended",
                     "outcome": "failed", "code": "interrupted", "detail": "cut off",
                     "transaction": "t-1"},
        },
    },
    "snapshot": lambda: {
        "result": True, "class": "development", "test": False, "channels": moves(),
    },
    "promote": promote_answer,
    "revert": pointed_answer,
    "seed": pointed_answer,
    "snapshots": lambda: {
        "result": True,
        "snapshots": [listed(["production"], None), listed([], "packages: a")],
    },
    "verify": lambda: {
        "result": False, "files": 9, "snapshots": 2, "repair": False,
        "damaged": [damage(""), damage("/srv/mirror/a.rpm")],
        "problems": [{"path": "/d/s/manifest", "message": "was altered", "mend": "restore it"}],
        "signatures": {"el9": {"counts": {"good": 9}, "packages": [], "refused": 0}},
    },
    "prune": lambda: {
        "result": True, "removed": [listed([], None)], "kept": [listed(["pinned"], None)],
        "files": 3, "freed": 5_000_000, "shared": 2_000_000_000, "test": True,
    },
    "block": blocks_answer,
    "blocks": blocks_answer,
    "unblock": blocks_answer,
    "status": status_answer,
    "history": history_answer,
    "config": lambda: {
        "result": True,
        "host": "web1",
        "values": [{"path": "class", "value": "production", "source": "hosts.d/web.yaml: web*"}],
        "problems": ["web1: no channel is for id ?"],
    },
    "version": lambda: {"result": True, **version()["version"]},
    "why": why_answer,
    "diff": diff_answer,
    "advisories": advisories_answer,
    "hosts": hosts_answer,
    "accept": lambda: {
        "result": True, "test": False, "unchanged": ["web1"],
        "hosts": {"web9": {"change": "new, nobody accepted it yet", "class": "testing"}},
    },
    "adopt": lambda: {
        "result": True, "test": False, "members": ["web1"], "accepted": [],
        "unplaced": {"web8": ["belongs to no class"]},
        "groups": [
            {"hosts": ["db1", "db2"], "unknown": ["agent-1-1.noarch"], "irreversible": [],
             "broken": ["nothing provides libx needed by y"], "not_planned": []},
            {"hosts": ["web9"], "unknown": [], "irreversible": [], "broken": [],
             "not_planned": []},
        ],
    },
    "retire": lambda: {
        "result": True, "test": False, "unchanged": ["web6"],
        "hosts": {"web7": {"class": "production", "key": True}},
    },
}  # fmt: skip


def screen(what: str, body: Mapping[str, Any], **more: Any) -> str:
    """Return what `salt-run` prints for an answer."""
    return render({what: body, **more})


def test_every_screen_has_an_answer_here() -> None:
    """A screen that is added is tested, too."""
    assert set(ANSWERS) == set(SCREENS)


@pytest.mark.parametrize("what", sorted(ANSWERS))
def test_every_answer_has_a_screen(what: str) -> None:
    """Each answer becomes lines without trailing blanks, not a dump of its data."""
    text = screen(what, ANSWERS[what](), retcode=3)
    assert text and "{" not in text
    assert "retcode" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


# ---- what hosts and repositories say ---------------------------------------------------------


CHOSEN = frozenset({"action", "reason", "id", "before", "class", "classes", "channel", "outcome"})
"""What comes from enumerations, ids and names of ours, and can't hold such characters."""


def poisoned(value: Any, ours: frozenset[str]) -> Any:
    """Return an answer in which every text is hostile but those under keys of ours."""
    if isinstance(value, dict):
        return {key: one if key in ours else poisoned(one, ours) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(one, ours) for one in value]
    return value + HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("what", sorted(set(ANSWERS) - {"plan", "snapshot", "advisories", "wake"}))
def test_nothing_steers_the_terminal(what: str) -> None:
    """Escape sequences, bells, carriage returns and reversed text come out as question marks."""
    check_is_clean(screen(what, poisoned(ANSWERS[what](), CHOSEN)))


def test_no_plan_steers_the_terminal() -> None:
    """Package names, versions, details, causes and warnings are text of hosts and repositories."""
    answer = plan_answer()
    answer["transactions"] = poisoned(answer["transactions"], CHOSEN)
    answer["failed"]["db9"]["causes"] = [f"ora{HOSTILE} needs libfoo"]
    answer["warnings"] = [HOSTILE]
    check_is_clean(screen("plan", answer))


def test_no_snapshot_steers_the_terminal() -> None:
    """Nor do the packages of a repository."""
    package = {"nevra": f"a{HOSTILE}", "repository": "os", "size": 1, "sha256": "0" * 64}
    body = {"id": SNAPSHOT, "channel": "el9-x86_64", "packages": [package]}
    check_is_clean(screen("snapshot", body))


def test_no_advisory_steers_the_terminal() -> None:
    """Nor do titles, ids and CVEs that somebody put into a repository."""
    body = advisories_answer()["classes"]["production"]
    check_is_clean(
        screen(
            "advisories",
            {**advisories_answer(), "classes": {"production": poisoned(body, frozenset())}},
        )
    )


def check_is_clean(text: str) -> None:
    """The hostile text was shown, and nothing of it works."""
    assert "?" in text
    assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_names_of_hosts_do_not_steer_the_terminal() -> None:
    """Keys are shown as well as values."""
    answer = ANSWERS["refresh"]()
    answer["hosts"] = {f"{host}{HOSTILE}": one for host, one in answer["hosts"].items()}
    assert "\x1b" not in screen("refresh", answer)


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("rollout", ("hosts", "web3", "detail")),
        ("refresh", ("hosts", "db1", "error")),
        ("history", ("entries", 2, "changes", 0, "nevra")),
        ("config", ("values", 0, "source")),
    ],
)
def test_a_host_cannot_add_a_line(what: str, place: tuple[Any, ...]) -> None:
    """What a host says stays in its own line: it can't write the next command to type."""
    answer = copy.deepcopy(ANSWERS[what]())
    at: Any = answer
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = "broken\nnext: salt-run cpacman.evil"
    lines = screen(what, answer).splitlines()
    assert not [line for line in lines if line.startswith("next: salt-run cpacman.evil")]


def test_a_host_cannot_add_a_line_of_progress() -> None:
    """One event is one line."""
    event = {"message": "web1: broken\nnext: salt-run cpacman.evil", "outputter": "cpacman"}
    assert len(render({"suffix": "progress", "event": event}).splitlines()) == 1


# ---- single screens --------------------------------------------------------------------------


def test_an_error_shows_path_message_and_mend() -> None:
    """Every problem is there, each with its mend below it."""
    assert screen("error", error_answer(), retcode=2).splitlines() == [
        "levels[2].match: is empty", "    name a field", "nothing is configured",
    ]  # fmt: skip


def test_a_bug_shows_where_and_asks_for_a_report() -> None:
    """The traceback is there for us, the last line for whoever met it."""
    text = screen("bug", bug_answer(), retcode=1)
    assert "Traceback (most recent call last)" in text and "KeyError: 'oops'" in text
    last = text.splitlines()[-1]
    assert "bug in cpacman.plan" in last and "Please report it" in last


def test_a_plan_shows_what_changes_what_is_held_and_who_is_not_planned() -> None:
    """The screen has the versions, the reason a package is held, the failed host, the next step."""
    text = screen("plan", plan_answer())
    assert "plan p-7c41e9000000  production  el9-x86_64 @ s-9a02d1000000  by alice" in text
    assert "3.0-1 -> 3.1-1" in text and "RHSA-2026:1" in text
    assert "tomcat-9.0-1.noarch" in text and "only as x86_64" in text
    assert "NOT PLANNED db9" in text and "ora needs libfoo" in text
    assert text.splitlines()[-1] == "next: salt-run cpacman.deploy plan=p-7c41e9000000"


def test_an_empty_plan_names_no_next_step() -> None:
    """Nothing to do is not something to deploy."""
    answer = plan_answer()
    answer["hosts"] = {"web2": "t-2"}
    assert "next:" not in screen("plan", answer)


def test_a_rehearsal_shows_what_would_happen() -> None:
    """`deploy test=True` says for each host what a deploy would do, and that nothing was done."""
    answer = {**plan_answer(), "test": True, "would": {"web1": "apply", "web2": "skip: changed"}}
    lines = screen("plan", answer).splitlines()
    assert "TEST, nothing done" in lines
    assert lines[-2:] == ["  web1  apply", "  web2  skip: changed"]


def test_a_rollout_shows_what_went_wrong_first() -> None:
    """The hosts that are not where they should be, whether they changed, and the sums."""
    lines = screen("rollout", rollout_answer()).splitlines()
    head = "r-1122a0000000 HALTED  production  plan p-7c41e9000000  by alice CHG1"
    assert lines[0] == f"{head}  of c-0123456789ab"
    assert "FAILED   web3  not installed: openssl-3.1-1.x86_64: MAY HAVE CHANGED" in lines
    assert "REFUSED  web4  /var/cache/cpacman: 0 bytes are free: NOTHING CHANGED" in lines
    assert "SKIPPED  web6  no answer in 30 s: NOTHING CHANGED" in lines
    assert "canary  2:  1 applied, 1 unchanged" in lines
    row = "rest    5:  1 applying, 1 failed, 1 silent, 1 refused, 1 skipped (1 unreachable)"
    assert row in lines
    assert lines[-1].startswith("next: salt-run cpacman.rollout r-1122a0000000 host=...")


def test_hosts_with_one_fault_share_a_line() -> None:
    """Four hundred hosts with the same fault are one line and a number."""
    answer = rollout_answer()
    one = answer["hosts"]["web3"]
    answer["hosts"] = {f"h{number:03}": dict(one) for number in range(400)}
    lines = [line for line in screen("rollout", answer).splitlines() if line.startswith("FAILED")]
    assert len(lines) == 1 and "and 388 more" in lines[0]


def test_moves_show_from_where_to_where() -> None:
    """A channel's first snapshot, an unchanged one and a change are told apart."""
    lines = screen("snapshot", ANSWERS["snapshot"]()).splitlines()
    assert lines[1].split()[1:] == ["nothing", "->", "s-41b7c0000000", "9", "packages"]
    assert lines[2].split() == ["el8-x86_64", "s-41b7c0000000", "unchanged"]
    assert lines[3].endswith("s-41b7c0000000 -> s-9a02d1000000  +3 ~212 -1")


def test_promotion_on_its_screen() -> None:
    """Proof, evidence with its time, push, what refuses with the way out."""
    text = screen("promote", ANSWERS["promote"]())
    lines = text.splitlines()
    assert lines[0] == (
        "testing -> production el7-x86_64  nothing -> s-41b7c0000000  (9 packages)"
        "  TEST, nothing done"
    )
    assert "(+3 ~212 -1, 11 advisories)" in text and "unchanged" in text
    for words in (
        "SKIPS     testing: never held it", "part      of s-9a02d1000000: packages: a",
        "needs     b-1-1.x86_64", "left      c-1-1.x86_64", "blocked   d-1-1.noarch",
        "enters    edr", "UNPLACED  x1",
        "11 hosts: 9 change, 1 same, 1 stale (web9), 1 FAIL (db9: ora needs libfoo)"
        "; new held: tomcat-9-1.noarch",
        "A 9 hosts, 2.0 MB each, REBOOT: web1 web2 web3 ...: upgrade a-2-1.x86_64",
        "evidence  hosts 5 of 3 ok, failures 0 of 0 ok, soak 31 h of 2 d (met 2027-",
        "evidence  0 of 2 versions ok, a: soak 31 h of 2 d",
        "kernel-core-5-1.x86_64 + kmod-lpfc-1-1.x86_64, 18 hosts", "and 1 more",
        "18.0 MB on the wire at most, 2.0 MB distinct; 9 reboots",
        "REFUSED   db9: ora needs libfoo", "REFUSED   and 2 more",
    ):  # fmt: skip
        assert words in text, words
    assert lines[-1].startswith("mend: exclude=libfoo, or from 2027-01-15")
    assert lines[-1].endswith("or force=True reason=...")
    done = {**ANSWERS["promote"](), "test": False, "refused": False, "forced": True}
    text = screen("promote", done)
    assert "FORCED" in text and text.endswith("next: salt-run cpacman.plan class=production")


def test_a_rehearsed_snapshot_says_what_would_change() -> None:
    """`snapshot test=True` says what the first class would be pointed at, if at all."""
    new = {"id": SNAPSHOT, "packages": 9, "new": True, "before": BEFORE, "added": 1, "updated": 2,
           "removed": 0}  # fmt: skip
    rows = {"el8": {**new, "new": False}, "el9": new}
    body = {"result": True, "class": "all", "test": True, "channels": rows}
    assert screen("snapshot", body).splitlines() == [
        "snapshot for all  TEST, nothing done",
        "  el8  s-9a02d1000000                    unchanged",
        "  el9  s-41b7c0000000 -> s-9a02d1000000  +1 ~2 -0",
    ]  # fmt: skip


def test_a_snapshot_in_full_lists_its_packages() -> None:
    """`show s-...` has another shape than `snapshot`, and a screen."""
    package = {"nevra": "a-1-1.noarch", "repository": "os", "size": 1_500_000, "sha256": "0" * 64}
    body = {"result": True, "id": SNAPSHOT, "channel": "el9-x86_64", "packages": [package]}
    assert screen("snapshot", body).splitlines() == [
        "snapshot s-9a02d1000000  el9-x86_64  1 package", "  a-1-1.noarch  os  1.5 MB",
    ]  # fmt: skip
    body["lineage"] = {"parents": [BEFORE, SNAPSHOT], "how": "packages: a"}
    stranger = {"nevra": "a-1-1.noarch", "repository": "os", "detail": f"not signed{HOSTILE}"}
    body["signatures"] = {"counts": {"good": 1, "unsigned": 1}, "packages": [stranger]}
    lines = screen("snapshot", body).splitlines()
    assert lines[1] == "from s-41b7c0000000 and s-9a02d1000000: packages: a"
    assert lines[2] == "signatures  1 good, 1 unsigned"
    assert lines[3].startswith("NOT VERIFIED  a-1-1.noarch (os): not signed")
    check_is_clean("\n".join(lines))


def test_the_board_shows_pointers_counts_and_troubles() -> None:
    """Classes as columns, how hosts stand below, then what needs somebody."""
    text = screen("status", status_answer())
    assert "s-9a02d1000000 2 h, was s-41b7c0000000" in text
    assert "1 current 1 behind 2 ahead 1 unknown 1 new" in text and "no hosts" in text
    assert "db1: belongs to no class" in text
    assert "r-1122a0000000" in text and "alice" in text


def test_history_shows_who_did_what() -> None:
    """A line an entry: who, what, where, the first changes and how many more."""
    lines = screen("history", history_answer()).splitlines()
    assert len(lines) == 3
    assert "- -> s-9a02d1000000" in lines[1]
    assert "CHG1  upgrade openssl-3.0-1.x86_64 -> openssl-3.1-1.x86_64" in lines[2]
    assert lines[2].endswith("and 3 more")
    assert screen("history", {"package": None, "entries": []}) == "nothing in the journal fits"


def test_values_show_their_source() -> None:
    """`config host=` says for each value where it comes from, and what is wrong."""
    lines = screen("config", ANSWERS["config"]()).splitlines()
    assert lines[0] == "host web1"
    assert lines[1].split(maxsplit=2) == ["class", '"production"', "hosts.d/web.yaml: web*"]
    assert lines[2].startswith("PROBLEM web1: no channel")


def test_what_nobody_foresaw_is_still_shown() -> None:
    """Salt's own texts, lists and answers without a screen come out whole and clean."""
    assert render("no such function\x1b[0m") == "no such function?[0m"
    assert "surprise" in render({"surprise": {"a": 1}, "retcode": 1}) or '"a": 1' in render(
        {"surprise": {"a": 1}}
    )
    assert render({"plan": "no dict"}) == "no dict"
    assert render({"suffix": "progress", "event": "odd"}) == ".. odd"


def test_helpers_read_well() -> None:
    """Spans have one unit, lists an end, tables columns."""
    assert [age(s) for s in (5, 119, 7200, 200000)] == ["5 s", "119 s", "2 h", "2 d"]
    assert some(["a", "b", "c"], most=2) == "a b and 1 more"
    assert table([("a", "bb"), ("ccc", "")]) == "  a    bb\n  ccc"
    assert table([]) == ""


def test_screens_do_not_change_their_answer() -> None:
    """A screen is a pure function."""
    for what, make in ANSWERS.items():
        answer = make()
        before = copy.deepcopy(answer)
        started = time.process_time()
        screen(what, answer)
        assert answer == before
        assert time.process_time() - started < 5


def test_why_has_each_rule_below_its_candidate() -> None:
    """Who reads from top to bottom learns which one wins and what removed the others."""
    lines = screen("why", why_answer()).splitlines()
    at = next(i for i, text in enumerate(lines) if "HELD BACK" in text)
    assert lines[at + 1].strip() == "lock: locked by policy[0], SAP note 42"
    assert "TAKEN: upgrade (update) RHSA-2026:1" in lines[3]
    assert "obsolete new-1-1.noarch for old-1-1.noarch" in lines
    assert lines[-2:] == ["NOT PLANNED (requires)", "  ora needs libfoo"]


def test_why_of_what_nobody_has() -> None:
    """Neither installed nor offered: both are said."""
    body = {**why_answer(), "installed": [], "candidates": [], "actions": [], "failed": None}
    text = screen("why", body)
    assert "not installed" in text
    assert "no repository has it" in text


def test_members_on_their_screens() -> None:
    """Who waits, for what, and the next thing to type."""
    shown = screen("hosts", hosts_answer())
    assert "web9  testing  rest  el9  moved   never asked    moved: testing" in shown
    assert "1 behind, 1 moved" in shown
    assert "web9" in screen("accept", ANSWERS["accept"]())
    adopted = screen("adopt", ANSWERS["adopt"]())
    assert "2 hosts: db1 db2\n  in no snapshot 1: agent-1-1.noarch\n  broken 1:" in adopted
    assert "1 host: web9  nothing to mend" in adopted and "now=True" in adopted
    assert "salt-key -d web7" in screen("retire", ANSWERS["retire"]())


def test_damage_says_who_needs_it() -> None:
    """What is left has its snapshots and classes; what was mended has its source."""
    lines = screen("verify", ANSWERS["verify"]()).splitlines()
    assert lines[0] == "9 files of 2 snapshots hashed: 1 of 2 DAMAGED files left"
    assert lines[1].startswith("DAMAGED  a-1-1.noarch altered")
    assert lines[1].endswith("needed by s-9a02d1000000, of production")
    assert lines[2].startswith("mended") and lines[2].endswith("from /srv/mirror/a.rpm")
    assert lines[-1] == "next: salt-run cpacman.verify repair=True"


def test_prune_says_what_goes_and_why_the_rest_stays() -> None:
    """The sum first; bytes that mirrors still have are not called free."""
    lines = screen("prune", ANSWERS["prune"]()).splitlines()
    assert lines[0] == (
        "1 snapshot and 3 files would be removed, 5.0 MB on disk, 2.0 GB that mirrors have, too"
        "  TEST, nothing done"
    )
    assert lines[1].endswith("goes") and lines[2].endswith("pinned")


def test_the_list_of_snapshots_has_lineage_and_need() -> None:
    """Who took each, why it stays, and where a part came from."""
    first, second = screen("snapshots", ANSWERS["snapshots"]()).splitlines()
    assert first.startswith("s-9a02d1000000  el9") and first.endswith("production")
    assert "by alice" in first and "9 packages" in first
    assert "may go" in second and second.endswith("s-9a02d1000000: packages: a")


def test_what_is_left_to_do_is_said_once_for_all_hosts() -> None:
    """Services to restart, reboots and files to merge stand once, with the hosts they are on."""
    answer = copy.deepcopy(ANSWERS["rollout"]())
    for number, one in enumerate(answer["hosts"].values()):
        one["findings"] = {"services": [f"sshd.service ({number})"], "configs": ["/etc/a.rpmnew"]}
    lines = screen("rollout", answer).splitlines()
    (restart,) = [line for line in lines if line.startswith("restart sshd.service: ")]
    assert all(host in restart for host in answer["hosts"])
    assert any(line.startswith("merge /etc/a.rpmnew: ") for line in lines)


def test_a_chain_tells_where_it_stands() -> None:
    """What it waits for and until when in the head, each class a line, then what to type."""
    lines = screen("chain", chain_answer()).splitlines()
    assert lines[0].startswith("c-0123456789ab WAITING (promotion to production refused: soak), ")
    assert "3 applied, 1 failed" in lines[1] and "has no host" in lines[2]
    assert lines[3].split() == ["production", "to", "be", "promoted", "to"]
    assert "cpacman.resume c-0123456789ab" in lines[-1]


def test_the_board_tells_what_goes_on() -> None:
    """Rollouts with their share and what they wait for, chains, the engine, the next freeze."""
    lines = screen("status", status_answer()).splitlines()
    told = [
        one for one in lines if one.startswith(("now:", "engine", "  does", "  next", "freeze"))
    ]
    assert told[0].startswith("now: r-1122a0000000 production canary 75 % (alice) waiting: canary")
    assert told[1].startswith("now: c-0123456789ab development -> testing -> production (alice) w")
    assert told[2] == "engine ok 4 s ago (master:7:9)"
    assert told[3].startswith("  does prune since") and "snapshot" in told[4]
    assert told[5].startswith("freeze of production from ")
    silent = {**status_answer()["engine"], "alive": False, "next": [], "doing": [], "failed": []}
    assert "engine SILENT" in screen("status", {**status_answer(), "engine": silent})
    never = {**silent, "owner": None, "seen": None}
    assert "engine" not in screen("status", {**status_answer(), "engine": never})
    never["next"] = [{"what": "r-1", "at": 1.0}]
    assert "engine NONE" in screen("status", {**status_answer(), "engine": never})


def test_who_still_says_nothing_is_recovered_later() -> None:
    """What to type next: recover for who is silent, the way back only for who answers."""
    host = {"rollout": ROLLOUT, "before": "silent", "back": "", "detail": "", "code": "x"}
    body = {"test": False, "hosts": {"db1": {**host, "outcome": "silent"},
                                     "web1": {**host, "outcome": "failed"}}}  # fmt: skip
    shown = render({"recover": body})
    assert "when it answers again: salt-run cpacman.recover db1" in shown
    assert "next: salt-run cpacman.rollback host=web1" in shown
    del body["hosts"]["web1"]
    assert "rollback" not in render({"recover": body})


def test_hosts_that_wait_are_one_line() -> None:
    """Causes that differ in the host's own name only are one, and name what to type for all."""
    names = ["web1", "web10", "web2"]
    cause = "{0}: new; run: salt-run cpacman.accept hosts={0}"
    failed = {name: {"error": "not-accepted", "causes": [cause.format(name)]} for name in names}
    failed["db1"] = {"error": "inventory", "causes": ["run: salt-run cpacman.refresh db1"]}
    shown = screen("plan", {**plan_answer(), "failed": failed})
    assert [one for one in shown.splitlines() if one.startswith("NOT PLANNED")] == [
        "NOT PLANNED db1: inventory: run: salt-run cpacman.refresh db1",
        "NOT PLANNED web1 web10 web2: not-accepted: HOST: new;"
        " run: salt-run cpacman.accept hosts=web1,web10,web2",
    ]
