"""What is done around the change of a host: before it, and undone after it, however that ended.

Invariants: what came before is undone also where the process died in between: twice at worst,
never not at all; an undo that fails is told and journaled, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cpacman.rollout import gate
from cpacman.rollout.gate import Verdict
from cpacman.rollout.job import Level, Tools
from cpacman.rollout.machine import HostState
from cpacman.store import RolloutHost

Note = Callable[[str, str, str], None]
"""Notes an action on a host, with words, in the journal."""


def undo(level: Level, hosts: Sequence[str], tools: Tools, note: Note) -> None:
    """Undo what came before the change of these hosts, the last first."""
    for name in reversed(level.around if hosts else ()):
        for one in tools.gates.after(name, hosts):
            if one.verdict is not Verdict.PASS:
                tools.reporter.line(gate.told(one))
                note("undo failed", one.host, f"{name}: {one.detail}")


def left_behind(level: Level, rows: Sequence[RolloutHost], beat: float) -> list[str]:
    """Return the hosts of a level for which a process that died may have undone nothing.

    Those that were staged may have been prepared; of those that have ended, all that ended before
    the last sign of life were seen to.

    Args:
        level: the level.
        rows: the hosts of its rollout, as that process left them.
        beat: its last sign of life.
    """
    if not level.around:
        return []
    return [
        row.host
        for row in rows
        if row.level == level.name
        and (row.state == HostState.STAGED.value
             or (row.state == HostState.ENDED.value and row.updated >= beat))
    ]  # fmt: skip
