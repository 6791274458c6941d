"""Tells Salt's loader where our folders are: the `salt.loader` entry point.

Kept to the standard library: it also runs on hosts, where nothing else of ours is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

KINDS = ("runners", "modules", "output", "engines", "states")


def salt_dirs() -> dict[str, list[str]]:
    """Return kind -> folders, from the installed wheel or from the checkout beside this file."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        spec = find_spec(f"cpacman._{kind}")
        checkout = Path(__file__).resolve().parents[1] / f"_{kind}"
        if spec and spec.submodule_search_locations:
            found[kind] = list(spec.submodule_search_locations)
        elif checkout.is_dir():
            found[kind] = [str(checkout)]
    return found
