"""Packages that nobody here built: snapshotted in the lab, planned by both ways, and installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab
from tests.integration.fleet import CHANNEL, Fleet

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = CHECKOUT.parent / "shared" / "data" / "rpms"
NEWER = {
    "duck-0.7-1.noarch", "duck-0.8-1.noarch", "kangaroo-0.3-1.noarch", "walrus-5.21-1.noarch",
}  # fmt: skip
AGENT = "/var/cache/salt/minion/extmods/modules/cpacman_agent.py"


@pytest.fixture
def fleet(clean_lab: Lab) -> Fleet:
    """A fleet whose repositories are the real packages, as bare folders."""
    if not DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{DATA} is missing")
        pytest.skip("the real packages lie beside the checkout only where they are handed out")
    fleet = Fleet(clean_lab)
    repositories = {name: {"path": str(DATA / name)} for name in ("zoo", "centos-release")}
    match = {"id_like": "rhel", "major": 9, "arch": "x86_64"}
    fleet.configure(channels={CHANNEL: {"match": match, "repositories": repositories}})
    return fleet


def test_real_packages_from_folder_to_host(fleet: Fleet) -> None:
    """Old signed packages become a snapshot; console and runner plan the same; the host has it."""
    host = fleet.lab.host("web1")
    old = [path for path in (DATA / "zoo").glob("*.rpm") if path.stem not in NEWER]
    host.install_rpms(old)
    taken = fleet.ready().run("snapshot")["snapshot"]["channels"][CHANNEL]
    assert taken["packages"] == len([*DATA.rglob("*.rpm")]) and taken["new"] is False

    (transaction,) = fleet.plan(tgt="web1")["transactions"].values()
    assert [(a["nevra"], a["from"]) for a in transaction["actions"]] == [
        ("duck-0.8-1.noarch", "duck-0.6-1.noarch"),
        ("kangaroo-0.3-1.noarch", "kangaroo-0.2-1.noarch"),
        ("walrus-5.21-1.noarch", "walrus-0.71-1.noarch"),
    ]
    assert offline(fleet, host) == transaction["actions"]

    deployed = fleet.run("deploy", "web1", now=True)
    assert deployed.outcomes() == {"web1": ("applied", None)}, deployed.text
    assert NEWER - {"duck-0.7-1.noarch"} < set(host.packages())


def offline(fleet: Fleet, host) -> list:
    """The actions that the console plans for a host, without a master."""
    inventory = fleet.lab.path("web1.json")
    inventory.write_text(host.run(["/usr/bin/python3", AGENT, "inventory"]).check().stdout)
    command = [sys.executable, "-m", "cpacman", "plan", "--format", "json"]
    command += ["--repo", f"zoo={DATA / 'zoo'}", f"centos-release={DATA / 'centos-release'}"]
    done = subprocess.run(
        [*command, "--inventory", str(inventory)],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (transaction,) = json.loads(done.stdout)["transactions"].values()
    return transaction["actions"]
