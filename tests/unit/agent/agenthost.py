"""A host for the agent's tests: a tree with a real rpm database, and packages built for it.

Everything lives below a temporary directory: rpm works on the tree by `--root`, with an explicit
database, so the machine's own packages are never looked at.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

REPO = Path(__file__).resolve().parents[3]
AGENT = REPO / "_modules" / "cpacman_agent.py"
DOOR = REPO / "_modules" / "cpacman.py"
SYSTEM_PYTHON = "/usr/bin/python3"
DATABASE = "/var/lib/rpm"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

SPEC = """
Name: {name}
Epoch: {epoch}
Version: {version}
Release: 1
Summary: {name}
License: Test
{build}
{head}
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share %{{buildroot}}/usr/bin
echo {name} {version} > %{{buildroot}}/usr/share/{file}
echo {name} {version} > %{{buildroot}}/usr/bin/{file}
[ {size} = 0 ] || truncate -s {size}M %{{buildroot}}/usr/share/{file}
if [ {config} != 0 ]; then
    mkdir %{{buildroot}}/usr/share/conf-d
    echo {config} > %{{buildroot}}/usr/share/conf-d/set
fi
if [ -n "{module}" ]; then
    mkdir -p "%{{buildroot}}{module}"
    touch "%{{buildroot}}{module}/vmlinuz"
fi
%files
/usr/share/{file}
/usr/bin/{file}
{tail}
"""

SLOW = """%post -p <lua>
io.open("/began", "w"):close()
for _ = 1, 120 do
    if not posix.access("/hold") then break end
    posix.sleep(1)
end"""
FILLER = """%post -p <lua>
local file = io.open("/usr/share/filled", "w")
for _ = 1, 30 do file:write(string.rep("x", 1048576)) end
file:close()"""
KERNELS: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "version": version, "file": f"{name}{version}", "module": module,
     "tail": f"{module}/vmlinuz" if module else ""}
    for version in (1, 2)
    for name, module in (
        ("kernel-core", f"/lib/modules/{version}-1.noarch"), ("kernel-tools", ""),
    )
)  # fmt: skip
DEFAULTS = {"epoch": 0, "head": "", "tail": "", "arch": "noarch", "size": 0, "config": 0,
            "module": ""}  # fmt: skip
PACKAGES: tuple[dict[str, Any], ...] = (
    {"name": "base", "version": 1, "head": "Provides: plain\nProvides: odd = 0:3"},
    {"name": "base", "version": 2},
    {"name": "app", "version": 1, "head": "Requires: base\nRequires: /usr/share/base"},
    {"name": "app", "version": 2, "head": "Requires: base >= 2\nRecommends: (lib if base)"},
    {"name": "lib", "version": 1, "epoch": 3},
    {"name": "lib", "version": 2, "epoch": 3},
    {"name": "old", "version": 1},
    {"name": "new", "version": 2, "head": "Obsoletes: old < 2"},
    {"name": "kern", "version": 1, "file": "kern1"},
    {"name": "kern", "version": 2, "file": "kern2"},
    {"name": "needy", "version": 1, "head": "Requires: what-nobody-has"},
    {"name": "clash", "version": 1, "file": "base"},
    {"name": "post", "version": 1},
    {"name": "post", "version": 2, "tail": '%post -p <lua>\nerror("boom")'},
    {"name": "pre", "version": 1},
    {"name": "pre", "version": 2, "tail": '%pre -p <lua>\nerror("boom")'},
    {"name": "slow", "version": 1, "tail": SLOW},
    {"name": "swap", "version": 1},
    {"name": "swap", "version": 2, "arch": "x86_64"},
    {"name": "onpre", "version": 1, "head": "Requires: pre >= 2"},
    {"name": "angry", "version": 1, "tail": '%post -p <lua>\nerror("boom")'},
    {"name": "conf", "version": 1, "tail": "%config /usr/share/conf-d/set", "config": 1},
    {"name": "conf", "version": 2, "tail": "%config /usr/share/conf-d/set", "config": 2},
    {"name": "big", "version": 1, "size": 40},
    {"name": "filler", "version": 1, "tail": FILLER},
    {"name": "zbig", "version": 1, "size": 40, "head": "Requires: filler"},
    *KERNELS,
    {"name": "loud", "version": 1, "tail": '%post -p <lua>\nprint("a scriptlet speaks")'},
)


def load(path: Path, name: str) -> ModuleType:
    """Load a file as a module, anew each time."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: object, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess:
    """Run a command in a clean environment."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, env=ENVIRONMENT, check=False)
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


def build_packages(folder: Path) -> dict[str, Path]:
    """Build the packages; return their files by `name-version`."""
    built = {}
    for package in PACKAGES:
        values = {**DEFAULTS, "file": package["name"], **package}
        values["build"] = "BuildArch: noarch" if values["arch"] == "noarch" else ""
        label = f"{values['name']}-{values['version']}"
        spec = folder / f"{label}.spec"
        spec.write_text(SPEC.format(**values))
        run(
            "rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}",
            "--define", f"_dbpath {folder}/none", "--target", values["arch"], spec,
        )  # fmt: skip
        built[label] = folder / "RPMS" / values["arch"] / f"{label}-1.{values['arch']}.rpm"
        assert built[label].is_file()
    return built


def package_of(name: str, version: str) -> dict[str, Any]:
    """Return one of the test packages by name and version."""
    return next(
        {**DEFAULTS, **p} for p in PACKAGES if (p["name"], str(p["version"])) == (name, version)
    )


def text_of(label: str) -> str:
    """Return the NEVRA for a `name-version`."""
    name, version = label.rsplit("-", 1)
    epoch, arch = (package_of(name, version)[key] for key in ("epoch", "arch"))
    return f"{name}-{epoch}:{version}-1.{arch}" if epoch else f"{name}-{version}-1.{arch}"


class TreeHost:
    """A host in a directory: a tree with packages, a state directory and a file cache."""

    def __init__(self, folder: Path, rpms: dict[str, Path]) -> None:
        self.rpms = rpms
        self.root = folder / "root"
        self.settings = {
            "host": "web1",
            "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"),
            "root": str(self.root),
            "lock_wait": 1,
        }
        (self.root / DATABASE[1:]).mkdir(parents=True)
        self.rpm("--initdb")
        self.agent = load(AGENT, "cpacman_agent")
        self.sequence = 0

    def rpm(self, *arguments: object) -> str:
        """Run rpm on the tree and return what it prints."""
        return run("rpm", "--root", self.root, "--dbpath", DATABASE, *arguments).stdout.decode()

    def install(self, *labels: str) -> None:
        """Install packages by hand, beside whatever is there."""
        self.rpm(
            "-i", "--nosignature", "--nodeps", "--force", *[self.rpms[label] for label in labels]
        )

    def installed(self) -> list[str]:
        """Return the sorted NEVRAs, as rpm itself tells them."""
        lines = self.rpm("-qa", "--queryformat", "%{NAME}-%{VERSION}\n").splitlines()
        return sorted(text_of(label) for label in lines)

    def state(self) -> dict[str, str]:
        """Return cookie and package digest, by the agent."""
        done = run(SYSTEM_PYTHON, AGENT, "state", "--root", self.root)
        return json.loads(done.stdout)

    def action(self, kind: str, label: str, old: str | None = None) -> dict[str, Any]:
        """Return a plan's action."""
        name, version = label.rsplit("-", 1)
        action = {
            "action": kind, "name": name, "version": version, "release": "1",
            "epoch": package_of(name, version)["epoch"],
            "arch": package_of(name, version)["arch"], "nevra": text_of(label), "advisories": [],
            "from": text_of(old) if old else None, "repository": "r", "reason": "requested",
        }  # fmt: skip
        if kind == "remove":
            return {**action, "sha256": None, "repository": None, "size": 0}
        data = self.rpms[label].read_bytes()
        return {**action, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    def manifest(self, *actions: dict[str, Any], after: list[str], **other: Any) -> str:
        """Return the text of the next manifest, for the packages as they are now."""
        self.sequence += 1
        files = {
            a["sha256"]: {"sha256": a["sha256"], "size": a["size"], "name": f"{a['name']}.rpm"}
            for a in actions
            if a["sha256"]
        }
        lines = "".join(text_of(label) + "\n" for label in after).splitlines(keepends=True)
        document = {
            "schema": 1, "kind": "manifest", "host": "web1", "plan": "p-1", "transaction": "t-1",
            "rollout": "r-1", "session": f"r-1.{self.sequence}", "sequence": self.sequence,
            "created": int(time.time()), "expires": int(time.time()) + 600, "nonce": "n",
            "cookie": self.state()["cookie"], "actions": list(actions),
            "files": list(files.values()), "protected": [],
            "after": hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
        }  # fmt: skip
        return json.dumps({**document, **other})

    def begin(self, text: str) -> Path:
        """Take in a manifest; return the session's directory."""
        session = self.agent.begin(self.settings, text)["session"]
        return Path(self.settings["state_dir"]) / "transactions" / session

    def feed(self, text: str) -> None:
        """Send every file of a manifest, whole."""
        manifest = json.loads(text)
        by_hash = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in self.rpms.values()}
        for entry in manifest["files"]:
            data = by_hash[entry["sha256"]].read_bytes()
            segments = [[entry["sha256"], 0, len(data)]]
            self.agent.receive(self.settings, manifest["session"], segments, data)
        assert self.agent.staged(self.settings, manifest["session"])["complete"]

    def stage(self, *actions: dict[str, Any], after: list[str], **other: Any) -> Path:
        """Take in a manifest and all its files."""
        text = self.manifest(*actions, after=after, **other)
        path = self.begin(text)
        self.feed(text)
        return path

    def apply(self, path: Path, *options: str, python: str = SYSTEM_PYTHON) -> dict[str, Any]:
        """Run the transaction in the foreground; return the report."""
        done = run(python, AGENT, "apply", path, *options)
        return json.loads(done.stdout)

    def cut_off(self, path: Path) -> dict[str, Any]:
        """Return what a session that was killed says of itself."""
        return settled(self.agent, path)

    def hold(self) -> None:
        """Let the scriptlet of `slow` wait from now on, until `let_go`."""
        (self.root / "hold").touch()

    def wait_for_scriptlet(self) -> None:
        """Wait until the scriptlet of `slow` runs."""
        wait_until((self.root / "began").exists)

    def let_go(self) -> None:
        """Let the scriptlet of `slow` end."""
        (self.root / "hold").unlink(missing_ok=True)


def settled(agent: ModuleType, session: Path) -> dict[str, Any]:
    """Return what a session says of itself once nobody works on it any more.

    A killed one's child holds the locks until it is gone, too, or a program of its own.
    """
    wait_until(lambda: not agent.is_running(str(session)))
    return agent.session_status(str(session))


def wait_until(check: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so; the end is there for a machine that is very busy."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.02)


def plan_key() -> tuple[Any, str]:
    """Return a fresh plan key and its public half in base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key, base64.b64encode(key.public_key().public_bytes_raw()).decode()


def old_and_new_pythons() -> list[Path]:
    """Return other Pythons that pyenv has here, one of each kind the agent must run on."""
    versions = Path("/root/.pyenv/versions")
    found = [next(iter(sorted(versions.glob(f"{v}.*/bin/python"))), None) for v in ("2.7", "3.6")]
    found.append(next(iter(sorted(versions.glob("3.13.*/bin/python"))), None))
    return [path for path in found if path]


def is_root() -> bool:
    """Whether the tests can work on trees: rpm's `--root` is a chroot."""
    return os.geteuid() == 0
