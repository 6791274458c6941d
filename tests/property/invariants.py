"""What dnf would do and CPacMan does not, written a second time: as what dnf is told to leave out.

Invariant: nothing here is the planner's code but the order of versions, so that a rule which the
planner gets wrong shows as a difference. What a rule keeps away beforehand is left out at once;
what is only wrong in what dnf answers is left out of the next answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from cpacman.planner.actions import split_nevra
from tests.property.soundness import compare, is_met, meets
from tests.unit.planner.casefile import Case, Pkg, Section, packages

PROTECTED = ("sudo",)
"""The protected packages that dnf is told of: a kernel may leave when it is one too many."""

_NEVER_REPLACED = (*PROTECTED, "kernel-core")


class Row(NamedTuple):
    """A package, and the repository that offers it (or nothing: it is installed)."""

    repository: str
    package: Pkg

    @property
    def name(self) -> str:
        """Its name."""
        return split_nevra(self.package.nevra)[0]

    @property
    def evr(self) -> str:
        """Its version."""
        return split_nevra(self.package.nevra)[1]

    @property
    def arch(self) -> str:
        """Its architecture."""
        return split_nevra(self.package.nevra)[2]

    @property
    def buildtime(self) -> int:
        """When it was built."""
        return int(self.package.said.get("buildtime", 0))

    @property
    def is_beside(self) -> bool:
        """Whether it is installed beside its other versions."""
        return any(name.startswith("installonlypkg(") for name, _, _ in self.package.provides)


class World:
    """What a case offers one host, and what must not come to it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sections: Mapping[str, Section] = {s.words[1]: s for s in case.of("repo")}
        self.offered = [Row(r, p) for r, s in self.sections.items() for p in packages(s)]
        self.installed = [Row("", p) for s in case.of("installed") for p in packages(s)]
        self.closed = {r for r, s in self.sections.items() if "noautoupdate" in s.words}
        self.named = _named(case)
        self.policy = [_line(text) for s in case.of("policy") for text, _ in s.lines]

    def lines(self, kind: str) -> Iterator[tuple[list[str], str]]:
        """Yield the words of each line of a kind, and where a pin pins to."""
        yield from ((words, to) for said, words, to in self.policy if said == kind)

    @property
    def excluded(self) -> list[str]:
        """The words of excludes, those of the request, too."""
        asked = [t for s in self.case.of("request") for t, _ in s.lines if t.startswith("exclude:")]
        own = [word for words, _ in self.lines("exclude") for word in words]
        return [*own, *(text.partition(": ")[2] for text in asked)]

    def allows(self, kind: str, name: str) -> bool:
        """Return whether a line of a kind names a package."""
        return any(fnmatchcase(name, w) for words, _ in self.lines(kind) for w in words)

    def of_name(self, name: str) -> list[Row]:
        """Return what counts of the installed packages of a name: of kernels the newest."""
        rows = [r for r in self.installed if r.name == name]
        if len(rows) > 1 and all(r.is_beside for r in rows):
            return [max(rows, key=lambda r: int(r.evr.partition("-")[2]))]
        return rows

    def forbidden(self) -> dict[tuple[str, str], str]:
        """Return repository and NEVRA of what is offered and must not come, with the rule."""
        found = {}
        for row in self.offered:
            rule = next((name for name, is_ in _RULES.items() if is_(self, row)), "")
            if rule:
                found[row.repository, row.package.nevra] = rule
        return found

    def meant(self, words: Iterable[str]) -> list[Row]:
        """Return the installed packages that some words mean."""
        return [r for r in self.installed if any(_is_named(word, r) for word in words)]

    def named_by(self, word: str) -> list[Row]:
        """Return what is offered and meant by a word."""
        return [r for r in self.offered if _is_named(word, r)]

    def is_provided(self, word: str) -> bool:
        """Return whether a word names no package, but what an installed one provides or owns."""
        return self.gives(word, self.installed) and not self.named_by(word)

    def gives(self, word: str, rows: Iterable[Row]) -> bool:
        """Return whether one of some packages provides what a word says, or owns it."""
        have = {n for r in rows for n in (*r.package.files, *_names_of(r.package))}
        return word.split(" ")[0] in have

    def stays(self, row: Row) -> bool:
        """Return whether a package must not be removed, even when it is named."""
        words = [word for found, _ in self.lines("lock") for word in found]
        version = f"{row.evr}.x86_64"
        running = any(f"kernel={version}" in s.words for s in self.case.of("installed"))
        kept = row.name in _NEVER_REPLACED or (running and row.name.startswith("kernel"))
        return kept or any(_is_locked_here(word, row) for word in words)

    def is_elsewhere(self, words: Iterable[str]) -> bool:
        """Return whether a word means a name in an architecture that is not the installed one."""
        here = {(r.name, r.arch) for r in self.installed}
        meant = ([r for r in self.offered if _is_with_arch(word, r)] for word in words)
        return any(rows and here.isdisjoint((r.name, r.arch) for r in rows) for rows in meant)

    def is_of_pair(self, nevra: str) -> bool:
        """Return whether an installed package is there in several architectures."""
        names = {row.name for row in self.installed if row.package.nevra == nevra}
        return len({row.arch for row in self.installed if row.name in names}) > 1

    def is_version_named(self, row: Row) -> bool:
        """Return whether a word names a package with its version: then its origin is meant, too."""
        asked = {t for s in self.case.of("request") for t, _ in s.lines}
        modes = ("sync", "security", "advisory:", "severity:")
        words = [] if any(text.startswith(modes) for text in asked) else self.named
        plain = (row.name, f"{row.name}.{row.arch}")
        return any(
            _is_named(word, row) and not any(fnmatchcase(form, word) for form in plain)
            for word in words
        )

    def priorities(self) -> Iterator[tuple[str, str]]:
        """Yield the repositories with a priority, and the word that says it."""
        for name, section in self.sections.items():
            yield from ((name, word) for word in section.words if word.startswith("priority="))

    def is_closed(self) -> bool:
        """Return whether what is installed has all that it needs, as far as is told simply."""
        have = [row.package for row in self.installed]
        return all(is_met(need, have) for p in have for need in p.deps("requires"))

    def is_here(self, row: Row) -> bool:
        """Return whether the very version is installed."""
        return any(r.package.nevra == row.package.nevra for r in self.installed)


def _names_of(package: Pkg) -> list[str]:
    return [name for name, _, _ in package.provides]


def _line(text: str) -> tuple[str, list[str], str]:
    kind, _, rest = text.partition(":")
    words, _, to = rest.partition(" to ")
    return kind, words.split(), to.strip()


def _named(case: Case) -> list[str]:
    """Return what is asked to be there."""
    rows = [text.partition(": ") for s in case.of("request") for text, _ in s.lines]
    return [word for kind, _, word in rows if kind in ("install", "upgrade")]


# What is kept away beforehand


def _colors(arch: str) -> set[int]:
    return {32, 64} if arch == "noarch" else {64 if "64" in arch else 32}


def _is_arch_change(world: World, row: Row) -> bool:
    have = {r.arch for r in world.of_name(row.name)}
    clash = any(_colors(arch) & _colors(row.arch) for arch in have)
    return clash and row.arch not in have and not world.allows("arch_change", row.name)


def _is_vendor_change(world: World, row: Row) -> bool:
    have = world.of_name(row.name)
    same = [r for r in have if r.arch == row.arch]
    rivals = same or [r for r in have if _colors(r.arch) & _colors(row.arch)]
    changed = any(r.package.vendor not in ("", row.package.vendor) for r in rivals)
    return changed and not world.is_here(row) and not world.allows("vendor_change", row.name)


def _origins(world: World, row: Row) -> set[str]:
    """Return the repositories that the installed packages of a name are known to be from."""
    have = world.of_name(row.name)
    if not have or len(world.sections) < 2 or not have[-1].buildtime:
        return set()
    one = have[-1]
    key = (one.package.nevra, one.buildtime, one.package.vendor)
    return {
        r.repository
        for r in world.offered
        if (r.package.nevra, r.buildtime, r.package.vendor) == key
    }


def _is_origin_change(world: World, row: Row) -> bool:
    homes = _origins(world, row)
    foreign = bool(homes) and row.repository not in homes
    open_ = world.is_here(row) or world.is_version_named(row)
    return foreign and not open_ and not world.allows("origin_change", row.name)


def _parts_multilib(world: World, row: Row) -> bool:
    have = world.of_name(row.name)
    own = [r for r in have if r.arch == row.arch]
    rest = [r for r in have if r.arch != row.arch]
    if not own or not rest or len({r.evr for r in have}) > 1 or compare(row.evr, own[0].evr) <= 0:
        return False
    there = {r.arch for r in world.offered if (r.name, r.evr) == (row.name, row.evr)}
    return not {r.arch for r in rest} <= there


_RANGE = re.compile(r"([^<>=]+)(<=|<|=)(.+)")


def _is_locked(world: World, row: Row) -> bool:
    words = [word for words, _ in world.lines("lock") for word in words]
    return not world.is_here(row) and any(_locks(world, word, row) for word in words)


def _locks(world: World, word: str, row: Row) -> bool:
    if fnmatchcase(row.name, word):
        return bool(world.of_name(row.name))
    if fnmatchcase(f"{row.name}.{row.arch}", word):
        return any(r.arch == row.arch for r in world.of_name(row.name))
    if found := _RANGE.match(word):
        name, flags, evr = found.groups()
        return name == row.name and not meets((name, "=", row.evr), (name, flags, evr))
    kin = [r for r in (*world.installed, *world.offered) if r.name == row.name]
    return any(_is_named(word, r) for r in kin) and not _is_named(word, row)


def _is_named(word: str, row: Row) -> bool:
    """Return whether a word means a package: by name, name.arch, version, NEVRA; or a glob."""
    version = row.evr.rpartition("-")[0]
    bare = row.evr.rpartition(":")[2]
    forms = [row.name, f"{row.name}.{row.arch}", row.package.nevra, f"{row.name}-{row.evr}"]
    forms += [f"{row.name}-{version}", f"{row.name}-{bare}", f"{row.name}-{bare}.{row.arch}"]
    forms.append(f"{row.name}-{bare.rpartition('-')[0]}")
    return any(fnmatchcase(form, word) for form in forms)


def _is_with_arch(word: str, row: Row) -> bool:
    """Return whether a word means a package and says its architecture."""
    return word.endswith(f".{row.arch}") and _is_named(word, row)


def _is_excluded(world: World, row: Row) -> bool:
    """Return whether a line names a package; or a word what it provides, and no package."""
    if any(_is_named(w, row) for words, _ in world.lines("exclude") for w in words):
        return True
    wide = [w for w in world.excluded if not any(_is_named(w, r) for r in world.offered)]
    return any(fnmatchcase(name, w) for w in wide for name, _, _ in row.package.provides)


def _is_blocked(world: World, row: Row) -> bool:
    fixes = {s.words[1]: [n for n, _ in s.lines] for s in world.case.of("advisory")}
    words = [w for words, _ in world.lines("block") for w in words]
    exact = {nevra for w in words for nevra in fixes.get(w, ())}
    return row.package.nevra in exact or any(_is_named(w, row) for w in words if w not in fixes)


def _is_pinned_elsewhere(world: World, row: Row) -> bool:
    return any(to != row.repository for words, to in world.lines("pin") if row.name in words)


_RULES = {
    "exclude": _is_excluded,
    "block": _is_blocked,
    "pin": _is_pinned_elsewhere,
    "lock": _is_locked,
    "arch": _is_arch_change,
    "vendor": _is_vendor_change,
    "origin": _is_origin_change,
    "together": _parts_multilib,
}


# What is wrong in an answer

Step = tuple[str, str, Sequence[str]]
"""What comes, from which repository, and what leaves for it."""


def wrong(world: World, steps: Sequence[Step], *, older: bool) -> Iterator[tuple[str, str, str]]:
    """Yield repository and NEVRA of what an answer must do without, and the invariant."""
    here = {r.package.nevra: r for r in world.installed}
    offer = {(r.repository, r.package.nevra): r for r in world.offered}
    coming = [(offer[repo, nevra], olds) for nevra, repo, olds in steps if nevra]
    renewed = {o for new, olds in coming for o in olds if here[o].name == new.name}
    for new, olds in coming:
        for old in (here[o] for o in olds):
            rule = _wrong_with(world, new, old, renewed, older)
            if rule:
                yield new.repository, new.package.nevra, rule
    yield from _parted(world, coming)
    yield from _left_alone(world, coming)


def _wrong_with(world: World, new: Row, old: Row, renewed: set[str], older: bool) -> str:
    if old.name == new.name:
        return "downgrade" if not older and compare(new.evr, old.evr) < 0 else ""
    if old.package.nevra in renewed:
        return ""
    if old.name in _NEVER_REPLACED:
        return "protected"
    if old.package.vendor not in ("", new.package.vendor) and not world.allows(
        "vendor_change", old.name
    ):
        return "vendor"
    if any(_is_locked_here(w, old) for words, _ in world.lines("lock") for w in words):
        return "lock"
    if any(_is_named(w, old) for w in world.excluded) and not any(
        _is_named(word, new) for word in world.named
    ):
        return "exclude"
    homes = _origins(world, old)
    foreign = bool(homes) and new.repository not in homes
    return "origin" if foreign and not world.allows("origin_change", old.name) else ""


def _is_locked_here(word: str, old: Row) -> bool:
    found = _RANGE.match(word)
    return found[1] == old.name if found else _is_named(word, old)


def _parted(
    world: World, coming: Iterable[tuple[Row, Sequence[str]]]
) -> Iterator[tuple[str, str, str]]:
    """Yield what comes in a version that another installed architecture would not have."""
    coming = list(coming)
    gone = {o for _, olds in coming for o in olds}
    for name in sorted({new.name for new, _ in coming if not new.is_beside}):
        have = world.of_name(name)
        after = {r.arch: r.evr for r in have if r.package.nevra not in gone}
        rows = [new for new, _ in coming if new.name == name]
        after |= {r.arch: r.evr for r in rows}
        if len({r.evr for r in have}) == 1 and len(set(after.values())) > 1:
            apart = (r for r in rows if any(evr != r.evr for evr in after.values()))
            yield from ((r.repository, r.package.nevra, "together") for r in apart)


def _left_alone(
    world: World, coming: Iterable[tuple[Row, Sequence[str]]]
) -> Iterator[tuple[str, str, str]]:
    rows = {new.name: new for new, _ in coming}
    for words, _ in world.lines("together"):
        names = {r.name for r in world.installed if r.name in words}
        if names - rows.keys() and names & rows.keys():
            moved = (rows[name] for name in names & rows.keys())
            yield from ((r.repository, r.package.nevra, "together") for r in moved)
