"""What there is to type, told by the commands' own docstrings.

Invariant: nothing here needs a configuration, a database or a host.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cpacman.errors import Problem, UsageError


def commands_of(module: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return the public functions that a loader file defines itself, by name."""
    return {
        name: one
        for name, one in module.items()
        if inspect.isfunction(one)
        and not name.startswith("_")
        and one.__module__ == module["__name__"]
    }


def show_help(module: Mapping[str, Any], command: str | None = None) -> dict[str, Any]:
    """List the commands of a loader file, or tell all of one of them.

    Raises:
        UsageError: there is no such command.
    """
    known = commands_of(module)
    if command is None:
        told = {name: first_sentence(one) for name, one in sorted(known.items())}
        return {"help": {"command": None, "commands": told, "text": ""}}
    name = command.removeprefix("cpacman.")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        mend = f"did you mean {near[0]}?" if near else "salt-run cpacman.help lists them"
        raise UsageError(Problem("help", f"there is no command {command!r}", mend))
    return {"help": {"command": name, "commands": {}, "text": inspect.getdoc(known[name])}}


def first_sentence(function: Callable[..., Any]) -> str:
    """Return how a command's docstring begins."""
    words = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    return words.partition(". ")[0].rstrip(".")
