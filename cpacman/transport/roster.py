"""Who is reached by ssh, and how: Salt's roster, read by Salt.

Invariants: rosters of every kind are loaded by Salt's own loader; a roster that can't be read is
an error, never an empty one, but an entry that can't be used is an error of its host alone; nothing
in it turns the check of host keys off.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cpacman.errors import ConfigError, Problem

TARGET_TYPES = frozenset({"glob", "pcre", "list", "nodegroup", "range"})
"""Types of targets that Salt's rosters know."""
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,253}")
_WORD = re.compile(r"[^-\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*")
_KNOWN_HOSTS = re.compile(r"\s*UserKnownHostsFile\s*[= ]\s*(.+)", re.IGNORECASE)
_CHECKS = re.compile(
    r"\s*(StrictHostKeyChecking|GlobalKnownHostsFile|NoHostAuthenticationForLocalhost"
    r"|KnownHostsCommand)\b",
    re.IGNORECASE,
)


class SshHost(NamedTuple):
    """How one host is reached.

    Attributes:
        id: its id.
        host: name or address to connect to.
        sudo: whether the login must become root.
        timeout: seconds to connect.
        options: options of OpenSSH, none of which is about checking host keys.
        known_hosts: further files of host keys that the roster names.
        problem: why it can't be reached the way that the roster says, "" for nothing.
    """

    id: str
    host: str
    user: str = ""
    port: int = 0
    priv: str = ""
    identities_only: bool = False
    sudo: bool = False
    sudo_user: str = ""
    timeout: int = 60
    path: str = ""
    options: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    problem: str = ""


class SaltRoster:
    """The roster of a Salt master; read once, when it is first needed.

    Args:
        opts: the master's options.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)

    @cached_property
    def hosts(self) -> dict[str, SshHost]:
        """Every host of it by its id, with its problem if it can't be reached that way.

        Raises:
            ConfigError: it can't be read, or what it calls a host can't be one.
        """
        targets = self._targets("*", "glob")
        wrong = [Problem(f"roster: {n}", "can't be the id of a host")
                 for n in sorted(targets, key=str) if not _ID.fullmatch(str(n))]  # fmt: skip
        if wrong:
            raise ConfigError(wrong)
        return {str(n): self._read(str(n), entry) for n, entry in sorted(targets.items())}

    def _read(self, name: str, entry: Any) -> SshHost:
        try:
            return read_entry(name, entry, self._opts)
        except ConfigError as error:
            return SshHost(name, "", problem=str(error))

    def match(self, target: str | Sequence[str], target_type: str) -> list[str]:
        """Return the ids that a target matches; a type that rosters don't know matches none."""
        if target_type not in TARGET_TYPES or not self.hosts:
            return []
        return sorted(set(self._targets(target, target_type)) & set(self.hosts))

    def _targets(self, target: str | Sequence[str], target_type: str) -> dict[str, Any]:
        if not self._is_there():
            return {}
        import salt.roster

        roster = salt.roster.Roster(self._opts, self._opts.get("roster") or "flat")
        found: dict[str, Any] = {}
        try:
            for backend in roster.backends:
                # Not `Roster.targets`: it takes a roster that can't be read for an empty one.
                found.update(roster.rosters[f"{backend}.targets"](target, target_type))
        except Exception as error:
            problem = Problem("roster", f"can't be read: {error}", "look: salt-ssh '*' --hosts")
            raise ConfigError(problem) from error
        finally:
            if hasattr(roster, "destroy"):
                roster.destroy()
        return found

    def _is_there(self) -> bool:
        """Whether there is a roster: the flat one is the default, and most masters have none."""
        if (self._opts.get("roster") or "flat") != "flat":
            return True
        directory = Path(self._opts.get("config_dir") or "/etc/salt")
        return bool(self._opts.get("roster_file")) or (directory / "roster").exists()


def read_entry(name: str, entry: Any, opts: Mapping[str, Any]) -> SshHost:
    """Return how a host of the roster is reached; what it leaves out comes from Salt's options.

    Raises:
        ConfigError: with all that is wrong with it.
    """
    body = entry if isinstance(entry, Mapping) else {}
    priv = str(body.get("priv") or opts.get("ssh_priv") or _own_key(opts))
    said = body.get("ssh_options") or opts.get("ssh_options") or []
    options = [str(one) for one in ([said] if isinstance(said, str) else said)]
    host = SshHost(
        id=name,
        host=str(body.get("host") or "").strip("[]"),
        user=str(body.get("user") or opts.get("ssh_user") or ""),
        port=_number(body.get("port") or opts.get("ssh_port")),
        priv="" if priv == "agent-forwarding" else priv,
        identities_only=bool(body.get("identities_only", opts.get("ssh_identities_only", False))),
        sudo=bool(body.get("sudo", opts.get("ssh_sudo", False))),
        sudo_user=str(body.get("sudo_user") or opts.get("ssh_sudo_user") or ""),
        timeout=_number(body.get("timeout") or opts.get("ssh_timeout")) or 60,
        path=str(body.get("set_path") or "").replace("$PATH", "").strip(":"),
        options=tuple(o for o in options if not _CHECKS.match(o) and not _KNOWN_HOSTS.match(o)),
        known_hosts=_files(options),
    )
    problems = [*_problems(host), *_unserved(host, body, opts)]
    if problems:
        raise ConfigError(problems)
    return host


def _number(value: Any) -> int:
    return int(value) if str(value or "").isdigit() else 0


def _is_number(value: Any) -> bool:
    return value is None or value == "" or str(value).isdigit()


def _own_key(opts: Mapping[str, Any]) -> str:
    """Return the key that salt-ssh makes for itself, if it has."""
    path = Path(opts.get("pki_dir") or "/etc/salt/pki/master") / "ssh" / "salt-ssh.rsa"
    return str(path) if path.exists() else ""


def _files(options: Sequence[str]) -> tuple[str, ...]:
    """Return the files of host keys that options name; one option may name several."""
    said = [match[1] for o in options if (match := _KNOWN_HOSTS.match(o))]
    found = [path for one in said for path in _words(one)]
    return tuple(str(Path(p).expanduser()) for p in found if p not in ("/dev/null", "none"))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that has no end
        return [text.strip()]


def _problems(host: SshHost) -> list[Problem]:
    where = f"roster: {host.id}"
    found = []
    if not _WORD.fullmatch(host.host):
        found.append(Problem(f"{where}.host", f"{host.host!r} is no name or address"))
    if host.user and not _WORD.fullmatch(host.user):
        found.append(Problem(f"{where}.user", f"{host.user!r} is no login"))
    return found


def _unserved(host: SshHost, body: Mapping[str, Any], opts: Mapping[str, Any]) -> list[Problem]:
    """Return what a roster may say and this transport does not do."""
    where = f"roster: {host.id}"
    found = [
        Problem(f"{where}.{key}", f"{body[key]!r} is no number")
        for key in ("port", "timeout")
        if not _is_number(body.get(key))
    ]
    if (body.get("passwd") or opts.get("ssh_passwd")) and not host.priv:
        mend = "name a key (priv), for sudo a rule with NOPASSWD"
        found.append(Problem(f"{where}.passwd", "no passwords are sent to hosts", mend))
    if body.get("tty") and (body.get("sudo") or opts.get("ssh_sudo")):
        mend = f"let sudo do without (Defaults:{host.user or 'USER'} !requiretty), then remove tty"
        found.append(Problem(f"{where}.tty", "no terminal is opened on hosts", mend))
    if body.get("winrm"):
        found.append(Problem(f"{where}.winrm", "hosts are reached by ssh only"))
    return found
