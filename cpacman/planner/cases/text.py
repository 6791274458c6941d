"""Planner cases as text: one file holds repositories, hosts, policy, request and what is expected.

A case file reads like this; indentation matters, order of lines does not:

    # One sentence: what the case shows.
    repo base                              (words after the name: noautoupdate, priority=50)
      httpd-2.4-2.x86_64
        requires: apr >= 1.7, /usr/bin/env (also provides, conflicts, obsoletes, recommends, ...)
        vendor: Example                    (one word, default V; `-` is none; also buildtime, files,
                                            of what is installed origin)
    advisory ADV-1 reboot                  (packages; type=security severity=Low CVE-1 may follow)
      httpd-2.4-2.x86_64
    modules base                           (streams; also requires: perl:5.26, version, context)
      nodejs:18
        artifacts: nodejs-18-1.x86_64
        default: yes
    installed web1 modules=nodejs:18       (a host; several may be given; the name may be left out;
                                            also disabled=MODULE, kernel=, arch=)
      httpd-2.4-1.x86_64
    holds                                  (what every host holds itself)
      versionlock: httpd-2.4-1.*
    policy                                 (also without: REPO, installonly_limit: 2, weak_deps: no)
      lock: httpd                          (`policy level` and the like: lines of that place)
      pin: httpd to base
      vendors: httpd nginx to A B          (vendors that may replace each other, `_` is a space)
    request
      upgrade: httpd                       (or any other field; nothing means update all)
    expect                                 (of every host, or of `expect web1`)
      upgrade httpd-2.4-2.x86_64 from httpd-2.4-1.x86_64 (update) ADV-1
    held
      httpd-2.4-1.x86_64 -> httpd-2.4-3.x86_64 lock: words that the detail must contain
    failed requires
      words that the causes must contain

`(reason)` and advisories are looked at when they are given.

A `#` at the beginning of a line, or after a space, begins a comment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from cpacman.errors import InputError, Problem
from cpacman.model import Dependency
from cpacman.planner.actions import split_nevra

DEPENDENCIES = (
    "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements",
    "enhances",
)  # fmt: skip

KINDS = (
    "repo", "advisory", "modules", "installed", "holds", "policy", "request", "expect", "held",
    "failed", "differs",
)  # fmt: skip
"""The words that a section begins with."""

_COMMENT = re.compile(r"(?:^|\s)#.*")


class Pkg(NamedTuple):
    """A package of a case: its NEVRA and what was said of it."""

    nevra: str
    said: dict[str, str]

    def deps(self, kind: str) -> tuple[Dependency, ...]:
        """Return one kind of its dependencies."""
        return tuple(_dependency(text) for text in split(self.said.get(kind, "")))

    @property
    def files(self) -> tuple[str, ...]:
        """The paths it owns."""
        return tuple(split(self.said.get("files", "")))

    @property
    def vendor(self) -> str:
        """Its vendor; `-` is none."""
        vendor = self.said.get("vendor", "V")
        return "" if vendor == "-" else vendor

    @property
    def provides(self) -> tuple[Dependency, ...]:
        """What it provides, itself included as rpm does."""
        name, evr, _ = split_nevra(self.nevra)
        return ((name, "=", evr), *self.deps("provides"))


class Section(NamedTuple):
    """A headline and the lines under it, each with its own lines under it."""

    words: tuple[str, ...]
    lines: tuple[tuple[str, dict[str, str]], ...]


def split(text: str) -> list[str]:
    """Return the parts of a list."""
    return [part.strip() for part in text.split(", ") if part.strip()]


def _dependency(text: str) -> Dependency:
    if text.startswith("("):
        return (text, "", "")
    name, _, rest = text.partition(" ")
    flags, _, evr = rest.partition(" ")
    return (name, flags, evr)


def read_sections(text: str, path: str = "case") -> list[Section]:
    """Return the sections of a case.

    Raises:
        InputError: lines that stand nowhere, each with its number.
    """
    found: list[tuple[tuple[str, ...], list[tuple[str, dict[str, str]]]]] = []
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        body = _COMMENT.sub("", line).rstrip()
        depth = len(body) - len(body.lstrip(" "))
        if not body:
            continue
        if depth == 0 and body.split()[0] in KINDS:
            found.append((tuple(body.split()), []))
        elif depth == 2 and found:
            found[-1][1].append((body.strip(), {}))
        elif depth > 2 and found and found[-1][1]:
            key, _, value = body.strip().partition(":")
            said = found[-1][1][-1][1]
            said[key] = f"{said[key]}, {value.strip()}" if key in said else value.strip()
        else:
            what = f"{body.strip()[:60]!r} stands below nothing, or is no section"
            problems.append(Problem(f"{path}:{number}", what, f"there are: {', '.join(KINDS)}"))
    if problems:
        raise InputError(problems[:20])
    return [Section(words, tuple(lines)) for words, lines in found]


class Case(NamedTuple):
    """A case file."""

    title: str
    sections: list[Section]

    def of(self, kind: str) -> list[Section]:
        """Return the sections of a kind."""
        return [s for s in self.sections if s.words[0] == kind]


def read_case(path: Path) -> Case:
    """Read a case file, whose first line says what it shows.

    Raises:
        InputError: it can't be read, or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be read: {error.strerror}")) from error
    except UnicodeDecodeError:
        raise InputError(Problem(str(path), "is no text")) from None
    if not text.strip():
        raise InputError(Problem(str(path), "is empty"))
    return Case(text.splitlines()[0].lstrip("# "), read_sections(text, str(path)))


def packages(section: Section) -> list[Pkg]:
    """Return the packages of a section."""
    return [Pkg(nevra, said) for nevra, said in section.lines]
