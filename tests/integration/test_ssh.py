"""A fleet that mixes a minion and a host with nothing but an sshd: the same commands for both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from lab import Lab
from tests.integration.fleet import Fleet
from tests.integration.test_thread import UPDATED, installed

MEMBERS = {"*": {"class": "development", "meta": {"ring": 1}}, "web1": {"meta": {"ring": 0}}}


@pytest.fixture(scope="module")
def mixed_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One host with a minion, two with an sshd."""
    with Lab(["web1"], ssh_hosts=["old1", "old2"]) as started:
        yield started


@pytest.fixture
def fleet(mixed_lab: Lab) -> Iterator[Fleet]:
    """The mixed fleet, configured, with its inventories and a snapshot."""
    fleet = Fleet(mixed_lab)
    fleet.members(MEMBERS)
    yield fleet.ready()
    mixed_lab.reset()


def roster(lab: Lab, **changes: dict[str, object]) -> None:
    """Change entries of the lab's roster."""
    entries = yaml.safe_load(lab.master.roster.read_text(encoding="utf-8"))
    for name, change in changes.items():
        entries[name] = {**entries[name], **change}
    lab.master.roster.write_text(yaml.safe_dump(entries), encoding="utf-8")


def test_a_mixed_fleet_is_served_by_one_deploy(fleet: Fleet) -> None:
    """Refresh, plan and deploy; every host ends with the plan's packages and its outcome."""
    plan = fleet.plan()
    assert set(plan["hosts"]) == {"web1", "old1", "old2"}, plan["failed"]
    hosts = fleet.run("status")["status"]["hosts"]
    done = fleet.run("deploy", plan=plan["plan_id"])
    assert (done.code, done.outcomes()) == (
        0, {"web1": ("applied", None), "old1": ("applied", None), "old2": ("applied", None)},
    ), done.text  # fmt: skip
    for host in ("web1", "old1", "old2"):
        assert installed(fleet, host) > UPDATED
    assert hosts is not None
    again = fleet.run("deploy", **{"class": "development", "now": True})
    assert {one[0] for one in again.outcomes().values()} == {"unchanged"}
