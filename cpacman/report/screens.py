"""What a person sees in the terminal for each answer of a runner: pure functions.

Invariants: every answer has a screen, also one of a shape that nobody foresaw; text that came from
a host or a repository is shown without control characters; what failed, and the next command to
type, stand where the eye looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cpacman.model import short_id
from cpacman.report import chains, classes, depot, fleet, following, pushing, recovering, rollouts
from cpacman.report.text import NAMED, age, asked, clean, day, line, some, table, when
from cpacman.words import many

Answer = Mapping[str, Any]
_CHANGES = 2
_SUBJECT = 14


def render(data: Any) -> str:
    """Return the screen for what a runner answered, or the line for a progress event."""
    if isinstance(data, Mapping) and set(data) == {"suffix", "event"}:
        event = data["event"]
        return line(f".. {event.get('message', '') if isinstance(event, Mapping) else event}")
    if not isinstance(data, Mapping):
        return clean(str(data))
    parts = [
        SCREENS.get(what, _plain)(body) if isinstance(body, Mapping) else clean(str(body))
        for what, body in data.items()
        if what != "retcode"
    ]
    return "\n".join(parts)


def _plain(body: Answer) -> str:
    return clean(json.dumps(body, indent=2, default=str))


# ---- errors --------------------------------------------------------------------------------


def _error(body: Answer) -> str:
    lines = []
    for problem in body.get("problems", ()):
        where = f"{problem['path']}: " if problem["path"] else ""
        lines.append(f"{where}{problem['message']}")
        if problem["mend"]:
            lines.append(f"    {problem['mend']}")
    return clean("\n".join(lines))


def _bug(body: Answer) -> str:
    return clean(
        f"{body['traceback']}\nThis is a bug in cpacman.{body['command']}, not your mistake."
        " Please report it with the lines above; nothing more was done."
    )


# ---- plans ---------------------------------------------------------------------------------


def _plan(body: Answer) -> str:
    import msgspec

    from cpacman.model import Plan
    from cpacman.report.table import render_plan

    # What the runner adds around the document is the screen's, not the plan's.
    plan = msgspec.convert({**body}, Plan)
    text = render_plan(
        plan,
        class_=str(body.get("class", "")),
        by=str(body.get("by", "")),
        ages=body.get("ages") or {},
        severities=body.get("severities") or {},
        full=bool(body.get("full")),
        group=body.get("group"),
        signatures=body.get("signatures") or {},
    )
    text = "\n".join([text, *following.foretold(body.get("follows") or ())])
    if body.get("omitted"):
        text += f"\nand {many(body['omitted'], 'host')} in smaller groups: show them with host=NAME"
    if body.get("alike"):
        text += "\n" + clean("\n".join(["installed now", *_sets(body["alike"])]))
    would = body.get("would")
    if would is not None:
        rows = [(host, what) for host, what in sorted(would.items())]
        return f"{text}\nTEST, nothing done\n{table(rows)}".rstrip()
    if any(plan.transactions[number].actions for number in plan.hosts.values()):
        text += f"\nnext: salt-run cpacman.deploy plan={short_id(plan.plan_id)}"
    return text


# ---- inventories, snapshots, promotion -----------------------------------------------------


def _refresh(body: Answer) -> str:
    hosts: Mapping[str, Answer] = body["hosts"]
    rows = []
    for host, one in hosts.items():
        count = many(one["packages"], "package") if one["packages"] else ""
        rows.append((host, one["state"], one["error"] or count))
    failed = [host for host, one in hosts.items() if one["error"]]
    sums = f"{many(len(hosts), 'host')} asked, {len(hosts) - len(failed)} answered"
    return f"{sums}\n{table(rows)}".rstrip()


def _moves(body: Answer, word: str) -> str:
    rows: list[Sequence[str]] = []
    for channel, one in body["channels"].items():
        before = short_id(one["before"]) if one["before"] else "nothing"
        if not one["new"]:
            rows.append((channel, short_id(one["id"]), "unchanged"))
            continue
        change = f"+{one['added']} ~{one['updated']} -{one['removed']}"
        change = change if one["before"] else many(one["packages"], "package")
        signed = depot.counted(one.get("signatures") or {})
        rows.append((channel, f"{before} -> {short_id(one['id'])}", change, signed))
    test = "  TEST, nothing done" if body["test"] else ""
    return f"{word}{test}\n{table(rows)}"


def _snapshot(body: Answer) -> str:
    if "channels" in body:
        return _moves(body, f"snapshot for {body['class']}")
    return depot.snapshot(body)


# ---- looking -------------------------------------------------------------------------------


def _status(body: Answer) -> str:
    classes = body["classes"]
    rows: list[Sequence[str]] = [("", *classes, "")]
    for channel, cells in body["board"].items():
        rows.append((channel, *(_pointer(cells[c]) for c in classes), ""))
        rows.append(("", *(_counts(cells[c]["hosts"]) for c in classes), ""))
    lines = [table(rows, indent="")]
    hosts = [
        (name, one["class"], one["level"], one["state"], asked(one.get("age")))
        for name, one in body["hosts"].items()
    ]
    if hosts and len(hosts) <= NAMED:
        lines += ["hosts", table(hosts)]
    unplaced = list(body["unplaced"].items())
    lines += [f"UNPLACED {host}: {'; '.join(problems)}" for host, problems in unplaced[:NAMED]]
    if len(unplaced) > NAMED:
        more = len(unplaced) - NAMED
        lines.append(f"UNPLACED and {more} more: salt-run cpacman.hosts state=unplaced")
    lines += filter(None, [fleet.waiting(one["state"] for one in body["hosts"].values())])
    return clean("\n".join([*lines, *rollouts.now(body)]))


def _pointer(cell: Answer) -> str:
    if not cell["snapshot"]:
        return "-"
    was = f", was {short_id(cell['previous'])}" if cell["previous"] else ""
    return f"{short_id(cell['snapshot'])} {age(cell['age'])}{was}"


_ORDER = ("current", "behind", "ahead", "unknown")


def _counts(found: Mapping[str, int]) -> str:
    """Return how many hosts stand how, in the order of the board."""
    rows = [(state, found[state]) for state in (*_ORDER, *sorted(found.keys() - set(_ORDER)))
            if found.get(state)]  # fmt: skip
    return " ".join(f"{count} {state}" for state, count in rows) or "no hosts"


def _history(body: Answer) -> str:
    rows = []
    for entry in body["entries"]:
        subject = entry["subject"]
        short = subject[:_SUBJECT]
        rows.append((when(entry["at"]), entry["who"], entry["action"], short,
                     entry["host"] or "", _happened(entry, body["package"])))  # fmt: skip
    return table(rows, indent="") if rows else "nothing in the journal fits"


def _happened(entry: Answer, package: str | None) -> str:
    parts = [entry["ticket"] or "", entry["reason"] or ""]
    changes = sorted(entry["changes"], key=lambda c: c["name"] != package)
    parts += [
        f"{c['action']} {c['from'] + ' -> ' if c['from'] else ''}{c['nevra']}"
        for c in changes[:_CHANGES]
    ]
    if len(changes) > _CHANGES:
        parts.append(f"and {len(changes) - _CHANGES} more")
    detail = entry["detail"]
    moved = detail.get("to") and f"{short_id(detail['from'] or '-')} -> {short_id(detail['to'])}"
    parts += [
        moved or "",
        *_besides(detail),
        str(detail.get("detail") or "") if not entry["changes"] else "",
    ]
    return "  ".join(part for part in parts if part)


def _besides(detail: Answer) -> Iterable[str]:
    """Yield what is said of a move besides: what part, whom it skipped, what it overrode."""
    if detail.get("how"):
        yield line(str(detail["how"]))
    if detail.get("skipped"):
        yield f"SKIPS {some(detail['skipped'])}"
    if detail.get("forced"):
        more = len(detail["forced"]) - 1
        yield line(f"FORCED past {detail['forced'][0]}{f' and {more} more' if more else ''}")


def _config(body: Answer) -> str:
    head = f"host {body['host']}" if "host" in body else "configuration"
    rows = [(v["path"], json.dumps(v["value"]), v["source"]) for v in body["values"]]
    problems = [f"PROBLEM {problem}" for problem in body.get("problems", ())]
    return clean("\n".join([head, table(rows), *problems]))


def _version(body: Answer) -> str:
    rows = [("cpacman", body["cpacman"]), ("python", body["python"])]
    rows += [(name, found or "not installed") for name, found in body["libraries"].items()]
    return table(rows, indent="")


# ---- explaining ----------------------------------------------------------------------------


def _why(body: Answer) -> str:
    lines = [f"{body['package']} on {body['host']}, from {short_id(body['snapshot'])}"]
    for one in body["installed"]:
        where = f"from {some(one['repositories'])}" if one["repositories"] else "from elsewhere"
        where = f"from {one['origin']}, by CPacMan" if one.get("origin") else where
        told = [one["vendor"], f"installed as {one['reason']}" if one["reason"] else ""]
        lines.append("  ".join(filter(None, ["installed", one["nevra"], where, *told])))
    if not body["installed"]:
        lines.append("not installed")
    lines += ["candidates, newest first" if body["candidates"] else "no repository has it"]
    for one in body["candidates"]:
        head = (one["nevra"], one["repository"], _fate(one, body["actions"]))
        lines += [table([head]), *(f"      {r['reason']}: {r['detail']}" for r in one["rules"])]
    for action in body["actions"]:
        if action["action"] in ("obsolete", "remove"):
            old = f" for {action['from']}" if action.get("from") else ""
            lines.append(f"{action['action']} {action['nevra']}{old}")
    if body.get("failed"):
        lines.append(f"NOT PLANNED ({body['failed']['error']})")
        lines += [f"  {line(cause)}" for cause in body["failed"]["causes"]]
    return clean("\n".join(lines))


_FATES = {
    "installed": "installed",
    "older": "not newer",
    "held": "HELD BACK",
    "beaten": "not taken: another one is newer, or of a repository that goes first",
    "unasked": "not taken: not installed, and nothing asks for it",
}


def _fate(candidate: Answer, actions: Sequence[Answer]) -> str:
    """Return what became of a candidate; of one that is taken, as what and by which advisories."""
    if candidate["fate"] != "taken":
        return _FATES.get(str(candidate["fate"]), str(candidate["fate"]))
    own = [a for a in actions if a["nevra"] == candidate["nevra"]]
    words = [f"TAKEN: {a['action']} ({a['reason']}) {some(a['advisories'])}" for a in own[:1]]
    return words[0].rstrip() if words else "TAKEN"


def _alike(body: Answer) -> str:
    """Return the sets of equal hosts of each group, and how the odd ones differ."""
    head = short_id(body["a"]["id"]) if body["kind"] == "plan" else body["a"]["id"]
    return clean("\n".join([head, *_sets(body["groups"])]))


def _sets(groups: Answer) -> list[str]:
    lines: list[str] = []
    for name, one in groups.items():
        sets = one["sets"]
        told = "all equal" if len(sets) == 1 else f"{len(sets)} different sets of packages"
        head = (
            f"{name}  {many(one['hosts'], 'host')}, {told}, fingerprint {one['fingerprint'][:12]}"
        )
        lines.append(line(head))
        for each in sets:
            words = f"{many(len(each['hosts']), 'host')}, {many(each['packages'], 'package')}"
            lines.append(line(f"  {each['fingerprint'][:12]}  {words}: {some(each['hosts'])}"))
            lines += _differences(each)
        if one["unknown"]:
            lines.append(line(f"  UNKNOWN, no inventory: {some(one['unknown'])}"))
    return lines


def _diff(body: Answer) -> str:
    if "groups" in body:
        return _alike(body)
    if "channels" in body:
        lines = [f"{body['a']['id']} -> {body['b']['id']}"]
        for channel, one in body["channels"].items():
            ends = " -> ".join(short_id(one[side]) if one[side] else "nothing" for side in "ab")
            lines += [f"{channel}  {ends}", *_differences(one)]
        return clean("\n".join(lines))
    sides = [_side(body[side]) for side in "ab"]
    if "hosts" in body:
        return clean("\n".join([*sides, *_plan_differences(body)]))
    return clean("\n".join([*sides, *_differences(body)]))


def _side(side: Answer) -> str:
    if "fingerprint" in side:
        fingerprint = side["fingerprint"][:12]
        head = f"{side['id']}  fingerprint {fingerprint}  {many(side['packages'], 'package')}"
        words = [f"kernel {side['kernel']}" if side["kernel"] else "", *side["modules"]]
        return line("  ".join(filter(None, [head, *words])))
    if "snapshots" in side:
        of = " ".join(short_id(one) for one in side["snapshots"].values())
        return line(f"{short_id(side['id'])}  {many(side['hosts'], 'host')}  {of}")
    of = f"  {short_id(side['snapshot'])}" if side.get("snapshot") else ""
    return line(f"{short_id(side['id'])}  {side['channel']}{of}")


def _differences(one: Answer) -> list[str]:
    """Return the rows of what came, went and has another version."""
    if "added" not in one:
        return []
    if not (one["added"] or one["removed"] or one["updated"]):
        return ["  the same packages"]
    rows: list[Sequence[str]] = []
    for sign, what in (("+", "added"), ("-", "removed"), ("~", "updated")):
        for row in one[what]:
            versions = [", ".join(row[side]) for side in ("before", "after")]
            fixes = some(row.get("advisories") or (), 3)
            rows.append((sign, f"{row['name']}.{row['arch']}",
                         " -> ".join(filter(None, versions)) or "other bytes", fixes))  # fmt: skip
    sums = f"  +{len(one['added'])} ~{len(one['updated'])} -{len(one['removed'])}"
    more = f", {many(len(one['advisories']), 'advisory')}" if one.get("advisories") else ""
    return [f"{sums}{more}", table(rows)]


def _plan_differences(body: Answer) -> list[str]:
    hosts = body["hosts"]
    lines = [f"{many(hosts['equal'], 'host')} with the same actions in both"]
    for what, words in (("changed", "other actions"), ("added", "only in the second"),
                        ("removed", "only in the first")):  # fmt: skip
        if hosts[what]:
            lines.append(f"{words}: {some(hosts[what])}")
    rows = []
    for sign, what in (("+", "added"), ("-", "removed")):
        for row in body[what]:
            old = f"from {row['from']}" if row["from"] else ""
            rows.append((sign, row["action"], row["nevra"], many(row["hosts"], "host"), old))
    return [*lines, table(rows)] if rows else lines


def _advisories(body: Answer) -> str:
    lines = []
    for name, one in body["classes"].items():
        lines.append(f"{name}: {one['affected']} of {one['hosts']} hosts lack something")
        sums = [
            (
                word,
                f"{many(n['advisories'], 'advisory')}",
                f"{many(n['cves'], 'CVE')}",
                f"{many(n['hosts'], 'host')}",
            )
            for word, n in one["severities"].items()
        ]
        lines += [table(sums)] if sums else []
        rows = [
            (a["severity"] or a["type"], a["id"], day(a["issued"]),
             f"{many(a['hosts'], 'host')}: {some(a['on'], 3)}",
             some(a["packages"], 4), some(a["cves"], 4))
            for a in one["advisories"]
        ]  # fmt: skip
        lines += [table(rows)] if rows else []
        if body["older_than"] is not None and one["undated"]:
            lines.append(f"  {one['undated']} of them tell no date: as if they were older")
        if one["unknown"]:
            lines.append(f"  UNKNOWN, no inventory or no snapshot: {some(one['unknown'])}")
    return clean("\n".join(lines)) or "no hosts"


def _help(body: Answer) -> str:
    """Every command with its first sentence, or one of them in full."""
    if body["command"]:
        return clean(f"salt-run cpacman.{body['command']}\n\n{body['text']}")
    rows = [(name, line(words)) for name, words in body["commands"].items()]
    more = "salt-run cpacman.help COMMAND tells its arguments"
    return clean("\n".join([table(rows, indent=""), more]))


SCREENS: dict[str, Callable[[Answer], str]] = {
    "error": _error,
    "bug": _bug,
    "plan": _plan,
    "rollout": rollouts.rollout,
    "rollouts": rollouts.rollouts,
    "chain": chains.chain,
    "halt": rollouts.halt,
    "skip": rollouts.skip,
    "approve": rollouts.approve,
    "wake": rollouts.wake,
    "refresh": _refresh,
    "compliance": recovering.compliance,
    "drift": recovering.drift,
    "help": _help,
    "recover": recovering.recover,
    "key": recovering.key,
    "hostkeys": pushing.hostkeys,
    "stage": pushing.stage,
    "snapshot": _snapshot,
    "promote": classes.promote,
    "revert": classes.revert,
    "seed": classes.seed,
    "snapshots": depot.snapshots,
    "verify": depot.verify,
    "prune": depot.prune,
    "block": classes.block,
    "blocks": classes.blocks,
    "unblock": classes.unblock,
    "status": _status,
    "history": _history,
    "config": _config,
    "version": _version,
    "why": _why,
    "diff": _diff,
    "advisories": _advisories,
    "hosts": fleet.hosts,
    "accept": fleet.accept,
    "adopt": fleet.adopt,
    "retire": fleet.retire,
}
