"""Ask the real dnf what it would do: run by the system's Python, which has dnf and rpm.

Reads questions from stdin, one JSON document a line, and answers each on stdout:

    {"root": empty directory, "repos": {name: {"path": dir with repodata, "priority": 99,
                                               "module_hotfixes": whether modules hide nothing}},
     "modules": [enabled "name:stream"], "modules_disabled": [name], "installed": [package, ...],
     "upgrade": [spec], "install": [spec], "remove": [spec], "sync": false, "exclude": [spec],
     "best": false, "left_out": [[repository, nevra]], "protected": [name], "limit": 0,
     "weak": true, "advisory": [id], "cve": [id], "security": false, "severity": [word],
     "minimal": false}

A package is `{"name", "epoch", "version", "release", "arch", "vendor", "buildtime", "provides",
..., "files"}` as an inventory has it. Installed packages become headers without payload, which
`rpmdb --importdb` puts into a real database. The answer is `{"actions": [[nevra, repository,
[replaced nevras]]], "error": text, "seconds": of the resolution, loading included}`; what leaves
for nothing has an empty nevra. A question with `come` and `leave` is answered by rpm, see `check`.
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
    own = [f"/usr/share/{package['name']}.{package['arch']}"]
    files = sorted({*(package.get("files") or ()), *(own if package.get("colored") else ())})
    add_files(header, files, package["arch"])
    return header


def add_files(header, files, arch):
    """Put paths into a header, as directories and base names, in the colour of an architecture."""
    if not files:
        return
    directories = sorted({f.rpartition("/")[0] + "/" for f in files})
    header["dirnames"] = directories
    header["basenames"] = [f.rpartition("/")[2] for f in files]
    header["dirindexes"] = [directories.index(f.rpartition("/")[0] + "/") for f in files]
    header["filemodes"] = [0o100644 for _ in files]
    header["filecolors"] = [{"noarch": 0, "i686": 1}.get(arch, 2) for _ in files]
    for tag in ("filesizes", "filemtimes", "fileflags", "filerdevs", "filedevices", "fileinodes"):
        header[tag] = [0 for _ in files]
    for tag in ("filedigests", "filelinktos", "filelangs"):
        header[tag] = ["" for _ in files]
    header["fileusername"] = ["root" for _ in files]
    header["filegroupname"] = ["root" for _ in files]


def enable_modules(root, names, disabled):
    """Enable module streams, given as name:stream, below a root, and disable modules."""
    folder = Path(root) / "etc/dnf/modules.d"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(*name.split(":", 1), "enabled") for name in names]
    for module, stream, state in [*rows, *((name, "", "disabled") for name in disabled)]:
        text = f"[{module}]\nname={module}\nstream={stream}\nprofiles=\nstate={state}\n"
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
    base.conf.installonly_limit = question.get("limit", 0)
    base.conf.install_weak_deps = question.get("weak", True)
    base.conf.clean_requirements_on_remove = False
    base.conf.protected_packages = list(question.get("protected", ()))
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
    leave_out(base, question.get("left_out", ()))
    try:
        demand(base, question)
        base.resolve(allow_erasing=bool(question.get("remove")))
    except dnf.exceptions.Error as error:
        return {"actions": [], "error": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    return {"actions": sorted(actions_of(base)), "error": "", "seconds": seconds}


def leave_out(base, rows):
    """Make dnf blind to some packages of some repositories."""
    rows = {tuple(row) for row in rows}
    if rows:
        found = [p for p in base.sack.query().available() if (p.reponame, str(p)) in rows]
        base.sack.add_excludes(base.sack.query().filterm(pkg=found))


def demand(base, question):
    """Ask as dnf's commands do."""
    filter_advisories(base, question)
    for spec in question.get("remove", ()):
        base.remove(spec)
    for spec in question.get("upgrade", ()):
        base.upgrade(spec)
    for spec in question.get("install", ()):
        base.install(spec)
    if question.get("sync"):
        base.distro_sync()
    elif not any(question.get(kind) for kind in ("remove", "upgrade", "install")):
        base.upgrade_all()


def filter_advisories(base, question):
    """Ask for what some advisories deliver only."""
    how = "eq" if question.get("minimal") else "gte"
    types = ("security",) if question.get("security") else ()
    words = {key: question.get(key, ()) for key in ("advisory", "severity")}
    words["cves"] = question.get("cve", ())
    if types or any(words.values()):
        base.add_security_filters(how, types=types, **words)


def actions_of(base):
    """Yield what comes, from where and what it replaces, and what leaves."""
    goal = base._goal
    for package in [*goal.list_installs(), *goal.list_upgrades(), *goal.list_downgrades()]:
        olds = sorted(map(str, goal.obsoleted_by_package(package)))
        yield [str(package), package.reponame, olds]
    for package in goal.list_reinstalls():
        yield [str(package), package.reponame, [str(package)]]
    for package in goal.list_erasures():
        yield ["", "", [str(package)]]


def check(question):
    """Return what rpm finds wrong with a transaction, and what it would remove besides.

    The question has `come` (packages, with `beside` for those that replace nothing) and `leave`
    (NEVRAs). What was wrong before the transaction is not told.
    """
    import rpm

    rpm.reloadConfig()  # forgets what earlier questions have defined
    for macro, value in (("_dbpath", "/var/lib/rpm"), ("_transaction_color", "3")):
        rpm.addMacro(macro, value)
    transaction = rpm.TransactionSet(question["root"])
    transaction.setVSFlags(-1)
    for package in question["come"]:
        how = "i" if package["beside"] else "u"
        transaction.addInstall(header_of(package), package["name"], how)
    leaving = set(question["leave"])
    removed = {nevra_of(e) for e in transaction if e.Type() == rpm.TR_REMOVED}
    for header in transaction.dbMatch():
        if nevra_of_header(header) in leaving - removed:
            transaction.addErase(header)
    removed = {nevra_of(e) for e in transaction if e.Type() == rpm.TR_REMOVED}
    found = [f"rpm removes {n}" for n in sorted(removed - leaving)]
    transaction.check()
    return {"found": found + [str(problem) for problem in transaction.problems()]}


def nevra_of(element):
    """Return an element's NEVRA as inventories have it."""
    epoch = element.E()
    evr = f"{element.V()}-{element.R()}"
    return (
        f"{element.N()}-{epoch}:{evr}.{element.A()}"
        if epoch not in (None, "0")
        else (f"{element.N()}-{evr}.{element.A()}")
    )


def nevra_of_header(header):
    """Return a header's NEVRA as inventories have it."""
    epoch = f"{header['epoch']}:" if header["epoch"] else ""
    evr = f"{epoch}{header['version']}-{header['release']}"
    return f"{header['name']}-{evr}.{header['arch']}"


def main():
    """Answer one question a line; libraries that print must not spoil the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        if not question.get("ready"):
            make_database(question["root"], question["installed"])
        enable_modules(
            question["root"], question.get("modules", ()), question.get("modules_disabled", ())
        )
        answer = check(question) if "come" in question else ask(question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
