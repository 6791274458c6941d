"""dnf as an oracle for tests: repositories and hosts in, dnf's actions out."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cpacman.model import Inventory, Transaction
from cpacman.planner.solver import Source

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("dnf_oracle.py")


class Answer(NamedTuple):
    """What dnf would do: what comes with what it replaces; an error; how long it took."""

    actions: frozenset[tuple[str, tuple[str, ...]]]
    error: str
    seconds: float


def is_there() -> bool:
    """Return whether this machine has dnf."""
    command = [PYTHON, "-c", "import dnf, rpm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_repository(source: Source, directory: Path) -> Path:
    """Give the metadata of a source the directory layout that dnf wants."""
    repodata = directory / source.name / "repodata"
    repodata.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, text in (("primary", source.primary), ("filelists", source.filelists)):
        data = Path(text).read_bytes()
        (repodata / f"{kind}.xml").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        rows.append(
            f'<data type="{kind}"><checksum type="sha256">{digest}</checksum>'
            f'<location href="repodata/{kind}.xml"/><timestamp>1</timestamp>'
            f"<size>{len(data)}</size></data>"
        )
    head = '<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>'
    (repodata / "repomd.xml").write_text(head + "".join(rows) + "</repomd>")
    return repodata.parent


def question_of(repos: dict[str, Path], inventory: Inventory, root: Path) -> dict[str, Any]:
    """Return the question about one host."""
    return {
        "root": str(root),
        "repos": {name: {"path": str(path)} for name, path in repos.items()},
        "installed": msgspec.to_builtins(inventory.packages),
    }


def ask(question: dict[str, Any]) -> Answer:
    """Ask dnf, in a process of its own."""
    run = subprocess.run(
        [PYTHON, str(SCRIPT)],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    rows = frozenset((nevra, tuple(old)) for nevra, old in answer["actions"])
    return Answer(rows, answer["error"], answer["seconds"])


def effects_of(transaction: Transaction) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Return a transaction as dnf's answers are: what comes, with all that it replaces."""
    rows: dict[str, list[str]] = {}
    for action in transaction.actions:
        old = [action.from_] if action.from_ else []
        rows.setdefault(action.nevra, []).extend(old)
    return frozenset((nevra, tuple(sorted(old))) for nevra, old in rows.items())


def nevras(rows: frozenset[tuple[str, tuple[str, ...]]]) -> Sequence[str]:
    """Return what comes."""
    return sorted(nevra for nevra, _ in rows)
