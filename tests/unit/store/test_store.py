"""The state database: what is committed is there again, and conflicts are told."""

from __future__ import annotations

import multiprocessing
from array import array

import pytest

from cpacman.errors import ConflictError, CpacmanError, InputError
from cpacman.model import Inventory, Plan, Request, Transaction
from cpacman.store import Store
from cpacman.store.rows import pack
from cpacman.store.tables import sets_table
from tests.unit.store.samples import inventory, package, rollout


def test_newer_database_is_refused(store: Store, url: str) -> None:
    """A database of a later version is left alone, with a clear message."""
    with store._engine.begin() as connection:
        connection.exec_driver_sql("update schema_version set version = 99")
    with pytest.raises(CpacmanError, match="version 99"):
        Store.open(url)


def test_inventories_come_back_whole(store: Store) -> None:
    """An inventory read back equals the stored one, but for the times of installation."""
    first = inventory("web1", package("a", reason="user"), package("b"))
    store.put_inventory(first, at=1.0)
    store.put_inventory(inventory("web2", package("b")), at=2.0)
    found = store.inventories(["web1", "web2", "absent"])
    assert found["web1"] == first
    assert [p.name for p in found["web2"].packages] == ["b"]
    assert set(found) == {"web1", "web2"}


def test_renewed_head_keeps_the_packages(store: Store) -> None:
    """A new kernel is noted though no package changed."""
    first = inventory("web1", package("a"))
    store.put_inventory(first, at=1.0)
    store.renew_inventory(Inventory(host="web1", cookie="c-web1", kernel="5.14"), at=2.0)
    found = store.inventories(["web1"])["web1"]
    assert (found.kernel, found.packages) == ("5.14", first.packages)
    assert store.inventory_heads()["web1"][1] == 2.0


def test_same_package_with_two_reasons(store: Store) -> None:
    """The reason belongs to the host, not to the package that both hosts share."""
    store.put_inventory(inventory("web1", package("a", reason="user")), at=1.0)
    store.put_inventory(inventory("web2", package("a", reason="dep")), at=1.0)
    found = store.inventories(["web1", "web2"])
    assert [found[h].packages[0].reason for h in ("web1", "web2")] == ["user", "dep"]


def test_files_that_one_host_was_asked_for(store: Store) -> None:
    """Files that only one host's dependencies name stay with that host."""
    store.put_inventory(inventory("web1", package("a")), at=1.0)
    store.put_inventory(inventory("web2", package("a", files=("/opt/a",))), at=1.0)
    found = store.inventories(["web1", "web2"])
    assert [found[h].packages[0].files for h in ("web1", "web2")] == [(), ("/opt/a",)]


def test_details_of_one_digest_under_two_seals(store: Store) -> None:
    """What one host says of a package is not what another one is planned from."""
    honest, lying = package("a"), package("a", provides=(("b", "", ""),))
    store.put_inventory(inventory("web1", lying), at=1.0, keys={honest.digest: "a 1"})
    store.put_inventory(inventory("web2", honest), at=1.0, keys={honest.digest: "a 2"})
    found = store.inventories(["web1", "web2"])
    assert [found[h].packages[0].provides for h in ("web1", "web2")] == [lying.provides, ()]


def test_duplicate_packages_stay(store: Store) -> None:
    """A database that holds the same package twice is shown as it is."""
    store.put_inventory(inventory("web1", package("a"), package("a")), at=1.0)
    assert len(store.inventories(["web1"])["web1"].packages) == 2


def test_many_inventories_at_once(store: Store) -> None:
    """Hosts kept in one go come back as those kept one by one; of one host the last word counts."""
    hosts = [
        inventory("web1", package("a", reason="user"), package("b", reason="dep")),
        inventory("web2", package("b", reason="dep"), package("a", reason="user")),
        inventory("web3", package("a", reason="weak"), package("a"), package("c")),
        inventory("web4", package("a", files=("/opt/a",), reason="dep")),
        inventory("web4", package("a", files=("/opt/b",), reason="dep")),
    ]
    store.put_inventories(hosts, at=1.0)
    found = store.inventories(["web1", "web2", "web3", "web4"])
    for one in (hosts[0], hosts[1], hosts[4]):
        mine = found[one.host]
        assert sorted(mine.packages, key=lambda p: p.name) == sorted(
            one.packages, key=lambda p: p.name
        )
    assert sorted(p.reason for p in found["web3"].packages) == ["", "", "weak"]
    assert found["web1"].packages is found["web2"].packages
    assert sum(1 for _ in store._rows(sets_table.select())) == 3


def test_equal_packages_are_one_object(store: Store) -> None:
    """Ten thousand hosts with one package do not need ten thousand of it."""
    own = {"files": ("/opt/a",), "reason": "dep"}
    rows = [("web1", "x"), ("web2", "y")]
    store.put_inventories(
        [
            inventory(host, package("a", **own), package("b", reason="user"), package(other))
            for host, other in rows
        ],
        at=1.0,
    )
    one, two = store.inventories(["web1", "web2"]).values()
    by_name = {p.name: p for p in two.packages}
    assert [p.name for p in one.packages if p is by_name.get(p.name)] == ["a", "b"]


def test_sets_of_the_first_version_are_read(store: Store) -> None:
    """What was kept with a reason beside each package comes back with it."""
    store.put_inventory(inventory("web1", package("a"), package("b")), at=1.0)
    ids = {d: n for d, (n, _) in store._package_rows(["sha256:a1", "sha256:b1"]).items()}
    old = [
        array("I", sorted(ids.values())).tobytes(),
        [[ids["sha256:a1"], "user", []], [ids["sha256:b1"], "", ["/opt/b"]]],
    ]
    with store._write() as connection:
        connection.execute(sets_table.update().values(members=pack(old)))
    found = {p.name: p for p in store.inventories(["web1"])["web1"].packages}
    assert (found["a"].reason, found["b"].reason) == ("user", "")
    assert found["b"].files == ("/opt/b",)


def test_a_store_does_not_remember_without_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many details stay in memory, and nothing is lost by that."""
    monkeypatch.setattr("cpacman.store.inventories._MOST_PACKAGES", 3)
    for host in range(4):
        store.put_inventory(inventory(f"web{host}", *(package(f"p{host}{n}") for n in "ab")), at=1)
    assert len(store._packages) <= 4
    found = store.inventories([f"web{n}" for n in range(4)])
    assert {p.name for one in found.values() for p in one.packages} == {
        f"p{host}{n}" for host in range(4) for n in "ab"
    }
    assert set(store.packages(["sha256:p0a1", "no"])) == {"sha256:p0a1"}


def test_unknown_packages(store: Store) -> None:
    """Only packages that no host reported before are asked for."""
    store.put_inventory(inventory("web1", package("a")), at=1.0)
    assert store.unknown_packages(["sha256:a1", "sha256:b1"]) == ["sha256:b1"]


def test_plan_by_prefix(store: Store) -> None:
    """A plan is found by a unique prefix; anything else says why not."""
    for number in ("p-aaa1", "p-aab2"):
        plan = Plan(plan_id=number, request=Request(), policy="x", snapshots={},
                    hosts={"web1": "t-1"}, inventories={},
                    transactions={"t-1": Transaction()})  # fmt: skip
        store.put_plan(plan, class_="all", at=1.0, who="me")
    assert store.plan("p-aab").plan.transactions == {"t-1": Transaction()}
    with pytest.raises(InputError, match="several"):
        store.plan("p-aa")
    with pytest.raises(InputError, match="there is no plan p-b"):
        store.plan("p-b")
    with pytest.raises(InputError, match="no id of a plan"):
        store.plan("12345")
    with pytest.raises(InputError, match="there is no plan"):
        store.plan("p-%")


def test_one_lock_per_host(store: Store) -> None:
    """A second rollout that touches a locked host is not created at all."""
    store.start_rollout(rollout(), [("web1", "all", "t-1")], at=1.0)
    with pytest.raises(ConflictError, match="web1: is being changed by rollout r-1"):
        store.start_rollout(rollout("r-2"), [("web0", "all", "t"), ("web1", "all", "t")], at=1.0)
    assert [r["id"] for r in store.rollouts()] == ["r-1"]
    store.end_host("r-1", "web1", expected="waiting", outcome="applied", at=2.0, who="me")
    store.start_rollout(rollout("r-2"), [("web1", "all", "t-1")], at=3.0)


def test_a_host_ends_once(store: Store) -> None:
    """The one outcome of a host can't be written over."""
    store.start_rollout(rollout(), [("web1", "all", "t-1")], at=1.0)
    store.end_host("r-1", "web1", expected="waiting", outcome="applied", at=2.0, who="me")
    with pytest.raises(ConflictError):
        store.end_host("r-1", "web1", expected="waiting", outcome="failed", at=2.0, who="me")


def test_pointer_moves_only_from_where_it_was_seen(store: Store) -> None:
    """Of two promotions made from the same view the second is told."""
    how = {"action": "promote", "at": 1.0, "who": "me"}
    store.point("testing", "el9", "s-1", expected=None, **how)
    with pytest.raises(ConflictError, match="points at s-1 now"):
        store.point("testing", "el9", "s-2", expected=None, **how)
    assert store.pointers()[("testing", "el9")]["snapshot"] == "s-1"


def test_history_by_package(store: Store) -> None:
    """What a rollout did is found again by the package's name, with its ticket."""
    change = {"action": "upgrade", "name": "a", "nevra": "a-2-1.noarch", "from": "a-1-1.noarch"}
    store.record("applied", "r-1", at=1.0, who="me", host="web1", ticket="CHG1", changes=[change])
    store.record("applied", "r-1", at=2.0, who="me", host="web2")
    (entry,) = store.history(package="a")
    assert entry["host"] == "web1" and entry["changes"][0]["from"] == "a-1-1.noarch"
    assert [e["host"] for e in store.history(ticket="CHG1")] == ["web1"]
    assert len(store.history()) == 2


def _take_sequences(url: str, count: int) -> list[int]:
    with Store.open(url) as store:
        return [store.next_sequence("web1", at=1.0) for _ in range(count)]


def test_sequences_of_several_processes_never_repeat(store: Store, url: str) -> None:
    """Two runners at once never give a host the same number."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.starmap(_take_sequences, [(url, 20), (url, 20)])
    numbers = parts[0] + parts[1]
    assert sorted(numbers) == list(range(1, 41))


def test_origins_follow_transactions(store: Store) -> None:
    """What a host got from where is known, what left is forgotten, equal hosts share one row."""

    def ended(rollout: str, host: str, *changes: tuple[str, str, str | None, str | None]) -> None:
        head = {"id": rollout, "plan": "p", "class": "all", "state": "running", "who": "me",
                "owner": "here"}  # fmt: skip
        store.start_rollout(head, [(host, "all", "t-1")], at=1.0)
        rows = [
            {"action": action, "name": nevra[:1], "nevra": nevra, "from": old, "repository": repo}
            for action, nevra, old, repo in changes
        ]
        store.end_host(rollout, host, expected="waiting", outcome="applied", at=2.0, who="me",
                       changes=rows)  # fmt: skip

    first = [("install", "a-1", None, "base"), ("install", "b-1", None, "extra")]
    ended("r-1", "web1", *first)
    ended("r-2", "web2", *first)
    found = store.origins(["web1", "web2", "web3"])
    assert found["web1"] == {"a-1": "base", "b-1": "extra"} and "web3" not in found
    assert found["web1"] is found["web2"]
    ended("r-3", "web1", ("upgrade", "a-2", "a-1", "updates"), ("remove", "b-1", None, None))
    ended("r-4", "web2", ("obsolete", "c-1", "b-1", "base"))
    assert store.origins(["web1"]) == {"web1": {"a-2": "updates"}}
    assert store.origins(["web2"]) == {"web2": {"a-1": "base", "c-1": "base"}}
    assert [c["repository"] for c in store.history(host="web1")[-1]["changes"]] == [
        "updates",
        None,
    ]


def test_no_text_of_a_host_stops_its_end(store: Store) -> None:
    """What a database can't keep is kept as a question mark: the outcome is what counts."""
    store.start_rollout(rollout(), [("web1", "all", "t-1")], at=1.0)
    how = {"code": "x\0", "detail": "a\0b \udc80 \x1b[2J é", "outcome": "failed", "who": "me"}
    store.end_host("r-1", "web1", expected="waiting", at=2.0, **how)
    (host,) = store.rollout("r-1")[1]
    assert (host.outcome, host.code, host.detail) == ("failed", "x?", "a?b ? \x1b[2J é")
    entry = store.history(host="web1")[-1]
    assert entry["action"] == "failed" and "é" in entry["detail"]["detail"]
