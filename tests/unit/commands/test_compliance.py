"""Whether hosts are as they were left: what they say is looked at, and silence is no yes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.commands.compliance import compliance
from cpacman.commands.fleet import Selection
from cpacman.transport.port import UNREACHABLE, Answer
from tests.unit.commands.world import Nobody, World

LEFT = {"plan": "p-1", "session": "r-1"}


class Hosts(Nobody):
    """Hosts that say what a test has them say."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said

    def call(self, function: str, requests: Mapping[str, Any], *, timeout: float) -> list[Answer]:
        """Answer for each, as far as it says anything."""
        assert function == "compliance"
        return [
            Answer(host, self.said[host]) if host in self.said
            else Answer(host, {}, UNREACHABLE, "no answer")
            for host in requests
        ]  # fmt: skip


def test_every_host_that_is_named_gets_a_state(world: World) -> None:
    """One that is silent, or answers nonsense, failed; only equal ones make it a success."""
    said = {
        "web1": {"state": "equal", **LEFT},
        "web2": {"state": "differs", **LEFT},
        "web3": {"state": "wonderful", "plan": ["x"]},
    }
    for host in (*said, "web4"):
        world.host(host, "development", "lib-1-1.noarch")
    context = world.context(transport=Hosts(said))
    found = compliance(context, Selection(class_="development"))
    rows = found["compliance"]["hosts"]
    assert {host: (row["state"], row["code"]) for host, row in rows.items()} == {
        "web1": ("equal", ""), "web2": ("differs", ""), "web3": ("failed", "garbled"),
        "web4": ("failed", UNREACHABLE),
    }  # fmt: skip
    assert found["retcode"] == 1
    assert compliance(context, Selection(tgt="web1"))["retcode"] == 0
