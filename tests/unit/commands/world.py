"""A master without Salt: a real store, depot and mirrors of real packages, and hosts on paper.

`generation 2` of the packages is newer than `1`; each is built once a session. Hosts answer
nothing: their inventories are put into the store, as fresh as the world's clock.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import createrepo_c
import msgspec
import yaml

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.config import load_settings
from cpacman.depot.pool import Pool
from cpacman.model import Action, InstalledPackage, Inventory, OsRelease, Request
from cpacman.signing import load_plan_key
from cpacman.store import Store
from cpacman.transport.port import UNREACHABLE, Answer
from lab.rpms import write_metadata
from tests.bench.fleet import _installed

GENERATIONS: Mapping[str, Mapping[str, str]] = {
    "1": {"app": "Requires: lib", "lib": "", "tool": "", "agent": "", "old": "", "twin": "",
          "kernel-core": "Provides: installonlypkg(kernel)"},
    "2": {"app": "Requires: lib >= 2", "lib": "", "tool": "", "agent": "Requires: helper",
          "helper": "", "fresh": "Obsoletes: old", "needy": "Requires: nowhere", "twin": "",
          "plugin": "Requires: app >= 2", "kernel-core": "Provides: installonlypkg(kernel)"},
    "3": {"app": "Requires: nowhere", "lib": "", "tool": "Requires: agent >= 2"},
}  # fmt: skip
"""Version -> package -> what its spec says besides; `twin` is noarch in 1 and x86_64 later."""

HEAD = "Name: all{version}\nVersion: {version}\nRelease: 1\nSummary: s\nLicense: none\n"
PART = """\
%package -n {name}
Summary: s
{arch}
{more}
%description -n {name}
d
%files -n {name}
"""


@functools.cache
def packages(top: Path) -> dict[str, Path]:
    """Build every package and return the files by NEVRA."""
    for version, names in GENERATIONS.items():
        body = [HEAD.format(version=version), "%description\nd\n"]
        for name, more in names.items():
            arch = "" if name == "twin" and version != "1" else "BuildArch: noarch"
            body.append(PART.format(name=name, more=more, arch=arch))
        spec = top / f"all{version}.spec"
        spec.write_text("".join([*body, "%changelog\n"]))
        build(top, spec)
    return {path.stem: path for path in (top / "RPMS").rglob("*.rpm")}


def build(top: Path, spec: Path, vendor: str = "V") -> None:
    """Build what a spec says, below `top`."""
    define = ["--define", f"_topdir {top}", "--define", f"vendor {vendor}"]
    define += ["--define", "debug_package %{nil}", "--define", f"_dbpath {top}/db"]
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--nodeps", *define, str(spec)],
        check=True, timeout=600, env={"HOME": str(top), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


EVERYTHING = Request()


class Directory:
    """The accepted hosts, which are known by nothing but their ids."""

    def __init__(self, world: World) -> None:
        self._world = world

    def accepted(self) -> list[str]:
        """All that have an inventory, or are named as such."""
        return sorted(self._world.hosts)

    def transport_of(self, host: str) -> str:
        """All have a minion."""
        return "publish"

    def match(self, target: str, target_type: str) -> list[str]:
        """Only exact ids."""
        return [host for host in self.accepted() if host == target]

    def grains(self, hosts: Sequence[str]) -> dict[str, Any]:
        """Nobody tells any."""
        return {}

    def fingerprints(self, hosts: Sequence[str]) -> dict[str, str]:
        """Each has a key of its own, unless a test says which."""
        return {host: self._world.keys.get(host, f"key of {host}") for host in hosts}

    def pillars(self, hosts: Any, grains: Any) -> dict[str, Any]:
        """There are none, unless a test says what they are."""
        return self._world.pillars


class Nobody:
    """A transport whose hosts don't answer."""

    name = "fake"

    def check(self, targets: Sequence[str]) -> list[Any]:
        """Never object."""
        return []

    def call(self, function: str, requests: Mapping[str, Any], *, timeout: float) -> list[Answer]:
        """Return an answer for each host: that there is none."""
        return [Answer(host, {}, UNREACHABLE, "no answer") for host in requests]


class Present(Nobody):
    """Hosts that say that nothing changed since the world put them there."""

    def __init__(self, world: World) -> None:
        self._world = world

    def call(self, function: str, requests: Mapping[str, Any], *, timeout: float) -> list[Answer]:
        """Answer with the head that the store has."""
        assert function in ("inventory", "pin")
        heads = self._world.store.inventory_heads()
        said = {"unchanged": True, "pinned": self._world.context().key.fingerprint}
        return [
            Answer(host, {**said, "head": msgspec.to_builtins(heads[host][0])}) for host in requests
        ]


class World:
    """Everything that commands work with, below one directory."""

    def __init__(self, base: Path, files: Mapping[str, Path]) -> None:
        self.base, self.files = base, files
        (base / "hosts.d").mkdir(exist_ok=True)
        self.now = 1_800_000_000.0
        self.hosts: set[str] = set()
        self.keys: dict[str, str] = {}
        self.pillars: dict[str, Any] = {}
        self.machines: dict[str, str] = {}
        self.kernel = "1-1.noarch"
        self.section: dict[str, Any] = {}
        self.members: dict[str, Any] = {}
        self.store = Store.open(f"sqlite:///{base}/state/cpacman.db")
        self.configure()

    def configure(self, **section: Any) -> None:
        """Set the `cpacman:` section, over that of all tests."""
        repositories = {"base": {"path": str(self.base / "base")}}
        match = {"id_like": "rhel", "major": 9, "arch": "x86_64"}
        self.section = {
            "membership": {
                "hosts_d": str(self.base / "hosts.d"),
                "sources": ["files"],
                "on_new": "accept",
            },
            "state_dir": str(self.base / "state"),
            "channels": {"el9": {"match": match, "repositories": repositories}},
            "classes": ["development", "testing", "production"],
            **section,
        }

    def repositories(self, **repositories: Mapping[str, Any]) -> None:
        """Give the channel these repositories, each with its flags; paths are made up."""
        self.section["channels"]["el9"]["repositories"] = {
            name: {"path": str(self.base / name), **flags} for name, flags in repositories.items()
        }

    def mirror(
        self,
        *nevras: str,
        name: str = "base",
        advisories: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Make a mirror of these packages and no others, as somebody's reposync would."""
        folder = self.base / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for nevra in nevras:
            shutil.copy2(self.files[nevra], folder)
        write_metadata(folder, advisories or {})

    def rebuild(self, nevra: str, name: str = "base", vendor: str = "Other") -> None:
        """Let a mirror have another build of a noarch package, in the place of its own if any."""
        package, version, _ = nevra.rsplit("-", 2)
        top = self.base / "rebuilt"
        top.mkdir(exist_ok=True)
        spec = top / f"{package}.spec"
        text = HEAD.format(version=version).replace(f"all{version}", package)
        spec.write_text(f"{text}BuildArch: noarch\n%description\nd\n%files\n%changelog\n")
        build(top, spec, vendor)
        shutil.copy2(top / "RPMS" / "noarch" / f"{nevra}.rpm", self.base / name)
        write_metadata(self.base / name, {})

    def host(self, name: str, class_: str, *nevras: str, **meta: Any) -> None:
        """Set up a host, or let it have other packages now."""
        self.hosts.add(name)
        self.members[name] = {"class": class_, "meta": meta}
        (self.base / "hosts.d" / "all.yaml").write_text(yaml.safe_dump(self.members))
        self.store.put_inventory(
            Inventory(
                host=name, arch="x86_64", cookie=" ".join(nevras), kernel=self.kernel,
                facts={"machine_id": self.machines.get(name, f"machine of {name}")},
                packages=tuple(self.installed(nevra) for nevra in nevras),
                os=OsRelease(id="centos", id_like="rhel", version_id="9"),
            ),
            at=self.now,
        )  # fmt: skip

    def later(self, seconds: float) -> None:
        """Let time pass; afterwards all hosts were asked again."""
        self.now += seconds
        for host, (head, _) in self.store.inventory_heads().items():
            self.store.renew_inventory(head, at=self.now) if host in self.hosts else None

    def installed(self, nevra: str) -> InstalledPackage:
        """Return a package as a host that has it reports it."""
        return _installed(createrepo_c.package_from_rpm(str(self.files[nevra])))

    def context(self, who: str = "me", transport: Any = None) -> Context:
        """Return what a command is given."""
        settings = load_settings(self.section, source="test", base=self.base)
        settings.state_dir.mkdir(exist_ok=True)
        return Context(
            settings=settings, store=self.store, pool=Pool(settings.depot),
            key=load_plan_key(settings.state_dir), directory=Directory(self),  # type: ignore[arg-type]
            transport=transport or Nobody(), who=who, clock=lambda: self.now,
        )  # fmt: skip

    def roll(
        self,
        class_: str,
        outcomes: Mapping[str, str] | None = None,
        request: Request = EVERYTHING,
    ) -> str:
        """Plan a class and let every host end: as said, else `applied`, or `unchanged`.

        What is applied is on the host afterwards.
        """
        body = plan(self.context(), Selection(class_=class_), request=request)["plan"]
        stored = self.store.plan(body["plan_id"])
        number = f"r-{len(self.store.rollouts()) + 1}"
        header = {"id": number, "plan": stored.plan.plan_id, "class": class_, "state": "running",
                  "who": "me", "owner": "here"}  # fmt: skip
        hosts = sorted(stored.plan.hosts.items())
        self.store.start_rollout(header, [(h, "all", t) for h, t in hosts], at=self.now)
        for host, transaction in hosts:
            actions = stored.plan.transactions[transaction].actions
            outcome = (outcomes or {}).get(host, "applied" if actions else "unchanged")
            self.store.end_host(
                number, host, expected="waiting", outcome=outcome, at=self.now, who="me"
            )
            if outcome == "applied":
                self._apply(host, actions)
        self.store.end_rollout(number, state="done", at=self.now, who="me")
        return number

    def _apply(self, host: str, actions: Sequence[Action]) -> None:
        have = {package.nevra for package in self.store.inventories([host])[host].packages}
        for action in actions:
            have.discard(action.from_ or "")
            have.add(action.nevra) if action.sha256 else have.discard(action.nevra)
        self.host(host, self.members[host]["class"], *sorted(have))

    def held(self, class_: str, channel: str = "el9") -> str:
        """Return the snapshot that a class points at."""
        return str(self.store.pointers()[class_, channel]["snapshot"])

    def journal(self) -> list[tuple[str, str]]:
        """Return action and subject of every entry."""
        return [(entry["action"], entry["subject"]) for entry in self.store.history()]
