"""YAML files as people mean them: keys given twice are problems, each with file, line, column."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cpacman.errors import ConfigError, Problem


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is a problem, dates and `22:00` stay text."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.twice: list[tuple[str, yaml.Mark]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                self.twice.append((str(key), key_node.start_mark))
            elif isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """YAML 1.1 reads 22:00 as 1320 and 0012 as 10; nobody who writes these means that."""
    if ":" in node.value or re.fullmatch(r"[+-]?0[0-9_]+", node.value):
        return loader.construct_scalar(node)
    return yaml.SafeLoader.construct_yaml_int(loader, node)


def _as_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def read_yaml(path: Path) -> Any:
    """Return the contents of a YAML file; None when it is empty.

    Raises:
        ConfigError: it can't be read, is broken (`file:line:column`), or gives a key twice.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise ConfigError(Problem(str(path), _reason(error), "check the path")) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(_yaml_problem(path, error)) from None
    if loader.twice:
        raise ConfigError([_twice(path, key, mark) for key, mark in loader.twice])
    return value


def _reason(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"


def _yaml_problem(path: Path, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return Problem(where, f"is no valid YAML: {what}", "mend the file there, or just before")


def _twice(path: Path, key: str, mark: yaml.Mark) -> Problem:
    where = f"{path}:{mark.line + 1}:{mark.column + 1}"
    return Problem(where, f"the key {key!r} is given twice", "keep one of them")
