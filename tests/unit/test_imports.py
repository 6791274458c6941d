"""Who may import what, read from the source of every file, and what a quick start must not load."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = ("salt", "sqlalchemy", "pydantic", "solv", "createrepo_c")
STANDARD = frozenset(sys.stdlib_module_names)


class Import(NamedTuple):
    """One import: of which module, where it stands, and whether it runs when the file loads."""

    module: str
    line: int
    at_once: bool

    @property
    def top(self) -> str:
        """The name that is looked for on the path."""
        return self.module.partition(".")[0]


def imports_of(path: Path) -> Iterator[Import]:
    """Yield every import of a file: also inside functions, for type checking, and by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        at_once = node in tree.body
        if isinstance(node, ast.Import):
            yield from (Import(one.name, node.lineno, at_once) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import("." * node.level + (node.module or ""), node.lineno, at_once)
        elif isinstance(node, ast.Call) and node.args and _is_import_call(node.func):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(first.value, node.lineno, at_once)


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def violations(root: Path) -> list[str]:
    """Return every import below a checkout that breaks a rule, as `file:line: why`."""
    found = []
    for path in sorted(p for folder in ROOMS for p in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        for one in imports_of(path):
            found += [f"{name}:{one.line}: {why}" for why in _faults(name, one)]
    return found


ROOMS = ("cpacman", "_runners", "_output", "_modules", "_engines")
LIGHT = {
    "cpacman/__init__.py": (),
    "cpacman/_loader.py": (),
    "cpacman/errors.py": (),
    "cpacman/cli.py": ("cpacman", "cpacman.errors"),
}
"""Files that every start loads, and what of ours they may load with them."""


def _faults(name: str, one: Import) -> Iterator[str]:
    if one.module.startswith("."):
        yield "a relative import, which no file synced by Salt can follow"
    if one.top == "solv" and not name.startswith("cpacman/planner/solver/"):
        yield "only cpacman/planner/solver/ imports solv"
    room = name.partition("/")[0]
    if room == "cpacman" and one.top == "salt" and not name.startswith("cpacman/transport/"):
        yield "only cpacman/transport/ and the doors import Salt"
    if room == "cpacman" and one.top in ("saltfactories", "pytest", "lab", "tests"):
        yield f"the library does not need {one.top}"
    if room in ("_runners", "_output", "_engines") and one.module == "cpacman":
        yield "without the library this is the file itself: import a submodule"
    if name == "_modules/cpacman_agent.py" and one.top not in STANDARD | {"rpm"}:
        yield f"the agent has the standard library and rpm, not {one.top}"
    if name == "_modules/cpacman.py" and one.top not in STANDARD | {"salt", "cryptography"}:
        yield f"a minion has Salt and cryptography, not {one.top}"
    if name in LIGHT and one.at_once and one.top not in STANDARD and one.module not in LIGHT[name]:
        yield f"{one.module} is loaded by everything: import it where it is needed"


def test_every_import_keeps_the_rules() -> None:
    """libsolv, Salt and the library are imported only where they may be."""
    assert not violations(CHECKOUT)


def test_there_is_something_to_look_at() -> None:
    """The walk sees the files: the solver does import solv, the transport Salt, the agent rpm."""

    def tops(name: str) -> set[str]:
        return {one.top for one in imports_of(CHECKOUT / name)}

    assert "solv" in tops("cpacman/planner/solver/pools.py")
    assert "salt" in tops("cpacman/transport/channel.py")
    assert "rpm" in tops("_modules/cpacman_agent.py")
    assert "cryptography" in tops("_modules/cpacman.py")


@pytest.mark.parametrize(
    ("name", "source", "why"),
    [
        ("cpacman/planner/plan.py", "import solv", "only cpacman/planner/solver/"),
        ("cpacman/planner/plan.py", "def f():\n    from solv import Pool", "plan.py:2: only"),
        ("cpacman/x.py", "import importlib\nimportlib.import_module('solv')", "x.py:2: only"),
        ("cpacman/store/rows.py", "import salt.utils.jid", "only cpacman/transport/"),
        (
            "cpacman/store/rows.py",
            "if 0:\n    from salt import config",
            "only cpacman/transport/",
        ),
        ("cpacman/store/rows.py", "from . import model", "a relative import"),
        ("cpacman/store/rows.py", "import pytest", "does not need pytest"),
        ("_runners/cpacman.py", "import cpacman", "import a submodule"),
        ("_runners/cpacman.py", "from cpacman import errors", "import a submodule"),
        ("_output/cpacman.py", "import cpacman", "import a submodule"),
        ("_modules/cpacman_agent.py", "import yaml", "not yaml"),
        ("_modules/cpacman_agent.py", "import salt.utils", "not salt"),
        ("_modules/cpacman.py", "from cpacman.model import Plan", "not cpacman"),
        ("_modules/cpacman.py", "import msgspec", "not msgspec"),
        ("cpacman/errors.py", "import pydantic", "loaded by everything"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, source: str, why: str) -> None:
    """The rules can fail: each of them names the file and the line of what breaks it."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert any(why in found for found in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cpacman/planner/solver/pools.py", "import solv"),
        ("cpacman/transport/publish.py", "import salt.transport"),
        ("_runners/cpacman.py", "from cpacman.commands import planning\nimport salt.utils"),
        ("_modules/cpacman_agent.py", "import fcntl\nimport rpm"),
        ("cpacman/cli.py", "def f():\n    from cpacman.offline import make"),
    ],
)
def test_what_is_allowed_is_not_complained_of(tmp_path: Path, name: str, source: str) -> None:
    """The rules forbid no more than they say."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert violations(tmp_path) == []


RUN = """
import json, sys
from cpacman.cli import main
code = main(sys.argv[1:])
sys.stdout.flush()
tops = sorted({name.partition(".")[0] for name in sys.modules})
sys.stderr.write("\\n" + json.dumps([code, tops]))
"""


def console(*words: str, cwd: Path) -> tuple[int, set[str], str]:
    """Run the console in a fresh Python; return its exit code, what was loaded, its errors."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        capture_output=True, text=True, cwd=cwd, check=True, timeout=600,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache")},
    )  # fmt: skip
    errors, _, last = done.stderr.rpartition("\n")
    code, tops = json.loads(last)
    return code, set(tops), errors


@pytest.mark.parametrize(
    "words", [("--help",), ("plan", "--help"), ("--version",), ("inventory", "-h")]
)
def test_help_loads_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Whoever asks for help waits for no library."""
    code, tops, _ = console(*words, cwd=tmp_path)
    assert code == 0
    assert tops.isdisjoint((*HEAVY, "msgspec", "cryptography", "yaml"))


def test_an_inventory_loads_no_salt(tmp_path: Path) -> None:
    """The inventory of a tree is taken without Salt, a database, settings or a solver."""
    code, tops, errors = console("inventory", "--root", str(tmp_path), cwd=tmp_path)
    assert code == 2
    assert "no rpm database" in errors
    assert tops.isdisjoint(HEAVY)


def test_an_offline_plan_loads_no_salt(tmp_path: Path) -> None:
    """A plan from files needs neither Salt nor the state database, also when it goes wrong."""
    code, tops, errors = console(
        "plan", "--repo", f"a={tmp_path}/none", "--inventory", f"{tmp_path}/none.json", cwd=tmp_path
    )
    assert (code, "none" in errors) == (2, True), errors
    assert tops.isdisjoint({"salt", "sqlalchemy"})
