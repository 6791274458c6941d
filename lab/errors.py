"""What the lab raises: a `CpacmanError` whose problems say what is missing and how to mend it."""

from __future__ import annotations

from cpacman.errors import CpacmanError


class LabError(CpacmanError):
    """The lab could not be started, found or used."""
