"""What the planner says is what dnf 4.14 says, for every case file and for real packages."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec
import pytest

from cpacman.model import Inventory, Plan, Request
from cpacman.planner.modules import read_modules
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.planner.solver import Source
from tests.bench.fleet import DATA, NAMES, Maker
from tests.property import oracle
from tests.unit.planner.casefile import channel_of, read_case, request_of

CASES = sorted((Path(__file__).parents[1] / "unit" / "planner" / "cases").glob("*.txt"))

pytestmark = [
    pytest.mark.property,
    pytest.mark.skipif(not oracle.is_there(), reason="dnf is not installed"),
]


def compare(
    dnf: oracle.Dnf, channel: ChannelInput, request: Request, directory: Path
) -> tuple[Plan, list[str]]:
    """Plan every host, ask dnf about each, and return the plan and what differs."""
    plan = plan_hosts([channel], request=request)
    repos = {
        s.name: (oracle.make_repository(s, directory / "repos", channel.advisories), s.priority)
        for s in channel.sources
    }
    found = []
    for host in channel.inventories:
        root = directory / f"root-{host.host}"
        hot = [s.name for s in channel.sources if s.module_hotfixes]
        answer = dnf.ask(oracle.question_of(repos, host, request, root, hot))
        ours = oracle.effects_of(plan.transactions.get(plan.hosts.get(host.host, "")))
        if bool(answer.error) != (host.host in plan.failed):
            found.append(f"{host.host}: dnf {answer.error!r}, ours {plan.failed.get(host.host)}")
        if answer.effects != ours:
            found.append(f"{host.host}: dnf {answer.effects}, ours {ours}")
    return plan, found


ASKABLE = {"upgrade", "install", "exclude", "advisory", "security", "severity", "minimal"}
"""What the oracle can be asked."""


def _is_comparable(path: Path) -> bool:
    case = read_case(path)
    asked = {key for key, value in msgspec.to_builtins(request_of(case)).items() if value}
    return asked <= ASKABLE and not (
        case.of("policy") or case.of("holds") or "arch=" in path.read_text()
    )


@pytest.mark.parametrize(
    "path", [path for path in CASES if _is_comparable(path)], ids=lambda path: path.stem
)
def test_cases(path: Path, tmp_path: Path, dnf: oracle.Dnf) -> None:
    """A case that does not say that it differs is planned as dnf does it; one that does, not."""
    case = read_case(path)
    _, found = compare(dnf, channel_of(case, tmp_path / "m"), request_of(case), tmp_path)
    assert bool(found) == bool(case.of("differs")), found


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A maker of inventories from real metadata."""
    if not (DATA / NAMES[0]).is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{DATA} is missing")
        pytest.skip(f"{DATA} is missing")
    return Maker(tmp_path_factory.mktemp("solv"))


@pytest.fixture(scope="module")
def dnf_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for dnf that lasts."""
    return tmp_path_factory.mktemp("dnf-cache")


@pytest.mark.parametrize("seed", range(101, 107))
def test_centos(seed: int, maker: Maker, dnf: oracle.Dnf, dnf_cache: Path, tmp_path: Path) -> None:
    """Update-all of 700 real packages is what dnf does, but for noarch that stays noarch.

    Streams of which the host has packages are enabled; half of the hosts enable no other.
    """
    sources = tuple(map(_with_modules, maker.sources))
    inventory = maker.make(seed)
    inventory = msgspec.structs.replace(inventory, modules=_streams_of(sources, inventory, seed))
    channel = ChannelInput(channel="c", snapshot="s", sources=sources, inventories=(inventory,))
    plan = plan_hosts([channel], request=Request())
    repos = {name: (DATA / name, 99) for name in NAMES}
    question = oracle.question_of(repos, inventory, Request(), tmp_path / "root")
    answer = dnf.ask({**question, "cache": str(dnf_cache)})
    (transaction,) = plan.transactions.values()
    ours = oracle.effects_of(transaction)
    held = {h.nevra for h in transaction.held if h.reason.value in ("arch", "origin")}
    swapped = {n for n in answer.effects.leave & held if not _keeps_arch(n, answer.effects.come)}
    names = {_name(n) for n in swapped}
    assert {n for n in ours.come if _name(n) not in names} == {
        n for n in answer.effects.come if _name(n) not in names
    }
    assert len(ours.come) > 100


def _with_modules(source: Source) -> Source:
    found = sorted((DATA / source.name / "repodata").glob("*-modules.yaml.xz"))
    return msgspec.structs.replace(source, modules=str(found[0])) if found else source


def _streams_of(sources: tuple[Source, ...], inventory: Inventory, seed: int) -> tuple[str, ...]:
    """Return one stream of each module the host has packages of, and of others sometimes one."""
    have = {p.nevra for p in inventory.packages}
    chosen: dict[str, str] = {}
    for source in sources:
        if source.modules:
            for build in read_modules(source.name, Path(source.modules), None).streams:
                also = seed % 2 == 1 and hash_of(build.name) % 3 == 0
                if also or have.intersection(build.artifacts):
                    chosen.setdefault(build.module, build.stream)
    return tuple(sorted(f"{module}:{stream}" for module, stream in chosen.items()))


def hash_of(text: str) -> int:
    """Return a number that is the same in every run."""
    return zlib.crc32(text.encode())


def _name(nevra: str) -> str:
    return nevra.rsplit("-", 2)[0]


def _keeps_arch(nevra: str, come: frozenset[str]) -> bool:
    arch = nevra.rpartition(".")[2]
    return any(_name(n) == _name(nevra) and n.endswith(f".{arch}") for n in come)
