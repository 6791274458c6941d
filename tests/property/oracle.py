"""dnf as an oracle for tests: repositories and hosts in, what comes and what leaves out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cpacman.model import Inventory, Request, Transaction
from cpacman.planner.solver import Source

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("dnf_oracle.py")


class Effects(NamedTuple):
    """The NEVRAs that come and those that leave."""

    come: frozenset[str]
    leave: frozenset[str]


class Answer(NamedTuple):
    """What dnf would do; an error; how many seconds it took inside the process."""

    effects: Effects
    error: str
    seconds: float


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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"dnf died; see {self._errors.name}"
        answer = json.loads(line)
        come = frozenset(nevra for nevra, _ in answer["actions"] if nevra)
        leave = frozenset(old for _, olds in answer["actions"] for old in olds)
        return Answer(Effects(come, leave), answer["error"], answer["seconds"])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)
        self._errors.close()


def make_repository(source: Source, directory: Path) -> Path:
    """Give the metadata of a source the directory layout that dnf wants."""
    repodata = directory / source.name / "repodata"
    repodata.mkdir(parents=True, exist_ok=True)
    rows = []
    kinds = {"primary": source.primary, "filelists": source.filelists, "modules": source.modules}
    for kind, text in ((kind, text) for kind, text in kinds.items() if text):
        data = Path(text).read_bytes()
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
        "installed": msgspec.to_builtins(inventory.packages),
        "upgrade": request.upgrade,
        "install": request.install,
        "exclude": request.exclude,
        "best": not request.upgrade_all,
    }


def effects_of(transaction: Transaction | None) -> Effects:
    """Return a transaction's effects; without one there are none."""
    actions = transaction.actions if transaction else ()
    come = frozenset(a.nevra for a in actions if a.repository)
    leave = {a.from_ for a in actions if a.from_} | {a.nevra for a in actions if not a.repository}
    return Effects(come, frozenset(leave))
