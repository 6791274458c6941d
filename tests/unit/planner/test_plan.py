"""Plans as documents: ids, groups, reboot, and what hosts may not say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cpacman.errors import RepositoryError
from cpacman.model import (
    FailedError,
    InstalledPackage,
    Inventory,
    Plan,
    Request,
    Transaction,
    plan_id,
    transaction_id,
)
from cpacman.planner.actions import split_nevra
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.reported import check_inventory
from cpacman.planner.ruling import Line, Policy
from cpacman.planner.solver import Source
from tests.unit.planner.casefile import Case, channel_of, read_sections, source_of

TEXT = """
repo base
  bash-5-2.x86_64
  kernel-core-5-2.x86_64
    provides: installonlypkg(kernel)
  tool-3-1.x86_64
    obsoletes: tool-a, tool-b
advisory ADV-1 reboot
  bash-5-2.x86_64
installed web1
  bash-5-1.x86_64
installed web2
  bash-5-1.x86_64
installed db1
  tool-a-1-1.x86_64
  tool-b-1-1.x86_64
"""


def channel(tmp_path: Path, text: str = TEXT) -> ChannelInput:
    """Return the input that a case's text describes."""
    return channel_of(Case("", read_sections(text)), tmp_path)


def plan(tmp_path: Path, text: str = TEXT, request: Request | None = None) -> Plan:
    """Plan a case's text."""
    return plan_hosts([channel(tmp_path, text)], request=request or Request())


def only(made: Plan, host: str) -> Transaction:
    """Return a host's transaction."""
    return made.transactions[made.hosts[host]]


def test_equal_hosts_share_a_transaction(tmp_path: Path) -> None:
    """Equal inventories have one transaction, whatever their names and cookies."""
    made = plan(tmp_path)
    assert made.hosts["web1"] == made.hosts["web2"] != made.hosts["db1"]
    assert len(made.transactions) == 2


def test_ids_are_those_of_the_format(tmp_path: Path) -> None:
    """The ids are the hashes that the format says."""
    made = plan(tmp_path)
    for number, transaction in made.transactions.items():
        assert number == transaction_id("rpm", "s-case", transaction)
    assert made.plan_id == plan_id(
        snapshots=made.snapshots,
        policy=made.policy,
        request=made.request,
        hosts=made.hosts,
        inventories=made.inventories,
    )
    assert made.inventories["web1"].cookie == "web1"


def test_bytes_are_counted_once(tmp_path: Path) -> None:
    """A package that replaces two others has its size once."""
    transaction = only(plan(tmp_path), "db1")
    assert [a.size for a in transaction.actions] == [1000, 0]
    assert {a.sha256 for a in transaction.actions} == {transaction.actions[0].sha256}
    assert transaction.size == 1000


def test_reboot_by_advisory(tmp_path: Path) -> None:
    """An advisory that suggests a reboot predicts one."""
    made = plan(tmp_path)
    assert only(made, "web1").reboot
    assert not only(made, "db1").reboot


def test_reboot_by_name(tmp_path: Path) -> None:
    """A new kernel predicts a reboot without any advisory."""
    text = TEXT.split("advisory", maxsplit=1)[0]
    text += "installed k\n  kernel-core-5-1.x86_64\n    provides: installonlypkg(kernel)\n"
    transaction = only(plan(tmp_path, text), "k")
    assert transaction.reboot
    assert transaction.actions[0].action.value == "install"


def test_reversible(tmp_path: Path) -> None:
    """What the snapshot no longer has can't be put back, and is named."""
    transaction = only(plan(tmp_path), "web1")
    assert not transaction.reversible
    assert transaction.irreversible == ("bash-5-1.x86_64",)


def test_a_removal_has_to_be_had_back_too(tmp_path: Path) -> None:
    """What is removed and nobody offers can't be undone; what is offered can."""
    text = "repo base\n  a-1-1.x86_64\ninstalled web1\n  a-1-1.x86_64\n  b-1-1.x86_64\n"
    made = plan(tmp_path, text, Request(remove=("a", "b")))
    (transaction,) = made.transactions.values()
    assert transaction.irreversible == ("b-1-1.x86_64",) and not transaction.reversible


def test_vendor_change_is_shown(tmp_path: Path) -> None:
    """A change of vendor that policy allows stands in the plan."""
    text = (
        "repo base\n  bash-5-2.x86_64\n    vendor: Other\n"
        "installed web1\n  bash-5-1.x86_64\npolicy\n  vendor_change: bash\n"
    )
    assert only(plan(tmp_path, text), "web1").vendor_changes == ("bash-5-2.x86_64: V -> Other",)


def test_without_reasons(tmp_path: Path) -> None:
    """Everything held is told as before; only what the solver would be asked for has no reason."""
    text = "repo base\n  app-2-1.noarch\n    requires: none\n  lib-2-1.noarch\n  sub-2-1.noarch\n"
    text += "installed h\n  app-1-1.noarch\n  lib-1-1.noarch\n  sub-1-1.noarch\n"
    text += "policy\n  lock: lib\n"
    full = only(plan(tmp_path, text), "h")
    bare = only(plan(tmp_path, text, Request(reasons=False)), "h")
    assert bare.actions == full.actions
    told = {h.nevra: h.reason.value for h in full.held}
    assert told == {"app-1-1.noarch": "requires", "lib-1-1.noarch": "lock"}
    assert {h.nevra: h.reason.value for h in bare.held} == told | {"app-1-1.noarch": "unexplained"}


def test_policy_of_one_host(tmp_path: Path) -> None:
    """A line that holds for one host does not hold for its twin."""
    locked = Policy(lines=(Line(kind="lock", packages=("bash",), where="policy[0]"),))
    given = msgspec.structs.replace(channel(tmp_path), policies={"web2": locked})
    made = plan_hosts([given], request=Request())
    assert only(made, "web1").actions
    assert not only(made, "web2").actions
    assert only(made, "web2").held[0].reason.value == "lock"


def test_policy_hash(tmp_path: Path) -> None:
    """The policy hash follows what a line does, not how it is worded."""
    hashes = set()
    for reason, names in (("a", "bash"), ("b", "bash"), ("a", "zsh")):
        line = Line(kind="lock", packages=(names,), reason=reason)
        given = msgspec.structs.replace(channel(tmp_path), policy=Policy(lines=(line,)))
        hashes.add(plan_hosts([given], request=Request()).policy)
    assert len(hashes) == 2


def test_two_channels(tmp_path: Path) -> None:
    """Channels are planned from their own snapshots and stand in one plan."""
    one = channel(tmp_path / "one")
    two = channel(tmp_path / "two", "repo base\n  zsh-2-1.noarch\ninstalled z\n  zsh-1-1.noarch\n")
    two = msgspec.structs.replace(two, channel="el8-x86_64", snapshot="s-other")
    made = plan_hosts([one, two], request=Request())
    assert made.snapshots == {"el8-x86_64": "s-other", "el9-x86_64": "s-case"}
    assert set(made.hosts) == {"web1", "web2", "db1", "z"}
    assert plan_hosts([two, one], request=Request()) == made


def test_hosts_of_several_architectures(tmp_path: Path) -> None:
    """Each host gets packages of its own architecture."""
    text = (
        "repo base\n  a-2-1.x86_64\n  a-2-1.aarch64\n"
        "installed arm arch=aarch64\n  a-1-1.aarch64\ninstalled pc\n  a-1-1.x86_64\n"
    )
    made = plan(tmp_path, text)
    assert only(made, "arm").actions[0].nevra == "a-2-1.aarch64"
    assert only(made, "pc").actions[0].nevra == "a-2-1.x86_64"


def test_empty_snapshot(tmp_path: Path) -> None:
    """From a snapshot with nothing in it a plan does nothing."""
    made = plan(tmp_path, "repo base\ninstalled web1\n  bash-5-1.x86_64\n")
    assert not only(made, "web1").actions


def test_empty_inventory(tmp_path: Path) -> None:
    """A host with nothing installed needs nothing, and can be given something."""
    text = "repo base\n  bash-5-2.x86_64\ninstalled web1\n"
    assert not only(plan(tmp_path, text), "web1").actions
    made = plan(tmp_path, text, Request(install=("bash",)))
    assert [a.nevra for a in only(made, "web1").actions] == ["bash-5-2.x86_64"]


def test_no_host(tmp_path: Path) -> None:
    """A plan for nobody is a plan."""
    assert plan(tmp_path, "repo base\n  bash-5-2.x86_64\n").hosts == {}


def test_a_liar_does_not_spoil_its_neighbour(tmp_path: Path) -> None:
    """Two hosts that tell different things of one digest are each planned by what they say."""
    given = channel(tmp_path, "repo base\n  lib-2-1.x86_64\ninstalled a\n  lib-1-1.x86_64\n")
    honest = given.inventories[0]
    lying = msgspec.structs.replace(honest.packages[0], conflicts=(("lib", "=", "2-1"),))
    needs = InstalledPackage(
        name="old", version="1", release="1", arch="noarch", requires=(("lib", "=", "1-1"),)
    )
    liar = msgspec.structs.replace(honest, host="b", packages=(lying, needs))
    made = plan_hosts(
        [msgspec.structs.replace(given, inventories=(honest, liar))], request=Request()
    )
    assert only(made, "a").actions
    assert not only(made, "b").actions


def test_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts solved in several lots get the plans they get in one."""
    whole = plan(tmp_path)
    monkeypatch.setattr("cpacman.planner.fleet.CHUNK", 1)
    assert plan(tmp_path) == whole


def package(name: str = "bash", **fields: object) -> InstalledPackage:
    """Return an installed package."""
    given = {"name": name, "version": "1", "release": "1", "arch": "noarch", **fields}
    return msgspec.convert(given, InstalledPackage)


@pytest.mark.parametrize(
    ("packages", "error"),
    [
        ((package(), package()), "listed 2 times"),
        ((package("../etc"),), "is not one that rpm allows"),
        ((package("a\nb"),), "is not one that rpm allows"),
        ((package("a\x00b"),), "is not one that rpm allows"),
        ((package("a\x1b[31m"),), "is not one that rpm allows"),
        ((package("a" * 10_000_000),), "is not one that rpm allows"),
        ((package(version="1 2"),), "version '1 2'"),
        ((package(arch="toaster"),), "architecture 'toaster' is unknown"),
        ((package(epoch=-1),), "epoch -1 is out of range"),
        ((package(requires=[["a\nb", "", ""]]),), "characters that rpm does not allow"),
        ((package(files=["/a\x00"]),), "characters that rpm does not allow"),
    ],
)
def test_hostile_inventory(packages: tuple[InstalledPackage, ...], error: str) -> None:
    """What no rpm database holds fails the host, in short and printable words."""
    found = check_inventory(Inventory(host="h", arch="x86_64", packages=packages), "rpm")
    assert found is not None
    assert found.error is FailedError.INVENTORY
    assert error in found.causes[0]
    assert len(found.causes[0]) < 300
    assert all(cause.isprintable() for cause in found.causes)


def test_wrong_platform_and_architecture() -> None:
    """A host of another platform, or of no known architecture, is not planned."""
    other = check_inventory(Inventory(host="h", platform="deb", arch="amd64"), "rpm")
    assert other is not None
    assert other.error is FailedError.PLATFORM
    strange = check_inventory(Inventory(host="h", arch="z80"), "rpm")
    assert strange is not None
    assert strange.error is FailedError.PLATFORM


def test_bad_host_does_not_spoil_others(tmp_path: Path) -> None:
    """A hostile inventory stands in `failed`; its neighbours are planned."""
    given = channel(tmp_path)
    bad = Inventory(host="bad", arch="x86_64", packages=(package("../x"),))
    given = msgspec.structs.replace(given, inventories=(*given.inventories, bad))
    made = plan_hosts([given], request=Request())
    assert made.failed["bad"].error is FailedError.INVENTORY
    assert set(made.hosts) == {"web1", "web2", "db1"}


@pytest.mark.parametrize("text", ["", "rubbish", "<metadata>", "<a></b>"])
def test_damaged_metadata(tmp_path: Path, text: str) -> None:
    """Metadata that is no rpm-md is an error that names the file."""
    file = tmp_path / "primary.xml"
    file.write_text(text)
    given = msgspec.structs.replace(
        channel(tmp_path), sources=(Source(name="base", primary=str(file)),)
    )
    with pytest.raises(RepositoryError, match=r"primary\.xml"):
        plan_hosts([given], request=Request())


def test_missing_metadata_is_told_of_every_source(tmp_path: Path) -> None:
    """All repositories that can't be read are told at once."""
    sources = tuple(Source(name=n, primary=str(tmp_path / f"{n}.xml.gz")) for n in ("a", "b"))
    given = msgspec.structs.replace(channel(tmp_path), sources=sources)
    with pytest.raises(RepositoryError) as caught:
        plan_hosts([given], request=Request())
    assert len(caught.value.problems) == 2


def test_split_nevra() -> None:
    """A NEVRA is taken apart from its end, since names may hold dashes and dots."""
    assert split_nevra("a-b.c-1:2.3-4.el9.x86_64") == ("a-b.c", "1:2.3-4.el9", "x86_64")


def test_cache_gives_the_same(tmp_path: Path) -> None:
    """Cold, warm and damaged caches give one and the same plan."""
    text = """
repo base
  app-2-1.x86_64
    requires: /usr/libexec/helper
  helper-1-1.x86_64
    files: /usr/libexec/helper
installed web1
  app-1-1.x86_64
"""
    given, cache = channel(tmp_path, text), tmp_path / "cache"
    cold = plan_hosts([given], request=Request(), cache=cache)
    files = sorted(cache.iterdir())
    assert [f.suffix for f in files] == [".asked", ".owners", ".solv"]
    assert plan_hosts([given], request=Request(), cache=cache) == cold
    for file in files:
        file.write_bytes(file.read_bytes()[:20])
    assert plan_hosts([given], request=Request(), cache=cache) == cold
    assert plan_hosts([given], request=Request()) == cold
    assert len(only(cold, "web1").actions) == 2


def test_metadata_files_of_one_name(tmp_path: Path) -> None:
    """A source without a checksum is told apart by its content, not by its path."""
    section = read_sections("repo base\n  a-2-1.noarch\n")[0]
    source = source_of(section, tmp_path / "m")
    given = channel(tmp_path, "repo base\ninstalled h\n  a-1-1.noarch\n")
    given = msgspec.structs.replace(given, sources=(source,))
    cache = tmp_path / "cache"
    assert only(plan_hosts([given], request=Request(), cache=cache), "h").actions
    Path(source.primary).write_text(Path(source.primary).read_text().replace('"2"', '"3"'))
    made = plan_hosts([given], request=Request(), cache=cache)
    assert only(made, "h").actions[0].nevra == "a-3-1.noarch"


def test_architecture_that_is_not_told(tmp_path: Path) -> None:
    """A host that does not tell its architecture is of that of its widest packages."""
    text = (
        "repo base\n  a-2-1.x86_64\n  a-2-1.i686\n  b-2-1.noarch\n"
        "installed pc arch=\n  a-1-1.x86_64\n  a-1-1.i686\ninstalled plain arch=\n  b-1-1.noarch\n"
    )
    made = plan(tmp_path, text)
    assert len(only(made, "pc").actions) == 2
    assert len(only(made, "plain").actions) == 1


def test_second_line_of_defence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solution that changes an architecture is refused even if nothing hid the candidate."""
    monkeypatch.setattr("cpacman.planner.policy._arch", lambda *_: None)
    text = "repo base\n  a-2-1.x86_64\ninstalled h\n  a-1-1.noarch\n"
    transaction = only(plan(tmp_path, text), "h")
    assert not transaction.actions
    assert transaction.held[0].reason.value == "arch"
    made = plan(tmp_path, text, Request(install=("a-2-1.x86_64",)))
    assert not made.hosts or not only(made, "h").actions
