"""Settings that are read again when their file changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cpacman.config import LiveSettings, settings_from_opts
from cpacman.errors import ConfigError


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    """Once, when it changed; one that is broken says so each time, and is mended by writing."""
    path = tmp_path / "cpacman.yaml"
    opts: dict[str, Any] = {"conf_file": str(tmp_path / "master"), "cpacman": {"config": path.name}}

    def write(text: str, moment: int) -> None:
        path.write_text(text)
        os.utime(path, (moment, moment))

    write("classes: [one]\n", 1)
    live = LiveSettings(opts, settings_from_opts(opts))
    first = live()
    assert live() is first
    write("classes: [two]\n", 2)
    assert live().class_names == ("two",) and live() is live()
    write("classes: 7\n", 3)
    for _ in range(2):
        with pytest.raises(ConfigError):
            live()
    write("classes: [three]\n", 4)
    assert live().class_names == ("three",)


def test_section_of_the_master_itself_stays(tmp_path: Path) -> None:
    """What was read with the master's configuration is as that was."""
    opts = {"conf_file": str(tmp_path / "master"), "cpacman": {"classes": ["one"]}}
    settings = settings_from_opts(opts)
    assert LiveSettings(opts, settings)() is settings
