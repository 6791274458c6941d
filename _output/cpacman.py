"""
Shows what CPacMan's runners answer as tables that a person likes to read.

.. versionadded:: 0.1.0
"""

from __future__ import annotations

try:
    from cpacman.report.screens import render

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

__virtualname__ = "cpacman"


def __virtual__():
    if MISSING:
        return (False, f"the cpacman library is missing ({MISSING})")
    return __virtualname__


def output(data, **kwargs):
    """
    Render one answer, or one line of progress.

    CLI Example:

    .. code-block:: bash

        salt-run cpacman.status
    """
    return render(data)
