"""Raw to validated: everything that is wrong with a section at once, each with its path.

Invariants: nothing unknown is ignored; loading looks at no repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from cpacman.config.fields import listed, named
from cpacman.config.problems import problems_of
from cpacman.config.restarts import restart_problems
from cpacman.config.settings import Settings
from cpacman.config.values import nearest
from cpacman.config.yamlfile import read_yaml
from cpacman.errors import ConfigError, Problem


def _name_of(value: Any) -> Any:
    try:
        return named(value)["name"]
    except PydanticCustomError:
        return None


def _duplicates(raw: Mapping[str, Any], what: str) -> Iterator[Problem]:
    """Yield the names that are given twice, with both places."""
    seen: dict[Any, int] = {}
    values = raw.get(what)
    for index, value in enumerate(values if isinstance(values, list | tuple) else ()):
        name = _name_of(value)
        if not isinstance(name, str):
            continue
        if name in seen:
            message = f"the name {name!r} is taken by {what}[{seen[name]}]"
            yield Problem(f"{what}[{index}]", message, "give it another name")
        seen.setdefault(name, index)


def _references(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield names of classes that are used but not configured.

    It reads the raw section, so that these are reported together with everything else that is
    wrong; what has the wrong shape is left to the models.
    """
    values = raw.get("classes")
    names = [_name_of(one) for one in values] if isinstance(values, list | tuple) else ["all"]
    known = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    for path, name in _class_uses(raw):
        if isinstance(name, str) and name not in known:
            yield Problem(path, f"there is no class {name!r}", nearest(name, known))


def _class_uses(raw: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for channel, body in _mapping(raw.get("channels")).items():
        for name, repository in _mapping(_mapping(body).get("repositories")).items():
            path = f"channels.{channel}.repositories.{name}.classes"
            used = listed(_mapping(repository).get("classes"))
            for index, one in enumerate(used if isinstance(used, list | tuple) else ()):
                yield f"{path}[{index}]", one
    for verb in ("plan", "deploy", "promote", "approve"):
        for name in _mapping(_mapping(raw.get("access")).get(verb)):
            yield f"access.{verb}.{name}", name


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """Copy into plain dicts and lists: Salt hands out mappings of its own."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def load_settings(raw: Mapping[str, Any], *, source: str, base: Path) -> Settings:
    """Validate the contents of the `cpacman:` section.

    Args:
        raw: the section, as YAML gives it.
        source: the file or section it was read from, for messages and `explain`.
        base: the directory that relative paths are relative to.

    Raises:
        ConfigError: with every problem at once.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(Problem(source, "the cpacman section is not a mapping of settings"))
    try:
        section = _plain(raw)
    except RecursionError:
        raise ConfigError(Problem(source, "holds a value that contains itself")) from None
    problems = [
        *_duplicates(section, "classes"),
        *_duplicates(section, "levels"),
        *_references(section),
    ]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(section, context={"base": base})
    except ValidationError as error:
        problems = [*problems_of(error, Settings), *problems]
    if settings is not None:
        problems += restart_problems(settings)
    if problems or settings is None:
        raise ConfigError([_placed(problem, source) for problem in problems])
    settings._source = source
    return settings


def _placed(problem: Problem, source: str) -> Problem:
    """Say once more where: the path stays that of the section, the source joins the message."""
    return problem._replace(message=f"{problem.message} ({source})")


def read_settings(path: Path) -> Settings:
    """Read settings from a file: below a `cpacman:` key, or as its whole contents.

    Raises:
        ConfigError: with every problem at once.
    """
    value = read_yaml(path)
    if isinstance(value, Mapping) and set(value) == {"cpacman"}:
        value = value["cpacman"]
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise ConfigError(Problem(str(path), "holds no mapping of settings"))
    return load_settings(value, source=str(path), base=path.absolute().parent)


class LiveSettings:
    """The settings as they are written down now: read again once their file has changed.

    Those that stand in the master's own configuration are as that was read.
    """

    def __init__(self, opts: Mapping[str, Any], settings: Settings) -> None:
        section = opts.get("cpacman") or {}
        master = Path(opts.get("conf_file") or "/etc/salt/master")
        self._file = master.parent / section["config"] if "config" in section else None
        self._opts, self._settings = opts, settings
        self._stamp = self._look()

    def _look(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_ino)

    def __call__(self) -> Settings:
        """Return them.

        Raises:
            ConfigError: what is written there now can't be read.
        """
        stamp = self._look()
        if stamp != self._stamp:
            self._settings = settings_from_opts(self._opts)
            self._stamp = stamp
        return self._settings


def settings_from_opts(opts: Mapping[str, Any]) -> Settings:
    """Read settings from the master's configuration: the section itself, or the file it names.

    Raises:
        ConfigError: with every problem at once.
    """
    master = Path(opts.get("conf_file") or "/etc/salt/master")
    section = opts.get("cpacman")
    if section is None:
        raise ConfigError(
            Problem(
                str(master),
                "has no cpacman section",
                "add one, or cpacman: {config: /etc/salt/cpacman.yaml}",
            )
        )
    if not isinstance(section, Mapping) or "config" not in section:
        return load_settings(section, source=f"{master}: cpacman", base=master.parent)
    if len(section) > 1 or not isinstance(section["config"], str):
        raise ConfigError(
            Problem(
                f"{master}: cpacman.config",
                "a configuration in a file of its own leaves nothing beside it",
                "write cpacman: {config: PATH} and move the rest into that file",
            )
        )
    return read_settings(master.parent / section["config"])
