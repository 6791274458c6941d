"""What Salt's own loader makes of our folders: installed, synced, and without the library."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import logging
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader
import yaml
from saltfactories.utils.functional import Loaders

from cpacman.commands import states
from tests.functional.pythons import CHECKOUT, BarePython, write_master

logging.raiseExceptions = False  # Salt flushes kept records to a closed stderr when it ends

HOST_FUNCTIONS = {
    "apply", "begin", "compliance", "details", "inventory", "pin", "reboot", "receive",
    "restart", "result", "staged",
}  # fmt: skip


SECOND_NAMES = {"updates": "advisories"}
"""Functions that can be typed by another name."""


def functions_of(path: Path) -> dict[str, str]:
    """Return the public functions that a file defines, with their docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def runner_functions() -> dict[str, str]:
    """Return what a person can type after `salt-run cpacman.`."""
    found = functions_of(CHECKOUT / "_runners" / "cpacman.py")
    found.pop("runner", None)  # the stand-in for the decorator
    return found


@pytest.fixture
def file_root(tmp_path: Path) -> Path:
    """A root of the file server that holds our folders and nothing else."""
    root = tmp_path / "roots"
    for name in ("_runners", "_output", "_modules", "_states"):
        shutil.copytree(CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def master_opts(tmp_path: Path, file_root: Path) -> dict[str, Any]:
    """A master's options, all of them below the test's directory."""
    opts = salt.config.apply_master_config({"root_dir": str(tmp_path / "master")})
    opts["file_roots"] = {"base": [str(file_root)]}
    opts["__role"] = "master"
    return opts


def named(loader: Any) -> set[str]:
    """Return the functions of ours that a loader has."""
    return {
        key.partition(".")[2] for key in loader if key.startswith("cpacman.") and "__" not in key
    }


# ---- from the entry point --------------------------------------------------------------------


def test_runners_are_found_through_the_entry_point(master_opts: dict[str, Any]) -> None:
    """An installed library needs no copying: each function is there, and nothing besides."""
    loader = salt.loader.runner(master_opts)
    assert named(loader) == {*runner_functions(), *SECOND_NAMES}
    assert "/extmods/" not in loader.file_mapping["cpacman"][0]


def test_the_outputter_is_found_through_the_entry_point(master_opts: dict[str, Any]) -> None:
    """Salt prints a runner's answer, and its progress, through our screens."""
    display = salt.loader.outputters(master_opts)["cpacman"]
    assert display({"version": {"cpacman": "1", "python": "3", "libraries": {}}}).split() == [
        "cpacman", "1", "python", "3",
    ]  # fmt: skip
    assert display({"suffix": "progress", "event": {"message": "half"}}) == ".. half"


@pytest.mark.parametrize("name", sorted(runner_functions()))
def test_every_runner_says_how_to_call_it(master_opts: dict[str, Any], name: str) -> None:
    """`salt-run -d cpacman` explains each function with an example that names it."""
    text = salt.loader.runner(master_opts)[f"cpacman.{name}"].__doc__
    assert f"CLI Example:\n\n    .. code-block:: bash\n\n        salt-run cpacman.{name}" in text


@pytest.mark.parametrize("name", sorted(HOST_FUNCTIONS))
def test_every_host_function_says_how_to_call_it(name: str) -> None:
    """`salt '*' sys.doc cpacman` explains each function of the door."""
    text = functions_of(CHECKOUT / "_modules" / "cpacman.py")[name]
    assert "CLI Example:" in text and f" cpacman.{name}" in text


STATES = {"snapshot_present", "promoted", "deployed", "blocked", "member", "compliant"}


def states_of(opts: dict[str, Any]) -> Any:
    """Return the loader of states, as a state run makes it."""
    functions = salt.loader.minion_mods(opts)
    return salt.loader.states(opts, functions, salt.loader.utils(opts), None)


def test_states_are_found_through_the_entry_point(master_opts: dict[str, Any]) -> None:
    """Each is there for an orchestration, and nothing besides."""
    assert named(states_of({**master_opts, "id": "m", "grains": {}, "test": False})) == STATES


@pytest.mark.parametrize("name", sorted(STATES))
def test_every_state_says_how_to_write_it(name: str) -> None:
    """Its docstring holds an example that is YAML, with arguments that it knows."""
    text = functions_of(CHECKOUT / "_states" / "cpacman.py")[name]
    example = yaml.safe_load(textwrap.dedent(text.partition(".. code-block:: yaml")[2]))
    ((body,),) = (one.items() for one in example.values())
    assert body[0] == f"cpacman.{name}"
    if name in states.STATES:
        known = inspect.signature(states.STATES[name]).parameters
        given = {key if key != "class" else "class_" for one in body[1] for key in one}
        assert given <= set(known)


def test_no_argument_is_one_that_salt_swallows() -> None:
    """Salt takes these for itself, and a state would never see them."""
    for function in states.STATES.values():
        taken = {"retry", "parallel", "order", "state", "fun", "use", "listen", "runas", "creates",
                 "check_cmd", "require", "watch", "onlyif", "unless", "env"}  # fmt: skip
        assert not taken & set(inspect.signature(function).parameters)


def test_states_load_where_the_library_is_missing(bare: BarePython, tmp_path: Path) -> None:
    """On a host: those of the master say where they belong, the others work."""
    code = (
        "import json, salt.config, salt.loader\n"
        f"opts = salt.config.apply_minion_config({{'root_dir': '{tmp_path}/m', 'id': 'web1'}})\n"
        f"opts.update(grains={{}}, test=True, states_dirs=['{CHECKOUT}/_states'])\n"
        "loader = salt.loader.states(opts, salt.loader.minion_mods(opts), {}, None)\n"
        "answers = [loader['cpacman.deployed']('x', **{'class': 'testing'}),\n"
        "           loader['cpacman.member']('x', **{'class': 'testing', 'meta': {'a': 1}}),\n"
        "           loader['cpacman.member']('x', clas='testing'),\n"
        "           loader['cpacman.compliant']('x')]\n"
        "print(json.dumps(answers))\n"
    )
    done = bare.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    master, member, wrong, compliant = json.loads(done.stdout.splitlines()[-1])
    assert master["result"] is False and "is for the master" in master["comment"]
    assert member["result"] is None
    assert member["changes"] == {"old": None, "new": {"class": "testing", "meta": {"a": 1}}}
    assert wrong["result"] is False and "no argument clas" in wrong["comment"]
    assert compliant["result"] is False and "sync_modules" in compliant["comment"]


# ---- hosts -----------------------------------------------------------------------------------


@pytest.fixture
def minion_opts(tmp_path: Path, file_root: Path) -> dict[str, Any]:
    """The options of a minion that synced its modules from the file server."""
    opts = salt.config.apply_minion_config({"root_dir": str(tmp_path / "minion"), "id": "web1"})
    opts["file_client"] = "local"
    opts["file_roots"] = {"base": [str(file_root)]}
    opts["cpacman"] = {"state_dir": str(tmp_path / "state"), "cache_dir": str(tmp_path / "cache")}
    loaders = Loaders(opts)
    synced = loaders.modules["saltutil.sync_modules"](refresh=False)
    assert {"modules.cpacman", "modules.cpacman_agent"} <= set(synced)
    return loaders.opts


def test_a_minion_gets_the_door_and_not_the_agent(minion_opts: dict[str, Any]) -> None:
    """Both files are synced side by side; only the door can be called."""
    loader = salt.loader.minion_mods(minion_opts)
    folder = Path(minion_opts["extension_modules"]) / "modules"
    assert named(loader) == HOST_FUNCTIONS
    assert not [key for key in loader if key.startswith(("cpacman_agent", "agent."))]
    assert Path(loader.file_mapping["cpacman"][0]) == folder / "cpacman.py"
    assert (folder / "cpacman_agent.py").is_file()


def test_the_synced_door_answers(minion_opts: dict[str, Any]) -> None:
    """A call through the loader finds the agent beside the door, and refuses in plain words."""
    answer = salt.loader.minion_mods(minion_opts)["cpacman.staged"]("r-none")
    assert answer == {"error": {"code": "session", "message": "no session r-none here"}}


def test_a_door_without_its_agent_is_not_loaded(minion_opts: dict[str, Any]) -> None:
    """Half a sync says what is missing instead of failing later."""
    (Path(minion_opts["extension_modules"]) / "modules" / "cpacman_agent.py").unlink()
    loader = salt.loader.minion_mods(minion_opts)
    assert "cpacman.inventory" not in loader
    assert "sync modules again" in loader.missing_fun_string("cpacman.inventory")


# ---- from file_roots -------------------------------------------------------------------------


def test_sync_all_brings_runners_and_outputter(master_opts: dict[str, Any]) -> None:
    """`salt-run saltutil.sync_all` with our folders in `file_roots` is enough on the master."""
    synced = salt.loader.runner(master_opts)["saltutil.sync_all"]()
    assert "runners.cpacman" in synced["runners"]
    assert "output.cpacman" in synced["output"]
    assert "states.cpacman" in synced["states"]
    loader = salt.loader.runner(master_opts)
    extmods = Path(master_opts["extension_modules"])
    assert Path(loader.file_mapping["cpacman"][0]) == extmods / "runners" / "cpacman.py"
    assert named(loader) == {*runner_functions(), *SECOND_NAMES}
    answer = loader["cpacman.version"]()
    assert answer["data"]["version"]["result"] is True
    assert "cpacman" in salt.loader.outputters(master_opts)["cpacman"](answer["data"])


def test_synced_copies_are_removed_with_their_source(
    master_opts: dict[str, Any], file_root: Path
) -> None:
    """Whoever takes the folders out of `file_roots` has no stale copy after the next sync."""
    salt.loader.runner(master_opts)["saltutil.sync_runners"]()
    shutil.rmtree(file_root / "_runners")
    salt.loader.runner(master_opts)["saltutil.sync_runners"]()
    assert not (Path(master_opts["extension_modules"]) / "runners" / "cpacman.py").exists()


# ---- salt-run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> BarePython:
    """A Python with Salt and without CPacMan."""
    return BarePython(tmp_path_factory.mktemp("bare") / "site")


@pytest.fixture
def installed(bare: BarePython, tmp_path: Path) -> BarePython:
    """The same Python with the library beside it, as an import finds it, but no entry point."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "cpacman").symlink_to(CHECKOUT / "cpacman")
    return bare.with_library(library)


def test_version_needs_no_configuration(installed: BarePython, tmp_path: Path) -> None:
    """`salt-run cpacman.version` works where nothing is configured and no master runs."""
    conf = write_master(tmp_path / "m", more=f"runner_dirs: [{CHECKOUT}/_runners]\n")
    done = installed.salt_run(conf, "--out=json", "cpacman.version")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"]["libraries"]["solv"]


def test_a_misspelt_argument_fails(installed: BarePython, tmp_path: Path) -> None:
    """It exits with 2 and names the nearest argument; Salt alone would exit with 0."""
    conf = write_master(
        tmp_path / "m",
        more=f"runner_dirs: [{CHECKOUT}/_runners]\noutputter_dirs: [{CHECKOUT}/_output]\n",
    )
    done = installed.salt_run(conf, "cpacman.plan", "clas=production")
    assert done.returncode == 2, done.stderr
    assert done.stdout.split("\n")[:2] == [
        "clas: there is no such argument", "    did you mean class=?",
    ]  # fmt: skip


def test_without_the_library_the_runner_says_what_to_install(
    bare: BarePython, file_root: Path, tmp_path: Path
) -> None:
    """A synced runner in a Python without the library names the mend, not a line of code."""
    roots = f"file_roots: {{base: [{file_root}]}}\n"
    conf = write_master(tmp_path / "m", more=roots)
    synced = bare.salt_run(conf, "--out=json", "saltutil.sync_runners")
    assert "runners.cpacman" in synced.stdout, synced.stderr
    done = bare.salt_run(conf, "cpacman.version")
    said = done.stdout + done.stderr
    assert "the cpacman library is missing, run: salt-pip install cpacman" in said
    assert "Traceback" not in said


def test_without_the_library_nothing_else_breaks(bare: BarePython, tmp_path: Path) -> None:
    """The file itself is not taken for the package of the same name."""
    code = (
        "import salt.config, salt.loader\n"
        f"opts = salt.config.apply_master_config({{'root_dir': '{tmp_path}/m'}})\n"
        f"opts['runner_dirs'] = ['{CHECKOUT}/_runners']\n"
        f"opts['outputter_dirs'] = ['{CHECKOUT}/_output']\n"
        "runners = salt.loader.runner(opts)\n"
        "print('cpacman.plan' in runners, runners.missing_fun_string('cpacman.plan'))\n"
        "print('cpacman' in salt.loader.outputters(opts), 'test.arg' in runners)\n"
    )
    done = bare.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the cpacman library is missing" in done.stdout
    assert done.stdout.split()[-2:] == ["False", "True"]


def test_the_library_is_here() -> None:
    """These tests say nothing where the library is not installed at all."""
    assert importlib.util.find_spec("cpacman")
