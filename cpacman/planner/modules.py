"""Module streams of EL8 and later: which packages belong to which stream, and its requirements.

Invariants: a text stays text (a stream `3.10` is not the number 3.1); what is read is the same
whether it comes from the metadata or from the cache; nothing here decides which streams are active.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from cpacman.errors import Problem, RepositoryError
from cpacman.planner.metadata import read_text

FORMAT = 1
"""Version of the cache's layout: part of its name."""

_EPOCH = re.compile(r"-0:(?=[^:]*\Z)")


class Stream(msgspec.Struct, frozen=True, array_like=True):
    """One build of a module's stream.

    `requires` are (module, streams) that it needs, any of the streams or, without any, whichever;
    a stream that begins with `-` must not be. `artifacts` are NEVRAs.
    """

    module: str
    stream: str
    version: str
    context: str
    requires: tuple[tuple[str, tuple[str, ...]], ...]
    artifacts: tuple[str, ...]

    @property
    def name(self) -> str:
        """`module:stream`, as hosts enable it."""
        return f"{self.module}:{self.stream}"


class Modules(msgspec.Struct, frozen=True, array_like=True):
    """What a repository's module metadata says: builds of streams, and (module, default stream)."""

    streams: tuple[Stream, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()


def read_modules(name: str, path: Path, cache: Path | None) -> Modules:
    """Read a repository's module metadata, from the cache if that has it.

    Args:
        name: the repository's name, for messages.
        path: of `modules.yaml`, compressed or not.
        cache: the file that keeps what was parsed, or None.

    Raises:
        RepositoryError: the file can't be read or is no module metadata.
    """
    if cache is not None:
        try:
            return msgspec.msgpack.decode(cache.read_bytes(), type=Modules)
        except (OSError, msgspec.DecodeError):
            pass
    try:
        return parse_modules(read_text(path))
    except (OSError, ValueError) as error:
        what = str(error).replace("\n", " ")
        mend = "mirror the repository again"
        problem = Problem(str(path), f"{name}: is no module metadata: {what}", mend)
        raise RepositoryError(problem) from error


def parse_modules(text: bytes) -> Modules:
    """Return what the text of module metadata says.

    Raises:
        ValueError: it is no YAML, or a document lacks what it must have.
    """
    streams, defaults = [], []
    for document in _documents(text):
        if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
            raise ValueError("a document has no data")
        kind, data = document.get("document"), document["data"]
        if kind == "modulemd":
            streams.append(_stream(data))
        elif kind == "modulemd-defaults" and data.get("stream"):
            defaults.append((_text(data, "module"), _text(data, "stream")))
    return Modules(tuple(streams), tuple(sorted(defaults)))


def _documents(text: bytes) -> Iterator[Any]:
    # Most plans find modules in the cache, or have none, and need not wait for this import.
    import yaml

    # Only this loader leaves every scalar the text it is.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        yield from yaml.load_all(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _stream(data: dict[str, Any]) -> Stream:
    rpms = _mapping(data.get("artifacts")).get("rpms") or ()
    return Stream(
        _text(data, "name"),
        _text(data, "stream"),
        _text(data, "version"),
        str(data.get("context", "")),
        tuple(_requires(data.get("dependencies"))),
        tuple(sorted({_EPOCH.sub("-", str(nevra)) for nevra in rpms})),
    )


def _requires(dependencies: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what is needed; old documents say a mapping, new ones a list of them."""
    rows = dependencies if isinstance(dependencies, list) else [dependencies]
    for row in rows:
        for module, streams in sorted(_mapping(_mapping(row).get("requires")).items()):
            names = streams if isinstance(streams, list) else [streams]
            yield module, tuple(str(one) for one in names if one)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"a module has no {key}")
    return value


def defaults_of(found: Iterable[Modules]) -> dict[str, str]:
    """Return module -> default stream; repositories that disagree set none, as libmodulemd does."""
    said: dict[str, set[str]] = {}
    for one in found:
        for module, stream in one.defaults:
            said.setdefault(module, set()).add(stream)
    return {module: min(streams) for module, streams in said.items() if len(streams) == 1}
