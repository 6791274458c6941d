"""Host keys of hosts reached by ssh: what they show, and what a person accepted.

Invariants: a key gets into our file by an explicit act alone; one that differs from a known one is
never added beside it, only put in its place by name.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cpacman.transport.roster import SshHost

NEW, KNOWN, CHANGED, SILENT = "new", "known", "changed", "silent"
_SECONDS = 10
_AT_ONCE = 32


class Shown(NamedTuple):
    """What a host shows: its keys by type, in the form of known_hosts, and how they stand."""

    host: SshHost
    state: str
    keys: Mapping[str, str]

    @property
    def fingerprints(self) -> list[str]:
        """The keys as people compare them: `ssh-ed25519 SHA256:...`."""
        return [f"{kind} {fingerprint(key)}" for kind, key in sorted(self.keys.items())]


def accepted_file(state_dir: Path) -> Path:
    """Return our own file of accepted host keys."""
    return state_dir / "ssh" / "known_hosts"


def known_hosts_files(state_dir: Path, opts: Mapping[str, Any]) -> list[str]:
    """Return the files that host keys are checked against: ours, Salt's, and the user's."""
    salts = str(opts.get("known_hosts_file") or "")
    users = str(Path("~/.ssh/known_hosts").expanduser())
    return [str(accepted_file(state_dir)), *([salts] if salts else []), users]


def fingerprint(key: str) -> str:
    """Return `SHA256:...` of a public key in base64, as OpenSSH prints it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def look(hosts: Sequence[SshHost], files: Sequence[str]) -> list[Shown]:
    """Ask hosts for their keys and compare them with those that are known."""
    if not hosts:
        return []
    with ThreadPoolExecutor(min(len(hosts), _AT_ONCE)) as pool:
        return list(pool.map(lambda host: _look_at(host, files), hosts))


def accept(shown: Iterable[Shown], path: Path) -> None:
    """Write the keys of these hosts into our file, in the place of those they had there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    chosen = list(shown)
    names = {known_name(one.host) for one in chosen}
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in before if line.split(" ", 1)[0] not in names]
    added = [
        f"{known_name(one.host)} {kind} {key}"
        for one in chosen
        for kind, key in sorted(one.keys.items())
    ]
    _replace(path, "".join(f"{line}\n" for line in [*kept, *added]))


def known_name(host: SshHost) -> str:
    """Return the name under which OpenSSH looks a host up."""
    return host.host if host.port in (0, 22) else f"[{host.host}]:{host.port}"


def _look_at(host: SshHost, files: Sequence[str]) -> Shown:
    port = ["-p", str(host.port)] if host.port else []
    said = _run(["ssh-keyscan", "-T", str(_SECONDS), *port, "--", host.host])
    keys = _keys(said)
    if not keys:
        return Shown(host, SILENT, {})
    known = _known(host, (*files, *host.known_hosts))
    if any(known.get(kind) == key for kind, key in keys.items()):
        return Shown(host, KNOWN, keys)
    return Shown(host, CHANGED if known else NEW, keys)


def _known(host: SshHost, files: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in reversed(files):
        if Path(path).is_file():
            found.update(_keys(_run(["ssh-keygen", "-F", known_name(host), "-f", path])))
    return found


def _keys(text: str) -> dict[str, str]:
    """Return type -> key of lines in the form of known_hosts."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {words[1]: words[2] for words in lines if len(words) >= 3}


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=6 * _SECONDS,
    )  # fmt: skip
    return done.stdout


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".known-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).replace(path)
