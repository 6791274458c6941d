"""Real repositories for the depot's tests: fixtures of others, and small packages built here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cpacman.config import RepositorySettings

DATA = Path(__file__).parents[4] / "shared" / "data"
Build = Callable[..., Path]


@pytest.fixture(scope="session")
def data() -> Path:
    """The real data beside the checkout; in CI it must be there."""
    if not DATA.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{DATA} is missing")
        pytest.skip(f"{DATA} is missing")
    return DATA


@pytest.fixture
def zoo(data: Path, tmp_path: Path) -> Path:
    """A copy of the zoo, as a bare folder that a test may damage."""
    return Path(shutil.copytree(data / "rpms" / "zoo", tmp_path / "zoo"))


@pytest.fixture(scope="session")
def createrepo() -> Callable[..., None]:
    """Index a folder with the real createrepo_c."""
    beside = Path(sys.executable).parent / "createrepo_c"
    program = str(beside) if beside.exists() else shutil.which("createrepo_c")
    assert program, "createrepo_c is not installed"

    def run(folder: Path, *options: str) -> None:
        subprocess.run(
            [program, "-q", "--general-compress-type=gz", *options, str(folder)],
            check=True,
            timeout=600,
        )

    return run


@pytest.fixture
def indexed(zoo: Path, createrepo: Callable[..., None]) -> Path:
    """The zoo as an rpm-md repository, indexed by createrepo_c."""
    createrepo(zoo)
    return zoo


SPEC = """\
Name: {name}
Version: {version}
Release: 1
Summary: test
License: none
{arch}
%description
test
%files
%changelog
"""


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build small packages with rpmbuild; each is built once a session."""
    if not shutil.which("rpmbuild"):
        if os.environ.get("CI") == "true":
            pytest.fail("rpmbuild is not installed")
        pytest.skip("rpmbuild is not installed")
    top = tmp_path_factory.mktemp("rpmbuild")

    def run(name: str, version: str = "1", *, source: bool = False) -> Path:
        suffix = "src" if source else "noarch"
        folder = top / ("SRPMS" if source else "RPMS/noarch")
        made = folder / f"{name}-{version}-1.{suffix}.rpm"
        if not made.exists():
            spec = top / f"{name}.spec"
            spec.write_text(SPEC.format(name=name, version=version, arch="BuildArch: noarch"))
            command = ["rpmbuild", "-bs" if source else "-bb", "--quiet"]
            define = ["--define", f"_topdir {top}", "--define", "_build_id_links none"]
            subprocess.run([*command, *define, str(spec)], check=True, timeout=600)
        return made

    return run


def settings(path: Path, **flags: object) -> RepositorySettings:
    """Return a repository's settings as a channel has them."""
    return RepositorySettings.model_validate({"path": str(path), **flags})
