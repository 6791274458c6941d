"""Screens of the depot: snapshots, and how packages stand with their channel's keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import line, table

Answer = Mapping[str, Any]
_FEW = 3


def snapshot(body: Answer) -> str:
    """Return the screen of one snapshot in full."""
    rows = [(p["nevra"], p["repository"], f"{p['size'] / 1e6:.1f} MB") for p in body["packages"]]
    lines = [f"snapshot {short_id(body['id'])}  {body['channel']}  {len(rows)} packages"]
    lines += [f"from {one}" for one in lineage(body.get("lineage"))]
    lines += signatures(body.get("signatures"), full=True)
    return "\n".join([*map(line, lines), table(rows)])


def lineage(said: Answer | None) -> Iterator[str]:
    """Yield a derived snapshot's parents and how its packages were chosen, as one line."""
    if said:
        yield f"{' and '.join(map(short_id, said['parents']))}: {said['how']}"


def signatures(said: Answer | None, *, full: bool) -> Iterator[str]:
    """Yield how packages stand with the channel's keys, and which were not verified.

    Args:
        said: `counts` by verdict and the `packages` that were not verified; or nothing.
        full: name all of them.
    """
    counts = said["counts"] if said else {}
    if not said or not counts:
        return
    yield f"signatures  {counted(counts)}"
    rows = [f"{o['nevra']} ({o['repository']}): {o['detail']}" for o in said["packages"]]
    shown = rows if full else rows[:_FEW]
    yield from (f"NOT VERIFIED  {row}" for row in shown)
    if len(rows) > len(shown):
        yield f"NOT VERIFIED  and {len(rows) - len(shown)} more"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by verdict as words."""
    return ", ".join(f"{number} {status}" for status, number in counts.items())
