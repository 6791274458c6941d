"""A configured fleet on the session's lab: two classes, two levels, a mirror, and short answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import Lab, rpms

CHANNEL = "el9-x86_64"
MEMBERS = {
    "web*": {"class": "development", "meta": {"ring": 1}},
    "web1": {"meta": {"ring": 0}},
    "db1": {"class": "production"},
}
TIMES = {"answer": "10s", "stall": "8s", "apply": "60s", "chunk": "4M"}


class Fleet:
    """The lab with a configuration, and the runners as a person types them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.mirror = rpms.repository(lab.path("mirror", "el9"))
        self.members(MEMBERS)
        self.configure()

    def configure(self, **section: Any) -> None:
        """Write the `cpacman:` section, over that of these tests."""
        channel = {
            "match": {"id_like": "rhel", "major": 9, "arch": "x86_64"},
            "repositories": {"lab": {"path": str(self.mirror)}},
        }
        self.lab.write_master_config(
            {
                "channels": {CHANNEL: channel},
                "classes": ["development", "production"],
                "levels": [{"canary": {"match": "ring:0", "concurrency": 1}}, "rest"],
                "transport": TIMES,
                **section,
            }
        )

    def members(self, members: Mapping[str, Any] | str) -> None:
        """Write hosts.d, from a mapping or as a text that may be broken."""
        text = members if isinstance(members, str) else yaml.safe_dump(members)
        directory = self.lab.path("hosts.d")
        directory.mkdir(exist_ok=True)
        (directory / "all.yaml").write_text(text, encoding="utf-8")

    def run(self, function: str, *args: str, **keywords: Any) -> Answer:
        """Run `salt-run cpacman.FUNCTION --out=json`."""
        argv = self.lab.salt_run_argv(f"cpacman.{function}", *args, **keywords)
        return Answer(self.lab.run([*argv, "--out=json"]))

    def seen(self, function: str, *args: str, **keywords: Any) -> Any:
        """Run a runner as a person sees it: our tables."""
        return self.lab.salt_run(f"cpacman.{function}", *args, **keywords)

    def ready(self) -> Fleet:
        """Take inventories and a snapshot."""
        assert self.run("refresh", "*").code == 0
        assert self.run("snapshot").code == 0
        return self

    def plan(self, **keywords: Any) -> dict[str, Any]:
        """Plan development, and return the document."""
        answer = self.run("plan", **{"class": "development", **keywords})
        assert answer.code == 0, answer.text
        return answer["plan"]

    def depot_file(self, sha256: str) -> Path:
        """The depot's file of a package."""
        (found,) = self.lab.path("state", "depot", "files").rglob(f"*{sha256}")
        return found


class Answer:
    """What a runner answered, and its exit code."""

    def __init__(self, result: Any) -> None:
        self.code: int = result.returncode
        self.text: str = result.stdout + result.stderr
        self.data: dict[str, Any] = json.loads(result.stdout) if result.stdout.strip() else {}

    def __getitem__(self, what: str) -> Any:
        assert what in self.data, self.text
        return self.data[what]

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        """Host -> (outcome, code) of a rollout."""
        hosts = self["rollout"]["hosts"]
        return {name: (one["outcome"], one["code"]) for name, one in hosts.items()}

    def problems(self) -> str:
        """All problems of an error, as one text."""
        return "\n".join(f"{p['path']}: {p['message']}; {p['mend']}"
                         for p in self["error"]["problems"])  # fmt: skip
