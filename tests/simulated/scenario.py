"""What a simulation demands: levels, budgets, approvals, calendar, profiles, what follows.

It is written down twice from one throw of the dice: as a configuration for the library, and as
plain values for the checker.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cpacman.config import load_settings
from tests.simulated.calendar import make_calendar
from tests.simulated.picture import Header
from tests.unit.commands.world import World

LEVELS = ("canary", "early", "most", "rest")
EMERGENCY = "emergency"
SERVICES = ("httpd.service (7 8)", "nginx.service (9)")
LISTED = "httpd.service"
FIRST, SECOND = "development", "testing"


class Scenario:
    """One throw of the dice.

    Attributes:
        levels: name -> its part of the configuration.
        calm: set when all is mended: no window is closed any more.
    """

    def __init__(
        self, dice: random.Random, world: World, folder: Path, classes: Mapping[str, str]
    ) -> None:
        self._dice, self._world, self._folder = dice, world, folder
        self.classes, names = dict(classes), sorted(classes)
        self.levels = {name: self._level() for name in LEVELS[: dice.randint(1, 4)]}
        most = max(one["max_failures"] for one in self.levels.values())
        self.failures = max(dice.choice([0, 1, 2, len(names)]), most)
        self.unreachable = dice.choice([1, 2, len(names)])
        self._approvers = dice.choice([0, 0, 0, 1])
        self._emergency = {"soak": "5s", "windows": "ignore", "approvers": dice.choice([0, 0, 1])}
        self.late = dice.random() < 0.4
        self.evidence = dice.choice([None, {"min_hosts": 1, "soak": "90s", "max_failures": 1}])
        self.calendar = make_calendar(dice, names)
        self.calm = False
        rings = {name: dice.randrange(len(self.levels)) for name in names}
        own = self.calendar.own
        members = {
            name: {"class": classes[name],
                   "meta": {"ring": rings[name], **({"window": own[name]} if name in own else {})}}
            for name in names
        }  # fmt: skip
        (folder / "hosts.d").mkdir()
        (folder / "hosts.d" / "all.yaml").write_text(yaml.safe_dump(members))

    def _level(self) -> dict[str, Any]:
        dice = self._dice
        found: dict[str, Any] = {
            "concurrency": dice.choice([1, 2, 3, 12]),
            "max_failures": dice.choice([0, 0, 1, 3]),
            "soak": dice.choice(["0s", "0s", "0s", "40s", "300s"]),
        }
        if dice.random() < 0.5:
            found["gate"] = True
        if dice.random() < 0.3:
            found["around"] = ["drain"]
        if dice.random() < 0.5:
            found["restarts"] = self._restarts()
        return found

    def _restarts(self) -> dict[str, Any]:
        services = self._dice.choice(["never", "needed", "listed"])
        return {
            "services": services, **({"list": [LISTED]} if services == "listed" else {}),
            "reboot": self._dice.choice(["never", "needed", "always"]),
            "within": self._dice.choice(["45s", "240s"]),
        }  # fmt: skip

    def settings(
        self, *, freezes: Sequence[Mapping[str, str]] | None = None, mirror: str = "base"
    ) -> Any:
        """Return the configuration; `freezes` instead of those that it has from the beginning."""
        calendar, world = self.calendar, self._world
        closes = not self.calm
        named = {"windows": dict(calendar.named)} if closes and calendar.named else {}
        check = {"when": ["before", "after", "soak"], "every": "20s", "timeout": "5s"}
        evidence = {"evidence": self.evidence} if self.evidence else {}
        section = {
            **world.section,
            "state_dir": str(self._folder / "state"),
            "depot": str(world.context().settings.depot),
            "classes": [
                {FIRST: {"approvers": self._approvers, **named}}, {SECOND: {**named, **evidence}},
            ],
            "levels": self._configured_levels(),
            "gates": {name: [{"up": {"salt": f"gate.{name}", **check}}] for name in self.levels},
            "around": {"drain": {"before": {"salt": "drain.on"}, "after": {"salt": "drain.off"}}},
            "budget": {"max_failures": self.failures, "max_unreachable": self.unreachable,
                       "late": "join" if self.late else "skip"},
            "windows": dict(calendar.windows),
            "freeze": [dict(one) for one in (calendar.freezes if freezes is None else freezes)]
            if closes else [],
            "profiles": {EMERGENCY: self._emergency},
            "transport": {"answer": "5s", "apply": "120s"},
        }  # fmt: skip
        section["membership"] = {
            **section["membership"], "hosts_d": str(self._folder / "hosts.d"),
        }  # fmt: skip
        channel = section["channels"]["el9"]
        repositories = {"base": {"path": str(world.base / mirror)}}
        section["channels"] = {"el9": {**channel, "repositories": repositories}}
        return load_settings(section, source="test", base=self._folder)

    def _configured_levels(self) -> list[dict[str, Any]]:
        found = []
        for ring, (name, own) in enumerate(self.levels.items()):
            more = {"gate": name} if own.get("gate") else {}
            found.append({name: {**own, **more, "match": f"ring:{ring}"}})
        return found

    # ---- for the checker -------------------------------------------------------------------

    def is_closed(self, header: Header, host: str, now: float) -> bool:
        """Whether a rollout may not change a host now."""
        return not self._is_free(header) and self.calendar.is_closed(host, now)

    def is_closed_for_bytes(self, header: Header, host: str, now: float) -> bool:
        """Whether a rollout may not send a host anything now."""
        return not self._is_free(header) and self.calendar.is_closed_for_bytes(host, now)

    def _is_free(self, header: Header) -> bool:
        return self.calm or header.setting("profile") == EMERGENCY

    def approvers(self, header: Header) -> int:
        """How many others must approve of a rollout."""
        if header.setting("profile") == EMERGENCY:
            return int(self._emergency["approvers"])
        return self._approvers if header.class_ == FIRST else 0

    def soak(self, header: Header, level: str) -> float:
        """How long a level must soak."""
        if header.setting("profile") == EMERGENCY:
            return 5.0
        return float(self.levels[level]["soak"].rstrip("s"))

    def has_gate(self, level: str) -> bool:
        """Whether a level has a gate."""
        return bool(self.levels[level].get("gate"))

    def must_reboot(self, level: str, needs: Sequence[str]) -> bool:
        """Whether a host with these needs must be rebooted after its transaction."""
        policy = self.levels[level].get("restarts", {}).get("reboot", "never")
        return policy == "always" or (policy == "needed" and "reboot" in needs)

    def must_restart(self, level: str, needs: Sequence[str]) -> bool:
        """Whether a host with these needs must have services restarted."""
        policy = self.levels[level].get("restarts", {}).get("services", "never")
        return (policy == "needed" and any(line in needs for line in SERVICES)) or (
            policy == "listed" and SERVICES[0] in needs)  # fmt: skip
