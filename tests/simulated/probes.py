"""Gates and actions around simulated hosts: they pass, fail, hang, err, and say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpacman.rollout.checks import Nobody
from cpacman.rollout.gate import Reply

if TYPE_CHECKING:
    from tests.simulated.fleet import Simulation


class Probes(Nobody):
    """Gates and actions: they pass, fail, hang, err, and say nothing."""

    def __init__(self, simulation: Simulation) -> None:
        self._all = simulation

    def salt(
        self, function: str, hosts: Sequence[str], args: Sequence[Any], kwargs: Any, timeout: float
    ) -> Mapping[str, Reply]:
        """See `Probes.salt`."""
        one = self._all
        one.schedule.sleep(one.dice.uniform(0.1, 3.0))
        kind, _, what = function.partition(".")
        if kind == "drain":
            return self._drain(what, hosts)
        return self._gate(what, hosts, timeout)

    def _drain(self, side: str, hosts: Sequence[str]) -> Mapping[str, Reply]:
        one = self._all
        for host in hosts:
            one.checker.around(side, host)
        bad = side == "on" and not one.healed and one.dice.random() < 0.05
        return {host: Reply(True, not (bad and host == hosts[0])) for host in hosts}

    def _gate(self, level: str, hosts: Sequence[str], timeout: float) -> Mapping[str, Reply]:
        one = self._all
        kinds = ["pass", "fail", "hang", "error", "empty", "lost"]
        kind = "pass" if one.healed else one.dice.choices(kinds, [80, 6, 3, 4, 4, 3])[0]
        one.counts[f"gate check {kind}"] += 1
        one.checker.gate(level, {"pass": "pass", "fail": "fail"}.get(kind, "nothing"))
        if kind == "hang":
            one.schedule.sleep(timeout)
            return {}
        if kind == "error":
            raise RuntimeError("the monitor is down")
        if kind == "empty":
            return {host: Reply(True, None) for host in hosts}
        replies = {host: Reply(True, True) for host in hosts}
        if kind == "fail" and hosts:
            replies[hosts[0]] = Reply(True, False)
        if kind == "lost" and hosts:
            del replies[hosts[0]]
        return replies
