"""Inventories on the master: read and validated, put together from thin answers, or taken here.

Invariants: what a host or a file says is data, so nothing gets past `decode_inventory` that is
not of the format; an error names the document and the place in it, all places at once; a thin
answer either becomes the whole inventory its cookie stands for, or an error.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cpacman.errors import HostError, InputError, Problem
from cpacman.model import SCHEMA, InstalledPackage, Inventory, cookie_of

FLAGS = frozenset(("", "=", "<", "<=", ">", ">="))
PLATFORMS = frozenset(("rpm", "deb"))
REASONS = frozenset(("", "user", "dep", "weak"))
DEPENDENCY_FIELDS = (
    "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements",
    "enhances",
)  # fmt: skip
MAX_PROBLEMS = 50
_HOST = re.compile(r"[^\s/\x00-\x1f\x7f]{0,255}")
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]+")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32})?")
_PLACE = re.compile(r" - at `\$?\.?(.*)`$")


def decode_inventory(document: bytes | str | Mapping[str, Any], path: str) -> Inventory:
    """Return the inventory that a document is.

    Args:
        document: JSON, or what JSON was read to. A missing field, or null, reads as empty.
        path: where it is from, for messages.

    Raises:
        InputError: it is not of the format; with up to 50 places.
    """
    inventory = _convert(document, path)
    problems = [*_head_problems(inventory, path)]
    for number, package in enumerate(inventory.packages):
        problems += _package_problems(package, f"{path}: packages[{number}]")
    if problems:
        raise InputError(problems[:MAX_PROBLEMS])
    return inventory


def _convert(document: bytes | str | Mapping[str, Any], path: str) -> Inventory:
    """Return a document's value, unchecked: in one step where it is sound, slowly where not."""
    try:
        if isinstance(document, bytes | str):
            return msgspec.json.decode(document, type=Inventory)
        return msgspec.convert(document, Inventory)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    raw = _parse_json(document, path) if isinstance(document, bytes | str) else document
    if not isinstance(raw, Mapping):
        raise InputError(Problem(path, "an inventory is a JSON object"))
    return _convert_slowly(raw, path)


def _parse_json(document: bytes | str, path: str) -> Any:
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InputError(Problem(path, f"not JSON: {problem}")) from problem


def _convert_slowly(raw: Mapping[str, Any], path: str) -> Inventory:
    """Convert without the nulls, or raise every package's problem: msgspec stops at the first."""
    raw = _without_null(raw)
    packages = raw.get("packages")
    problems = []
    for number, package in enumerate(packages if isinstance(packages, list) else ()):
        try:
            msgspec.convert(package, InstalledPackage)
        except msgspec.ValidationError as problem:
            problems.append(_problem(path, f"packages[{number}]", problem))
    if problems:
        raise InputError(problems[:MAX_PROBLEMS])
    try:
        return msgspec.convert(raw, Inventory)
    except msgspec.ValidationError as problem:
        raise InputError(_problem(path, "", problem)) from problem


def _without_null(raw: Any) -> Any:
    """Return an object without the fields that are null, and so its packages."""
    if not isinstance(raw, Mapping):
        return raw
    kept = {key: value for key, value in raw.items() if value is not None}
    if isinstance(kept.get("packages"), list):
        kept["packages"] = [_without_null(package) for package in kept["packages"]]
    return kept


def _problem(path: str, prefix: str, problem: Exception) -> Problem:
    """Return msgspec's message with its place moved into the problem's path."""
    text = str(problem)
    found = _PLACE.search(text)
    places = [prefix, found.group(1) if found else ""]
    place = ".".join(part for part in places if part).replace(".[", "[")
    return Problem(f"{path}: {place}" if place else path, _PLACE.sub("", text))


def _head_problems(inventory: Inventory, path: str) -> Iterator[Problem]:
    if inventory.schema != SCHEMA:
        yield Problem(f"{path}: schema", f"{inventory.schema}, but {SCHEMA} is what can be read")
    if inventory.platform not in PLATFORMS:
        yield Problem(f"{path}: platform", f"unknown: {inventory.platform!r}")
    if not _HOST.fullmatch(inventory.host):
        yield Problem(f"{path}: host", f"not a host's name: {inventory.host!r}")


def _package_problems(package: InstalledPackage, place: str) -> Iterator[Problem]:
    for field in ("name", "version"):
        if not _NAME.fullmatch(getattr(package, field)):
            yield Problem(f"{place}.{field}", f"not a package's: {getattr(package, field)!r}")
    for field in ("release", "arch"):
        text = getattr(package, field)
        if text and not _NAME.fullmatch(text):
            yield Problem(f"{place}.{field}", f"not a package's: {text!r}")
    for field in ("epoch", "buildtime", "installtime", "size"):
        if not 0 <= getattr(package, field) < 2**63:
            yield Problem(f"{place}.{field}", "out of range")
    if not _DIGEST.fullmatch(package.digest):
        yield Problem(f"{place}.digest", f"not a digest: {package.digest!r}")
    if package.reason not in REASONS:
        yield Problem(f"{place}.reason", f"unknown: {package.reason!r}")
    for field in DEPENDENCY_FIELDS:
        for number, (name, flags, evr) in enumerate(getattr(package, field)):
            if not name or flags not in FLAGS or bool(flags) != bool(evr):
                yield Problem(f"{place}.{field}[{number}]", "expected [name, flags, evr]")


def merge_thin(
    head: Mapping[str, Any],
    pairs: Sequence[Sequence[Any]],
    known: Mapping[str, InstalledPackage | Mapping[str, Any]],
    path: str = "inventory",
) -> Inventory:
    """Return the whole inventory that a thin answer stands for.

    Args:
        head: the inventory without packages; its `named_files` maps digests to the files that
            this host's dependencies name beyond those every host's details have.
        pairs: `[digest, installtime, reason, seal]` of each installed package.
        known: details by digest, without `installtime` and `reason`.
        path: where it is from, for messages.

    Raises:
        InputError: the parts are not of the format, a digest is not known, or the cookie is not
            that of the pairs.
    """
    named = _named_files(head, path)
    _check_pairs(pairs, known, path)
    packages = []
    for digest, installtime, reason, *_ in pairs:
        package = _as_package(known[digest], path)
        own = {"installtime": installtime, "reason": reason}
        if digest in named:
            own["files"] = tuple(sorted({*package.files, *named[digest]}))
        packages.append(msgspec.structs.replace(package, **own))
    packages.sort(key=_package_order)
    document = {key: value for key, value in head.items() if key != "named_files"}
    inventory = decode_inventory({**document, "packages": packages}, path)
    if inventory.cookie != cookie_of([(pair[0], pair[1]) for pair in pairs]):
        raise InputError(Problem(f"{path}: cookie", "not that of the packages it came with"))
    return inventory


def _named_files(head: Mapping[str, Any], path: str) -> dict[str, list[str]]:
    if not isinstance(head, Mapping):
        raise InputError(Problem(f"{path}: head", "expected an object"))
    try:
        return msgspec.convert(head.get("named_files") or {}, dict[str, list[str]])
    except msgspec.ValidationError as problem:
        raise InputError(_problem(path, "named_files", problem)) from problem


def _check_pairs(pairs: Sequence[Sequence[Any]], known: Iterable[str], path: str) -> None:
    problems = []
    for number, pair in enumerate(pairs):
        match pair:
            case [str(digest), int(), str(), *_]:
                if digest not in known:
                    text = f"no details of {digest}"
                    problems.append(Problem(f"{path}: packages[{number}]", text))
            case _:
                text = "expected [digest, installtime, reason]"
                problems.append(Problem(f"{path}: packages[{number}]", text))
    if problems:
        raise InputError(problems[:MAX_PROBLEMS])


def _as_package(details: InstalledPackage | Mapping[str, Any], path: str) -> InstalledPackage:
    if isinstance(details, InstalledPackage):
        return details
    try:
        return msgspec.convert(details, InstalledPackage)
    except msgspec.ValidationError as problem:
        raise InputError(_problem(path, "packages", problem)) from problem


def _package_order(package: InstalledPackage) -> tuple[str | int, ...]:
    """Packages stand in the order in which the host's own whole inventory has them."""
    return (
        package.name, package.arch, package.epoch, package.version, package.release,
        package.digest, package.installtime,
    )  # fmt: skip


PYTHONS = ("/usr/libexec/platform-python", "/usr/bin/python3", "/usr/bin/python2")


def local_inventory(root: Path | None) -> bytes:
    """Return the inventory of this machine, or of the tree `root`, as the agent's JSON.

    Raises:
        InputError: there is no database, or it is damaged.
        HostError: no Python of the system's runs.
    """
    python = next((name for name in PYTHONS if os.access(name, os.X_OK)), None)
    if python is None:
        raise HostError(f"none of the system's Pythons is here: {', '.join(PYTHONS)}")
    command = [python, "-Es", str(agent_path()), "inventory"]
    command += [] if root is None else ["--root", str(root)]
    process = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=_clean_environment(),
        check=False,
    )  # fmt: skip
    if process.returncode == 0:
        return process.stdout
    message = process.stderr.decode(errors="replace").strip()
    if process.returncode == 2:
        raise InputError(message.partition(": ")[2] or message)
    raise HostError(message or f"the agent ended with {process.returncode}")


def agent_path() -> Path:
    """Return the agent's file, of the installed package or of the checkout."""
    spec = importlib.util.find_spec("cpacman._modules")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    folders.append(str(Path(__file__).resolve().parents[1] / "_modules"))
    for folder in folders:
        path = Path(folder) / "cpacman_agent.py"
        if path.is_file():
            return path
    raise HostError("cpacman_agent.py is missing: the installation is not whole")


def _clean_environment() -> dict[str, str]:
    """Return an environment in which Salt's or a venv's libraries do not reach the system's."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
    }
