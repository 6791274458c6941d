"""The docs say what the code does: every key, value, argument and code is there, and links work."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin
from urllib.parse import unquote

import pytest
import yaml

from cpacman import config, model
from cpacman.arguments import GROUPS
from cpacman.config import Section, Settings, gates, load_settings
from cpacman.fleet import hostfiles
from cpacman.rollout import around, job, machine, restarts, runner
from cpacman.transport import port
from cpacman.transport.roster import read_entry

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"])
FORMATS = DOCS / "reference" / "formats.md"
TROUBLE = DOCS / "guide" / "troubleshooting.md"


def name_of(path: Path) -> str:
    """Return a page's name for the test's id."""
    return path.relative_to(CHECKOUT).as_posix()


def section_of(page: Path, heading: str) -> str:
    """Return what stands below a heading, up to the next one of its rank or above."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"{name_of(page)} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows_of(text: str) -> Iterator[list[str]]:
    """Yield the cells of every table row, without headings and rulers."""
    for line in text.splitlines():
        if line.startswith("| `"):
            # A bar inside of a cell would be written \|, which no table here needs.
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def words_of(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# ---- values of enumerations ------------------------------------------------------------------

ENUMERATIONS = {
    "action": model.ActionKind,
    "reason": model.Reason,
    "held.reason": model.HeldReason,
    "failed.error": model.FailedError,
    "Outcomes": model.Outcome,
}


@pytest.mark.parametrize("heading", ENUMERATIONS)
def test_every_value_has_its_line(heading: str) -> None:
    """The formats list exactly the values that the code has, in the code's order."""
    listed = [words_of(row[0])[0] for row in rows_of(section_of(FORMATS, heading))]
    assert listed == [one.value for one in ENUMERATIONS[heading]]


def test_no_enumeration_is_forgotten() -> None:
    """One that is added to the model has to be listed, too."""
    found = {
        value
        for value in vars(model).values()
        if isinstance(value, type)
        and issubclass(value, Enum)
        and value.__module__ == model.__name__
    }
    assert found == set(ENUMERATIONS.values())


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("Plan", (model.Plan, model.Transaction, model.Action, model.Held, model.Failure)),
        ("Inventory", (model.Inventory, model.InstalledPackage, model.OsRelease)),
        ("Snapshot manifest", (model.Package, model.Advisory)),
    ],
)
def test_every_field_of_a_document_is_named(heading: str, kinds: tuple[Any, ...]) -> None:
    """Whoever reads a document finds each of its fields explained."""
    words = {
        w for cell in words_of(section_of(FORMATS, heading)) for w in re.split(r"[\s,]+", cell)
    }
    for kind in kinds:
        missing = set(kind.__struct_encode_fields__) - words
        assert not missing, f"{kind.__name__}: {missing}"


# ---- the configuration -----------------------------------------------------------------------


class Key(NamedTuple):
    """One key of the configuration: its path in the docs, its model, its name there."""

    path: str
    model: type[Section]
    field: str


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[Key]:
    """Yield every key below a model that holds a value and no further keys."""
    for name, info in kind.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        inner, step = inside(info.annotation)
        if prefix.endswith("[].") and name == "name":
            continue
        if inner is config.PolicyLine and kind is not Settings:
            yield Key(f"{path}[]", kind, name)
        elif inner is not None:
            yield from keys_of(inner, f"{path}{step}.")
        else:
            yield Key(path, kind, name)


def inside(annotation: Any) -> tuple[type[Section] | None, str]:
    """Return the model that a key holds, and how its keys are reached."""
    at, step = annotation, ""
    while True:
        origin, args = get_origin(at), get_args(at)
        if isinstance(at, type) and issubclass(at, Section):
            return at, step
        if origin is dict:
            at, step = args[1], step + ".NAME"
        elif origin is tuple:
            at, step = args[0], step + "[]"
        elif origin in (Union, types.UnionType):
            at = next(one for one in args if one is not type(None))
        elif hasattr(at, "__metadata__"):
            at = at.__origin__
        else:
            return None, ""


KEYS = {key.path: key for key in [*keys_of(Settings), *keys_of(hostfiles.HostEntry, "HOST.")]}
REFERENCE = DOCS / "reference" / "configuration.md"
DOCUMENTED = {
    words_of(row[0])[0]: row
    for row in rows_of(REFERENCE.read_text(encoding="utf-8").partition("\n## On a host")[0])
    if len(row) == 5
}


def test_every_key_is_documented_and_no_other() -> None:
    """The reference has a row for each key of the models, and none that is gone."""
    assert set(DOCUMENTED) == set(KEYS)


@pytest.mark.parametrize("path", sorted(KEYS))
def test_default_and_example_are_true(path: str) -> None:
    """A default as it is written is the model's own, and the example is accepted and another."""
    key, row = KEYS[path], DOCUMENTED.get(path, [])
    assert len(row) == 5
    info = key.model.model_fields[key.field]
    if row[2] == "required":
        assert info.is_required()
    else:
        default = info.get_default(call_default_factory=True, validated_data={})
        if row[2] == "-":
            assert default in (None, (), {}, "")
        else:
            assert value_of(key, words_of(row[2])[0]) == default
    value_of(key, words_of(row[3])[0])


def value_of(key: Key, text: str) -> Any:
    """Return what a text of the docs becomes in the model."""
    raw = (
        yaml.load(text, Loader=yaml.BaseLoader)
        if key.path.endswith("until")
        else yaml.safe_load(text)
    )
    alias = key.model.model_fields[key.field].alias or key.field
    others: dict[str, Any] = {}
    if key.model in (config.ClassSettings, config.LevelSettings):
        others["name"] = "x"
    if key.model is config.PolicyLine and key.field not in config.POLICY_KINDS:
        others |= {"vendors": ["x", "y"]} if key.field == "packages" else {"lock": "x"}
    if key.model is config.RepositorySettings and key.field != "path":
        others["path"] = "/x"
    if key.model is config.Channel:
        others["repositories"] = {"r": {"path": "/x"}}
    others |= _needed_beside(key)
    made = key.model.model_validate({alias: raw, **others}, context={"base": Path("/")})
    return getattr(made, key.field)


def _needed_beside(key: Key) -> dict[str, Any]:
    """Return what a part of the configuration can't be without."""
    kinds = {"salt", "state", "master", "http", "event"}
    if key.model is gates.CheckSettings:
        return {"name": "x"} | ({} if key.field in kinds else {"salt": "test.ping"})
    if key.model is gates.ActionSettings and key.field not in kinds:
        return {"salt": "test.ping"}
    if key.model is gates.WindowSettings and key.field == "timezone":
        return {"weekly": "daily 00:00-24:00"}
    if key.model is gates.FreezeSettings:
        both = {"from": "2026-01-01", "until": "2030-01-01"}
        return {name: one for name, one in both.items() if not key.field.startswith(name)}
    return {}


# ---- commands --------------------------------------------------------------------------------

COMMANDS = DOCS / "reference" / "commands.md"


def signatures_of(path: Path) -> dict[str, list[str]]:
    """Return the public functions of a loader file and their arguments as they are typed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: [n for a in (*node.args.args, *node.args.kwonlyargs) for n in _typed_names(a)]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def _typed_names(argument: ast.arg) -> list[str]:
    """Return what is typed for a parameter: one name, or those of a group."""
    group = GROUPS.get(getattr(argument.annotation, "id", ""))
    return [name.rstrip("_") for name in (group._fields if group else (argument.arg,))]


RUNNERS = {
    k: v for k, v in signatures_of(CHECKOUT / "_runners/cpacman.py").items() if k != "runner"
}


@pytest.mark.parametrize("name", sorted(RUNNERS))
def test_every_argument_of_a_runner_is_documented(name: str) -> None:
    """Each function has its section with exactly its arguments."""
    rows = rows_of(section_of(COMMANDS, name))
    selected = [row for row in section_of(COMMANDS, name).splitlines() if row.startswith("| SEL:")]
    listed = [w for cell in [row[0] for row in rows] + selected[:1] for w in words_of(cell)]
    assert sorted(listed) == sorted(RUNNERS[name])


@pytest.mark.parametrize("name", sorted(RUNNERS))
def test_the_help_names_every_argument(name: str) -> None:
    """`salt-run -d cpacman` explains each of them; SEL stands for its members."""
    tree = ast.parse((CHECKOUT / "_runners/cpacman.py").read_text(encoding="utf-8"))
    found = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    text = (ast.get_docstring(found) or "").partition("CLI Example:")[0]
    told = {
        word for line in re.findall(r"^\S.*", text, re.MULTILINE)[1:] for word in line.split(", ")
    }
    told |= {word.rstrip(",") for word in told}
    given = [*found.args.args, *found.args.kwonlyargs]
    plain = {n for a in given if not _is_selection(a) for n in _typed_names(a)}
    wanted = plain | ({"SEL"} if any(map(_is_selection, given)) else set())
    assert wanted <= told


def _is_selection(argument: ast.arg) -> bool:
    return getattr(argument.annotation, "id", "") == "Sel"


def test_no_command_is_documented_that_does_not_exist() -> None:
    """What is planned is in no reference."""
    text = section_of(COMMANDS, "salt-run cpacman.*")
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == set(RUNNERS)


def test_host_functions_are_documented() -> None:
    """The door's functions and arguments are listed."""
    rows = {words_of(r[0])[0]: words_of(r[1]) for r in rows_of(section_of(COMMANDS, "On hosts"))}
    assert rows == signatures_of(CHECKOUT / "_modules/cpacman.py")


def test_states_are_documented() -> None:
    """Every state of the master has its section, with every argument and no other."""
    import inspect

    from cpacman.commands.states import STATES

    for name, function in STATES.items():
        rows = rows_of(section_of(COMMANDS, f"cpacman.{name}"))
        known = set(inspect.signature(function).parameters) - {"context", "test", "name"}
        listed = {word for row in rows for word in words_of(row[0])}
        assert listed == {argument.rstrip("_") for argument in known}


@pytest.mark.parametrize("command", ["inventory", "plan", "why", "watch"])
def test_console_options_are_documented(command: str) -> None:
    """Every option of the console is listed, and no other."""
    from cpacman.cli import _parser

    actions = next(a for a in _parser()._actions if a.choices and command in a.choices)
    known = {o for a in actions.choices[command]._actions for o in a.option_strings}
    rows = rows_of(section_of(COMMANDS, f"cpacman {command}"))
    assert {words_of(row[0])[0].split()[0] for row in rows} == known - {"-h", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_examples_exist(page: Path) -> None:
    """No page tells anybody to type a function or an argument that is not there."""
    for name, words in re.findall(r"salt-run cpacman\.(\w+)([^#\n`|]*)", page.read_text()):
        assert name in RUNNERS, name
        assert set(re.findall(r"(\w+)=", words)) <= {*RUNNERS[name], "out"}, words
    for name in re.findall(r"salt \S+ cpacman\.(\w+)", page.read_text()):
        assert name in signatures_of(CHECKOUT / "_modules/cpacman.py")


# ---- codes and states ------------------------------------------------------------------------


def host_codes() -> set[str]:
    """Return every code with which the door or the agent may refuse or fail."""
    found: set[str] = set()
    for name in ("cpacman.py", "cpacman_agent.py"):
        tree = ast.parse((CHECKOUT / "_modules" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            found.update(code for code in _codes_in(node) if code)
    return found


def _codes_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        places = {
            "Refused": node.args[:1],
            "finish": node.args[1:2],
            "give_up": node.args[1:2],
        }.get(name, [])
        for place in places:
            values = [place.body, place.orelse] if isinstance(place, ast.IfExp) else [place]
            yield from (v.value for v in values if isinstance(v, ast.Constant))
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "code":
                yield from [value.value] if isinstance(value, ast.Constant) else []
    for keyword in getattr(node, "keywords", ()):
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
            yield keyword.value.value


def test_every_code_of_a_host_is_explained() -> None:
    """Troubleshooting has a line for each code that a host may answer, and none that is gone."""
    listed = [words_of(row[0])[0] for row in rows_of(section_of(TROUBLE, "From the host"))]
    assert set(listed) == host_codes()
    assert listed == sorted(listed) and len(listed) == len(set(listed))


MASTERS = {
    port.UNREACHABLE,
    job.HALTED,
    job.CHANGED,
    model.FailedError.NOT_ACCEPTED.value,
    runner.CANCELLED,
    runner.OPERATOR,
    around.ACTION,
    *restarts.TRIED_AGAIN,
}


def test_every_code_of_the_master_is_explained() -> None:
    """And one for each that the master gives."""
    listed = {words_of(row[0])[0] for row in rows_of(section_of(TROUBLE, "From the master"))}
    assert listed >= MASTERS
    given = {"twins", "transport", "no-door", "garbled", "bytes", "silent", "differs"}
    given |= {"host-key", "login", "interrupted", "unstarted"}
    assert listed == given | MASTERS
    code = "".join(p.read_text() for p in (CHECKOUT / "cpacman").rglob("*.py"))
    assert not [one for one in given if f'"{one}"' not in code]


TABLES = [
    ("A host in a rollout", machine.HostState, machine.TRANSITIONS),
    ("A level of a rollout", machine.LevelState, machine.LEVEL_TRANSITIONS),
    ("A rollout", machine.RolloutState, machine.ROLLOUT_TRANSITIONS),
]


@pytest.mark.parametrize(("section", "states", "table"), TABLES)
def test_the_transition_tables_are_the_code_s(section: str, states: Any, table: Any) -> None:
    """The docs have each table of transitions, row by row."""
    page = DOCS / "reference" / "states.md"
    rows = rows_of(section_of(page, section).partition("| from |")[2].partition("| state |")[0])
    found = {states(words_of(row[0])[0]): {states(w) for w in words_of(row[1])} for row in rows}
    assert found == {source: set(targets) for source, targets in table.items()}


@pytest.mark.parametrize(("section", "states", "table"), TABLES)
def test_every_state_is_explained(section: str, states: Any, table: Any) -> None:
    """States of hosts, levels and rollouts have a line each."""
    page = DOCS / "reference" / "states.md"
    rows = rows_of(section_of(page, section).partition("| state |")[2].partition("| from |")[0])
    assert [words_of(row[0])[0] for row in rows] == [state.value for state in states]


def test_outcomes_by_state_are_the_code_s() -> None:
    """What the docs say of how a host may end is what the check lets pass."""
    page = DOCS / "reference" / "states.md"
    text = " ".join(section_of(page, "A host in a rollout").split())
    sentence = re.search(r"(From `waiting`.*?can end as .*?)\. ", text).group(1)
    told = {}
    for part in sentence.split(";"):
        states, _, outcomes = part.replace("can end ", "").partition(" as ")
        told.update({state: set(words_of(outcomes)) for state in words_of(states)})
    ended = machine.HostState.ENDED
    assert told == {
        state.value: {one.value for one in model.Outcome if may_end(state, one)}
        for state in machine.HostState
        if state is not ended
    }


def may_end(state: machine.HostState, outcome: model.Outcome) -> bool:
    """Return whether a host may end like that."""
    try:
        machine.check_end("web1", state, outcome)
    except Exception:
        return False
    return True


# ---- examples and links ----------------------------------------------------------------------


def yaml_blocks() -> Iterator[Any]:
    """Yield the examples of configuration in all pages."""
    for page in PAGES:
        for number, text in enumerate(
            re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        ):
            yield pytest.param(text, id=f"{name_of(page)}-{number}")


@pytest.mark.parametrize("text", list(yaml_blocks()))
def test_examples_of_configuration_are_valid(text: str, tmp_path: Path) -> None:
    """Whoever copies an example of settings or of host files gets no error."""
    value = yaml.safe_load(text)
    assert isinstance(value, dict)
    if "cpacman" in value:
        (tmp_path / "cpacman.yaml").write_text(text, encoding="utf-8")
        config.read_settings(tmp_path / "cpacman.yaml")
    elif text.startswith("# roster: "):
        assert all(read_entry(name, entry, {}) for name, entry in value.items())
    elif not set(value) <= {"zmq_filtering", "engines"}:
        classes = ["development", "testing", "production"]
        known = load_settings({"classes": classes}, source="test", base=tmp_path)
        (tmp_path / "example.yaml").write_text(text, encoding="utf-8")
        assert hostfiles.load_hosts_files(tmp_path, known).globs


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link has its file, and its heading where it names one."""
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            assert anchor in anchors_of(path), link


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached() -> None:
    """From the README a reader comes to every page, by links."""
    seen, todo = set(), [CHECKOUT / "README.md"]
    while todo:
        page = todo.pop()
        if page.is_dir():
            todo += page.glob("*.md")
            continue
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8"))
        todo += [(page.parent / link).resolve() for link in links]
    assert set(PAGES) - {CHECKOUT / "CONTRIBUTING.md"} <= seen


def test_every_dependency_has_its_reason() -> None:
    """A package that is required has its line among the decisions."""
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    text = (DOCS / "adr" / "0001-dependencies.md").read_text(encoding="utf-8")
    for requirement in project["dependencies"]:
        assert f"| {re.split('[<>=]', requirement)[0]} |" in text
    named = (CHECKOUT / "requirements.in").read_text().split("\n")
    for line in filter(None, named):
        name = re.split(r"[\[<>=]", line)[0]
        assert line.startswith("#") or name.lower() in text.lower(), name


def test_decisions_are_short_and_numbered() -> None:
    """They are numbered without gaps, and nobody has to scroll."""
    pages = sorted((DOCS / "adr").glob("*.md"))
    for number, page in enumerate(pages, 1):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert page.name.startswith(f"{number:04}-")
        assert lines[0].startswith(f"# {number}. ")
        assert len(lines) <= 35
