"""Small rules of the lab: names, addresses, what is missing, what to choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import cli, requirements
from lab.errors import LabError
from lab.host import Host
from lab.lab import check_names
from lab.namespace import Namespace, Result


@pytest.mark.parametrize(
    ("text", "names"),
    [("3", ["web1", "web2", "web3"]), ("0", []), ("a,b", ["a", "b"]), ("", [])],
)
def test_host_names(text: str, names: list[str]) -> None:
    """A number, or names."""
    assert cli.host_names(text, "web") == names


@pytest.mark.parametrize(
    ("index", "address"), [(0, "10.203.1.1"), (249, "10.203.1.250"), (250, "10.203.2.1")]
)
def test_addresses_do_not_run_out(index: int, address: str) -> None:
    """More hosts than one byte counts have addresses of their own, none the master's."""
    host = Host(
        "h",
        index=index,
        kind="salt",
        directory=Path("/nonexistent"),
        hub=Namespace(1, (), {}),
        overrides={"timeout": 9},
    )
    assert host.address == address
    assert (host.minion["id"], host.minion["timeout"], host.minion["zmq_filtering"]) == (
        "h",
        9,
        True,
    )


def test_host_that_is_not_up_says_so() -> None:
    """A use before the start is an error with the host's name."""
    host = Host(
        "h", index=0, kind="salt", directory=Path("/x"), hub=Namespace(1, (), {}), overrides={}
    )
    with pytest.raises(LabError, match="h: is not up"):
        host.run(["true"])


@pytest.mark.parametrize("names", [["a", "a"], ["../x"], ["Web1"], [""]])
def test_host_names_are_checked(names: list[str]) -> None:
    """A name is a path and an id: nothing is made for a bad one, or for one given twice."""
    with pytest.raises(LabError, match=r"twice|small letters"):
        check_names(names)


def test_missing_commands_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is missing, at once, with what to type."""
    monkeypatch.setattr(requirements, "SYSTEM_PATH", "/nonexistent")
    problems = requirements.missing_commands({"ip": "iproute2", "rpmbuild": "rpm"})
    assert [str(problem) for problem in problems] == [
        "ip: not on this machine; apt-get install iproute2",
        "rpmbuild: not on this machine; apt-get install rpm",
    ]


def test_missing_modules_name_their_package() -> None:
    """The same for Python's."""
    problems = requirements.missing_modules({"no_such_module": "no-such", "os": "os"})
    assert [problem.mend for problem in problems] == ["pip install no-such"]


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's Python must have rpm, whatever Python runs the lab."""
    monkeypatch.setattr(requirements, "SYSTEM_PYTHON", "/bin/false")
    assert "python3-rpm" in requirements.missing_bindings()[0].mend


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody else is told before anything is tried."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        requirements.check_requirements(ssh=False, systemd=False)


def test_failed_command_shows_its_last_line() -> None:
    """`check` hands a good result on and turns a bad one into an error."""
    assert Result(0, "x", "").check().stdout == "x"
    with pytest.raises(LabError, match="exit 3: the cause"):
        Result(3, "out", "warning\nthe cause\n").check()


@pytest.mark.parametrize(
    ("alive", "name", "expected"),
    [
        (["lab", "b"], None, "lab"),
        (["b"], None, "b"),
        (["a", "b"], "b", "b"),
    ],
)
def test_choosing_a_lab(alive: list[str], name: str | None, expected: str) -> None:
    """The named one, the only one, or the one with the default name."""
    assert cli.choose([Path(one) for one in alive], name).name == expected


@pytest.mark.parametrize(("alive", "name"), [(["a", "b"], None), ([], None), (["a"], "b")])
def test_no_guessing_among_labs(alive: list[str], name: str | None) -> None:
    """Where it is not clear which, nothing is chosen."""
    with pytest.raises(LabError, match="is not up"):
        cli.choose([Path(one) for one in alive], name)


def test_errors_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A refused command ends with a code and no traceback."""
    monkeypatch.setenv("CPACMAN_LAB_DIR", str(tmp_path))
    assert cli.main(["shell", "web1"]) == 1
    assert capsys.readouterr().err == "lab: lab: this lab is not up; python -m lab up\n"
