"""Accepting hosts, taking a fleet in, retiring hosts; and telling what changed about them.

Invariants: a change of membership is journaled once, whoever saw it first; more moves than
`max_moves` are accepted only by naming each host; retiring keeps everything that was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, everyone, place_all
from cpacman.commands.safeguards import check_force
from cpacman.config import is_glob
from cpacman.errors import Problem, SafetyError, UsageError
from cpacman.membership import (
    Change,
    Member,
    accepted_member,
    learned,
    listed_moves,
    moves,
)
from cpacman.report.text import some

_GONE = "-"
"""The key of a retired host that the master accepts no more: whatever comes back has another."""


def check_moves(context: Context, fleet: Fleet, class_: str) -> None:
    """Refuse to plan a class that very many hosts just left or entered.

    Raises:
        SafetyError: more than `max_moves`, with the list.
    """
    moved = moves(fleet.changes, class_)
    most = context.settings.membership.max_moves
    if len(moved) > most:
        raise SafetyError(_too_many(fleet.changes, moved, most))


def _too_many(changes: Mapping[str, Change], moved: Sequence[str], most: int) -> Problem:
    words = f"{len(moved)} hosts changed their class at once: {listed_moves(changes, moved)}"
    mend = (
        "is it a typo in a glob of hosts.d, or in pillar? If it is meant, name each of them:"
        f" salt-run cpacman.accept hosts={','.join(moved[:2])},..."
    )
    return Problem(f"membership.max_moves {most}", words, mend)


# ---- what changed ----------------------------------------------------------------------------


def note_changes(context: Context, fleet: Fleet, class_: str) -> list[str]:
    """Journal what changed about hosts, accept what a rule accepts, and tell it for one class.

    Returns:
        a line for each host that came to or left the class and was accepted since its last plan.
    """
    since = context.store.last_plan_of(class_)
    now, rows, entries = context.clock(), [], []
    for host, seen in sorted(fleet.seen.items()):
        member, change = fleet.members.get(host), fleet.changes.get(host)
        row = _noted(host, member, change, fleet, now)
        if row is not None and row != member:
            rows.append(row)
            if change and (not member or change.words != member.noted):
                entries.append((_action(change), host, _detail(change)))
            elif member and member.noted and not change:
                entries.append(("back", host, {"was": member.noted, "class": seen.class_}))
    rows += _gone(context, fleet.members)
    if rows:
        accepted = {row.host for row in rows if row.state == "member" and not row.noted}
        others = [h for h in _other_machines(fleet.changes) if h in accepted]
        context.store.put_members(
            rows, entries=entries, at=now, who=context.who, forget_origins=others
        )
    latest = {**fleet.members, **{row.host: row for row in rows}}
    return [
        f"moved: {host} {one.was} -> {one.class_}, accepted by {one.who}"
        for host, one in sorted(latest.items())
        if one.state == "member" and one.was and class_ in (one.was, one.class_)
        and one.since >= since
    ]  # fmt: skip


def _noted(
    host: str, member: Member | None, change: Change | None, fleet: Fleet, now: float
) -> Member | None:
    """Return the row to keep for a host; None where there is nothing to keep."""
    seen = fleet.seen[host]
    if change is None:
        if member and (member.noted or learned(member, seen)):
            machine = member.machine or seen.machine or ""
            return msgspec.structs.replace(
                member, noted="", key=member.key or seen.key, machine=machine
            )
        return None
    if not change.held and seen.class_:
        return accepted_member(host, member, seen, at=now, who=f"rule {_rule(change)}")
    before = member if member and member.state == "member" else Member(host=host, state="held")
    if member and member.state == "retired" and change.state == "retired":
        return None
    return msgspec.structs.replace(before, noted=change.words)


def _rule(change: Change) -> str:
    names = {"new": "on_new", "rebuilt": "on_rebuilt", "moved": "on_move"}
    return "+".join(names[kind.value] for kind in change.kinds)


def _action(change: Change) -> str:
    return change.kinds[-1].value if change.held else "accept"


def _other_machines(changes: Mapping[str, Change]) -> list[str]:
    return sorted(host for host, change in changes.items() if change.is_other_machine)


def _detail(change: Change) -> dict[str, Any]:
    return {"change": change.words, "from": change.from_, "to": change.to}


def _gone(context: Context, members: Mapping[str, Member]) -> list[Member]:
    """Return retired hosts whose key is gone by now: the same id that comes back is new."""
    retired = {h: m for h, m in members.items() if m.state == "retired" and m.key != _GONE}
    if not retired:
        return []
    there = set(context.directory.accepted())
    return [msgspec.structs.replace(m, key=_GONE) for h, m in retired.items() if h not in there]


# ---- accept and retire -----------------------------------------------------------------------


def accept(
    context: Context,
    hosts: Sequence[str],
    *,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Accept hosts as they are now: new, rebuilt, moved, or retired and back.

    Args:
        context: the outside world.
        hosts: ids, or globs of them; what a glob matches and needs no acceptance is left alone.
        test: only show.
        reason: why.
        ticket: by which order.

    Raises:
        UsageError: a name fits no host whose key the master accepted.
        SafetyError: globs match more moved hosts than `max_moves`, or a host is of no class.
    """
    chosen = _matching(hosts, context.directory.accepted(), "salt-key -L shows the master's keys")
    fleet = place_all(context, chosen)
    changes = {h: c for h, c in fleet.changes.items() if _is_wanted(h, c, hosts)}
    _check_acceptable(context, fleet, changes, hosts)
    if not test:
        # Who is accepted may be introduced to the plan key again, should it have lost it.
        named = [host for host in chosen if host in changes or host in hosts]
        context.store.forget_pins(named, at=context.clock(), who=context.who)
    if not test and changes:
        _accept(context, fleet, changes, reason, ticket)
    return {"accept": {"hosts": _rows(fleet, changes), "test": test,
                       "unchanged": sorted(set(chosen) - set(changes))}}  # fmt: skip


def _is_wanted(host: str, change: Change, named: Sequence[str]) -> bool:
    """Whether a host is meant: who was retired comes back only by its own name."""
    return change.state != "retired" or host in named


def _accept(
    context: Context,
    fleet: Fleet,
    changes: Mapping[str, Change],
    reason: str | None,
    ticket: str | None,
) -> None:
    now = context.clock()
    rows = [
        accepted_member(h, fleet.members.get(h), fleet.seen[h], at=now, who=context.who)
        for h in changes
    ]
    entries = [("accept", host, _detail(change)) for host, change in sorted(changes.items())]
    context.store.put_members(
        rows, entries=entries, at=now, who=context.who, reason=reason, ticket=ticket,
        forget_origins=_other_machines(changes),
    )  # fmt: skip


def _check_acceptable(
    context: Context, fleet: Fleet, changes: Mapping[str, Change], named: Sequence[str]
) -> None:
    problems = [
        Problem(host, "belongs to no class", "name its class in hosts.d, pillar or grains")
        for host in sorted(changes)
        if not fleet.seen[host].class_
    ]
    most = context.settings.membership.max_moves
    globbed = [host for host in moves(changes) if host not in named]
    if len(globbed) > most:
        problems.append(_too_many(changes, globbed, most))
    if problems:
        raise SafetyError(problems)


def _rows(fleet: Fleet, changes: Mapping[str, Change]) -> dict[str, dict[str, str]]:
    return {
        host: {"change": change.words, "class": fleet.seen[host].class_}
        for host, change in sorted(changes.items())
    }


def _matching(asked: Sequence[str], known: Iterable[str], mend: str) -> list[str]:
    """Return the known hosts that names and globs fit.

    Raises:
        UsageError: nothing was named, or a name fits none.
    """
    if not asked:
        raise UsageError(Problem("hosts", "names nobody", "hosts=web9, or a glob: hosts='web*'"))
    names = sorted(known)
    fitting = {
        one: [n for n in names if (fnmatchcase(n, one) if is_glob(one) else n == one)]
        for one in asked
    }
    problems = [Problem("hosts", f"{one!r} is no host here", mend)
                for one, found in fitting.items() if not found]  # fmt: skip
    if problems:
        raise UsageError(problems)
    return sorted({host for found in fitting.values() for host in found})


def retire(
    context: Context,
    hosts: Sequence[str],
    *,
    force: bool = False,
    test: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Take hosts out of every count; what was recorded of them stays.

    Args:
        context: the outside world.
        hosts: ids, or globs of them.
        force: also very many hosts that globs fit; wants a reason.
        test: only show.
        reason: why.
        ticket: by which order.

    Raises:
        UsageError: a name fits no host that is known, or `force` comes without a reason.
        SafetyError: a rollout has one of them just now, or globs fit very many.
    """
    check_force(force, reason)
    members = context.store.members()
    accepted = set(context.directory.accepted())
    known = accepted | set(members) | set(context.store.inventory_heads())
    chosen = _matching(hosts, known, "see: salt-run cpacman.hosts")
    keys = context.directory.fingerprints(chosen)
    fresh = [h for h in chosen if h not in members or members[h].state != "retired"]
    if not force:
        _check_few(context, [h for h in fresh if h not in hosts], hosts)
    _check_idle(context, fresh)
    now = context.clock()
    blank = Member(host="", state="held")
    rows = [
        msgspec.structs.replace(
            members.get(host, blank),
            host=host,
            state="retired",
            key=keys[host] if host in accepted else _GONE,
            noted="",
            since=now,
            who=context.who,
        )
        for host in fresh
    ]
    if rows and not test:
        entries = [("retire", row.host, {"class": row.class_}) for row in rows]
        context.store.put_members(
            rows, entries=entries, at=now, who=context.who, reason=reason, ticket=ticket,
            forget_origins=fresh,
        )  # fmt: skip
    shown = {row.host: {"class": row.class_, "key": row.host in accepted} for row in rows}
    return {"retire": {"hosts": shown, "test": test, "unchanged": sorted(set(chosen) - set(shown))}}


def _check_few(context: Context, globbed: Sequence[str], asked: Sequence[str]) -> None:
    """Refuse globs that take many hosts out at once, or all that there are.

    Raises:
        SafetyError: with how many they fit.
    """
    there, most = set(everyone(context)), context.settings.membership.max_moves
    if len(globbed) > most or (len(globbed) > 1 and there <= set(globbed)):
        words = f"fits {len(globbed)} hosts: {some(globbed)}"
        mend = "name each of them, or force=True reason='...'"
        raise SafetyError(Problem("hosts " + " ".join(filter(is_glob, asked)), words, mend))


def _check_idle(context: Context, hosts: Iterable[str]) -> None:
    busy = context.store.locked_hosts()
    problems = [
        Problem(host, f"is being changed by rollout {busy[host][:14]}", "wait for its end")
        for host in hosts
        if host in busy
    ]
    if problems:
        raise SafetyError(problems)
