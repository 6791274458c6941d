"""Screens of rollouts: what went wrong first, the levels, and the next command to type.

Invariant: what a host said is one clean line; every host is counted in exactly one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cpacman.model import short_id
from cpacman.report import following, recovering
from cpacman.report.text import age, clean, line, some, table, when

Answer = Mapping[str, Any]
_WRONG = ("failed", "silent", "refused", "skipped")
_NOTES = {
    "refused": ": NOTHING CHANGED",
    "skipped": ": NOTHING CHANGED",
    "failed": ": MAY HAVE CHANGED",
}
_ORDER = (
    "applied", "unchanged", "rebooting", "restarting", "installed", "applying", "staged", "staging",
    *_WRONG, "waiting",
)  # fmt: skip


def rollout(body: Answer) -> str:
    """One rollout: how it stands, what failed where and why, each level, what to type next."""
    hosts: Mapping[str, Answer] = body["hosts"]
    wrong = {
        outcome: {h: one for h, one in hosts.items() if one["outcome"] == outcome}
        for outcome in _WRONG
    }
    lines = [_head(body)]
    for outcome, found in wrong.items():
        lines += _grouped_details(outcome, found)
    lines += following.under_way(hosts)
    lines.append(table([_level(body, name) for name in body["levels"]], indent=""))
    left = {host: one for host, one in hosts.items() if one["state"] not in following.UNDER_WAY}
    lines += [*_findings(body), *recovering.findings(left)]
    lines += _besides(body)
    failed = sorted(body.get("failed") or ())
    if failed:
        lines.append(f"NOT PLANNED, so not in it: {some(failed)}")
    return clean("\n".join([*lines, f"next: {' | '.join(_next(body, wrong))}"]))


def _besides(body: Answer) -> Iterable[str]:
    """Yield who still has to get it, who came to the class since it began, who should be there."""
    if body.get("engine") is False:
        yield "NO ENGINE RUNS that would carry it out: add it to `engines` of the master, or resume"
    owed, open_ = body.get("owed"), not body["ended"]
    if owed and open_ and body["late"] == "join":
        yield f"owed: {some(owed)}: they join when they are back, as long as it goes on"
    elif owed:
        how = f"salt-run cpacman.deploy class={body['class']} owed=True"
        yield f"owed: {some(owed)}: out of reach; once they are back: {how}"
    if body.get("appeared"):
        names = some(body["appeared"])
        yield f"NEW in {body['class']} since it began, not in it: {names}"


def _head(body: Answer) -> str:
    why = f" ({line(body['why'])})" if body.get("why") else ""
    until = f", until {when(body['until'])}" if body.get("until") else ""
    return (
        f"{short_id(body['id'])} {str(body['state']).upper()}{why}{until}  {body['class']}"
        f"  plan {short_id(body['plan'])}  by {body['who']} {body['ticket'] or ''}"
    ).rstrip() + (f"  of {short_id(body['chain'])}" if body.get("chain") else "")


def _grouped_details(outcome: str, hosts: Mapping[str, Answer]) -> list[str]:
    """Say once what several hosts have in common."""
    reasons: dict[str, list[str]] = {}
    for host, one in sorted(hosts.items()):
        reasons.setdefault(line(one["detail"] or one["code"] or ""), []).append(host)
    note = _NOTES.get(outcome, "")
    return [
        f"{outcome.upper():8} {some(names)}  {reason}{note}" for reason, names in reasons.items()
    ]


def _level(body: Answer, name: str) -> tuple[str, str, str, str]:
    sums: Mapping[str, int] = body["levels"][name]
    codes = Counter(
        one["code"] for one in body["hosts"].values()
        if one["level"] == name and one["outcome"] == "skipped"
    )  # fmt: skip
    shown = []
    for word in sorted(sums, key=lambda w: _ORDER.index(w) if w in _ORDER else len(_ORDER)):
        causes = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
        shown.append(f"{sums[word]} {word}" + (f" ({causes})" if word == "skipped" else ""))
    return name, f"{sum(sums.values())}:", ", ".join(shown), _gate(body, name)


def _gate(body: Answer, name: str) -> str:
    """Say where a level is beyond its hosts: at its gate, in its soak."""
    one = body.get("gates", {}).get(name)
    if not one:
        return ""
    gate = f"gate {one['gate']} " if one["gate"] else ""
    soak = f"soak {age(one['soak'])} " if one["soak"] else ""
    if one["state"] == "passed" and (gate or soak):
        return f"{gate}{soak}passed"
    if one["state"] == "soaking":
        return f"{gate}passed, {soak}until {when(one['until'])}"
    return f"at {gate}" if gate and one["state"] == "checking" else ""


def _findings(body: Answer) -> Iterable[str]:
    """Yield what the checks found that did not pass, in levels that are not through."""
    for name, one in body.get("gates", {}).items():
        if one["state"] == "passed":
            continue
        for found in one["findings"]:
            if found["verdict"] != "pass":
                where = f" {found['host']}" if found["host"] else ""
                wanted = "" if found["required"] else " (not required)"
                said = line(found["detail"])
                yield f"check {name} {found['check']}{where}: {found['verdict']}{wanted}  {said}"


def _next(body: Answer, wrong: Mapping[str, Mapping[str, Answer]]) -> list[str]:
    number, state = short_id(body["id"]), body["state"]
    if state == "running":
        return [f"salt-run cpacman.rollout {number}", f"salt-run cpacman.halt {number}"]
    if state == "waiting":
        return [f"salt-run cpacman.resume {number}", f"salt-run cpacman.cancel {number}"]
    why, force = str(body.get("why")), f"salt-run cpacman.resume {number} force=True reason='...'"
    if state in ("paused", "halted") and "shows nothing" in why:
        # To ask again changes nothing: a level without any evidence passes by a word, or is mended.
        return [f"salt-run cpacman.retry {number}", force] if any(wrong.values()) else [force]
    if state == "paused":
        missing = "approve" if "approved by" in why else "resume"
        # A gate is asked again, or passed by a word.
        passing = [force] if "gate" in why else []
        return [
            f"salt-run cpacman.{missing} {number}",
            *passing,
            f"salt-run cpacman.cancel {number}",
        ]
    owed = following.owed(body["hosts"])
    if state != "halted" and not any(wrong.values()) and not owed:
        chain = body.get("chain")
        return [f"salt-run cpacman.rollout {short_id(chain)}" if chain else
                "salt-run cpacman.status"]  # fmt: skip
    commands = [f"salt-run cpacman.rollout {number} host=..."]
    bad = [host for name in ("failed", "silent", "refused") for host in wrong[name]] + owed
    if bad and state != "cancelled":
        commands.append(f"salt-run cpacman.retry {number} host={','.join(sorted(bad)[:3])}")
    if state == "halted":
        commands.append(f"salt-run cpacman.resume {number}")
    applied = any(one["outcome"] == "applied" for one in body["hosts"].values())
    if applied and (bad or state == "halted"):
        commands.append(f"salt-run cpacman.rollback rollout={number} reason='...'")
    return [*commands, f"salt-run cpacman.plan class={body['class']}"]


def rollouts(body: Answer) -> str:
    """Every rollout as a line, the newest first."""
    if not body["rollouts"] and not body["chains"]:
        return "no rollout is open" if body["active"] else "no rollout yet"
    rows = [
        (
            short_id(one["id"]), one["state"] + ("" if one["alive"] is not False else " (died)"),
            " -> ".join(one["classes"]), when(one["created"]), one["who"], line(one["why"]),
        )
        for one in body["chains"]
    ]  # fmt: skip
    rows += [
        (
            short_id(one["id"]), one["state"] + ("" if one["alive"] is not False else " (died)"),
            one["class"], when(one["created"]), one["who"], line(one["why"] or ""),
        )
        for one in body["rollouts"]
    ]  # fmt: skip
    return table(rows, indent="")


def halt(body: Answer) -> str:
    """What was stopped, and who was in flight when the wish was written down."""
    lines = [
        f"NOT HALTED {one['path']}: {line(one['message'])}; {line(one['mend'])}"
        for one in body.get("refused", ())
    ]
    if not body["rollouts"]:
        return clean("\n".join(lines)) or "no rollout is open"
    for one in body["rollouts"]:
        flying = one["in_flight"]
        then = f"in flight then: {some(flying)}" if flying else "nobody was in flight"
        lines.append(f"{short_id(one['id'])} {str(one['state']).upper()}  {then}")
    return clean("\n".join([*lines, "next: salt-run cpacman.rollout " + short_id(one["id"])]))


def skip(body: Answer) -> str:
    """Who is left out of a rollout."""
    return clean(f"{short_id(body['id'])}: {some(body['hosts'])} will be skipped")


def approve(body: Answer) -> str:
    """Who approved of a rollout so far."""
    again = "" if body["new"] else " (you did before)"
    text = f"{short_id(body['id'])} {body['state']}: approved by {some(body['by'])}{again}"
    return clean(f"{text}\nnext: salt-run cpacman.resume {short_id(body['id'])}")


def wake(body: Answer) -> str:
    """Whether anybody will look."""
    if not body["engine"]:
        return "noted, but no engine runs: add it to `engines` in the master's configuration"
    if body["hosts"]:
        return "the engine asks who was out of reach in rollouts that go on"
    return f"the engine looks once mirrors are quiet for {age(body['settle'])}"


_NEXT = 3
"""What the engine waits for that the board names."""


def now(body: Answer) -> Iterable[str]:
    """Yield what goes on now, for the board: rollouts, chains, the engine, freezes."""
    for one in body["rollouts"]:
        died = "  DIED: the next deploy collects its hosts" if one["died"] else ""
        share = f" {100 * one['done'] // one['total']} %" if one["total"] else ""
        at = f" {one['at']}" if one["at"] else ""
        head = f"now: {short_id(one['id'])} {one['class']}{at}{share} ({line(one['who'])})"
        yield f"{head}{_waiting(one)}{died}"
    for one in body["chains"]:
        way = " -> ".join(one["classes"])
        yield f"now: {short_id(one['id'])} {way} ({line(one['who'])}){_waiting(one)}"
    yield from _engine(body["engine"], body["now"])
    if frozen := body["freeze"]:
        whom = f" of {some(frozen['classes'])}" if frozen["classes"] else ""
        begun = f"until {when(frozen['until'])}"
        begun = begun if frozen["from"] <= body["now"] else f"from {when(frozen['from'])} {begun}"
        yield f"freeze{whom} {begun}: {line(frozen['reason'])}"


def _waiting(one: Answer) -> str:
    if one["state"] == "running":
        return ""
    until = f", until {when(one['until'])}" if one["until"] else ""
    why = f": {line(one['why'])}" if one["why"] else ""
    return f" {one['state']}{why}{until}"


def _engine(engine: Answer, moment: float) -> Iterable[str]:
    """Yield how the engine is; nothing where none ever was and nobody waits for one."""
    if engine["seen"] is None and not engine["next"]:
        return
    if engine["seen"] is None:
        yield "engine NONE: add it to `engines` in the master's configuration"
    else:
        ok = "ok" if engine["alive"] else "SILENT"
        yield f"engine {ok} {age(moment - engine['seen'])} ago ({line(engine['owner'])})"
    for one in engine["doing"]:
        yield f"  does {one['what']} since {when(one['since'])}"
    for one in engine["failed"]:
        yield f"  FAILED {when(one['at'])} {line(one['what'])}: {line(one['why'])}"
    for one in engine["next"][:_NEXT]:
        yield f"  next {when(one['at'])} {line(one['what'])}"
    more = len(engine["next"]) - _NEXT
    if more > 0:
        yield f"  and {more} more"
