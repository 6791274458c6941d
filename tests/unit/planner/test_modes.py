"""Requests that contradict themselves, and modes on the console."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cpacman.errors import UsageError
from cpacman.model import Advisory, Request
from cpacman.planner.modes import check_request
from cpacman.planner.policy import is_running
from tests.unit.planner.casefile import installed_package, packages, read_sections
from tests.unit.planner.test_plan import plan

ADVISORIES = [Advisory(id="RHSA-2026:1", cves=("CVE-2026-1",))]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(sync=True, remove=("a",)), "sync: is about what is installed, not remove"),
        (Request(security=True, install=("a",)), "advisory: can't be asked for beside install"),
        (Request(severity=("Low",), sync=True), "advisory: can't be asked for beside sync"),
        (Request(minimal=True), "minimal: is about advisories, and none are asked for"),
        (Request(advisory=("RHSA-2026:2",)), "RHSA-2026:2 is in no repository"),
        (Request(advisory=("RHSA-2026:2",)), "did you mean RHSA-2026:1?"),
        (Request(severity=("Imporant",)), "'Imporant' is none; did you mean important?"),
        (Request(severity=("foo",)), "there are: critical, important, low, moderate"),
        (Request(lock=("httpd < < 2",)), "lock: 'httpd < < 2' locks nothing; write a name"),
        (Request(lock=("httpd == 2",)), "lock: 'httpd == 2' locks nothing"),
        (Request(lock=("httpd <",)), "lock: 'httpd <' locks nothing"),
        (Request(lock=("httpd nginx",)), "lock: 'httpd nginx' locks nothing"),
        *(
            (Request(**{key: ("",)}), f"{key}: an empty word names nothing")
            for key in ("upgrade", "install", "remove", "exclude", "lock", "advisory", "severity")
        ),
    ],
)
def test_contradictions(request_: Request, words: str) -> None:
    """Modes that exclude each other, and advisories nobody knows, are refused."""
    with pytest.raises(UsageError, match=re.escape(words)):
        check_request(request_, ADVISORIES)


def test_what_is_fine() -> None:
    """Ids, CVEs and filters are accepted."""
    check_request(Request(advisory=("RHSA-2026:1", "CVE-2026-1"), minimal=True), ADVISORIES)
    check_request(Request(security=True, severity=("Low",)), ())
    odd = Advisory(id="RHSA-2026:2", severity="Urgent")
    check_request(Request(severity=("urgent",)), iter([odd]))
    check_request(Request(lock=("httpd", "httpd-2.4*", "httpd < 2.5", "httpd<=1:2.5-1")), ())


def test_a_plan_refuses(tmp_path: Path) -> None:
    """A plan is not made of a request that names an unknown advisory."""
    with pytest.raises(UsageError, match="ADV-9"):
        plan(tmp_path, request=Request(advisory=("ADV-9",)))


def test_words_of_the_request_that_name_nothing(tmp_path: Path) -> None:
    """An exclude of the request that names nothing is a warning."""
    made = plan(tmp_path, request=Request(exclude=("nosuch",)))
    assert made.warnings == (
        "--exclude: exclude nosuch names nothing that is installed or offered",
    )


@pytest.mark.parametrize(
    ("nevra", "kernel", "expected"),
    [
        ("kernel-core-5.14.0-1.el9.x86_64", "5.14.0-1.el9.x86_64", True),
        ("kernel-modules-5.14.0-1.el9.x86_64", "5.14.0-1.el9.x86_64+debug", True),
        ("kernel-core-5.14.0-2.el9.x86_64", "5.14.0-1.el9.x86_64", False),
        ("kernel-core-5.14.0-1.el9.x86_64", "", False),
        ("other-5.14.0-1.el9.x86_64", "5.14.0-1.el9.x86_64", False),
        ("kernel-default-5.14.21-150500.55.7.1.x86_64", "5.14.21-150500.55.7-default", True),
        ("kernel-default-5.14.21-150500.55.77.1.x86_64", "5.14.21-150500.55.7-default", False),
    ],
)
def test_running_kernel(nevra: str, kernel: str, expected: bool) -> None:
    """The running kernel is told by its release, as EL and SUSE write it."""
    (package,) = packages(read_sections(f"installed\n  {nevra}\n")[0])
    assert is_running(installed_package(package), kernel) is expected
