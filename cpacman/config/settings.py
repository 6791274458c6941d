"""The whole section: `Settings`, frozen and complete, every default filled in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, StrictBool, StrictInt, StrictStr

from cpacman.config.channels import Channel
from cpacman.config.explained import Explained, explain_section
from cpacman.config.fields import (
    DEFAULT_STATE_DIR,
    ConfigPath,
    Count,
    Duration,
    Name,
    Rate,
    Section,
    Share,
    Size,
    listed,
    named,
    ordered,
)
from cpacman.config.gates import AroundSettings, FreezeSettings, Gate, WindowSettings
from cpacman.config.policy import PolicyLine
from cpacman.config.stages import (
    Access,
    Budget,
    ClassSettings,
    LevelSettings,
    Membership,
    Profile,
    RestartSettings,
)
from cpacman.config.values import Amount


class TransportSettings(Section):
    """How bytes travel: the size of one chunk, and how many are under way at once.

    `answer`, `stall` and `apply` are how long to wait for a host's answer, for its
    acknowledgement of a chunk, and for its transaction. `share` is the part of all who would hear
    it that targets must be where publish does not filter; `connections` are those of ssh;
    `bandwidth` is in bytes a second, 0 for no cap;
    `host_cache` bounds what a host keeps of package files.
    """

    chunk: Annotated[Size, Field(ge=65536, le=2**28)] = 16 * 2**20
    window: Annotated[StrictInt, Field(ge=1, le=64)] = 2
    answer: Annotated[Duration, Field(ge=1)] = 30
    stall: Annotated[Duration, Field(ge=1)] = 30
    apply: Annotated[Duration, Field(ge=1)] = 1800
    share: Share = Amount(80, percent=True)
    connections: Annotated[StrictInt, Field(ge=1, le=1000)] = 50
    bandwidth: Rate = 0
    bandwidth_per_host: Rate = 0
    host_cache: Annotated[Size, Field(ge=2**20)] = 2 * 2**30


class Retention(Section):
    """What `prune` leaves in the depot besides what is in use.

    `keep` are the snapshots of each class and channel, the one it holds included; `days` is how
    long a class may go back to what it held; `pins` are snapshots that stay, by id or prefix.
    """

    keep: Annotated[StrictInt, Field(ge=2, le=1000)] = 2
    days: Annotated[StrictInt, Field(ge=0, le=36500)] = 30
    pins: Annotated[
        tuple[Annotated[StrictStr, Field(pattern=r"^s-[0-9a-f]{6,64}$")], ...],
        BeforeValidator(listed),
    ] = ()


def _below_state(folder: str) -> Any:
    """A default that follows `state_dir` (which is absent here when it is itself wrong)."""
    return Field(default_factory=lambda values: values.get("state_dir", DEFAULT_STATE_DIR) / folder)


class EngineSettings(Section):
    """What the engine does by itself, beside carrying out rollouts; 0 is never.

    `snapshot`, `refresh` and `prune` are how often; `settle` is how long mirrors must have been
    quiet since somebody said that they changed. `plan` makes a plan of each new snapshot, and
    `deploy` carries that out in the first class.
    """

    snapshot: Duration = 0
    settle: Duration = 60
    plan: StrictBool = True
    deploy: StrictBool = False
    refresh: Duration = 0
    prune: Duration = 0

    @property
    def schedule(self) -> dict[str, int]:
        """What is done by the clock -> every so many seconds; 0 is never."""
        return {"snapshot": self.snapshot, "refresh": self.refresh, "prune": self.prune}


class Settings(Section):
    """The whole `cpacman:` section, validated. Order of fields is that of the screens."""

    membership: Membership = Membership()
    channels: dict[Name, Channel] = {}
    classes: Annotated[
        tuple[Annotated[ClassSettings, BeforeValidator(named)], ...], BeforeValidator(ordered)
    ] = (ClassSettings(name="all"),)
    levels: Annotated[
        tuple[Annotated[LevelSettings, BeforeValidator(named)], ...], BeforeValidator(ordered)
    ] = (LevelSettings(name="all"),)
    policy: tuple[PolicyLine, ...] = ()
    installonly_limit: Count = 3
    weak_deps: StrictBool = True
    budget: Budget = Budget()
    gates: dict[Name, Gate] = {}
    around: dict[Name, AroundSettings] = {}
    restarts: RestartSettings = RestartSettings()
    windows: dict[Name, WindowSettings] = {}
    freeze: tuple[FreezeSettings, ...] = ()
    profiles: dict[Name, Profile] = {}
    access: Access = Access()
    engine: EngineSettings = EngineSettings()
    state_dir: ConfigPath = DEFAULT_STATE_DIR
    depot: ConfigPath = _below_state("depot")
    cache_dir: ConfigPath = _below_state("cache")
    database: StrictStr = ""
    retention: Retention = Retention()
    transport: TransportSettings = TransportSettings()

    _source: str = PrivateAttr("")

    @property
    def source(self) -> str:
        """The file or section the settings were read from."""
        return self._source

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of promotion."""
        return tuple(one.name for one in self.classes)

    @property
    def level_names(self) -> tuple[str, ...]:
        """The levels, in the order of deployment."""
        return tuple(one.name for one in self.levels)

    def explain(self) -> tuple[Explained, ...]:
        """Return each value of the settings and where it comes from."""
        return tuple(explain_section(self, "", self._source))
