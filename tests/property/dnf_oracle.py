"""Ask the real dnf what it would do: run by the system's Python, which has dnf and rpm.

Reads questions from stdin, one JSON document a line, and answers each on stdout:

    {"root": empty directory, "repos": {name: {"path": dir with repodata, "priority": 99,
                                               "module_hotfixes": whether modules hide nothing}},
     "modules": [enabled "name:stream"], "installed": [package, ...], "upgrade": [spec],
     "install": [spec], "exclude": [spec], "best": false}

A package is `{"name", "epoch", "version", "release", "arch", "vendor", "buildtime", "provides",
..., "files"}` as an inventory has it. Installed packages become headers without payload, which
`rpmdb --importdb` puts into a real database. The answer is `{"actions": [[kind, nevra, from]],
"error": text, "seconds": of the resolution, loading included}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

FLAGS = {"": 0, "<": 2, ">": 4, "=": 8, "<=": 10, ">=": 12}
RICH = 1 << 29
TAGS = {
    "provides": "provide",
    "requires": "require",
    "conflicts": "conflict",
    "obsoletes": "obsolete",
    "recommends": "recommend",
    "suggests": "suggest",
    "supplements": "supplement",
    "enhances": "enhance",
}
MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"


def header_of(package):
    """Return the rpm header of a package."""
    import rpm

    header = rpm.hdr()
    for tag in ("name", "version", "release", "arch"):
        header[tag] = package[tag]
    if package.get("epoch"):
        header["epoch"] = package["epoch"]
    if package.get("vendor"):
        header["vendor"] = package["vendor"]
    header["os"] = "linux"
    header["buildtime"] = package.get("buildtime", 0)
    header["installtime"] = 1
    header["size"] = 1
    header["sourcerpm"] = package["name"] + ".src.rpm"
    for tag in ("summary", "description", "license", "group"):
        header[tag] = "x"
    for kind, tag in TAGS.items():
        rows = package.get(kind) or ()
        if rows:
            header[tag + "name"] = [name for name, _, _ in rows]
            header[tag + "flags"] = [
                FLAGS[flags] | (RICH if name.startswith("(") else 0) for name, flags, _ in rows
            ]
            header[tag + "version"] = [evr for _, _, evr in rows]
    add_files(header, package.get("files") or ())
    return header


def add_files(header, files):
    """Put paths into a header, as directories and base names."""
    if not files:
        return
    directories = sorted({f.rpartition("/")[0] + "/" for f in files})
    header["dirnames"] = directories
    header["basenames"] = [f.rpartition("/")[2] for f in files]
    header["dirindexes"] = [directories.index(f.rpartition("/")[0] + "/") for f in files]
    header["filemodes"] = [0o100644 for _ in files]
    for tag in ("filesizes", "filemtimes", "fileflags", "filerdevs", "filedevices", "fileinodes"):
        header[tag] = [0 for _ in files]
    for tag in ("filedigests", "filelinktos", "filelangs"):
        header[tag] = ["" for _ in files]
    header["fileusername"] = ["root" for _ in files]
    header["filegroupname"] = ["root" for _ in files]


def enable_modules(root, names):
    """Enable module streams, given as name:stream, below a root."""
    folder = Path(root) / "etc/dnf/modules.d"
    folder.mkdir(parents=True, exist_ok=True)
    for module, _, stream in (name.partition(":") for name in names):
        text = f"[{module}]\nname={module}\nstream={stream}\nprofiles=\nstate=enabled\n"
        (folder / f"{module}.module").write_text(text)


def make_database(root, packages, path="var/lib/rpm"):
    """Create an rpm database below a root with some packages in it."""
    where = Path(root) / path
    where.mkdir(parents=True)
    blob = b"".join(MAGIC + header_of(p).unload() for p in packages)
    command = ["rpmdb", "--dbpath", str(where)]
    subprocess.run([*command, "--initdb"], check=True)
    subprocess.run([*command, "--importdb"], input=blob, check=True)


def open_base(question):
    """Return a dnf base with the repositories and the database of a question."""
    import dnf
    import rpm

    base = dnf.Base()
    rpm.addMacro("_dbpath", "/var/lib/rpm")  # after dnf has read rpm's configuration
    base.conf.installroot = question["root"]
    base.conf.cachedir = question.get("cache") or question["root"] + "/cache"
    base.conf.persistdir = question["root"] + "/persist"
    base.conf.substitutions["releasever"] = "9"
    base.conf.module_platform_id = "platform:el9"
    base.conf.best = question.get("best", False)
    base.conf.allow_vendor_change = question.get("allow_vendor_change", True)
    base.conf.installonly_limit = 0
    base.conf.plugins = False
    base.conf.excludepkgs = list(question.get("exclude", ()))
    base.conf.assumeyes = True
    for name, repo in sorted(question["repos"].items()):
        base.repos.add_new_repo(
            name,
            base.conf,
            baseurl=["file://" + repo["path"]],
            priority=repo.get("priority", 99),
            module_hotfixes=repo.get("module_hotfixes", False),
        )
    return base


def ask(question):
    """Return what dnf would do."""
    import dnf

    start = time.perf_counter()
    base = open_base(question)
    base.fill_sack(load_system_repo=True, load_available_repos=True)
    try:
        for spec in question.get("upgrade", ()):
            base.upgrade(spec)
        for spec in question.get("install", ()):
            base.install(spec)
        if not (question.get("upgrade") or question.get("install")):
            base.upgrade_all()
        base.resolve(allow_erasing=False)
    except dnf.exceptions.Error as error:
        return {"actions": [], "error": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    return {"actions": sorted(actions_of(base)), "error": "", "seconds": seconds}


def actions_of(base):
    """Yield what comes and what it replaces: [nevra, [replaced nevras]], and what leaves."""
    goal = base._goal
    for package in [*goal.list_installs(), *goal.list_upgrades(), *goal.list_downgrades()]:
        yield [str(package), sorted(map(str, goal.obsoleted_by_package(package)))]
    for package in goal.list_reinstalls():
        yield [str(package), ["reinstall"]]
    for package in goal.list_erasures():
        yield ["", [str(package)]]


def main():
    """Answer one question a line; libraries that print must not spoil the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        if not question.get("ready"):
            make_database(question["root"], question["installed"])
        enable_modules(question["root"], question.get("modules", ()))
        answers.write(json.dumps(ask(question)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
