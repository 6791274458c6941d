"""What is taken from an entry of Salt's roster, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest
import salt.config
import yaml

from cpacman.errors import ConfigError
from cpacman.transport.roster import SaltRoster, SshHost, read_entry
from cpacman.transport.ssh import SshTransport
from cpacman.transport.sshpipe import Greeting, ssh_command
from cpacman.transport.throttle import Throttle

OPTS = {"ssh_user": "root", "ssh_port": "22", "ssh_timeout": 60, "pki_dir": "/nowhere"}


def test_an_entry_says_how_a_host_is_reached() -> None:
    """Login, port, key, sudo, time-out, PATH and options; what is left out comes from Salt."""
    entry = {
        "host": "10.0.0.5", "user": "ops", "port": 2222, "priv": "/k", "sudo": True, "timeout": 7,
        "ssh_options": ["ProxyJump=gate"], "set_path": "$PATH:/opt/py/bin",
    }  # fmt: skip
    assert read_entry("old1", entry, OPTS) == SshHost(
        "old1", "10.0.0.5", "ops", 2222, "/k", sudo=True, timeout=7, path="/opt/py/bin",
        options=("ProxyJump=gate",),
    )  # fmt: skip
    assert read_entry("old1", {"host": "h"}, OPTS) == SshHost("old1", "h", "root", 22)


def test_nothing_in_a_roster_turns_the_check_of_host_keys_off() -> None:
    """Options to that end are left out; a file of host keys that it names is used, too."""
    options = [
        "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "UserKnownHostsFile=/etc/kh",
        "stricthostkeychecking no", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes",
        "KnownHostsCommand=/bin/echo %H %t %K", 'UserKnownHostsFile "/etc/one two" /etc/three',
    ]  # fmt: skip
    host = read_entry("old1", {"host": "h", "ssh_options": options}, OPTS)
    files = ("/etc/kh", "/etc/one two", "/etc/three")
    assert (host.options, host.known_hosts) == (("IdentitiesOnly=yes",), files)
    command = ssh_command(host, ["/state/known"])
    assert command.index("StrictHostKeyChecking=yes") < command.index("IdentitiesOnly=yes")
    assert 'UserKnownHostsFile="/state/known" "/etc/kh" "/etc/one two" "/etc/three"' in command
    assert "ControlPath=none" in command


@pytest.mark.parametrize(
    ("name", "entry", "place"),
    [
        ("a", {"host": "-oProxyCommand=sh"}, "a.host"),
        ("a", {"host": ""}, "a.host"),
        ("a", {"host": "h", "user": "-x"}, "a.user"),
        ("a", {"host": "h", "passwd": "secret"}, "a.passwd"),
        ("a", {"host": "h", "winrm": True}, "a.winrm"),
        ("a", {"host": "h", "port": "22a"}, "a.port"),
        ("a", {"host": "h", "timeout": -3}, "a.timeout"),
        ("a", {"host": "h", "user": "ops", "sudo": True, "tty": True}, "a.tty"),
    ],
)
def test_what_can_t_be_used_is_named(name, entry, place) -> None:
    """An entry that would be read as an option, or that needs what is not done, is refused."""
    with pytest.raises(ConfigError) as caught:
        read_entry(name, entry, OPTS)
    assert place in str(caught.value)
    assert "secret" not in str(caught.value)


def flat(tmp_path: Path, entries: dict[str, object]) -> SaltRoster:
    """A roster file, read by Salt."""
    opts = salt.config.master_config(None)
    path = tmp_path / "roster"
    path.write_text(yaml.safe_dump(entries))
    return SaltRoster({**opts, "roster_file": str(path), "cachedir": str(tmp_path / "cache")})


def test_an_entry_that_can_t_be_used_is_an_error_of_its_host_alone(tmp_path: Path) -> None:
    """A password for one host is no reason to serve no host at all."""
    roster = flat(tmp_path, {"a": {"host": "h"}, "b": {"host": "h", "passwd": "secret"}})
    found = roster.hosts
    assert not found["a"].problem
    assert "b.passwd" in found["b"].problem and "secret" not in found["b"].problem
    transport = SshTransport(
        lambda: found, Greeting(""), known_hosts=(), connections=1, chunk=1, window=1, stall=1,
        throttle=Throttle(),
    )  # fmt: skip
    (answer,) = transport.call("inventory", {"b": {}}, timeout=1)
    assert (answer.code, "b.passwd" in answer.error) == ("transport", True)
    assert transport.reaches("a") and not transport.reaches("b")


@pytest.mark.parametrize("name", ["a b", "../x", "-oProxyCommand=x"])
def test_what_can_be_no_host_is_an_error_of_the_roster(tmp_path: Path, name: str) -> None:
    """An id that would lead out of a directory, or be read as an option."""
    with pytest.raises(ConfigError, match="can't be the id of a host"):
        flat(tmp_path, {"a": {"host": "h"}, name: {"host": "h"}}).hosts  # noqa: B018


def test_sudo_needs_no_terminal() -> None:
    """The login becomes root without being asked for a password."""
    host = SshHost("a", "h", sudo=True)
    assert ssh_command(host, [])[-1].startswith("sudo -n -- sh -c ")
