"""A host in a directory with a shell, and a transaction of every kind of action to be killed in.

The oracle is the same transaction left alone: whatever was killed and recovered must end with the
very same packages and files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

from tests.unit.agent import agenthost
from tests.unit.agent.agenthost import AGENT, DATABASE, SYSTEM_PYTHON, run

PROGRAMS = ("/bin/sh", "/bin/sleep")
MARK = "var/lib/scriptlets"
SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: {name}
License: Test
BuildArch: noarch
{head}
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share/{folder}/deep %{{buildroot}}/etc/{folder}
for i in $(seq {files}); do echo {name} {version} $i > %{{buildroot}}/usr/share/{folder}/$i; done
ln %{{buildroot}}/usr/share/{folder}/1 %{{buildroot}}/usr/share/{folder}/hard
ln -s 1 %{{buildroot}}/usr/share/{folder}/soft
echo {version} > %{{buildroot}}/usr/share/{folder}/deep/v{version}
echo {name} {version} > %{{buildroot}}/etc/{folder}/changed
echo {name} > %{{buildroot}}/etc/{folder}/same
echo {name} {version} > %{{buildroot}}/etc/{folder}/kept
{scriptlets}
%files
/usr/share/{folder}
%dir /etc/{folder}
%config /etc/{folder}/changed
%config /etc/{folder}/same
%config(noreplace) /etc/{folder}/kept
"""
SCRIPTLET = """%{kind}
echo "{name}-{version} {kind} $1" >> /{mark}
sleep 0.03
"""
PACKAGES: tuple[dict[str, Any], ...] = (
    {"name": "data", "version": 1, "files": 150},
    {"name": "data", "version": 2, "files": 170},
    {"name": "tool", "version": 1, "files": 40},
    {"name": "tool", "version": 2, "files": 30, "head": "Requires: data >= 2"},
    {"name": "fresh", "version": 1, "files": 60, "head": "Requires: tool >= 2"},
    {"name": "gone", "version": 1, "files": 150},
    {"name": "before", "version": 1, "files": 40},
    {"name": "behind", "version": 2, "files": 40, "head": "Obsoletes: before < 2"},
    {"name": "low", "version": 1, "files": 20},
    {"name": "low", "version": 2, "files": 25},
    {"name": "kern", "version": 1, "files": 20, "folder": "kern1"},
    {"name": "kern", "version": 2, "files": 20, "folder": "kern2"},
    {"name": "again", "version": 1, "files": 20},
    {"name": "other", "version": 1, "files": 5, "head": "Provides: /bin/sh"},
)
BEFORE = ("data-1", "tool-1", "gone-1", "before-1", "low-2", "kern-1", "again-1", "other-1")
AFTER = ("data-2", "tool-2", "fresh-1", "behind-2", "low-1", "kern-1", "kern-2", "again-1",
         "other-1")  # fmt: skip
ACTIONS = (
    ("upgrade", "data-2", "data-1"), ("upgrade", "tool-2", "tool-1"), ("install", "fresh-1", None),
    ("remove", "gone-1", None), ("obsolete", "behind-2", "before-1"),
    ("downgrade", "low-1", "low-2"), ("install", "kern-2", None), ("reinstall", "again-1", None),
)  # fmt: skip
BACK = (
    ("downgrade", "data-1", "data-2"), ("downgrade", "tool-1", "tool-2"),
    ("remove", "fresh-1", None), ("install", "gone-1", None), ("remove", "behind-2", None),
    ("install", "before-1", None), ("upgrade", "low-2", "low-1"), ("remove", "kern-2", None),
    ("reinstall", "again-1", None),
)  # fmt: skip


def nevra(label: str) -> str:
    """Return the NEVRA for `name-version`."""
    return f"{label}-1.noarch"


def build(folder: Path) -> dict[str, Path]:
    """Build the packages; return their files by `name-version`."""
    built = {}
    for package in PACKAGES:
        values = {"head": "", "folder": package["name"], **package}
        label = f"{values['name']}-{values['version']}"
        values["scriptlets"] = "".join(
            SCRIPTLET.format(kind=kind, mark=MARK, **values)
            for kind in ("pre", "post", "preun", "postun")
        )
        spec = folder / f"{label}.spec"
        spec.write_text(SPEC.format(**values))
        run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}",
            "--define", f"_dbpath {folder}/none", spec)  # fmt: skip
        built[label] = folder / "RPMS" / "noarch" / f"{label}-1.noarch.rpm"
    return built


def libraries_of(program: str) -> list[Path]:
    """Return the libraries that a program needs."""
    words = run("ldd", program).stdout.decode().split()
    return [Path(word) for word in words if word.startswith("/")]


class Template:
    """The host before the transaction, made once and copied for each kill."""

    def __init__(self, folder: Path, rpms: dict[str, Path]) -> None:
        self.rpms = rpms
        self.root = folder / "root"
        (self.root / DATABASE[1:]).mkdir(parents=True)
        for part in ("var/tmp", "var/lib", "bin", "tmp"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            for source in [Path(program), *libraries_of(program)]:
                target = self.root / str(source)[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        rpm(self.root, "--initdb")
        rpm(self.root, "-i", "--nodeps", *[rpms[label] for label in BEFORE])
        for name in ("data", "low", "again", "gone"):
            (self.root / "etc" / name / "kept").write_text("edited by hand\n")
            (self.root / "etc" / name / "same").write_text("edited by hand, too\n")
        (self.root / MARK).unlink()
        self.cookie = json.loads(run(SYSTEM_PYTHON, AGENT, "state", "--root", self.root).stdout)
        self.agent = agenthost.load(AGENT, "cpacman_agent")


def rpm(root: Path, *arguments: object, check: bool = True) -> str:
    """Run rpm on a tree and return what it prints."""
    done = run(
        "rpm", "--root", root, "--dbpath", DATABASE, "--nosignature", *arguments, check=check
    )
    return done.stdout.decode()


class Victim:
    """A copy of the template with a staged session."""

    def __init__(self, template: Template, folder: Path, actions: Any = ACTIONS) -> None:
        self.template, self.agent = template, template.agent
        self.root = folder / "root"
        folder.mkdir(parents=True)
        run("cp", "-a", "--reflink=auto", template.root, folder)
        self.settings = {
            "host": "web1", "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"), "root": str(self.root), "lock_wait": 20,
        }  # fmt: skip
        self.sequence = 0
        self.session = self.stage(template.cookie["cookie"], actions, AFTER)

    def stage(self, cookie: str, actions: Any, after: Any, **other: Any) -> Path:
        """Take in a manifest, with its files; return the session's directory."""
        self.sequence += 1
        rows = [self.action(*action) for action in actions]
        rpms = {r["sha256"]: r for r in rows if r["sha256"]}
        files = [{"sha256": s, "size": r["size"], "name": r["nevra"]} for s, r in rpms.items()]
        lines = "".join(sorted(nevra(label) + "\n" for label in after))
        text = json.dumps({
            "schema": 1, "kind": "manifest", "host": "web1", "plan": "p-1", "transaction": "t-1",
            "session": f"r-{self.sequence}", "sequence": self.sequence, "nonce": "n", "created": 0,
            "expires": 1 << 40, "cookie": cookie, "actions": rows, "protected": [],
            "files": files, "after": hashlib.sha256(lines.encode()).hexdigest(), **other,
        })  # fmt: skip
        session = self.agent.begin(self.settings, text)["session"]
        for sha256, row in rpms.items():
            label = f"{row['name']}-{row['version']}"
            shutil.copy(self.template.rpms[label], Path(self.settings["cache_dir"]) / sha256)
        return Path(self.settings["state_dir"]) / "transactions" / session

    def action(self, kind: str, label: str, old: str | None) -> dict[str, Any]:
        """Return a plan's action."""
        name, version = label.rsplit("-", 1)
        row = {"action": kind, "name": name, "epoch": 0, "version": version, "release": "1",
               "arch": "noarch", "nevra": nevra(label), "from": nevra(old) if old else None,
               "sha256": None, "size": 0}  # fmt: skip
        if kind != "remove":
            data = self.template.rpms[label].read_bytes()
            row.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        return row

    def die(self, phase: str, number: int, delay: float, *, group: bool) -> None:
        """Apply and be killed on the way; or live, when that point never comes."""
        program = Path(__file__).with_name("dying.py")
        command = [SYSTEM_PYTHON, program, AGENT, self.session, phase, number, delay,
                   "group" if group else "alone"]  # fmt: skip
        subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, start_new_session=True, check=False)  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Return what the session says of itself once nobody works on it any more."""
        return agenthost.settled(self.agent, self.session)

    def apply(self) -> dict[str, Any]:
        """Start the session, as the master does again and again until there is a report."""
        return self.apply_session(self.session)

    def apply_session(self, session: Path) -> dict[str, Any]:
        """Start any session of this host."""
        return json.loads(run(SYSTEM_PYTHON, AGENT, "apply", session).stdout)

    def state(self) -> dict[str, str]:
        """Return cookie and digest of the packages as they are."""
        return json.loads(run(SYSTEM_PYTHON, AGENT, "state", "--root", self.root).stdout)

    def damage(self) -> list[str]:
        """Return what `rpm -Va` finds, but for configuration, and what rpm left half written."""
        lines = rpm(self.root, "-Va", check=False).splitlines()
        names = [name for name in self.files() if tree_leftover(name)]
        return [line for line in lines if " c /" not in line and "rpm" not in line] + names

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's entries."""
        return self.agent.read_journal(str(self.session))

    def installed(self) -> list[str]:
        """Return what rpm lists, duplicates and all."""
        return sorted(rpm(self.root, "-qa", "--queryformat", "%{NAME}-%{VERSION}\n").split())

    def files(self) -> dict[str, str]:
        """Return every file of the host, but for rpm's database and the scriptlets' own record."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name.startswith(("var/lib/rpm/", MARK)):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[name] = f"link {path.readlink()}"
            elif stat.S_ISREG(mode):
                found[name] = (
                    f"{stat.S_IMODE(mode):o} {path.stat().st_nlink} {path.read_text('latin1')}"
                )
            else:
                found[name] = f"{mode:o}"
        return found


def tree_leftover(name: str) -> bool:
    """Whether rpm left a file half written, or a scriptlet, under this name."""
    return bool(re.search(r";[0-9a-f]{8}$|rpm-tmp\.", name))
