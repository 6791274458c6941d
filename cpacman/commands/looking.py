"""Commands that only look: show, history, config, version.

Invariant: nothing here changes anything, asks a host, or needs one to be up.
"""

from __future__ import annotations

import datetime
import platform
import re
from importlib import metadata
from typing import Any

import msgspec

from cpacman import __version__
from cpacman.commands import alike
from cpacman.commands.answers import only_host, plan_body, rollout_body
from cpacman.commands.context import Context
from cpacman.commands.fleet import place_all
from cpacman.commands.provenance import snapshot_signatures
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import InputError, Problem, UsageError
from cpacman.fleet.placing import lines_for
from cpacman.model import short_id
from cpacman.report.table import group_hosts

_AGO = re.compile(r"([0-9]+)([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
LIBRARIES = ("salt", "solv", "createrepo_c", "SQLAlchemy", "pydantic", "msgspec", "cryptography")


def show(
    context: Context, number: str, *, host: str | None = None, group: str | None = None
) -> dict[str, Any]:
    """Show what an id stands for.

    Raises:
        InputError: no such id, or no such host in it.
    """
    kinds = {"p-": _show_plan, "s-": _show_snapshot, "r-": _show_rollout}
    kind = kinds.get(number[:2])
    if kind is None:
        mend = "p-... is a plan, s-... a snapshot, r-... a rollout"
        raise InputError(Problem("id", f"{number!r} is no id", mend))
    for name, value, kinds_with_it in (("host", host, "pr"), ("group", group, "p")):
        if value is not None and number[0] not in kinds_with_it:
            raise UsageError(Problem(name, "says nothing of this kind of id", "leave it out"))
    return kind(context, number, host, group)


def _show_plan(
    context: Context, number: str, host: str | None, group: str | None
) -> dict[str, Any]:
    stored = context.store.plan(number)
    plan = only_host(stored.plan, host) if host else stored.plan
    members = {one.letter: one.hosts for one in group_hosts(plan)}
    if group is not None and group not in members:
        mend = f"there are: {', '.join(members) or 'none'}"
        raise InputError(Problem("group", f"{short_id(plan.plan_id)} has no group {group!r}", mend))
    body = {**plan_body(context, stored, plan), "full": True, "group": group}
    if group is not None:
        hosts = members[group]
        body["alike"] = {group: alike.group(context.store.inventories(hosts), hosts)}
    return {"plan": body}


def _show_snapshot(
    context: Context, number: str, host: str | None, group: str | None
) -> dict[str, Any]:
    snapshot = load_snapshot(context.settings.depot, number)
    packages = [
        {"nevra": p.nevra, "repository": p.repository, "size": p.size, "sha256": p.sha256}
        for p in snapshot.packages
    ]
    body = {"id": snapshot.id, "channel": snapshot.channel, "packages": packages}
    lineage = msgspec.to_builtins(snapshot.lineage)
    signatures = snapshot_signatures(context, snapshot)
    said = {"lineage": lineage, "signatures": signatures, "moves": _moves(context, snapshot.id)}
    return {"snapshot": {**body, **said}}


def _moves(context: Context, snapshot: str) -> list[dict[str, Any]]:
    """Return how classes came to a snapshot, oldest first."""
    shown = ("class", "action", "at", "who")
    rows = (row for row in context.store.moves() if row["snapshot"] == snapshot)
    return [{name: row[name] for name in shown} for row in rows]


def _show_rollout(
    context: Context, number: str, host: str | None, group: str | None
) -> dict[str, Any]:
    row, hosts = context.store.rollout(number)
    if host is not None and host not in {h.host for h in hosts}:
        raise InputError(Problem(host, f"is not in {short_id(row['id'])}"))
    return {"rollout": rollout_body(row, [h for h in hosts if host in (None, h.host)])}


# ---- history, config, version --------------------------------------------------------------


def history(
    context: Context,
    *,
    host: str | None = None,
    package: str | None = None,
    by: str | None = None,
    ticket: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> dict[str, Any]:
    """Show the journal's entries that match."""
    now = context.clock()
    entries = context.store.history(
        host=host,
        package=package,
        who=by,
        ticket=ticket,
        since=read_time("since", since, now),
        until=end_of(until, now),
    )
    return {"history": {"package": package, "entries": entries}}


def read_time(name: str, text: str | None, now: float) -> float | None:
    """Return the moment that a day (`2026-11-22`), a time of it or an age (`36h`) means.

    Raises:
        UsageError: it is none of them.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        problem = Problem(name, f"{text!r} is no time", "write 2026-11-22, or 36h, 14d ago")
        raise UsageError(problem) from None


def end_of(text: str | float | None, now: float) -> float | None:
    """Return the moment that `until` means: a day counts up to its end."""
    if isinstance(text, float):
        return text
    moment = read_time("until", text, now)
    if moment is None or text is None or len(text) != len("2026-11-22"):
        return moment
    day = datetime.datetime.fromtimestamp(moment) + datetime.timedelta(days=1)
    return day.astimezone().timestamp()


def config(context: Context, host: str | None = None) -> dict[str, Any]:
    """Show each value and where it comes from: of the settings, or of one host.

    Raises:
        UsageError: the master accepted no key of that host.
    """
    if host is None:
        values = [dict(one._asdict()) for one in context.settings.explain()]
        return {"config": {"values": values}}
    if host not in context.directory.accepted():
        raise UsageError(Problem(f"host {host}", "the master accepted no key of it"))
    placement = place_all(context, [host]).placements[host]
    place, sources = placement.host, placement.host.sources
    flat: dict[str, Any] = {
        "class": place.class_, "level": place.level, "channel": place.channel,
        "transport": place.transport, **{f"meta.{k}": v for k, v in sorted(place.meta.items())},
    }  # fmt: skip
    values = [
        {"path": name, "value": value, "source": sources.get(name, "default")}
        for name, value in flat.items()
    ]
    values += [
        {
            "path": f"policy.{line.kind}",
            "value": dict(line.pin) or list(line.words),
            "source": where,
        }
        for where, line, _ in lines_for(context.settings, placement)
    ]
    problems = [str(problem) for problem in placement.problems]
    return {"config": {"host": host, "values": values, "problems": problems}}


def version() -> dict[str, Any]:
    """Show the versions of CPacMan and of what it stands on."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        "version": {"cpacman": __version__, "python": platform.python_version(), "libraries": found}
    }
