"""What there is to type, told by the runner file itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from cpacman.report.screens import render

RUNNERS = Path(__file__).parents[3] / "_runners" / "cpacman.py"


@pytest.fixture(scope="module")
def runners() -> ModuleType:
    """The runner file, loaded under a name of its own as Salt does."""
    spec = importlib.util.spec_from_file_location("salt.loaded.ext.runners.cpacman", RUNNERS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_listed(runners: ModuleType) -> None:
    """With its first sentence; nothing that the file only imports."""
    body = runners.help()["data"]["help"]
    assert {"plan", "deploy", "updates", "help"} <= set(body["commands"])
    assert not {"runner", "open_context", "listed"} & set(body["commands"])
    assert all(body["commands"].values())
    assert "salt-run cpacman.help COMMAND" in render({"help": body})


def test_one_command_in_full(runners: ModuleType) -> None:
    """By its name, with or without that of the module; a slip names the nearest."""
    for name in ("promote", "cpacman.promote"):
        text = render({"help": runners.help(name)["data"]["help"]})
        assert "the class that receives" in text and "salt-run cpacman.promote to=" in text
    answer = runners.help("promot")["data"]
    assert answer["retcode"] == 2
    assert "did you mean promote?" in answer["error"]["problems"][0]["mend"]
