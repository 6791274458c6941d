"""What is taken from an entry of Salt's roster, and what never is."""

from __future__ import annotations

import pytest

from cpacman.errors import ConfigError
from cpacman.transport.roster import SshHost, read_entry
from cpacman.transport.sshpipe import ssh_command

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
    ]  # fmt: skip
    host = read_entry("old1", {"host": "h", "ssh_options": options}, OPTS)
    assert (host.options, host.known_hosts) == (("IdentitiesOnly=yes",), ("/etc/kh",))
    command = ssh_command(host, ["/state/known"])
    assert command.index("StrictHostKeyChecking=yes") < command.index("IdentitiesOnly=yes")
    assert 'UserKnownHostsFile="/state/known" "/etc/kh"' in command
    assert "ControlPath=none" in command


@pytest.mark.parametrize(
    ("name", "entry", "place"),
    [
        ("a b", {"host": "h"}, "a b"),
        ("../x", {"host": "h"}, "../x"),
        ("a", {"host": "-oProxyCommand=sh"}, "a.host"),
        ("a", {"host": ""}, "a.host"),
        ("a", {"host": "h", "user": "-x"}, "a.user"),
        ("a", {"host": "h", "passwd": "secret"}, "a.passwd"),
        ("a", {"host": "h", "winrm": True}, "a.winrm"),
    ],
)
def test_what_can_t_be_used_is_named(name, entry, place) -> None:
    """An entry that would be read as an option, or that needs what is not done, is refused."""
    with pytest.raises(ConfigError) as caught:
        read_entry(name, entry, OPTS)
    assert place in str(caught.value)
    assert "secret" not in str(caught.value)


def test_sudo_needs_no_terminal() -> None:
    """The login becomes root without being asked for a password."""
    host = SshHost("a", "h", sudo=True)
    assert ssh_command(host, [])[-1].startswith("sudo -n -- sh -c ")
