"""dnf goes on working on a host where CPacMan installs, and removes nothing that it brought."""

from __future__ import annotations

import shutil

import pytest

from lab import Host, Lab
from tests.integration.fleet import Fleet
from tests.integration.test_thread import UPDATED, installed


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A configured fleet with inventories and a first snapshot."""
    if shutil.which("dnf") is None:
        pytest.skip("no dnf here")
    return Fleet(clean_lab).ready()


def dnf(host: Host, *words: str) -> str:
    """Run dnf on a host, without repositories; return what it prints."""
    quiet = ["--setopt=reposdir=/nowhere", "--setopt=logdir=/tmp/dnf-log"]
    done = host.run(["env", "HOME=/tmp/dnf-home", "dnf", "-q", *quiet, *words])
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_dnf_beside(fleet: Fleet) -> None:
    """History, check and autoremove are as before; a requested package is no orphan to dnf."""
    host = fleet.lab.host("web1")
    dnf(host, "history", "list")
    number = fleet.plan(tgt="web1", install="hugedata", upgrade="webapp")["plan_id"]
    assert fleet.run("deploy", plan=number).outcomes() == {"web1": ("applied", None)}
    before = installed(fleet, "web1")
    assert "hugedata-1.0-1.noarch" in before and before & UPDATED
    assert dnf(host, "check").startswith("0\n")
    assert dnf(host, "history", "list").startswith("0\n")
    told = dnf(host, "autoremove", "--assumeno")
    assert not [name for name in ("hugedata", "webapp", "newtool") if name in told], told
    assert "-1.0-1" not in told and dnf(host, "autoremove", "-y").startswith("0\n")
    assert installed(fleet, "web1") == before, "dnf took nothing away"
    assert dnf(host, "remove", "-y", "hugedata").startswith("0\n"), "dnf can still change the host"
    assert fleet.run("refresh", "web1").code == 0
    again = fleet.plan(tgt="web1", install="hugedata")["plan_id"]
    assert fleet.run("deploy", plan=again).outcomes() == {"web1": ("applied", None)}
    assert "hugedata-1.0-1.noarch" in installed(fleet, "web1")
