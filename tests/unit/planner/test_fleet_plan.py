"""Many hosts at once: in one process or several, fresh or continued, a plan is the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cpacman.errors import CpacmanError
from cpacman.model import InstalledPackage, Inventory, Request, canonical_json, inventory_digest
from cpacman.planner import fleet
from cpacman.planner.fleet import Book, prune
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.ruling import Line, Policy
from cpacman.planner.solver import Task, Universe, Verb
from cpacman.report.progress import Silent
from tests.unit.planner.casefile import Case, channel_of, read_sections

HOSTS = 12


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots of two groups, and even the smallest fleet is split and kept."""
    monkeypatch.setattr("cpacman.planner.fleet.LONGEST", 2)
    monkeypatch.setattr("cpacman.planner.fleet.FEW", 0)
    monkeypatch.setattr("cpacman.planner.plan.FEW", 0)


@pytest.fixture
def channel(tmp_path: Path) -> ChannelInput:
    """Twelve different hosts, one of them twice, one that can't be planned, one with a hold."""
    text = "repo base\n" + "".join(f"  app{n}-2-1.noarch\n" for n in range(HOSTS))
    text += "  held-2-1.noarch\n    requires: nothing-has-it\n"
    for n in range(HOSTS):
        text += f"installed h{n:02}\n  app{n}-1-1.noarch\n  held-1-1.noarch\n"
    text += "installed twin\n  app0-1-1.noarch\n  held-1-1.noarch\n"
    made = channel_of(Case("", read_sections(text)), tmp_path / "metadata")
    sources = tuple(msgspec.structs.replace(s, checksum="c" * 64) for s in made.sources)
    bad = Inventory(host="bad", arch="z80")
    return msgspec.structs.replace(made, sources=sources, inventories=(*made.inventories, bad))


class Counting(Silent):
    """Keeps what it is told, and can be interrupted."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.told: list[tuple[str, int, int, str]] = []
        self.stop_at = stop_at

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Keep it, and interrupt when enough is done."""
        self.told.append((what, done, total, unit))
        if done >= self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were solved in this process."""
    from cpacman.planner import plan

    names: list[str] = []
    real = plan._solve

    def count(universe, inventory, *rest):
        names.append(inventory.host)
        return real(universe, inventory, *rest)

    monkeypatch.setattr(plan, "_solve", count)
    return names


def test_processes_do_not_matter(channel: ChannelInput) -> None:
    """One process or several: the same bytes, held packages and failures included."""
    one = canonical_json(plan_hosts([channel], request=Request(), workers=1))
    made = plan_hosts([channel], request=Request(), workers=3)
    assert canonical_json(made) == one
    assert len(made.hosts) == HOSTS + 1
    assert len(made.transactions) == HOSTS
    assert set(made.failed) == {"bad"}


def test_strict_failures_cross_processes(channel: ChannelInput) -> None:
    """A host that fails in a worker fails with the same words."""
    strict = Request(strict=True)
    one = plan_hosts([channel], request=strict, workers=1)
    assert plan_hosts([channel], request=strict, workers=2) == one
    assert "nothing-has-it" in one.failed["h00"].causes[0]


def test_equal_hosts_are_solved_once(channel: ChannelInput, solved: list[str]) -> None:
    """A twin costs nothing."""
    plan_hosts([channel], request=Request(), workers=1)
    assert sorted(solved) == [f"h{n:02}" for n in range(HOSTS)]


def test_a_second_plan_solves_nothing(
    channel: ChannelInput, tmp_path: Path, solved: list[str]
) -> None:
    """What was solved once is not solved again, and comes out as the same bytes."""
    first = plan_hosts([channel], request=Request(), cache=tmp_path / "c", workers=2)
    assert solved == []
    again = plan_hosts([channel], request=Request(), cache=tmp_path / "c", workers=1)
    assert solved == []
    assert canonical_json(again) == canonical_json(first)


def test_an_interrupted_plan_continues(
    channel: ChannelInput, tmp_path: Path, solved: list[str]
) -> None:
    """After Ctrl-C in the middle only the rest is solved."""
    cache = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        plan_hosts([channel], request=Request(), cache=cache, workers=1, reporter=Counting(7))
    before = len(solved)
    assert 6 <= before < HOSTS
    made = plan_hosts([channel], request=Request(), cache=cache, workers=1)
    assert len(solved) == HOSTS
    assert made == plan_hosts([channel], request=Request())


@pytest.mark.parametrize("change", ["policy", "request", "snapshot", "metadata", "inventory"])
def test_other_circumstances_are_solved_anew(
    channel: ChannelInput, tmp_path: Path, solved: list[str], change: str
) -> None:
    """Whatever decides an answer is part of what it is found by."""
    cache, request, other = tmp_path / "c", Request(), channel
    plan_hosts([channel], request=request, cache=cache, workers=1)
    solved.clear()
    if change == "policy":
        other = msgspec.structs.replace(
            channel, policy=Policy(lines=(Line(kind="lock", packages=("app*",)),))
        )
    elif change == "request":
        request = Request(upgrade=("held",))
    elif change == "snapshot":
        other = msgspec.structs.replace(channel, snapshot="s-other")
    elif change == "metadata":
        (source,) = channel.sources
        renewed = msgspec.structs.replace(source, checksum="d" * 64)
        other = msgspec.structs.replace(channel, sources=(renewed,))
    else:
        hosts = [msgspec.structs.replace(i, kernel="5.14") for i in channel.inventories]
        other = msgspec.structs.replace(channel, inventories=tuple(hosts))
    assert plan_hosts([other], request=request, cache=cache, workers=1) == plan_hosts(
        [other], request=request
    )
    assert len(set(solved)) == HOSTS


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: d[:40] + b"\0" + d[41:]])
def test_damaged_answers_are_not_believed(
    channel: ChannelInput, tmp_path: Path, solved: list[str], damage
) -> None:
    """A torn or altered file only costs time, and is sound again afterwards."""
    cache = tmp_path / "c"
    first = plan_hosts([channel], request=Request(), cache=cache, workers=1)
    (file,) = (cache / "solved").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    solved.clear()
    assert plan_hosts([channel], request=Request(), cache=cache, workers=1) == first
    assert solved
    solved.clear()
    assert plan_hosts([channel], request=Request(), cache=cache, workers=1) == first
    assert solved == []


def test_metadata_without_a_checksum_is_never_found_again(
    channel: ChannelInput, tmp_path: Path
) -> None:
    """What can't be told apart is not kept."""
    (source,) = channel.sources
    bare = msgspec.structs.replace(channel, sources=(msgspec.structs.replace(source, checksum=""),))
    plan_hosts([bare], request=Request(), cache=tmp_path / "c", workers=1)
    assert not (tmp_path / "c" / "solved").exists()


def test_cache_that_cannot_be_written(channel: ChannelInput, tmp_path: Path) -> None:
    """Without a place to keep answers the plan is made all the same."""
    (tmp_path / "c").write_text("a file is in the way")
    made = plan_hosts([channel], request=Request(), cache=tmp_path / "c", workers=2)
    assert made == plan_hosts([channel], request=Request())


def test_old_answers_go_first(tmp_path: Path) -> None:
    """What was not used for longest is removed, and never what is in use."""
    for number, name in enumerate(("oldest", "old", "new")):
        (tmp_path / f"{name}.solved").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{name}.solved", (number, number))
    prune(tmp_path, keep=tmp_path / "oldest.solved", most=100)
    assert {path.stem for path in tmp_path.iterdir()} == {"oldest", "new"}


def test_a_file_that_grew_too_large_begins_anew(
    channel: ChannelInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One snapshot with ever new inventories does not fill the disk."""
    cache = tmp_path / "c"
    plan_hosts([channel], request=Request(), cache=cache, workers=1)
    (file,) = (cache / "solved").iterdir()
    size = file.stat().st_size
    monkeypatch.setattr("cpacman.planner.fleet.KEPT_BYTES", 1)
    hosts = [msgspec.structs.replace(i, kernel="5.14") for i in channel.inventories]
    other = msgspec.structs.replace(channel, inventories=tuple(hosts))
    plan_hosts([other], request=Request(), cache=cache, workers=1)
    assert file.stat().st_size < 1.5 * size


def test_progress_is_told(channel: ChannelInput) -> None:
    """Whoever waits sees how many hosts are planned, equal ones counted."""
    told = Counting()
    plan_hosts([channel], request=Request(), reporter=told, workers=2)
    assert {row[0] for row in told.told} == {"planning"}
    assert told.told[0][1:] == (0, HOSTS + 1, "hosts")
    assert told.told[-1][1:] == (HOSTS + 1, HOSTS + 1, "hosts")


def test_a_killed_worker_fails_the_plan(
    channel: ChannelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan with a host missing is no plan."""
    from cpacman.planner import plan

    monkeypatch.setattr(plan, "_solve", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(CpacmanError, match="killed by signal 9"):
        plan_hosts([channel], request=Request(), workers=2)


def package(name: str, **fields: object) -> InstalledPackage:
    """Return an installed package."""
    return msgspec.convert({"name": name, "version": "1", **fields}, InstalledPackage)


def test_the_book_looks_once() -> None:
    """Equal packages are judged once, whichever host's they are; equal tuples are one set."""
    asked: list[str] = []

    def wrong_with(one: InstalledPackage) -> Iterator[str]:
        asked.append(one.name)
        yield from ("bad",) if one.name == "b" else ()

    book = Book(wrong_with)
    first = book.look_up((package("a"), package("b")))
    other = book.look_up((package("b"), package("a"), package("a", digest="sha256:1")))
    assert sorted(asked) == ["a", "a", "b"]
    assert (first.causes, first.doubles) == (("bad",), False)
    assert other.doubles
    assert sorted(first.numbers) == sorted(other.numbers)[:2]


def test_the_book_s_digest_is_the_inventory_s() -> None:
    """The order of packages and the times of installation do not matter, all else does."""
    rows = (package("a"), package("b", requires=[["c", "", ""]]))
    inventory = Inventory(host="h", arch="x86_64", packages=rows)
    book = Book(lambda _: ())
    digest = inventory_digest(inventory)
    assert inventory_digest(inventory, book.look_up(rows).digest) == digest
    turned = tuple(msgspec.structs.replace(p, installtime=7) for p in reversed(rows))
    assert inventory_digest(msgspec.structs.replace(inventory, packages=turned)) == digest
    fewer = msgspec.structs.replace(inventory, packages=rows[:1])
    renamed = msgspec.structs.replace(inventory, kernel="5")
    assert len({digest, inventory_digest(fewer), inventory_digest(renamed)}) == 3


def test_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lot has a bounded number of distinct packages and groups, and no worker goes without."""
    groups = [fleet.Group(bytes([n]), range(n, n + 3), 1) for n in range(10)]
    monkeypatch.setattr("cpacman.planner.fleet.LONGEST", 4)
    sizes = [len(lot) for lot in fleet._lots(range(10), groups, 1)]
    assert sizes == [4, 4, 2]
    assert len(list(fleet._lots(range(10), groups, 3))) >= 3
    monkeypatch.setattr("cpacman.planner.fleet.CHUNK", 4)
    assert max(len(lot) for lot in fleet._lots(range(10), groups, 1)) == 2


def test_a_larger_lot_after_a_smaller_one() -> None:
    """Nothing stays disabled from lot to lot: libsolv would write behind the end of its map."""
    universe = Universe((), arch="x86_64")
    for count in (3, 3000, 2):
        found = tuple(package(f"p{n}", release="1", arch="noarch") for n in range(count))
        universe.admit(found)
        assert list(universe.pool.get_disabled_list()) == []
        with universe.host(found[:1]) as view:
            assert not view.solve([Task(Verb.UPDATE_ALL)]).problems
        assert list(universe.pool.get_disabled_list())


def test_what_hosts_share_is_judged_once_for_each_policy(channel: ChannelInput) -> None:
    """Hosts with the same packages and another policy are told apart, in one lot as alone."""
    locked = Policy(lines=(Line(kind="lock", packages=("app*",), where="policy[0]"),))
    policies = {f"h{n:02}": locked for n in range(0, HOSTS, 2)} | {"twin": Policy()}
    mixed = msgspec.structs.replace(channel, policies=policies)
    made = plan_hosts([mixed], request=Request(), workers=1)
    for host in (*policies, "h01"):
        alone = tuple(i for i in channel.inventories if i.host == host)
        single = msgspec.structs.replace(mixed, inventories=alone)
        assert plan_hosts([single], request=Request()).hosts[host] == made.hosts[host]
    assert made.hosts["h00"] != made.hosts["twin"]


def test_a_lot_leaves_nothing_behind(tmp_path: Path) -> None:
    """What a host refused before (a weak dependency) stays refused, whichever lot it is in."""
    text = "repo base\n  app-2-1.noarch\n  extra-1-1.noarch\n    supplements: app\n"
    for n in range(4):
        before = "aa" if n > 1 else "zz"
        text += f"installed h{n}\n  app-1-1.noarch\n  {before}{n}-1-1.noarch\n"
    made = channel_of(Case("", read_sections(text)), tmp_path)
    plan = plan_hosts([made], request=Request(), workers=1)
    assert [[a.name for a in t.actions] for t in plan.transactions.values()] == [["app"]]


def test_hosts_that_are_alike_share_a_lot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of two kinds that have half of their packages in common are not mixed."""
    monkeypatch.setattr("cpacman.planner.fleet.LONGEST", 10)
    common = list(range(300))
    kinds = [[*common, *range(1000 * kind, 1000 * kind + 300)] for kind in (1, 2)]
    sets = [[n for n in kinds[place % 2] if n % 1000 != 100 + place] for place in range(20)]
    groups = [fleet.Group(bytes([n]), numbers, 1) for n, numbers in enumerate(sets)]
    lots = list(fleet._lots(range(20), groups, 1))
    assert [len({place % 2 for place in lot}) for lot in lots] == [1, 1]
