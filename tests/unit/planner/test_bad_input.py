"""Bad input to the planner itself, behind what reads files: an error or a plan, never a crash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cpacman.errors import CpacmanError
from cpacman.model import FailedError, Inventory, Plan, Request
from cpacman.planner.plan import plan_hosts
from cpacman.planner.solver import Source
from cpacman.report.table import render_plan
from tests.unit.planner.test_plan import channel, only, package, plan

TEXT = "repo base\n  a-2-1.x86_64\n  b-2-1.x86_64\ninstalled web1\n  a-1-1.x86_64\n  b-1-1.x86_64\n"


def plan_metadata(tmp_path: Path, old: str, new: str) -> Plan:
    """Plan from metadata in which something was replaced."""
    given = channel(tmp_path, TEXT)
    primary = Path(given.sources[0].primary)
    text = primary.read_text()
    assert old in text
    primary.write_text(text.replace(old, new, 1), encoding="utf-8", errors="surrogatepass")
    return plan_hosts([given], request=Request())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<name>a</name>", ""),
        ("<name>a</name>", "<name></name>"),
        ("<name>a</name>", "<name>../a</name>"),
        ("<name>a</name>", "<name>a\nb</name>"),
        ("<name>a</name>", "<name>a&#10;b</name>"),
        ("<name>a</name>", f"<name>{'a' * 1_000_000}</name>"),
        ("<arch>x86_64</arch>", ""),
        ("<arch>x86_64</arch>", "<arch>toaster</arch>"),
        ('ver="2"', ""),
        ('ver="2"', 'ver=""'),
        ('epoch="0"', 'epoch="x"'),
        ('YES">', 'YES">zz'),
        ('type="sha256"', 'type="crc"'),
        ('package="1000"', 'package="many"'),
        ("<format>", "<form>"),
        ("</metadata>", ""),
    ],
    ids=lambda text: text[:24],
)
def test_metadata_with_wrong_fields(tmp_path: Path, old: str, new: str) -> None:
    """A wrong field spoils the metadata, or its own package and no other one."""
    try:
        made = plan_metadata(tmp_path, old, new)
    except CpacmanError as error:
        assert "base" in str(error)
        return
    if "web1" in made.failed:
        assert made.failed["web1"].causes
        return
    taken = {action.nevra for action in only(made, "web1").actions}
    assert "b-2-1.x86_64" in taken and taken <= {"a-2-1.x86_64", "b-2-1.x86_64"}
    assert all(c.isprintable() or c == "\n" for c in render_plan(made))


def test_a_checksum_that_is_none_is_not_planned(tmp_path: Path) -> None:
    """What could not be verified on the way is no part of a plan: the host stands in `failed`."""
    given = channel(tmp_path, TEXT)
    primary = Path(given.sources[0].primary)
    weak = f'type="md5" pkgid="YES">{"a" * 32}'
    text = re.sub(r'type="sha256" pkgid="YES">\w{64}', weak, primary.read_text(), count=1)
    primary.write_text(text)
    made = plan_hosts([given], request=Request())
    assert made.failed["web1"].error is FailedError.REQUIRES
    assert "has no sha256" in made.failed["web1"].causes[0]


@pytest.mark.parametrize(
    "text",
    [
        "  a-2-1.x86_64\n    obsoletes: b\n  b-2-1.x86_64\n    obsoletes: a\n",
        "  a-2-1.x86_64\n    obsoletes: b\n  b-2-1.x86_64\n    obsoletes: c\n"
        "  c-1-1.x86_64\n    obsoletes: a\n",
        "  a-2-1.x86_64\n    obsoletes: a\n    requires: a\n  b-2-1.x86_64\n    conflicts: b\n",
        "  a-2-1.x86_64\n    requires: a = 2, b = 2\n  b-2-1.x86_64\n    requires: a = 2\n",
        "  a-2-1.x86_64\n    recommends: a\n    supplements: a\n  b-2-1.x86_64\n",
        "  a-2-1.x86_64\n    requires: (a if (a if (a if a)))\n  b-2-1.x86_64\n",
    ],
)
def test_circles(tmp_path: Path, text: str) -> None:
    """Packages that obsolete, need or exclude each other or themselves: nothing leaves twice."""
    head = "installed web1\n  a-1-1.x86_64\n  b-1-1.x86_64\n"
    actions = only(plan(tmp_path, f"repo base\n{text}{head}"), "web1").actions
    leaving = [action.from_ for action in actions]
    assert len(leaving) == len(set(leaving)) and None not in leaving


def test_nothing_is_offered(tmp_path: Path) -> None:
    """From an empty snapshot what is named can't be had, and everything is absent in a sync."""
    text = "repo base\ninstalled web1\n  a-1-1.x86_64\n"
    named = plan(tmp_path, text, Request(install=("x",)))
    assert named.failed["web1"].error is FailedError.UNKNOWN_PACKAGE
    synced = only(plan(tmp_path, text, Request(sync=True)), "web1")
    assert not synced.actions and [h.reason.value for h in synced.held] == ["absent"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"platform": "deb"}, FailedError.PLATFORM),
        ({"arch": "z80"}, FailedError.PLATFORM),
        ({"packages": (package("../x"),)}, FailedError.INVENTORY),
        ({"packages": (package(), package())}, FailedError.INVENTORY),
        ({"packages": (package("a" * 10_000_000),)}, FailedError.INVENTORY),
        ({"holds": ("exclude: a\0",)}, FailedError.INVENTORY),
    ],
)
def test_one_bad_host_fails_alone(
    tmp_path: Path, change: dict[str, Any], error: FailedError
) -> None:
    """A host that is no host of the channel stands in `failed`; the other one is planned."""
    given = channel(tmp_path, TEXT)
    bad = msgspec.structs.replace(given.inventories[0], host="bad", **change)
    both = msgspec.structs.replace(given, inventories=(*given.inventories, bad))
    made = plan_hosts([both], request=Request())
    assert list(made.failed) == ["bad"] and made.failed["bad"].error is error
    assert len(only(made, "web1").actions) == 2
    assert all(len(cause) < 1000 and cause.isprintable() for cause in made.failed["bad"].causes)


def test_metadata_that_is_gone(tmp_path: Path) -> None:
    """A file that is no more, or is a folder, is an error with its path."""
    for path in (tmp_path / "gone.xml", tmp_path):
        given = msgspec.structs.replace(
            channel(tmp_path / "x", TEXT), sources=(Source(name="base", primary=str(path)),)
        )
        with pytest.raises(CpacmanError, match=str(path)):
            plan_hosts([given], request=Request())


def test_modules_of_a_host_that_nobody_knows(tmp_path: Path) -> None:
    """Streams that a host enabled or disabled and that do not exist change nothing."""
    given = channel(tmp_path, TEXT)
    odd: Inventory = msgspec.structs.replace(
        given.inventories[0], modules=("no:1", "no", ":", ""), modules_disabled=("x", "\x1b")
    )
    made = plan_hosts([msgspec.structs.replace(given, inventories=(odd,))], request=Request())
    assert len(only(made, "web1").actions) == 2
