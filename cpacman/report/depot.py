"""Screens of the depot: snapshots, and how packages stand with their channel's keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import line, table, when
from cpacman.words import many

Answer = Mapping[str, Any]
_FEW = 3


def snapshot(body: Answer) -> str:
    """Return the screen of one snapshot in full."""
    rows = [(p["nevra"], p["repository"], f"{p['size'] / 1e6:.1f} MB") for p in body["packages"]]
    lines = [f"snapshot {short_id(body['id'])}  {body['channel']}  {many(len(rows), 'package')}"]
    lines += [f"from {one}" for one in lineage(body.get("lineage"))]
    lines += [f"{m['action']} {m['class']}  {when(m['at'])} by {m['who']}"
              for m in body.get("moves") or ()]  # fmt: skip
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


def snapshots(body: Answer) -> str:
    """Return the list of snapshots."""
    rows = [_listed(one) for one in body["snapshots"]]
    return table(rows, indent="") if rows else "no snapshot yet: salt-run cpacman.snapshot"


def _listed(one: Answer) -> tuple[str, ...]:
    packages = "" if one["packages"] is None else many(one["packages"], "package")
    need = ", ".join(one["needed"]) or "may go: salt-run cpacman.prune"
    who = f"by {one['who']}" if one["who"] else ""
    origin = " ".join(lineage(one["lineage"]))
    return (short_id(one["id"]), one["channel"], when(one["created"]), who, packages, need, origin)


def prune(body: Answer) -> str:
    """Return what goes, what that frees, and what stays why."""
    test = "  TEST, nothing done" if body["test"] else ""
    word = "would be removed" if body["test"] else "removed"
    shared = f", {_size(body['shared'])} that mirrors have, too" if body["shared"] else ""
    head = (
        f"{many(len(body['removed']), 'snapshot')} and {many(body['files'], 'file')} {word},"
        f" {_size(body['freed'])} on disk{shared}{test}"
    )
    gone = [(short_id(o["id"]), o["channel"], when(o["created"]), "goes") for o in body["removed"]]
    kept = [
        (short_id(o["id"]), o["channel"], when(o["created"]), ", ".join(o["needed"]))
        for o in body["kept"]
    ]
    rows = table([*gone, *kept])
    return f"{head}\n{rows}" if rows else head


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def verify(body: Answer) -> str:
    """Return what is damaged and who needs it, and how signatures stand."""
    damaged = body["damaged"]
    left = sum(not one["source"] for one in damaged)
    words = "nothing is damaged" if not damaged else f"{left} of {len(damaged)} DAMAGED files left"
    lines = [f"{many(body['files'], 'file')} of {body['snapshots']} snapshots hashed: {words}"]
    lines += [_damage(one) for one in damaged]
    lines += [f"DAMAGED  {o['path']}: {o['message']}; {o['mend']}" for o in body["problems"]]
    for channel, one in body["signatures"].items():
        lines += [f"{channel}  {text}" for text in signatures(one, full=True)]
    if left and not body["repair"]:
        lines.append("next: salt-run cpacman.verify repair=True")
    return "\n".join(map(line, lines))


def _damage(one: Answer) -> str:
    said = f"{one['what']} {one['fault']} ({one['path']})"
    if one["source"]:
        return f"mended   {said} from {one['source']}"
    ids = " ".join(map(short_id, one["snapshots"]))
    classes = f", of {' '.join(one['classes'])}" if one["classes"] else ", of no class"
    return f"DAMAGED  {said} needed by {ids}{classes}"
