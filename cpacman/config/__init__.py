"""The `cpacman:` section of the configuration: raw -> validated `Settings`.

Invariants: settings are frozen and complete (every default is filled in, every path is absolute,
every unit is a number); a section that is wrong in several places reports all of them at once,
each with its path (`levels[2].match`) and the mend; nothing unknown is ignored; loading looks at
no repository.
"""

from cpacman.config.channels import Channel, OsMatch, RepositorySettings, Signatures
from cpacman.config.explained import Explained
from cpacman.config.fields import (
    DEFAULT_HOSTS_D,
    DEFAULT_STATE_DIR,
    ConfigPath,
    Count,
    Date,
    Duration,
    Globs,
    HostAmount,
    HostMatch,
    Name,
    Names,
    Section,
    Size,
    Source,
    Texts,
)
from cpacman.config.loading import (
    LiveSettings,
    load_settings,
    read_settings,
    settings_from_opts,
)
from cpacman.config.policy import POLICY_KINDS, PolicyKind, PolicyLine
from cpacman.config.problems import path_text, problems_of
from cpacman.config.restarts import restarts_of
from cpacman.config.settings import Settings, TransportSettings
from cpacman.config.stages import (
    Access,
    Budget,
    ClassSettings,
    Evidence,
    LevelSettings,
    Membership,
    Profile,
    RestartChanges,
    RestartSettings,
)
from cpacman.config.values import (
    Amount,
    Match,
    is_glob,
    nearest,
    parse_amount,
    parse_date,
    parse_duration,
    parse_match,
    parse_rate,
    plain_text,
)
from cpacman.config.yamlfile import read_yaml

__all__ = [
    "DEFAULT_HOSTS_D",
    "DEFAULT_STATE_DIR",
    "POLICY_KINDS",
    "Access",
    "Amount",
    "Budget",
    "Channel",
    "ClassSettings",
    "ConfigPath",
    "Count",
    "Date",
    "Duration",
    "Evidence",
    "Explained",
    "Globs",
    "HostAmount",
    "HostMatch",
    "LevelSettings",
    "LiveSettings",
    "Match",
    "Membership",
    "Name",
    "Names",
    "OsMatch",
    "PolicyKind",
    "PolicyLine",
    "Profile",
    "RepositorySettings",
    "RestartChanges",
    "RestartSettings",
    "Section",
    "Settings",
    "Signatures",
    "Size",
    "Source",
    "Texts",
    "TransportSettings",
    "is_glob",
    "load_settings",
    "nearest",
    "parse_amount",
    "parse_date",
    "parse_duration",
    "parse_match",
    "parse_rate",
    "path_text",
    "plain_text",
    "problems_of",
    "read_settings",
    "read_yaml",
    "restarts_of",
    "settings_from_opts",
]
