"""A throw-away lab: one Salt master and N hosts on one machine, in namespaces of their own.

`from lab import Lab` in tests, demo and benchmarks; `python -m lab up` for a person.

Invariants: the real system is read, never written (outside the lab's own state directory);
whoever owns the lab may die in any way, and every process and mount of it dies too.
"""

from __future__ import annotations

from lab.errors import LabError
from lab.host import Host
from lab.lab import Lab
from lab.namespace import Result

__all__ = ["Host", "Lab", "LabError", "Result"]
