"""A solve is dumped into one case file, and the file replayed gives the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cpacman.cli import main
from cpacman.errors import InputError, UsageError
from cpacman.model import Request
from cpacman.planner.cases.build import plan_case
from cpacman.planner.cases.expect import differences
from cpacman.planner.cases.text import Case, read_case, read_sections
from cpacman.planner.cases.write import write_case
from cpacman.planner.plan import plan_hosts
from tests.bench.fleet import DATA, NAMES, Maker
from tests.unit.planner.casefile import channel_of, request_of

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_case_survives_its_dump(path: Path, tmp_path: Path) -> None:
    """Whatever a case has to say is in the dump of each of its hosts, which is replayed."""
    case = read_case(path)
    channel, request = channel_of(case, tmp_path / "one"), request_of(case)
    whole = plan_hosts([channel], request=request)
    for number, inventory in enumerate(channel.inventories):
        one = msgspec.structs.replace(channel, inventories=(inventory,))
        plan = plan_hosts([one], request=request)
        if "\0" in str(case.sections):
            continue
        text = write_case(one, request, plan)
        assert "did not replay" not in text
        again = plan_case(Case("", read_sections(text)), tmp_path / str(number))
        host = inventory.host
        if host in whole.failed:
            assert again.failed == plan.failed
        else:
            assert again.transactions[again.hosts[host]].held == (
                plan.transactions[plan.hosts[host]].held
            )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The console's options for the metadata of CentOS Stream 9, and a host's inventory."""
    if not DATA.is_dir():
        pytest.skip(f"needs {DATA}")
    folder = tmp_path_factory.mktemp("real")
    file = folder / "host.json"
    file.write_bytes(msgspec.json.encode(Maker(folder / "solver").make(3, size=300)))
    return ["--repo", *(f"{name}={DATA / name}" for name in NAMES)], file


def test_a_real_solve_is_dumped_and_replayed(
    real: tuple[list[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One host on 18,774 packages: the case holds what matters, and its plan is the same."""
    repos, file = real
    dump = tmp_path / "case.txt"
    config = tmp_path / "c.yaml"
    config.write_text("policy: [{lock: bash, reason: why, until: 2100-01-01}]")
    words = ["plan", *repos, "--inventory", str(file), "--config", str(config)]
    assert main([*words, "--dump", str(dump), "--format", "json"]) == 0
    first = msgspec.json.decode(capfd.readouterr().out)
    assert dump.stat().st_size < 5_000_000
    assert main(["replay", str(dump), "--format", "json"]) == 0
    told = capfd.readouterr()
    second = msgspec.json.decode(told.out)
    assert told.err == ""

    def seen(plan: dict[str, dict[str, dict[str, list[dict[str, str]]]]]) -> list[object]:
        (transaction,) = plan["transactions"].values()
        rows = [
            (a["action"], a["nevra"], a["from"], a["repository"], a["reason"])
            for a in transaction["actions"]
        ]
        return [rows, transaction["held"]]

    assert seen(first) == seen(second)
    assert len(seen(first)[0]) > 10  # type: ignore[arg-type]


def test_a_replay_tells_what_differs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A case that expects something else ends with 1 and says what, each on a line."""
    case = tmp_path / "case.txt"
    case.write_text(
        "# x\nrepo base\n  a-2-1.x86_64\n  b-2-1.x86_64\ninstalled web1\n  a-1-1.x86_64\n"
        "  b-1-1.x86_64\nexpect\n  upgrade b-2-1.x86_64 from b-1-1.x86_64 (requested)\n"
        "  upgrade c-2-1.x86_64 from c-1-1.x86_64\nheld\n  d-1-1.x86_64 -> d-2-1.x86_64 lock: x\n"
    )
    assert main(["replay", str(case)]) == 1
    told = capfd.readouterr()
    assert "upgrade a.x86_64" in told.out
    assert [line.removeprefix(f"{case}: web1: ") for line in told.err.splitlines()] == [
        "lacks: upgrade c-2-1.x86_64 from c-1-1.x86_64",
        "not expected: upgrade a-2-1.x86_64 from a-1-1.x86_64",
        "upgrade b-2-1.x86_64 from b-1-1.x86_64: 'update', not 'requested'",
        "not held: d-1-1.x86_64 -> d-2-1.x86_64 lock",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\x00\x01", "stands below nothing"),
        ("# x\nrepo\n", "is not what it should be"),
        ("# x\n  lost\n", ":2: '  lost'"),
        ("# x\nrepository base\n", "there are: repo, advisory"),
        ("# x\nrepo base\n  nonsense\n", "is not what it should be"),
        ("# x\nrepo base priority=much\n", "is not what it should be"),
        ("# x\nrepo base\n  a-1-1.x86_64\ninstalled w kernel\n", "is not what it should be"),
        ("# x\nrepo base\n  a-1-1.x86_64\ninstalled w\nrequest\n  upgrad: a\n", "has no upgrad"),
        ("# x\nrepo base\n  a-1-1.x86_64\ninstalled w\npolicy moon\n  lock: a\n", "moon"),
    ],
)
def test_bad_cases(
    text: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is no case is an error with its place, one line each, and no traceback."""
    case = tmp_path / "case.txt"
    case.write_text(text)
    assert main(["replay", str(case)]) == 2
    told = capfd.readouterr()
    assert told.out == "" and words.replace("  lost", "lost") in told.err
    assert all(str(case) in line for line in told.err.splitlines())


def test_cases_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder, a file that is not there and bytes that are no text are errors with their path."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "bytes"):
        with pytest.raises(InputError, match=str(path)):
            read_case(path)


def test_one_host_at_a_time(tmp_path: Path) -> None:
    """A dump is of one host; several are refused before anything is written."""
    text = "repo base\n  a-2-1.x86_64\ninstalled web1\n  a-1-1.x86_64\ninstalled web2\n"
    channel = channel_of(Case("", read_sections(text)), tmp_path)
    plan = plan_hosts([channel], request=Request())
    with pytest.raises(UsageError, match="there are 2 hosts"):
        write_case(channel, Request(), plan)
    assert not list(differences(Case("", []), plan_hosts([], request=Request())))
