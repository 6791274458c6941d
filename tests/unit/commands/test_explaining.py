"""Explaining, comparing, and what is outstanding: from a store, snapshots and settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cpacman.cli import main
from cpacman.commands import comparing, explaining, looking, offering, planning
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.config import load_settings
from cpacman.depot.kept import Build
from cpacman.depot.snapshot import Snapshot
from cpacman.errors import CpacmanError, InputError, UsageError
from cpacman.model import (
    Action,
    ActionKind,
    Advisory,
    InstalledPackage,
    Inventory,
    InventoryRef,
    OsRelease,
    Package,
    Plan,
    Request,
    Transaction,
)
from cpacman.planner.actions import split_nevra
from cpacman.report.screens import render
from cpacman.report.table import render_plan
from cpacman.store import Store
from tests.unit.planner.casefile import read_sections, source_of

HOSTS = ("db1", "new1", "web1", "web2")
REPO = "repo base\n  openssl-3-2.x86_64\n  zlib-1-2.x86_64\n    vendor: Other\n"
ADVISORIES = (
    Advisory(id="A-1", severity="Critical", cves=("CVE-1", "CVE-2"),
             packages=("openssl-3-2.x86_64",)),
    Advisory(id="A-2", severity="Low", cves=("CVE-2",), packages=("openssl-3-2.x86_64",
                                                                  "zlib-1-2.x86_64")),
    Advisory(id="A-3", severity="Important", packages=("kernel-core-5-2.x86_64",)),
    Advisory(id="A-4", severity="Important", packages=("openssl-2-9.x86_64",
                                                       "openssl-9-9.i686")),
)  # fmt: skip


class Directory:
    """The accepted hosts, which are known by nothing but their ids."""

    def accepted(self) -> list[str]:
        """All of them."""
        return list(HOSTS)

    def transport_of(self, host: str) -> str:
        """All have a minion."""
        return "publish"

    def match(self, target: str, target_type: str) -> list[str]:
        """Only exact ids."""
        return [host for host in HOSTS if host == target]

    def grains(self, hosts: Any) -> dict[str, Any]:
        """Nobody tells any."""
        return {}

    def fingerprints(self, hosts: Any) -> dict[str, str]:
        """Each has a key of its own."""
        return {host: f"key of {host}" for host in hosts}

    def pillars(self, hosts: Any, grains: Any) -> dict[str, Any]:
        """There are none, unless a test says what they are."""
        return {}


def snapshot(number: str, *nevras: str) -> Snapshot:
    """Return a snapshot of packages."""
    rows = []
    for nevra in nevras:
        name, evr, arch = split_nevra(nevra)
        version, _, release = evr.partition("-")
        rows.append(
            Package(
                name=name, epoch=0, version=version, release=release, arch=arch, sha256="a" * 64,
                size=1, repository="base", location=f"{nevra}.rpm",
            )
        )  # fmt: skip
    return Snapshot(
        id=number,
        channel="el9",
        created=1,
        packages=tuple(rows),
        repositories=(),
        advisories=ADVISORIES,
    )


SNAPSHOTS = {
    "s-old": snapshot("s-old", "openssl-3-1.x86_64", "gone-1-1.noarch"),
    "s-new": snapshot("s-new", "openssl-3-2.x86_64", "zlib-1-2.x86_64"),
}


def inventory(host: str, *nevras: str) -> Inventory:
    """Return a host's inventory."""
    rows = []
    for nevra in nevras:
        name, evr, arch = split_nevra(nevra)
        version, _, release = evr.partition("-")
        rows.append(
            InstalledPackage(
                name=name, version=version, release=release, arch=arch, vendor="V",
                digest=f"sha256:{nevra}",
            )
        )  # fmt: skip
    return Inventory(
        host=host, arch="x86_64", cookie=f"c-{host}", kernel="5-1", packages=tuple(rows),
        os=OsRelease(id="centos", id_like="rhel", version_id="9"),
    )  # fmt: skip


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A store with three hosts of two classes, and a fourth one that was never asked."""
    hosts_d = tmp_path / "hosts.d"
    hosts_d.mkdir()
    (hosts_d / "all.yaml").write_text("db1: {class: production}\n'*': {class: testing}\n")
    section = {
        "membership": {"hosts_d": str(hosts_d), "sources": ["files"], "on_new": "accept"},
        "state_dir": str(tmp_path / "state"),
        "channels": {"el9": {"match": {"id_like": "rhel", "major": 9, "arch": "x86_64"},
                             "repositories": {"base": {"path": "/srv/base"}}}},
        "classes": [{"testing": {}}, {"production": {}}],
    }  # fmt: skip
    settings = load_settings(section, source="test", base=tmp_path)
    source = source_of(read_sections(REPO)[0], tmp_path / "metadata")
    for module in (comparing, explaining, planning):
        monkeypatch.setattr(module, "load_snapshot", lambda _, number: SNAPSHOTS[number])
    monkeypatch.setattr(offering, "sources_of", lambda _: (source,))
    with Store.open(f"sqlite:///{tmp_path}/state/cpacman.db") as store:
        store.put_inventories(
            [
                inventory("web1", "openssl-3-1.x86_64", "zlib-1-1.x86_64"),
                inventory("web2", "openssl-3-2.x86_64", "zlib-1-1.x86_64"),
                inventory("db1", "openssl-3-1.x86_64", "kernel-core-5-1.x86_64",
                          "kernel-core-5-2.x86_64"),
            ],
            at=1.0,
        )  # fmt: skip
        for class_, number in (("testing", "s-new"), ("production", "s-old")):
            store.point(class_, "el9", number, expected=None, action="t", at=1.0, who="me")
        yield Context(
            settings=settings, store=store, pool=None, key=None, directory=Directory(),  # type: ignore[arg-type]
            transport=None, who="me",  # type: ignore[arg-type]
        )  # fmt: skip


def lacking(body: dict[str, Any], class_: str) -> dict[str, tuple[int, list[str]]]:
    """Return advisory -> how many hosts of a class lack it, and which."""
    rows = body["advisories"]["classes"][class_]["advisories"]
    return {row["id"]: (row["hosts"], row["on"]) for row in rows}


# ---- why -----------------------------------------------------------------------------------


def test_why(context: Context) -> None:
    """A package is explained from what the host's class holds, in plain values and on a screen."""
    body = explaining.why(context, "web1", "openssl")
    assert body["why"]["snapshot"] == "s-new"
    assert [c["fate"] for c in body["why"]["candidates"]] == ["taken"]
    assert "openssl-3-2.x86_64  base  TAKEN: upgrade (update) A-1 A-2" in render(body)
    text = render(explaining.why(context, "web1", "zlib"))
    assert "installed  zlib-1-1.x86_64  from elsewhere  V" in text
    assert "HELD BACK" in text
    assert "vendor: vendor Other, installed is V" in text


def end_rollout_of(context: Context, host: str, *changes: dict[str, str | None]) -> None:
    """Let a rollout end well on a host, with what its transaction changed."""
    head = {"id": "r-1", "plan": "p-1", "class": "testing", "state": "running", "who": "me",
            "owner": "here"}  # fmt: skip
    context.store.start_rollout(head, [(host, "all", "t-1")], at=1.0)
    context.store.end_host("r-1", host, expected="waiting", outcome="applied", at=2.0, who="me",
                           changes=changes)  # fmt: skip


def test_the_journal_knows_origins(context: Context) -> None:
    """What CPacMan installed from elsewhere is not updated from here, and why says who knows."""
    change = {"action": "install", "name": "openssl", "nevra": "openssl-3-1.x86_64", "from": None}
    end_rollout_of(context, "web1", {**change, "repository": "hardened"})
    text = render(explaining.why(context, "web1", "openssl"))
    assert "installed  openssl-3-1.x86_64  from hardened, by CPacMan" in text
    assert "installed from hardened, it is from base" in text
    hosts = planning.place_all(context, ["web1", "web2"]).hosts
    plan = planning.make_plan(context, "testing", hosts, Request())
    held = {h: plan.transactions[n].held for h, n in plan.hosts.items()}
    assert "openssl-3-1.x86_64" in {one.nevra for one in held["web1"]}


@pytest.mark.parametrize(
    ("host", "words"), [("new1", "salt-run cpacman.refresh new1"), ("nobody", "accepted no key")]
)
def test_why_of_a_host_that_cannot_be_planned(context: Context, host: str, words: str) -> None:
    """Without an inventory, or a key, it is said what is missing."""
    with pytest.raises(InputError, match=words):
        explaining.why(context, host, "openssl")


def test_why_of_a_request_and_its_dump(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked for is explained, too, and dumped as a case that the console replays."""
    dump = tmp_path / "one.case"
    request = Request(exclude=("openssl",))
    body = explaining.why(context, "web1", "openssl", request=request, dump=str(dump))
    assert body["why"]["dump"] == str(dump)
    assert "exclude: excluded by --exclude" in render(body)
    assert main(["replay", str(dump)]) == 0
    assert "openssl-3-2.x86_64  exclude: excluded by --exclude" in capsys.readouterr().out
    with pytest.raises(UsageError, match="give the whole path"):
        explaining.why(context, "web1", "openssl", dump="one.case")


# ---- diff ----------------------------------------------------------------------------------


def test_diff_of_hosts(context: Context) -> None:
    """Two hosts: what each has more, other versions, and a fingerprint that tells equal ones."""
    body = comparing.diff(context, "web1", "db1")["diff"]
    assert body["kind"] == "host"
    assert body["added"] == [
        {"name": "kernel-core", "arch": "x86_64", "before": [], "after": ["5-1", "5-2"]}
    ]
    assert [row["name"] for row in body["removed"]] == ["zlib"]
    other = comparing.diff(context, "web1", "web2")["diff"]
    assert other["updated"] == [
        {"name": "openssl", "arch": "x86_64", "before": ["3-1"], "after": ["3-2"]}
    ]
    assert other["a"]["fingerprint"] == body["a"]["fingerprint"] != other["b"]["fingerprint"]
    text = render({"diff": body})
    assert "+  kernel-core.x86_64  5-1, 5-2" in text


def test_equal_hosts_have_one_fingerprint(context: Context) -> None:
    """A twin is told to be one."""
    (found,) = context.store.inventories(["web1"]).values()
    context.store.put_inventory(msgspec.structs.replace(found, host="twin"), at=2.0)
    body = comparing.diff(context, "web1", "twin")["diff"]
    assert body["a"]["fingerprint"] == body["b"]["fingerprint"]
    assert "the same packages" in render({"diff": body})


def test_hosts_of_a_class_that_are_equal_and_odd_ones(context: Context) -> None:
    """A class alone: its sets of equal hosts, the largest first, and how the others differ."""
    (found,) = context.store.inventories(["web1"]).values()
    context.store.put_inventory(msgspec.structs.replace(found, host="new1"), at=2.0)
    body = comparing.diff(context, "testing")
    group = body["diff"]["groups"]["el9"]
    assert [one["hosts"] for one in group["sets"]] == [["new1", "web1"], ["web2"]]
    assert "updated" not in group["sets"][0]
    assert [row["name"] for row in group["sets"][1]["updated"]] == ["openssl"]
    alone = comparing.diff(context, "production")["diff"]["groups"]["el9"]
    assert alone["fingerprint"] == alone["sets"][0]["fingerprint"] != group["fingerprint"]
    text = render(body)
    assert "el9  3 hosts, 2 different sets of packages" in text
    assert "~  openssl.x86_64  3-1 -> 3-2" in text


def test_hosts_of_a_plan_that_are_equal(context: Context) -> None:
    """A plan alone: each of its groups with the fingerprint that its hosts have."""
    hosts = planning.place_all(context, ["web1", "web2"]).hosts
    made = planning.make_plan(context, "testing", hosts, Request())
    context.store.put_plan(made, class_="testing", at=1.0, who="me")
    body = comparing.diff(context, made.plan_id)
    assert {k: one["hosts"] for k, one in body["diff"]["groups"].items()} == {"A": 1}
    assert "A  1 host, all equal, fingerprint" in render(body)


def test_what_has_no_hosts_of_its_own(context: Context) -> None:
    """A host or a snapshot alone can't be compared."""
    for word in ("web1", "s-new"):
        with pytest.raises(UsageError, match="has no hosts of its own"):
            comparing.diff(context, word)


def test_diff_of_snapshots_and_classes(context: Context) -> None:
    """Two classes differ as what they hold does."""
    body = comparing.diff(context, "s-old", "s-new")["diff"]
    assert [row["name"] for row in body["added"]] == ["zlib"]
    assert [row["name"] for row in body["removed"]] == ["gone"]
    assert [(row["before"], row["after"]) for row in body["updated"]] == [(["3-1"], ["3-2"])]
    classes = comparing.diff(context, "production", "testing")["diff"]
    assert classes["channels"]["el9"]["added"] == body["added"]
    assert (classes["channels"]["el9"]["a"], classes["channels"]["el9"]["b"]) == ("s-old", "s-new")
    assert "s-old -> s-new" in render({"diff": classes})


def upgrade(name: str, new: str) -> Transaction:
    """One upgrade."""
    action = Action(
        action=ActionKind.UPGRADE, name=name, epoch=0, version=new, release="1", arch="noarch",
        nevra_=f"{name}-{new}-1.noarch", from_=f"{name}-1-1.noarch",
    )  # fmt: skip
    return Transaction(actions=(action,))


def test_diff_of_plans(context: Context) -> None:
    """Two plans: hosts only in one, hosts with other actions, and those actions with counts."""
    for number, rows in (
        ("p-one", {"a": "2", "b": "2", "c": "2", "only": "2"}),
        ("p-two", {"a": "2", "b": "3", "c": "3", "more": "2"}),
    ):
        plan = Plan(
            plan_id=number, request=Request(), policy="", snapshots={"el9": "s-new"},
            hosts={host: f"t-{new}" for host, new in rows.items()},
            inventories={h: InventoryRef(digest="", cookie="") for h in rows},
            transactions={f"t-{new}": upgrade("x", new) for new in set(rows.values())},
        )  # fmt: skip
        context.store.put_plan(plan, class_="testing", at=1.0, who="me")
    body = comparing.diff(context, "p-one", "p-two")["diff"]
    assert body["hosts"] == {
        "added": ["more"], "removed": ["only"], "changed": ["b", "c"], "equal": 1,
    }  # fmt: skip
    assert body["added"] == [
        {"action": "upgrade", "nevra": "x-3-1.noarch", "from": "x-1-1.noarch", "hosts": 2}
    ]
    assert [row["nevra"] for row in body["removed"]] == ["x-2-1.noarch"]
    assert "+  upgrade  x-3-1.noarch  2 hosts  from x-1-1.noarch" in render({"diff": body})


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("web1", "wbe2", r"did you mean web2\?"),
        ("web1", "p-none", "there is no plan"),
    ],
)
def test_what_cannot_be_compared(context: Context, a: str, b: str, words: str) -> None:
    """What nobody knows is refused with a hint."""
    with pytest.raises(CpacmanError, match=words):
        comparing.diff(context, a, b)


# ---- advisories ----------------------------------------------------------------------------


def test_advisories_by_class(context: Context) -> None:
    """Each class lacks what its own snapshot's advisories have newer, held back or not."""
    body = explaining.advisories(context, Selection())
    assert lacking(body, "testing") == {"A-1": (1, ["web1"]), "A-2": (2, ["web1", "web2"])}
    assert lacking(body, "production") == {"A-1": (1, ["db1"]), "A-2": (1, ["db1"])}
    testing = body["advisories"]["classes"]["testing"]
    assert (testing["hosts"], testing["affected"], testing["unknown"]) == (2, 2, [])
    assert testing["severities"] == {
        "Critical": {"advisories": 1, "cves": 2, "hosts": 1},
        "Low": {"advisories": 1, "cves": 1, "hosts": 2},
    }
    assert [row["packages"] for row in testing["advisories"]] == [["openssl"], ["openssl", "zlib"]]


def test_a_kernel_beside_the_old_one_is_enough(context: Context) -> None:
    """Of packages that stand side by side the newest one counts."""
    body = explaining.advisories(context, Selection(tgt="db1"))
    assert "A-3" not in lacking(body, "production")


def test_another_architecture_or_an_older_fix_is_nothing(context: Context) -> None:
    """What is fixed already, or only for another architecture, is not outstanding."""
    assert "A-4" not in lacking(explaining.advisories(context, Selection()), "testing")


@pytest.mark.parametrize(
    ("severity", "cve", "left"),
    [
        (("critical",), (), {"A-1"}),
        (("Low", "IMPORTANT"), (), {"A-2"}),
        ((), ("cve-1",), {"A-1"}),
        ((), ("CVE-2",), {"A-1", "A-2"}),
        (("low",), ("CVE-1",), set()),
    ],
)
def test_filters(
    context: Context, severity: tuple[str, ...], cve: tuple[str, ...], left: set[str]
) -> None:
    """By severity and CVE, in whatever case they are typed."""
    body = explaining.advisories(context, Selection(), severity=severity, cve=cve)
    assert set(lacking(body, "testing")) == left


def test_what_is_outstanding_for_long(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the day of issue; what tells none stays in, and that is said."""
    issued = {"A-1": 10 * 86400, "A-2": 0}
    dated = tuple(msgspec.structs.replace(one, issued=issued.get(one.id, 1)) for one in ADVISORIES)
    new = msgspec.structs.replace(SNAPSHOTS["s-new"], advisories=dated)
    monkeypatch.setitem(SNAPSHOTS, "s-new", new)

    def left(now: float, older_than: str | int | None) -> tuple[set[str], str]:
        then = context._replace(clock=lambda: now * 86400)
        body = explaining.advisories(then, Selection(class_="testing"), older_than=older_than)
        return set(lacking(body, "testing")), render(body)

    assert left(20, "14d")[0] == {"A-2"}
    assert left(25, None)[0] == {"A-1", "A-2"} == left(25, "14d")[0]
    assert "1 of them tell no date" in left(25, "14d")[1]
    assert "Critical  A-1  1970-01-11" in left(25, "14d")[1]
    for wrong in ("a while", 14):
        with pytest.raises(UsageError, match=f"older_than: {wrong!r} is no duration; write 14d"):
            left(25, wrong)


def test_a_severity_that_does_not_exist(context: Context) -> None:
    """A misspelt severity is no empty answer."""
    with pytest.raises(UsageError, match="'high' is none; there are: critical"):
        explaining.advisories(context, Selection(), severity=("high",))


def test_hosts_that_nothing_is_known_of_are_named(context: Context) -> None:
    """A class without a snapshot makes its hosts unknown, not well."""
    text = render(explaining.advisories(context, Selection(class_="testing")))
    assert "testing: 2 of 2 hosts lack something" in text
    assert "Critical  A-1" in text
    with context.store._write() as connection:
        connection.exec_driver_sql("delete from pointers where class = 'testing'")
    body = explaining.advisories(context, Selection(class_="testing"))["advisories"]
    assert body["classes"]["testing"]["unknown"] == ["web1", "web2"]
    assert "UNKNOWN" in render({"advisories": body})


def test_advisories_name_every_host(context: Context) -> None:
    """All hosts that lack one are told, and one host can be asked for alone."""
    (found,) = context.store.inventories(["web1"]).values()
    many = [f"web{number:02}" for number in range(10, 40)]
    context.store.put_inventories(
        [msgspec.structs.replace(found, host=host) for host in many], at=2.0
    )
    context.directory.accepted = lambda: [*HOSTS, *many]  # type: ignore[method-assign]
    body = explaining.advisories(context, Selection())
    count, hosts = lacking(body, "testing")["A-1"]
    assert count == len(hosts) == 31
    one = explaining.advisories(context, Selection(), hosts=["web1"])
    assert lacking(one, "testing")["A-1"] == (1, ["web1"])
    assert list(one["advisories"]["classes"]) == ["testing"]
    with pytest.raises(UsageError, match="host nobody: is not among them"):
        explaining.advisories(context, Selection(), hosts=["nobody"])


def test_what_the_depot_lacks_cannot_be_undone(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of the runner asks the depot, not the snapshot's metadata, what it could give back."""
    asked: list[set[str]] = []

    def find(depot: Path, builds: Any, cache: Path) -> set[Build]:
        asked.append({build.nevra for build in builds})
        return {build for build in builds if build.vendor == "V" and "1" in build.nevra}

    hosts = planning.place_all(context, ["web1"]).hosts
    made = planning.make_plan(context, "testing", hosts, Request())
    (transaction,) = made.transactions.values()
    assert not transaction.reversible and transaction.irreversible == ("openssl-3-1.x86_64",)
    assert "not reversible  openssl-3-1.x86_64 is kept nowhere (1 host)" in render_plan(made)
    monkeypatch.setattr(planning, "find_kept", find)
    again = planning.make_plan(context, "testing", hosts, Request())
    assert asked == [{"openssl-3-1.x86_64"}] and again.plan_id == made.plan_id
    assert all(one.reversible and not one.irreversible for one in again.transactions.values())


def test_a_host_shows_its_lines_of_policy(context: Context) -> None:
    """Each line that may hold for a host stands with what places it, and where it is written."""
    file = context.settings.membership.hosts_d / "web2.yaml"
    file.write_text("web2: {policy: [{lock: zlib}, {pin: {openssl: base}}]}\n")
    rows = looking.config(context, "web2")["config"]["values"]
    assert [row for row in rows if row["path"].startswith("policy")] == [
        {"path": "policy.lock", "value": ["zlib"], "source": "hosts.d/web2.yaml: web2.policy[0]"},
        {"path": "policy.pin", "value": {"openssl": "base"},
         "source": "hosts.d/web2.yaml: web2.policy[1]"},
    ]  # fmt: skip
