"""
Carries out rollouts in the background, and takes snapshots, plans and prunes by the clock.

Needs the ``cpacman`` library in the Python that Salt's master runs in. In the master's
configuration:

.. code-block:: yaml

    engines:
      - cpacman: {interval: 2}

What it does is configured below ``cpacman: engine:`` and is read anew each time.

.. versionadded:: 0.1.0
"""

from __future__ import annotations

try:
    from cpacman.engine import Engine

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

__virtualname__ = "cpacman"


def __virtual__():
    if MISSING:
        return (False, f"the cpacman library is missing, run: salt-pip install cpacman ({MISSING})")
    return __virtualname__


def start(interval=2.0):
    """Look every ``interval`` seconds what is due, and do it."""
    Engine(__opts__, float(interval)).run()
