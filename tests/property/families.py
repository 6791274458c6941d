"""Random families of packages: a case as a case file would have it, for each number.

Invariant: a number always gives the same case. Names have lineages: each version of a package is
mostly what the one before it was, so that most hosts are sound and most updates possible; what
makes an update impossible, or only possible in one way, is sprinkled over it. Each case has some
of `TRAITS` only, so that those it has meet each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.property.soundness import sound
from tests.unit.planner.casefile import Case, Pkg, Section

NAMES = ("a", "ab", "b", "c", "d", "e", "lib-f", "sudo")
LADDER = ("0.9", "1~rc1", "1", "1^git1", "1.1", "2~beta", "2", "10")
"""Versions from old to new."""

TRAITS = {
    "multilib": 0.25, "kinds": 0.3, "epoch": 0.25, "marks": 0.4, "rich": 0.3, "files": 0.4,
    "unlisted": 0.2, "conflicts": 0.3, "obsoletes": 0.35, "split": 0.2, "merge": 0.2,
    "cycle": 0.1, "weak": 0.4, "virtual": 0.4, "itself": 0.2, "vendors": 0.2, "origins": 0.15,
    "priority": 0.25, "twins": 0.2, "kernels": 0.2, "modules": 0.2, "broken": 0.2, "wild": 0.25,
}  # fmt: skip
"""What a case may be about, and how often it is."""

MODES = {
    "all": 36, "upgrade": 14, "install": 16, "remove": 7, "sync": 9, "security": 5, "severity": 3,
    "advisory": 6,
}  # fmt: skip
"""What is asked for, and how often."""


class Build(NamedTuple):
    """One version of a package, in one architecture: what is said of it, by kind."""

    name: str
    evr: str
    arch: str
    said: dict[str, tuple[str, ...]]

    @property
    def nevra(self) -> str:
        """As a case file writes it."""
        return f"{self.name}-{self.evr}.{self.arch}"

    @property
    def row(self) -> tuple[str, dict[str, str]]:
        """The line of a case file, and those under it."""
        return self.nevra, {kind: ", ".join(rows) for kind, rows in self.said.items() if rows}

    @property
    def pkg(self) -> Pkg:
        """As a package of a case."""
        return Pkg(*self.row)

    def having(self, kind: str, *rows: str) -> Build:
        """Return the same with more of one kind."""
        return self._replace(said={**self.said, kind: (*self.said.get(kind, ()), *rows)})


class Family:
    """One random case, put together step by step."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.random = random.Random(number)
        self.traits = {trait for trait, often in TRAITS.items() if self.random.random() < often}
        self.names = sorted(self.random.sample(NAMES, self.random.randint(3, 6)))
        self.versions = {name: self._versions() for name in self.names}
        self.lineages = {name: self._lineage(name) for name in self.names}
        self.ended: set[str] = set()
        self.heirs: set[str] = set()
        self._succeed()
        if "kernels" in self.traits:
            self.lineages |= self._kernels()
        self.installed = self._installed()
        self.repos = self._repos()

    def likely(self, chance: float, trait: str = "") -> bool:
        """Return true that often, and never in a case without the trait."""
        return (not trait or trait in self.traits) and self.random.random() < chance

    def pick(self, rows: Iterable[str]) -> str:
        """Return one of some words."""
        return self.random.choice(sorted(rows))

    # Packages

    def _versions(self) -> list[str]:
        ladder = LADDER if "marks" in self.traits else ("1", "1.1", "2", "10")
        found = sorted(self.random.sample(range(len(ladder)), self.random.randint(2, 4)))
        rows = [f"{ladder[i]}-{self.random.randint(1, 2)}" for i in found]
        if self.likely(0.4, "epoch"):
            first = self.random.randrange(len(rows))
            rows = [f"1:{row}" if i >= first else row for i, row in enumerate(rows)]
        return rows

    def _lineage(self, name: str) -> list[Build]:
        """Return the versions of a name, oldest first, in each of its architectures."""
        build = Build(name, "", "", {})
        for _ in range(self.random.randint(0, 2)):
            build = self._grown(build)
        found = []
        arches = self._arches()
        for evr in self.versions[name]:
            if self.likely(0.45):
                build = self._grown(build)
            if build.said and self.likely(0.2):
                lost = self.pick(build.said)
                build = build._replace(said={k: v for k, v in build.said.items() if k != lost})
            if self.likely(0.3, "kinds"):
                arches = self._arches()
            found += [self._said(build._replace(evr=evr, arch=arch)) for arch in arches]
        return found

    def _arches(self) -> tuple[str, ...]:
        if self.likely(0.6, "multilib"):
            return ("i686", "x86_64")
        if self.likely(0.15, "multilib"):
            return ("i686",)
        return ("noarch",) if self.likely(0.5, "kinds") else ("x86_64",)

    def _grown(self, build: Build) -> Build:
        """Return a build with one dependency more."""
        kinds = {"requires": 4, "provides": 1}
        kinds |= {"conflicts": 2} if "conflicts" in self.traits else {}
        kinds |= {"obsoletes": 2} if "obsoletes" in self.traits else {}
        if "weak" in self.traits:
            kinds |= {"recommends": 2, "supplements": 2, "suggests": 1, "enhances": 1}
        kind = self.random.choices(list(kinds), list(kinds.values()))[0]
        if kind == "provides":
            return self._providing(build)
        return build.having(kind, self._dependency(build.name, kind))

    def _providing(self, build: Build) -> Build:
        if self.likely(0.6, "files"):
            return build.having("files", f"/usr/bin/{self.pick('xyz')}")
        if self.likely(0.7, "unlisted"):
            return build.having("files", f"/opt/{self.pick('xy')}/data")
        if self.likely(0.8, "virtual"):
            word = self.pick(("virt", "soname()(64bit)"))
            return build.having("provides", self.pick((word, f"{word} = 1", f"{word} = 2-1")))
        return build.having("provides", f"{self.pick(NAMES)} = {self.pick(LADDER)}")

    def _dependency(self, owner: str, kind: str) -> str:
        if self.likely(0.25, "rich") and kind in ("requires", "recommends", "conflicts"):
            return self._rich(owner, kind)
        if kind in ("requires", "recommends"):
            if self.likely(0.3, "files"):
                return f"/usr/bin/{self.pick('xyz')}"
            if self.likely(0.4, "unlisted"):
                return f"/opt/{self.pick('xy')}/data"
            if self.likely(0.3, "itself"):
                return self.pick((owner, f"{owner} >= {LADDER[0]}"))
        if self.likely(0.3, "virtual"):
            word = self.pick(("virt", "soname()(64bit)"))
            return self.pick((word, f"{word} >= 2", f"{word} = 1"))
        return self._capability(owner, kind)

    def _capability(self, owner: str, kind: str) -> str:
        """Return a dependency on another name, mostly one that some version of it meets."""
        others = [n for n in (NAMES if self.likely(0.05) else self.names) if n != owner]
        name = self.pick(others)
        if self.likely(0.5):
            return name if kind not in ("obsoletes", "conflicts") else self._below(name)
        if self.likely(0.3, "wild"):
            return f"{name} {self.pick(('=', '<=', '>', '<'))} {self._version(name)}"
        if kind in ("obsoletes", "conflicts"):
            return self._below(name)
        return f"{name} >= {self._version(name)}"

    def _below(self, name: str) -> str:
        return f"{name} {self.pick(('<', '<', '<='))} {self._version(name)}"

    def _version(self, name: str) -> str:
        evr = self.pick(self.versions.get(name, LADDER))
        return evr.rpartition("-")[0] or evr if self.likely(0.5) else evr

    def _rich(self, owner: str, kind: str) -> str:
        rows = [n for n in self.names if n != owner]
        x, y = self._capability(owner, "requires"), self.pick(rows)
        if kind == "conflicts":
            return self.pick((f"({x} and {y})", f"({x} unless {y})"))
        z = self._capability(owner, "requires")
        return self.pick(
            (
                f"({x} if {y})", f"({x} or {y})", f"({x} and {z})", f"({x} if {y} else {z})",
                f"({x} if ({y} or {z}))", f"({y} >= 1 with {y} < 10)", f"({y} without {y} = 1)",
            )
        )  # fmt: skip

    def _said(self, build: Build) -> Build:
        """Return a build with what is about this very version."""
        if self.likely(0.25, "vendors"):
            build = build._replace(said={**build.said, "vendor": (self.pick(("W", "-")),)})
        if "origins" in self.traits:
            stamp = str(self.random.randint(1, 3))
            build = build._replace(said={**build.said, "buildtime": (stamp,)})
        if self.likely(0.3, "itself"):
            build = build.having("requires", f"{build.name} = {build.evr}")
        if self.likely(0.2, "itself") and "obsoletes" in self.traits:
            build = build.having("obsoletes", f"{build.name} < {build.evr}")
        return build

    # What comes in place of what

    def _succeed(self) -> None:
        """Let packages be split, merged, and obsolete each other in a circle."""
        if "split" in self.traits:
            old, *new = self.random.sample(self.names, 3)
            for name in new:
                self._obsolete(name, old, "<")
            self._end([old], new)
        if "merge" in self.traits:
            heir, *olds = self.random.sample(self.names, 3)
            for name in olds:
                self._obsolete(heir, name, "<")
            self._end(olds, [heir])
        if "cycle" in self.traits:
            one, two = self.random.sample(self.names, 2)
            self._obsolete(one, two, self.pick(("<", "")))
            self._obsolete(two, one, self.pick(("<", "")))

    def _end(self, olds: list[str], heirs: list[str]) -> None:
        """Let some names end with what is installed of them, mostly, or need their heirs."""
        if self.likely(0.75):
            self.ended.update(olds)
            self.heirs.update(heirs)
        else:
            self._obsolete_self(olds[0], heirs[0])

    def _obsolete(self, name: str, old: str, mark: str) -> None:
        """Let the newest version of a name obsolete another, and often provide it."""
        newest = self.lineages[name][-1].evr
        last = self.lineages[old][-1].evr
        word = old if self.likely(0.3) or not mark else f"{old} {self.pick(('<=', '<'))} {last}"
        self.lineages[name] = [
            self._instead(b.having("obsoletes", word), old) if b.evr == newest else b
            for b in self.lineages[name]
        ]

    def _instead(self, build: Build, old: str) -> Build:
        return build.having("provides", f"{old} = {build.evr}") if self.likely(0.6) else build

    def _obsolete_self(self, name: str, part: str) -> None:
        """Let the newest version of what is split need one of its parts."""
        last = self.lineages[name][-1].evr
        rows = self.lineages[name]
        self.lineages[name] = [b.having("requires", part) if b.evr == last else b for b in rows]

    def _kernels(self) -> dict[str, list[Build]]:
        core, modules = [], []
        for release in range(1, 7):
            evr = f"5-{release}"
            word = ("installonlypkg(kernel)",)
            core.append(Build("kernel-core", evr, "x86_64", {"provides": word}))
            said = {"provides": ("installonlypkg(kernel-module)",)}
            need = {"requires": (f"kernel-core = {evr}",)}
            modules.append(Build("kernel-modules", evr, "x86_64", {**said, **need}))
        return {"kernel-core": core, "kernel-modules": modules} if self.likely(0.7) else {
            "kernel-core": core
        }  # fmt: skip

    # Who has them

    def _installed(self) -> list[Build]:
        found: list[Build] = []
        for name, rows in self.lineages.items():
            if name.startswith("kernel"):
                found += rows[: self.random.randint(1, 4)] if name == "kernel-core" else []
            elif self.likely(0.97 if name in self.ended else 0.3 if name in self.heirs else 0.75):
                found += self._of_one_name(rows)
        cores = {b.evr for b in found if b.name == "kernel-core"}
        found += [b for b in self.lineages.get("kernel-modules", ()) if b.evr in cores]
        rest = [
            b for rows in self.lineages.values() for b in rows if not b.name.startswith("kernel")
        ]
        return sound(found, rest, broken="broken" in self.traits)

    def _of_one_name(self, rows: Sequence[Build]) -> Iterator[Build]:
        """Yield one version of a name, mostly an old one, in some of its architectures."""
        evrs = list(dict.fromkeys(b.evr for b in rows))
        evr = evrs[min(int(self.random.expovariate(1.5)), len(evrs) - 1)]
        same = [b for b in rows if b.evr == evr]
        if len(same) > 1 and self.likely(0.5):
            same = [self.random.choice(same)]
        yield from same

    def _repos(self) -> dict[str, list[Build]]:
        """Share the builds out, some of them to several repositories."""
        names = ["base", *(["more"] if self.likely(0.5) or "origins" in self.traits else [])]
        if self.traits & {"priority", "twins"}:
            names = ["base", "more", "third"][: self.random.randint(2, 3)]
        found: dict[str, list[Build]] = {name: [] for name in names}
        here = {b.nevra for b in self.installed}
        for build in (b for rows in self.lineages.values() for b in rows):
            if build.name in self.ended and build.nevra not in here:
                continue
            if self.likely(0.6 if build.nevra in here else 0.88):
                for name in self._shared(names):
                    found[name].append(self._twin(build) if name != "base" else build)
        return found

    def _shared(self, names: list[str]) -> list[str]:
        if self.likely(0.35, "twins"):
            return self.random.sample(names, 2)
        return [self.random.choice([names[0], *names])]

    def _twin(self, build: Build) -> Build:
        """Return what another repository may have under the same NEVRA: another build of it."""
        if not self.likely(0.3, "twins"):
            return build
        if self.likely(0.5):
            return self._grown(build)
        return build._replace(said={**build.said, "buildtime": ("9",)})


# ------------------------------------------------------------------------------ whole cases


def make_case(number: int) -> Case:
    """Return the random case of a number."""
    family = Family(number)
    sections = [*_repositories(family), *_modules(family), *_advisories(family)]
    sections.append(Section(_host(family, sections), _rows(family.installed)))
    sections += [Section((kind,), rows) for kind, rows in _asked(family, sections) if rows]
    return Case(f"Random family {number}.", sections)


def _rows(builds: Iterable[Build]) -> tuple[tuple[str, dict[str, str]], ...]:
    return tuple(b.row for b in sorted(builds, key=lambda b: (b.name, b.arch, b.evr)))


def _repositories(family: Family) -> Iterator[Section]:
    for name, builds in family.repos.items():
        words = ["repo", name]
        if family.likely(0.8, "priority"):
            words.append(f"priority={family.pick(('10', '50', '99'))}")
        if family.likely(0.2, "modules"):
            words.append("module_hotfixes")
        yield Section(tuple(words), _rows(builds))


def _modules(family: Family) -> Iterator[Section]:
    """Put some of the first repository into the streams of a module."""
    if "modules" not in family.traits:
        return
    own = [b for b in family.repos["base"] if not b.name.startswith("kernel")]
    lines = []
    for stream in ("1", "2"):
        some = family.random.sample(own, min(len(own), family.random.randint(1, 3)))
        said = {"artifacts": ", ".join(sorted(b.nevra for b in some))}
        if not lines and family.likely(0.4):
            said["default"] = "yes"
        lines.append((f"mod:{stream}", said))
    if family.likely(0.3):
        lines.append(
            ("other:9", {"requires": f"mod:{family.pick('12')}", "artifacts": "x-1-1.x86_64"})
        )
    yield Section(("modules", "base"), tuple(lines))


def _host(family: Family, sections: Sequence[Section]) -> tuple[str, ...]:
    words = ["installed", "h"]
    streams = [head for s in sections if s.words[0] == "modules" for head, _ in s.lines]
    if streams and family.likely(0.6):
        words.append(f"modules={family.pick(streams)}")
    if kernels := [b for b in family.installed if b.name == "kernel-core"]:
        words.append(f"kernel={kernels[-1].evr}.x86_64")
    return tuple(words)


def _advisories(family: Family) -> Iterator[Section]:
    """Let advisories deliver some of what is offered."""
    offered = sorted({b.nevra for rows in family.repos.values() for b in rows})
    for number in range(1, family.random.randint(2, 5)):
        some = family.random.sample(offered, min(len(offered), family.random.randint(1, 4)))
        kind = family.pick(("security", "security", "bugfix"))
        words = ["advisory", f"ADV-{number}", f"type={kind}", f"CVE-2026-{number}"]
        words.append(f"severity={family.pick(('Low', 'Important'))}")
        yield Section(tuple(words), tuple((nevra, {}) for nevra in sorted(some)))


_Lines = tuple[tuple[str, dict[str, str]], ...]


def _asked(family: Family, sections: Sequence[Section]) -> Iterator[tuple[str, _Lines]]:
    """Yield the request and the policy."""
    mode = family.random.choices(list(MODES), list(MODES.values()))[0]
    advisories = [s.words[1] for s in sections if s.words[0] == "advisory"]
    lines = list(_request(family, mode, advisories))
    if family.likely(0.2):
        lines.append(f"exclude: {_word(family)}")
    yield "request", tuple((line, {}) for line in lines)
    yield "policy", tuple((line, {}) for line in _policy(family))


def _request(family: Family, mode: str, advisories: Sequence[str]) -> Iterator[str]:
    if mode in ("upgrade", "install", "remove"):
        for _ in range(family.random.choice((1, 1, 2))):
            yield f"{mode}: {_spec(family, mode)}"
    elif mode == "advisory":
        yield f"advisory: {family.pick(advisories)}"
    elif mode == "severity":
        yield f"severity: {family.pick(('Low', 'Important'))}"
    elif mode != "all":
        yield mode
    if mode in ("security", "severity", "advisory") and family.likely(0.5):
        yield "minimal"


def _spec(family: Family, mode: str) -> str:
    """Return a word as a user would write it."""
    if mode == "install":
        builds = [b for rows in family.repos.values() for b in rows]
    else:
        builds = family.installed
        newer = [b for b in family.repos["base"] if b.name in {i.name for i in builds}]
        builds = newer if mode == "upgrade" and newer and family.likely(0.4) else builds
    if not builds:
        return family.pick(family.names)
    build = family.random.choice(sorted(builds, key=lambda b: b.nevra))
    name, bare = build.name, build.evr
    forms = [name, name, name, f"{name}.{build.arch}", f"{name}-{bare}", build.nevra]
    forms += [f"{name}-{bare.rpartition('-')[0]}", f"{name[0]}*"]
    if mode == "install":
        forms += [d for kind in ("provides", "files") for d in build.said.get(kind, ())]
    return family.random.choice(forms)


def _offered_name(family: Family) -> str:
    """Return a name that is offered: another one would mean who provides it."""
    names = {b.name for rows in family.repos.values() for b in rows}
    return family.pick(names & set(family.names) or family.names)


def _word(family: Family) -> str:
    """Return a word of policy: a name, a glob, a NEVRA, a version."""
    here = {b.nevra for b in family.installed}
    offered = sorted({b.nevra for rows in family.repos.values() for b in rows} - here)
    name = _offered_name(family)
    forms = [name, f"{name}*", f"{name}.x86_64", *([family.pick(offered)] if offered else [])]
    return family.random.choice(forms)


def _policy(family: Family) -> Iterator[str]:
    if family.likely(0.18):
        yield f"lock: {_locked(family)}"
    if family.likely(0.06):
        yield f"exclude: {_word(family)}"
    if family.likely(0.08):
        yield f"block: {family.pick(('ADV-1', _word(family)))}"
    if family.likely(0.06):
        yield f"pin: {_offered_name(family)} to {family.pick(family.repos)}"
    if family.likely(0.05) and len(family.installed) > 1:
        pair = family.random.sample(sorted({b.name for b in family.installed}), 2) if len(
            {b.name for b in family.installed}
        ) > 1 else []  # fmt: skip
        if pair:
            yield f"together: {' '.join(pair)}"
    for kind in ("arch_change", "vendor_change", "origin_change"):
        if family.likely(0.04):
            yield f"{kind}: {family.pick(family.names)}"
    if "kernels" in family.traits and family.likely(0.6):
        yield f"installonly_limit: {family.pick('0234')}"
    if "weak" in family.traits and family.number % 7 == 3:
        yield "weak_deps: no"


def _locked(family: Family) -> str:
    name = family.pick(family.names)
    evr = family.pick(family.versions[name])
    forms = [name, f"{name}.x86_64", f"{name}-{evr}", f"{name}-{evr}.*"]
    forms.append(f"{name}{family.pick(('<', '<=', '='))}{evr}")
    return family.random.choice(forms)
