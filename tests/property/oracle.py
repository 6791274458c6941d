"""dnf as an oracle for tests: repositories and hosts in, what comes and what leaves out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import msgspec

from cpacman.model import Advisory, Inventory, Request, Transaction
from cpacman.planner.actions import split_nevra
from cpacman.planner.solver import Source

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("dnf_oracle.py")


class Effects(NamedTuple):
    """The NEVRAs that come and those that leave."""

    come: frozenset[str]
    leave: frozenset[str]


Step = tuple[str, str, Sequence[str]]
"""What comes (or nothing), from which repository, and the NEVRAs that leave for it."""


class Answer(NamedTuple):
    """What dnf would do; an error; how many seconds it took inside the process."""

    steps: tuple[Step, ...]
    error: str
    seconds: float

    @property
    def effects(self) -> Effects:
        """What comes and what leaves."""
        come = frozenset(nevra for nevra, _, _ in self.steps if nevra)
        return Effects(come, frozenset(old for _, _, olds in self.steps for old in olds))


def is_there() -> bool:
    """Return whether this machine has dnf."""
    command = [PYTHON, "-c", "import dnf, rpm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Dnf:
    """A process that answers questions, until it is closed."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors.open("w")
        self._process = subprocess.Popen(
            [PYTHON, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "HOME": str(errors.parent)},
        )

    def ask(self, question: Mapping[str, Any]) -> Answer:
        """Return dnf's answer."""
        answer = self._answer(question)
        steps = tuple((nevra, repository, olds) for nevra, repository, olds in answer["actions"])
        return Answer(steps, answer["error"], answer["seconds"])

    def check(
        self, root: Path, installed: Sequence[Any], come: Sequence[Any], leave: Sequence[str]
    ) -> list[str]:
        """Return what rpm has against a transaction; see `check` in the script."""
        rows = {"installed": installed, "come": come}
        colored = {key: [{**p, "colored": True} for p in found] for key, found in rows.items()}
        found: list[str] = self._answer({"root": str(root), **colored, "leave": leave})["found"]
        return found

    def _answer(self, question: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"dnf died; see {self._errors.name}"
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=300)
        self._errors.close()


def updateinfo_xml(advisories: Iterable[Advisory]) -> str:
    """Return advisories as repositories have them."""
    return "<updates>" + "".join(map(_update_xml, advisories)) + "</updates>"


def _update_xml(advisory: Advisory) -> str:
    rows = []
    for name, evr, arch in map(split_nevra, advisory.packages):
        epoch, _, bare = evr.rpartition(":")
        version, _, release = bare.rpartition("-")
        values = {"name": name, "version": version, "release": release, "arch": arch}
        words = " ".join(f"{key}={quoteattr(value)}" for key, value in values.items())
        rows.append(f'<package {words} epoch="{epoch or 0}"><filename>x.rpm</filename></package>')
    cves = "".join(f'<reference href="x" id="{cve}" type="cve"/>' for cve in advisory.cves)
    return (
        f'<update type={quoteattr(advisory.type)} from="x" status="final" version="1">'
        f"<id>{advisory.id}</id><title>x</title><severity>{advisory.severity}</severity>"
        f'<issued date="2026-01-01 00:00:00"/><references>{cves}</references>'
        f'<pkglist><collection short="x"><name>x</name>{"".join(rows)}</collection></pkglist>'
        "</update>"
    )


def make_repository(source: Source, directory: Path, advisories: Iterable[Advisory] = ()) -> Path:
    """Give the metadata of a source the directory layout that dnf wants."""
    repodata = directory / source.name / "repodata"
    repodata.mkdir(parents=True, exist_ok=True)
    rows = []
    kinds = {"primary": source.primary, "filelists": source.filelists, "modules": source.modules}
    found = {kind: Path(text).read_bytes() for kind, text in kinds.items() if text}
    if advisories:
        found["updateinfo"] = updateinfo_xml(advisories).encode()
    for kind, data in found.items():
        name = f"{kind}.{'yaml' if kind == 'modules' else 'xml'}"
        (repodata / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append(
            f'<data type="{kind}"><checksum type="sha256">{digest}</checksum>'
            f'<location href="repodata/{name}"/><timestamp>1</timestamp>'
            f"<size>{len(data)}</size></data>"
        )
    head = '<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>'
    (repodata / "repomd.xml").write_text(head + "".join(rows) + "</repomd>")
    return repodata.parent


def question_of(
    repos: Mapping[str, tuple[Path, int]],
    inventory: Inventory,
    request: Request,
    root: Path,
    hotfixes: Collection[str] = (),
) -> dict[str, Any]:
    """Return the question about one host.

    Args:
        repos: name -> directory and priority.
        inventory: the host.
        request: what is asked for. What is named has to be had in its best version.
        root: a directory that does not exist yet.
        hotfixes: repositories of which modules hide nothing.
    """
    return {
        "root": str(root),
        "repos": {
            name: {"path": str(path), "priority": priority, "module_hotfixes": name in hotfixes}
            for name, (path, priority) in repos.items()
        },
        "modules": inventory.modules,
        "modules_disabled": inventory.modules_disabled,
        "installed": msgspec.to_builtins(inventory.packages),
        "upgrade": request.upgrade,
        "install": request.install,
        "remove": request.remove,
        "sync": request.sync,
        "exclude": request.exclude,
        "advisory": [word for word in request.advisory if not word.startswith("CVE-")],
        "cve": [word for word in request.advisory if word.startswith("CVE-")],
        "security": request.security,
        "severity": request.severity,
        "minimal": request.minimal,
        "best": not (request.upgrade_all or request.sync),
    }


def effects_of(transaction: Transaction | None) -> Effects:
    """Return a transaction's effects; without one there are none."""
    actions = transaction.actions if transaction else ()
    come = frozenset(a.nevra for a in actions if a.repository)
    leave = {a.from_ for a in actions if a.from_} | {a.nevra for a in actions if not a.repository}
    return Effects(come, frozenset(leave))
