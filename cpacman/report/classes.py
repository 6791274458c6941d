"""Screens about classes: the block list, promotion with its proof, the way back.

Invariant: what refuses, and the way out, stand at the end, where the eye is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report.text import clean, line, size, some, table, when
from cpacman.words import many

Answer = Mapping[str, Any]

TEST = "TEST, nothing done"


def block(body: Answer) -> str:
    """What was blocked just now, and who has it."""
    words = [TEST] if body["test"] else []
    words += [_entry(one) for one in body["blocks"]] or ["nothing is blocked"]
    having = sorted({host for one in body["blocks"] for host in one["hosts"]})
    if having and not body["test"]:
        words.append("plans and deploys leave it from now on; hosts that have it keep it until a"
                     " plan changes them")  # fmt: skip
    return clean("\n".join(words))


def blocks(body: Answer) -> str:
    """The whole list."""
    rows = [_entry(one) for one in body["blocks"]]
    return clean("\n".join(rows)) or "nothing is blocked"


def unblock(body: Answer) -> str:
    """What was taken off the list."""
    rows = [f"unblocked {_named(one)}  it was: {line(one['reason'])}" for one in body["blocks"]]
    return clean("\n".join([*([TEST] if body["test"] else []), *rows]))


def _named(one: Answer) -> str:
    return short_id(one["spec"]) if one["kind"] == "snapshot" else line(one["spec"])


def _entry(one: Answer) -> str:
    until = f", to {one['until']}" if one["until"] else ""
    state = "blocked" if one["holds"] else "EXPIRED"
    head = f"{state} {_named(one)}  {line(one['reason'])}{until} ({line(one['who'])})"
    if not one["known"]:
        nothing = "no snapshot that a class points at knows this advisory"
        called = "nothing that a class holds or a host has is called that: is it spelt right?"
        return f"{head}\n  {nothing if one['kind'] == 'advisory' else called}"
    if not one["hosts"]:
        return f"{head}\n  no host has it"
    return f"{head}\n  {many(len(one['hosts']), 'host')} with it: {some(list(one['hosts']))}"


# ---- promotion -----------------------------------------------------------------------------

_GROUPS = 5
_ACTIONS = 4
_ROWS = 6


def promote(body: Answer) -> str:
    """What would be, or was, promoted: proof, evidence, push, and what refuses."""
    lines: list[str] = []
    for channel, one in body["channels"].items():
        done = body["forced"] and not body["refused"]
        lines += [_title(body, channel, one), *_channel(one, forced=done)]
    if body["refused"]:
        mends = dict.fromkeys(p["mend"] for one in body["channels"].values()
                              for p in one["refused"] if p["mend"])  # fmt: skip
        waits = [w for one in body["channels"].values() if (w := one["evidence"]["when"])]
        ways = [*list(mends)[:3], *([f"from {when(max(waits))}"] if waits else [])]
        ways += [] if body["forced"] else ["force=True reason=..."]
        lines.append(f"mend: {', or '.join(ways) or 'the same without test=True asks for it'}")
    elif body["test"]:
        lines.append("next: the same without test=True")
    else:
        lines.append(f"next: salt-run cpacman.plan class={body['to']}")
    return clean("\n".join(lines))


def _title(body: Answer, channel: str, one: Answer) -> str:
    before = short_id(one["before"]) if one["before"] else "nothing"
    head = f"{body['from']} -> {body['to']} {channel}  "
    if not one["new"]:
        return f"{head}{short_id(one['id'])}  unchanged"
    change = many(one["packages"], "package") if not one["before"] else (
        f"+{one['added']} ~{one['updated']} -{one['removed']},"
        f" {many(one['advisories'], 'advisory')}"
    )  # fmt: skip
    done = f"  {TEST}" if body["test"] else ("" if not body["refused"] else "  NOT DONE")
    over = body["forced"] and one["refused"] and not body["refused"]
    forced = "  FORCED" if over and not body["test"] else ""
    return f"{head}{before} -> {short_id(one['id'])}  ({change}){done}{forced}"


def _channel(one: Answer, *, forced: bool) -> list[str]:
    if not one["new"]:
        return []
    lines = [*_part(one), *_proof(one["proof"]), _evidence(one["evidence"])]
    proof = one["proof"]
    reboots = f"; {many(proof['reboots'], 'reboot')}" if proof["reboots"] else ""
    lines.append(f"push      {size(proof['wire'])} on the wire at most,"
                 f" {size(proof['distinct'])} distinct{reboots}")  # fmt: skip
    if one["blocked"]:
        lines.append(f"blocked   {some(list(one['blocked']), _ROWS)}: no plan takes them")
    if one["entering"]:
        lines.append(f"enters    {some(one['entering'])}: no class before sees it")
    word = "FORCED    over" if forced else "REFUSED  "
    lines += [f"{word} {line(p['path'])}: {line(p['message'])}" for p in one["refused"][:_ROWS]]
    more = len(one["refused"]) - _ROWS
    return [*lines, f"{word} and {more} more"] if more > 0 else lines


def _part(one: Answer) -> list[str]:
    lines = [f"SKIPS     {some(one['skipped'])}: never held it"] if one["skipped"] else []
    part = one["part"]
    if part is None:
        return lines
    lines.append(f"part      of {short_id(one['source'])}: {line(part['how'])}")
    if part["needs"]:
        lines.append(f"needs     {some(part['needs'], _ROWS)}")
    if part["left"]:
        lines.append(f"left      {some(part['left'], _ROWS)}: they need what is excluded")
    return lines


def _proof(proof: Answer) -> list[str]:
    words = [f"{proof['change']} change", f"{proof['same']} same"]
    if proof["stale"]:
        words.append(f"{len(proof['stale'])} stale ({some(list(proof['stale']), 3)})")
    if proof["failed"]:
        causes = dict.fromkeys(c for one in proof["failed"].values() for c in one["causes"])
        words.append(f"{len(proof['failed'])} FAIL ({some(list(proof['failed']), _ROWS)}:"
                     f" {line(' | '.join(list(causes)[:2]))})")  # fmt: skip
    newly = "; new held: " + some([one["nevra"] for one in proof["newly_held"]], _ROWS)
    lines = [f"proof     {many(proof['hosts'], 'host')}: {', '.join(words)}"
             f"{newly if proof['newly_held'] else ''}"]  # fmt: skip
    lines += [_group(one) for one in proof["groups"][:_GROUPS]]
    more = len(proof["groups"]) + proof["omitted"] - _GROUPS
    if more > 0:
        lines.append(f"          and {more} more groups")
    if proof["waiting"]:
        lines.append(f"WAITING   {some(proof['waiting'])}: not accepted, so not in the proof")
    if proof["unplaced"]:
        lines.append(f"UNPLACED  {some(proof['unplaced'])}: of no channel, so not in the proof")
    return lines


def _group(one: Answer) -> str:
    shown = [f"{a['action']} {a['nevra']}" for a in one["actions"][:_ACTIONS]]
    more = len(one["actions"]) - _ACTIONS
    rest = f", and {more} more" if more > 0 else ""
    reboot = ", REBOOT" if one["reboot"] else ""
    names = f"{' '.join(one['on'][:3])}{' ...' if one['hosts'] > 3 else ''}"
    head = f"{one['letter']:>9} {many(one['hosts'], 'host')}, {size(one['size'])} each{reboot}"
    return f"{head}: {names}: {', '.join(shown)}{rest}"


def _evidence(shown: Answer) -> str:
    demanded = shown["demanded"]
    if demanded is None:
        words = ["none demanded"]
    elif len(shown["verdicts"]) == 1 and shown["subjects"] == 1:
        (only,) = shown["verdicts"].values()
        words = _verdict(demanded, only)
    else:
        bad = {name: one for name, one in shown["verdicts"].items() if one["lacks"]}
        words = [f"{shown['subjects'] - len(bad)} of {shown['subjects']} versions ok"]
        words += [f"{name}: {', '.join(lack['what'] for lack in one['lacks'])}"
                  for name, one in list(bad.items())[:_ROWS]]  # fmt: skip
    return line(f"evidence  {', '.join(words)}{_untested(shown)}")


def _verdict(demanded: Answer, one: Answer) -> list[str]:
    lacks = {lack["what"].split()[0]: lack for lack in one["lacks"]}
    words = []
    for name, text in (
        ("hosts", f"hosts {one['hosts']} of {demanded['min_hosts']}"),
        ("failures", f"failures {one['failures']} of {one['limit']}"),
        ("soak", f"soak {one['soak']}" if demanded["soak"] else ""),
        ("health", "health passed" if demanded["health"] else ""),
    ):
        lack = lacks.get(name)
        met = f" (met {when(lack['when'])})" if lack and lack["when"] else ""
        if text:
            words.append(f"{lack['what']}{met}" if lack else f"{text} ok")
    return words


def _untested(shown: Answer) -> str:
    rows = shown["untested"]
    more = len(rows) + shown["untested_omitted"] - 3
    told = [f"{' + '.join(one['packages'])}, {many(one['hosts'], 'host')}" for one in rows[:3]]
    rest = f" and {more} more" if more > 0 else ""
    return f"; never run: {', '.join(told)}{rest}" if rows else ""


# ---- back, and the first fill --------------------------------------------------------------


def revert(body: Answer) -> str:
    """Where a class went back to."""
    lines = _pointed(body, "revert")
    if not body["test"]:
        lines.append("hosts that have newer versions stay ahead; to take them back:"
                     f" salt-run cpacman.plan class={body['class']} sync=True")  # fmt: skip
    return clean("\n".join(lines))


def seed(body: Answer) -> str:
    """What a class was filled with."""
    return clean("\n".join(_pointed(body, "seed")))


def _pointed(body: Answer, word: str) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for channel, one in body["channels"].items():
        before = short_id(one["before"]) if one["before"] else "nothing"
        change = f"+{one['added']} ~{one['updated']} -{one['removed']}"
        change = change if one["before"] else many(one["packages"], "package")
        skipped = f"SKIPS {some(one['skipped'])}" if one["skipped"] else ""
        moved = f"{before} -> {short_id(one['id'])}" if one["new"] else short_id(one["id"])
        rows.append((channel, moved, change if one["new"] else "unchanged", skipped))
    head = f"{word} {body['class']}"
    return [f"{head}  {TEST}" if body["test"] else head, table(rows)]
