"""What the state modules of the master do: look, compare, and act only where something differs.

Invariants: what is there already is no change; in test mode nothing changes, and what would is
told; a refusal is a state that failed, with the same words as the command's; a state waits for a
soak no longer than `wait`, and says when it would be met.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.arguments import FILED, Names, bind_arguments, listed
from cpacman.commands import blocking, deploying, planning, promoting, resuming, snapshots
from cpacman.commands.collecting import close_abandoned
from cpacman.commands.context import Context, open_context
from cpacman.commands.fleet import Selection, place_all
from cpacman.commands.jobs import Bounds, known_levels
from cpacman.config import parse_duration
from cpacman.depot.partial import Wanted
from cpacman.errors import CpacmanError, Problem, UsageError
from cpacman.model import FailedError, Plan, Request, short_id
from cpacman.report.screens import render
from cpacman.report.text import when
from cpacman.rollout.machine import THERE, RolloutState
from cpacman.rollout.owner import is_alive
from cpacman.store import RolloutHost

_POLL = 5.0
_MOST_HOSTS = 200
"""Above so many changed hosts a state tells the changes by outcome only."""


class Told(NamedTuple):
    """What a state came to: True, False, or None for what a test would do."""

    result: bool | None
    comment: str
    changes: Mapping[str, Any] = {}


def run_state(
    function: str, name: str, arguments: Mapping[str, Any], opts: Mapping[str, Any], who: str
) -> dict[str, Any]:
    """Run one state and return what Salt expects of it; whatever is wrong is a failed state.

    Args:
        function: one of `STATES`.
        name: what the state file calls it, or its `name:`.
        arguments: as the state file has them.
        opts: the options of the master, with `test`.
        who: whoever started it.
    """
    try:
        bound = bind_arguments(STATES[function], (None, False, name), arguments, FILED)
        with open_context(opts, who=who) as context:
            given = {**bound.arguments, "context": context, "test": bool(opts.get("test"))}
            told = STATES[function](**given)
    except CpacmanError as error:
        told = Told(False, str(error))
    except Exception as error:
        words = f"This is a bug in cpacman.{function}: {type(error).__name__}: {error}"
        told = Told(False, f"{words}\n{traceback.format_exc()}")
    shown = {"result": told.result, "comment": told.comment, "changes": dict(told.changes)}
    return {"name": name, **shown}


# ---- snapshot_present ------------------------------------------------------------------------


def snapshot_present(
    context: Context, test: bool, name: str, *, channel: Names = None, verify: bool = False
) -> Told:
    """The first class points at what the repositories hold now."""
    answer = snapshots.snapshot(context, listed(channel), verify=verify, test=test)
    rows = answer["snapshot"]["channels"]
    changes = {c: {"old": r["before"], "new": r["id"]} for c, r in rows.items() if r["new"]}
    if not changes:
        return Told(True, "the mirrors are as the snapshot has them")
    return Told(None if test else True, render(answer), changes)


# ---- promoted --------------------------------------------------------------------------------


def promoted(
    context: Context,
    test: bool,
    name: str,
    *,
    to: str | None = None,
    channel: Names = None,
    snapshot: str | None = None,
    packages: Names = None,
    advisory: Names = None,
    cve: Names = None,
    repository: Names = None,
    exclude: Names = None,
    until: str | None = None,
    force: bool = False,
    wait: str | int | None = None,
    reason: str | None = None,
    ticket: str | None = None,
) -> Told:
    """A class holds what the class before it holds; refused as the command is."""
    wanted = Wanted(
        packages=listed(packages),
        advisories=listed(advisory),
        cves=listed(cve),
        repositories=listed(repository),
        exclude=listed(exclude),
    )

    def ask(test: bool) -> dict[str, Any]:
        answer = promoting.promote(
            context, to or name, listed(channel), snapshot=snapshot, wanted=wanted, until=until,
            force=force, test=test, reason=reason, ticket=ticket,
        )  # fmt: skip
        return dict(answer["promote"])

    body = ask(True)
    met = promoting.met_at(body)
    if met is not None and not test:
        if met > context.clock() + _seconds(wait):
            return Told(False, f"soaking, met at {when(met)}\n{render({'promote': body})}")
        context.wait_until(lambda: context.clock() >= met, met, _POLL)
        body = ask(True)
    rows = body["channels"]
    changes = {c: {"old": r["before"], "new": r["id"]} for c, r in rows.items() if r["new"]}
    if not changes:
        return Told(True, f"{to or name} holds that already")
    text = render({"promote": body})
    if body["refused"]:
        return Told(False, text)
    if test:
        return Told(None, text, changes)
    done = ask(False)
    return Told(not done["refused"], render({"promote": done}), {} if done["refused"] else changes)


def _seconds(wait: str | int | None) -> int:
    try:
        return parse_duration(wait) if wait is not None else 0
    except ValueError as error:
        raise UsageError(Problem("wait", str(error), "write 30m, 2h, 1d")) from error


# ---- deployed --------------------------------------------------------------------------------


def deployed(
    context: Context,
    test: bool,
    name: str,
    *,
    class_: str | None = None,
    levels: Names = None,
    gate: str | None = None,
    max_failures: str | int | None = None,
    max_unreachable: str | int | None = None,
    profile: str | None = None,
    wait: str | int | None = None,
    reason: str | None = None,
    ticket: str | None = None,
) -> Told:
    """Every host of a class, or of some of its levels, has what the class holds."""
    target = class_ or name
    limit = context.clock() + _seconds(wait)
    wanted = known_levels(context, listed(levels))
    bounds = Bounds(gate or "", _text(max_failures), _text(max_unreachable))
    gone_on: dict[str, Any] = {}
    if not test:
        close_abandoned(context)
        gone_on = _go_on(context, target, limit)
        if row := _active(context, target):
            return Told(False, _soaking(row), gone_on)
    if row := _halted(context, target):
        return Told(False, _was_halted(row), gone_on)
    refresh = "stale" if test else "all"
    answer = planning.plan(
        context, Selection(class_=target), request=Request(), refresh=refresh
    )["plan"]  # fmt: skip
    plan = context.store.plan(str(answer["plan_id"])).plan
    failed = dict(answer["failed"])
    wrong = [h for h, f in failed.items() if f["error"] != FailedError.NOT_ACCEPTED.value]
    busy = _busy(context, plan, wanted)
    if not busy:
        text = f"{len(plan.hosts)} hosts of {target} have what it holds"
        return Told(not wrong, "\n".join([text, *_unplanned(failed)]), gone_on)
    if test:
        changes = {host: "\n".join(_steps(plan, host)) for host in busy[:_MOST_HOSTS]}
        return Told(False if wrong else None, render({"plan": answer}), changes)
    done = deploying.deploy(
        context, Selection(), plan=plan.plan_id, levels=wanted, profile=profile,
        bounds=bounds, reason=reason, ticket=ticket, limit=limit,
    )["rollout"]  # fmt: skip
    told = _told(context, str(done["id"]), render({"rollout": {**done, "failed": {}}}), wrong)
    return told._replace(changes={**gone_on, **told.changes})


def _text(amount: str | int | None) -> str:
    return "" if amount is None else str(amount)


def _unplanned(failed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for host, one in sorted(failed.items()):
        yield f"NOT PLANNED {host}: {'; '.join(one['causes'])}"


def _busy(context: Context, plan: Plan, levels: Sequence[str]) -> list[str]:
    """Return the hosts in these levels that the plan changes."""
    found = [h for h in sorted(plan.hosts) if plan.transactions[plan.hosts[h]].actions]
    if not levels:
        return found
    placements = place_all(context, found).placements
    return [host for host in found if placements[host].host.level in levels]


def _steps(plan: Plan, host: str) -> list[str]:
    actions = plan.transactions[plan.hosts[host]].actions
    return [f"{one.action.value} {one.from_ + ' -> ' if one.from_ else ''}{one.nevra}"
            for one in actions]  # fmt: skip


def _active(context: Context, class_: str) -> Mapping[str, Any] | None:
    """Return the rollout of a class that is not over."""
    rows = context.store.rollouts(active=True)
    return next((one for one in rows if one["class"] == class_), None)


def _go_on(context: Context, class_: str, limit: float) -> dict[str, Any]:
    """Wait for a rollout that another process carries out; go on with one that nobody does.

    Returns:
        what became of the hosts that it reached here.
    """

    def others() -> bool:
        row = _active(context, class_)
        return row is not None and is_alive(row["owner"], row["beat"], context.clock())

    context.wait_until(lambda: not others(), limit, _POLL)
    row = _active(context, class_)
    if row is None or others():
        return {}
    before = {h.host for h in context.store.rollout(row["id"])[1] if h.outcome}
    resuming.resume(context, row["id"], limit=limit)
    hosts = context.store.rollout(row["id"])[1]
    plan = context.store.plan(row["plan"]).plan
    return _outcomes(plan, [host for host in hosts if host.host not in before])


def _halted(context: Context, class_: str) -> Mapping[str, Any] | None:
    """Return the last rollout of a class if it was halted, and the class still holds its content.

    A state is run again and again: each time with a fresh budget it would go on breaking hosts.
    """
    rows = [row for row in context.store.rollouts() if row["class"] == class_]
    if not rows or rows[-1]["state"] != RolloutState.HALTED:
        return None
    moved = deploying.moved_pointers(context, context.store.plan(rows[-1]["plan"]))
    return None if moved else rows[-1]


def _was_halted(row: Mapping[str, Any]) -> str:
    number = short_id(row["id"])
    ways = " | ".join(f"salt-run cpacman.{verb} {number}" for verb in ("retry", "resume", "cancel"))
    return f"rollout {number} of {row['class']} was halted: {row['why']}\nnext: {ways}"


def _soaking(row: Mapping[str, Any]) -> str:
    until = row.get("until")
    met = f", met at {when(until)}" if until else ""
    what = row.get("why") or ("soaking" if until else row["state"])
    return f"rollout {short_id(row['id'])} of {row['class']}: {what}{met}"


def _told(context: Context, rollout: str, text: str, wrong: Sequence[str]) -> Told:
    """Return what a rollout that was started here came to, so far."""
    row, hosts = context.store.rollout(rollout)
    changes = _outcomes(context.store.plan(row["plan"]).plan, hosts)
    if row["ended"] is None:
        return Told(False, f"{_soaking(row)}\n{text}", changes)
    missed = [host for host in hosts if host.outcome not in THERE]
    return Told(not missed and not wrong, text, changes)


def _outcomes(plan: Plan, hosts: Sequence[RolloutHost]) -> dict[str, Any]:
    changed = [h for h in hosts if h.outcome in ("applied", "failed", "silent")]
    if len(changed) > _MOST_HOSTS:
        outcomes = [str(h.outcome) for h in changed]
        return {one: f"{outcomes.count(one)} hosts" for one in sorted(set(outcomes))}
    # Of a host that failed, or said nothing, only what may have happened is known.
    words = {"applied": "changes"}
    return {
        h.host: {"outcome": h.outcome, words.get(str(h.outcome), "planned"): _steps(plan, h.host)}
        for h in changed
    }


# ---- blocked ---------------------------------------------------------------------------------


def blocked(
    context: Context,
    test: bool,
    name: str,
    *,
    specs: Names = None,
    until: str | None = None,
    force: bool = False,
    reason: str | None = None,
    ticket: str | None = None,
) -> Told:
    """NEVRAs, advisories or snapshots stand on the block list."""
    wanted = listed(specs) or (name,)
    known = {one.spec: one for one in blocking.active(context)}
    answer = blocking.block(
        context, wanted, until=until, reason=reason, ticket=ticket, force=force, test=True
    )
    rows = answer["block"]["blocks"]
    missing = [r for r in rows if not _stands(known.get(r["spec"]), r)]
    if not missing:
        return Told(True, "blocked already")
    changes = {r["spec"]: {"old": None, "new": f"blocked: {r['reason']}"} for r in missing}
    if test:
        return Told(None, render(answer), changes)
    done = blocking.block(
        context, [r["spec"] for r in missing], until=until, reason=reason, ticket=ticket,
        force=force,
    )  # fmt: skip
    return Told(True, render(done), changes)


def _stands(known: Any, row: Mapping[str, Any]) -> bool:
    """Whether the list has that entry for as long as it is wanted."""
    return known is not None and known.until == row["until"]


STATES: dict[str, Callable[..., Told]] = {
    "snapshot_present": snapshot_present,
    "promoted": promoted,
    "deployed": deployed,
    "blocked": blocked,
}
