"""What this machine must have for a lab, all of what is missing at once, with the package's name.

Invariant: nothing is installed or changed here; the answer is a list of problems.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from cpacman.errors import Problem
from lab.errors import LabError

# Where Debian keeps what the lab starts; an interactive PATH may lack the sbin half.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PYTHON = "/usr/bin/python3"

COMMANDS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "rpm": "rpm",
    "rpmbuild": "rpm",
}
SSH_COMMANDS = {"sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
SYSTEMD_COMMANDS = {"systemd-run": "systemd", "systemctl": "systemd"}
MODULES = {
    "salt": "salt",
    "saltfactories": "pytest-salt-factories",
    "createrepo_c": "createrepo_c",
    "yaml": "PyYAML",
    "cryptography": "cryptography",
}


def missing_commands(commands: dict[str, str]) -> list[Problem]:
    """Those of `commands` (command -> Debian package) that are not on this machine."""
    return [
        Problem(command, "not on this machine", f"apt-get install {package}")
        for command, package in commands.items()
        if shutil.which(command, path=SYSTEM_PATH) is None
    ]


def missing_modules(modules: dict[str, str]) -> list[Problem]:
    """Those of `modules` (module -> PyPI package) that this Python does not have."""
    return [
        Problem(module, "not importable by this Python", f"pip install {package}")
        for module, package in modules.items()
        if importlib.util.find_spec(module) is None
    ]


def missing_bindings() -> list[Problem]:
    """The rpm bindings of the system's Python, which the agent on a host uses."""
    if Path(SYSTEM_PYTHON).exists():
        probe = [SYSTEM_PYTHON, "-c", "import rpm"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return []
    return [
        Problem(SYSTEM_PYTHON, "has no rpm bindings", "apt-get install python3 python3-rpm"),
    ]


def check_requirements(*, ssh: bool, systemd: bool) -> None:
    """Refuse with everything that is missing.

    Raises:
        LabError: not root, or a command, module or binding is missing.
    """
    if os.geteuid() != 0:
        raise LabError(Problem("", "the lab needs root (namespaces, mounts)", "use sudo"))
    commands = {**COMMANDS}
    commands |= SSH_COMMANDS if ssh else {}
    commands |= SYSTEMD_COMMANDS if systemd else {}
    problems = [*missing_commands(commands), *missing_modules(MODULES), *missing_bindings()]
    if problems:
        raise LabError(problems)
