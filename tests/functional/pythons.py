"""A Python for tests that has Salt and all that CPacMan needs, but CPacMan only when told so."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


class BarePython:
    """This interpreter with this environment's packages, except CPacMan, installed or editable.

    Args:
        folder: where the links to the packages are made.
        extra: folders that come first on the path, such as the target of an installed wheel.
    """

    def __init__(self, folder: Path, *extra: Path) -> None:
        self.path = [*extra, folder]
        if not folder.exists():
            folder.mkdir(parents=True)
            for kind in ("purelib", "platlib"):
                _link_all(Path(sysconfig.get_path(kind)), folder)

    def with_library(self, target: Path) -> BarePython:
        """Return the same Python with the library that lies in a folder."""
        return BarePython(self.path[-1], target)

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the interpreter; neither `.pth` files nor the checkout are on its path."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PYTHON")
        }
        environment["PYTHONPATH"] = os.pathsep.join(map(str, self.path))
        return subprocess.run(
            [sys.executable, "-S", *words],
            env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def salt_run(self, conf: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `salt-run` with a configuration directory."""
        code = "import sys; sys.argv[0] = 'salt-run'; from salt.scripts import salt_run; salt_run()"
        return self.run("-c", code, "-c", str(conf), *words, cwd=conf)


def _link_all(source: Path, folder: Path) -> None:
    for entry in source.iterdir():
        ours = entry.name.startswith(("cpacman", "__editable__"))
        link = folder / entry.name
        if not ours and not link.is_symlink():
            link.symlink_to(entry)


def write_master(folder: Path, *, more: str = "") -> Path:
    """Write the configuration of a master below a folder; return its directory."""
    conf = folder / "conf"
    conf.mkdir(parents=True)
    # A master that ran once has made these; `salt-run` notes its jobs there.
    (folder / "root/var/cache/salt/master/proc").mkdir(parents=True)
    user = f"user: {pwd.getpwuid(os.geteuid()).pw_name}\n"
    text = f"root_dir: {folder}/root\n{user}log_level: error\nlog_level_logfile: quiet\n{more}"
    (conf / "master").write_text(text, encoding="utf-8")
    return conf
