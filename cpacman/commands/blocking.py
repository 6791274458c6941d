"""The block list: what turned out bad is blocked everywhere by one command.

Invariants: what stands on the list is in no plan and in no deploy, also not of a plan that was
made before; no class is pointed at a blocked snapshot; hosts that have it already are named.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cpacman.commands.context import Context
from cpacman.commands.everywhere import known_advisories
from cpacman.commands.fleet import everyone
from cpacman.commands.offering import today
from cpacman.depot.snapshot import find_snapshot, load_remaining, load_snapshot
from cpacman.errors import Problem, SafetyError, UsageError
from cpacman.model import Advisory, Package, Plan, short_id
from cpacman.planner.blocked import Versioned, delivered, finder, holds, kind_of, names
from cpacman.planner.policy import may_name
from cpacman.planner.ruling import is_glob
from cpacman.store import Block

Find = Callable[[Versioned], str | None]
WIDE = 100
"""Packages, by name, that globs of one command may block unless it is forced."""


# ---- the commands --------------------------------------------------------------------------


def block(
    context: Context,
    specs: Sequence[str],
    *,
    until: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    force: bool = False,
    test: bool = False,
) -> dict[str, Any]:
    """Put NEVRAs, advisories or snapshots on the block list, and name the hosts that have them.

    Raises:
        UsageError: nothing is named, what is named can be none of them, or no reason is given.
        InputError: there is no such snapshot.
        SafetyError: globs fit very many packages, and nothing forces that.
    """
    advisories = known_advisories(context)
    made = _read(context, specs, until, reason, advisories)
    packages = _offered(context, made)
    if not force:
        _check_width([one.spec for one in made if one.kind == "nevra"], packages)
    if not test:
        context.store.block(made, ticket=ticket)
    return {"block": {"blocks": _rows(context, made, advisories, packages), "test": test}}


def _check_width(specs: Sequence[str], packages: Sequence[Package]) -> None:
    """Refuse globs that fit a large part of what classes hold: no plan would have it any more.

    Raises:
        SafetyError: with how many they fit.
    """
    globs = [spec for spec in specs if is_glob(spec)]
    known = {one.name for one in packages}
    fitting = sorted({one.name for one in packages if globs and names(globs, one)})
    if len(fitting) > WIDE or (len(fitting) > 1 and 2 * len(fitting) > len(known)):
        words = f"fits {len(fitting)} of {len(known)} packages, {', '.join(fitting[:3])}, ..."
        mend = "narrow it to name-version-release, or force=True"
        raise SafetyError(Problem(" ".join(globs), words, mend))


def unblock(
    context: Context,
    specs: Sequence[str],
    *,
    reason: str | None = None,
    ticket: str | None = None,
    test: bool = False,
) -> dict[str, Any]:
    """Take entries off the block list.

    Raises:
        UsageError: nothing is named, or it does not stand on the list.
    """
    known = {one.spec: one for one in context.store.blocks()}
    found = [_entry(known, spec) for spec in specs]
    missing = [spec for spec, one in zip(specs, found, strict=True) if one is None]
    if missing or not specs:
        mend = f"there are: {', '.join(map(short_id, known)) or 'none'}"
        raise UsageError([Problem("unblock", f"{s} is not blocked", mend) for s in missing]
                         or [Problem("unblock", "name what is to be unblocked", mend)])  # fmt: skip
    entries = [one for one in found if one is not None]
    if not test:
        context.store.unblock(
            [one.spec for one in entries], at=context.clock(), who=context.who, reason=reason,
            ticket=ticket,
        )  # fmt: skip
    return {"unblock": {"blocks": [_plain(one) for one in entries], "test": test}}


def blocks(context: Context) -> dict[str, Any]:
    """Show the block list, and which hosts have what stands on it."""
    entries = context.store.blocks()
    rows = _rows(context, entries, known_advisories(context), _offered(context, entries))
    return {"blocks": {"blocks": rows}}


def _entry(known: Mapping[str, Block], spec: str) -> Block | None:
    """Return the entry of a word; a snapshot may be named by the beginning of its id."""
    fitting = [one for word, one in known.items() if word.startswith(spec)]
    exact = known.get(spec)
    unique = len(fitting) == 1 and fitting[0].kind == "snapshot"
    return exact or (fitting[0] if unique else None)


def _read(
    context: Context,
    specs: Sequence[str],
    until: str | None,
    reason: str | None,
    advisories: Sequence[Advisory],
) -> list[Block]:
    """Return the entries that were typed, or every problem with them."""
    problems = [] if specs else [Problem("block", "name what is bad", "a NEVRA, RHSA-..., s-...")]
    if not (reason or "").strip():
        problems.append(Problem("reason", "is missing", "say why: it is shown wherever it holds"))
    problems += _wrong_day(context, until)
    ids = {one.id for one in advisories}
    kinds = {spec: kind_of(spec, ids) for spec in specs}
    mend = "write name-version-release, an advisory's id, or s-..."
    problems += [Problem("block", f"{s!r} names nothing", mend) for s, k in kinds.items() if not k]
    if problems:
        raise UsageError(problems)
    return [
        Block(
            find_snapshot(context.settings.depot, spec) if kind == "snapshot" else spec,
            str(kind), str(reason), until, context.who, context.clock(),
            tuple(sorted(delivered(spec, advisories))) if kind == "advisory" else (),
        )
        for spec, kind in kinds.items()
    ]  # fmt: skip


def _wrong_day(context: Context, until: str | None) -> list[Problem]:
    if until is None:
        return []
    try:
        last = datetime.date.fromisoformat(until)
    except ValueError:
        return [Problem("until", f"{until!r} is no date", "write it as 2027-03-31")]
    past = last < today(context)
    return [Problem("until", f"{until} is over already", "name a day to come")] if past else []


# ---- what it means -------------------------------------------------------------------------


def active(context: Context) -> list[Block]:
    """Return the entries that hold today."""
    day = today(context)
    return [one for one in context.store.blocks() if holds(one.until, day)]


def blocked_snapshots(context: Context, ids: Iterable[str]) -> list[Problem]:
    """Return a problem for each of these snapshots that is blocked."""
    known = {one.spec: one for one in active(context) if one.kind == "snapshot"}
    return [
        Problem(short_id(number), f"is blocked: {known[number].reason}",
                f"or: salt-run cpacman.unblock {short_id(number)}")
        for number in dict.fromkeys(ids)
        if number in known
    ]  # fmt: skip


def check_snapshots(context: Context, ids: Iterable[str]) -> None:
    """Refuse to go on with a blocked snapshot.

    Raises:
        SafetyError: one of them is; each is named with its reason.
    """
    if problems := blocked_snapshots(context, ids):
        raise SafetyError(problems)


def problems_of(context: Context, plan: Plan) -> list[Problem]:
    """Return what is blocked by now of a plan that was made before."""
    entries = {one.spec: one for one in active(context)}
    if not entries:
        return []
    snapshots = load_remaining(context.settings.depot, plan.snapshots.values())
    advisories = [*known_advisories(context), *(a for one in snapshots for a in one.advisories)]
    find = finder({one.spec: one.kind for one in entries.values()}, advisories)
    coming = {a.nevra: a for t in plan.transactions.values() for a in t.actions if a.sha256}
    found = {nevra: spec for nevra, action in coming.items() if (spec := find(action))}
    mend = "plan again"
    return [
        *blocked_snapshots(context, plan.snapshots.values()),
        *(
            Problem(nevra, f"is in the plan and blocked ({spec}): {entries[spec].reason}", mend)
            for nevra, spec in sorted(found.items())
        ),
    ]


# ---- who has it ----------------------------------------------------------------------------


def _rows(
    context: Context,
    entries: Sequence[Block],
    advisories: Sequence[Advisory],
    packages: Sequence[Package],
) -> list[dict[str, Any]]:
    day = today(context)
    having = _having(context, entries, advisories)
    return [
        {
            **_plain(one),
            "holds": holds(one.until, day),
            "known": bool(having[one.spec]) or _is_known(one, advisories, packages),
            "hosts": {host: sorted(found) for host, found in sorted(having[one.spec].items())},
        }
        for one in entries
    ]


def _plain(one: Block) -> dict[str, Any]:
    return {**one._asdict(), "packages": list(one.packages)}


def _offered(context: Context, entries: Sequence[Block]) -> list[Package]:
    """Return the packages of every snapshot that a class points at, of each version one.

    They are read only where an entry names packages.
    """
    if not any(one.kind == "nevra" for one in entries):
        return []
    ids = sorted({row["snapshot"] for row in context.store.pointers().values()})
    found = (load_snapshot(context.settings.depot, one).packages for one in ids)
    return list({one.nevra: one for packages in found for one in packages}.values())


def _is_known(block: Block, advisories: Sequence[Advisory], packages: Sequence[Package]) -> bool:
    """Return whether an entry names anything that a class holds."""
    if block.kind == "advisory":
        return bool(delivered(block.spec, advisories))
    near = (one for one in packages if may_name(block.spec, one.name))
    return block.kind == "snapshot" or any(names([block.spec], one) for one in near)


def _having(
    context: Context, entries: Sequence[Block], advisories: Sequence[Advisory]
) -> dict[str, dict[str, set[str]]]:
    """Return word -> host -> what it has of it: NEVRAs, or the class that points there."""
    found: dict[str, dict[str, set[str]]] = {one.spec: {} for one in entries}
    tests = {one.spec: _test(one, advisories) for one in entries if one.kind != "snapshot"}
    judged: dict[int, list[str]] = {}
    alive: list[object] = []
    for host, inventory in context.store.inventories(everyone(context)).items():
        for package in inventory.packages if tests else ():
            if id(package) not in judged:
                judged[id(package)] = [spec for spec, test in tests.items() if test(package)]
                alive.append(package)
            for spec in judged[id(package)]:
                found[spec].setdefault(host, set()).add(package.nevra)
    for one in entries:
        if one.kind == "snapshot":
            found[one.spec] = {
                host: {short_id(one.spec)} for host in context.store.hosts_at(one.spec)
            }
    return found


def _test(block: Block, advisories: Sequence[Advisory]) -> Callable[[Versioned], bool]:
    if block.kind == "nevra":
        return lambda package: names([block.spec], package)
    bad = delivered(block.spec, advisories)
    return lambda package: package.nevra in bad
