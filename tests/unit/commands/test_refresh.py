"""What hosts answer about their packages: taken only when it is what its seal says."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from cpacman.commands.context import served_paths
from cpacman.commands.refresh import _read_details, seal_of
from cpacman.config import load_settings
from cpacman.errors import CpacmanError
from cpacman.transport.port import Answer

DIGEST = "sha256:" + "a" * 64
HONEST = {"name": "webapp", "version": "1.0", "release": "1", "arch": "noarch", "digest": DIGEST}
LYING = {**HONEST, "version": "9.9"}


def answer(*packages: dict[str, Any]) -> Answer:
    """What a door answers to `details`."""
    packed = base64.b64encode(zlib.compress(json.dumps(packages).encode())).decode()
    return Answer("web1", {"packed": packed, "missing": []})


def test_details_must_match_their_seal() -> None:
    """A host can't answer for what another host said it has."""
    key = f"{DIGEST} {seal_of(HONEST)}"
    assert _read_details(answer(HONEST), [key])[key].version == "1.0"
    assert _read_details(answer(LYING), [key]) == {}


def test_details_that_nobody_asked_for_are_left_out() -> None:
    """What a host announces for later is not kept."""
    assert _read_details(answer(HONEST), []) == {}


@pytest.mark.parametrize("packed", ["?", "", base64.b64encode(b"x").decode(), None, 7])
def test_garbled_details_are_an_error(packed: Any) -> None:
    """Whatever else comes is a clean error of that host."""
    with pytest.raises(CpacmanError):
        _read_details(Answer("web1", {"packed": packed}), [])


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"depot": "/srv/salt/depot"}, "depot"),
        ({"state_dir": "/srv"}, "state_dir"),
        ({"channels": {"c": {"repositories": {"r": {"path": "/srv/salt"}}}}},
         "channels.c.repositories.r.path"),
    ],
)  # fmt: skip
def test_what_salt_serves_is_no_place_for_packages(section: dict, place: str) -> None:
    """Below, above or at one of `file_roots`: each is named with its root."""
    settings = load_settings(section, source="test", base=Path("/"))
    found = served_paths(settings, {"base": ["/srv/salt"]})
    assert place in [problem.path for problem in found]
    assert served_paths(settings, {"base": ["/opt/salt"]}) == []
