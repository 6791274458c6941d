"""What a rollout is given, from the database and the configuration: its job and its tools.

Invariants: the hosts of a level and its limits are fixed when the rollout begins; what must be
passed (gates, windows, approvals) is read anew each time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from pydantic_core import PydanticCustomError

from cpacman.commands.context import Context
from cpacman.commands.fleet import Fleet, place_all
from cpacman.commands.gatekeeping import IGNORE, Gates
from cpacman.commands.offering import rules_of
from cpacman.commands.rechecking import recheck
from cpacman.commands.refresh import refresh_hosts
from cpacman.commands.safeguards import profile_of
from cpacman.config import LevelSettings, Profile, parse_amount, restarts_of
from cpacman.config.stages import WindowNames
from cpacman.errors import ConflictError, Problem, UsageError
from cpacman.model import short_id
from cpacman.planner.policy import PROTECTED
from cpacman.rollout.job import Job, Level, Times, Tools, new_rollout_id
from cpacman.rollout.levels import level_of
from cpacman.rollout.machine import OPEN
from cpacman.rollout.owner import is_alive, owner_of
from cpacman.rollout.restarts import Restarts
from cpacman.rollout.spread import spread_hosts
from cpacman.store import StoredPlan

PER_HOST = "per_host"
"""What `budget.policy` says where every host stands for itself."""


class Bounds(NamedTuple):
    """What whoever begins a rollout demands of it beside what is configured, and never instead.

    Attributes:
        gate: the gate of the levels that have none of their own, "" for none.
        max_failures: how many hosts of all levels together may fail at most, as an amount.
        max_unreachable: the same of those that are out of reach.
    """

    gate: str = ""
    max_failures: str = ""
    max_unreachable: str = ""


NO_BOUNDS = Bounds()


class Terms(NamedTuple):
    """On what terms a rollout is carried out, beside its plan; kept with it as plain values.

    Attributes:
        profile: the name of a profile whose exceptions hold, "" for none.
        background: whether the engine carries it out.
        chain: the chain that it is a part of, "" for none.
        bounds: what is demanded of it beside what is configured.
    """

    profile: str = ""
    background: bool = False
    chain: str = ""
    bounds: Bounds = NO_BOUNDS

    def kept(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {**self._asdict(), "bounds": self.bounds._asdict()}


PLAIN = Terms()


def new_job(
    context: Context,
    stored: StoredPlan,
    levels: Sequence[str],
    reason: str | None,
    ticket: str | None,
    terms: Terms = PLAIN,
) -> Job:
    """Return the job of carrying a plan out from its beginning.

    Raises:
        UsageError: no such levels, or the plan has no host in them.
    """
    fleet = place_all(context, sorted(stored.plan.hosts))
    return _job(
        context,
        stored,
        rollout=new_rollout_id(),
        levels=_levels(context, stored, fleet, levels, terms),
        who=context.who,
        reason=reason,
        ticket=ticket,
        settings=terms.kept(),
    )


def job_again(context: Context, row: Mapping[str, Any], forgiven: Sequence[str] = ()) -> Job:
    """Return the job of a rollout that began before, with the levels that were fixed then.

    Args:
        context: the outside world.
        row: the rollout as the database has it.
        forgiven: hosts whose failure a person has seen and does not count any more.
    """
    number = row["id"]
    members: dict[str, list[str]] = {}
    for one in context.store.rollout(number)[1]:
        members.setdefault(one.level, []).append(one.host)
    meta = _meta(place_all(context, [h for hosts in members.values() for h in hosts]))
    levels = []
    for stage in context.store.rollout_levels(number):
        spread = _settings_of(context, stage.level).spread
        hosts = _ordered(members.get(stage.level, []), meta, spread)
        levels.append(level_of(stage.level, hosts, stage.limits))
    job = _job(
        context,
        context.store.plan(row["plan"]),
        rollout=number,
        levels=tuple(levels),
        who=row["who"],
        reason=row["reason"],
        ticket=row["ticket"],
        settings=msgspec.json.decode(row["settings"] or "{}"),
    )
    return job._replace(forgiven=frozenset(forgiven))


def own_job(context: Context, row: Mapping[str, Any], job: Job) -> Job:
    """Become the one process that carries a rollout out.

    Raises:
        ConflictError: another process does.
    """
    if row["state"] in OPEN and is_alive(row["owner"], row["beat"], context.clock()):
        words = "is being carried out by another process"
        raise ConflictError(Problem(short_id(row["id"]), words, "halt it first"))
    me = owner_of(os.getpid())
    context.store.own_rollout(row["id"], seen=row["owner"], owner=me)
    return job._replace(owner=me)


def _job(
    context: Context,
    stored: StoredPlan,
    *,
    rollout: str,
    levels: tuple[Level, ...],
    who: str,
    reason: str | None,
    ticket: str | None,
    settings: Mapping[str, Any],
) -> Job:
    budget, total = context.settings.budget, sum(len(level.hosts) for level in levels)
    # What halts no level must not add up to a halt of all.
    each = total if budget.policy == PER_HOST else 0
    files = _file_facts(context, stored)
    bounds = settings.get("bounds", {})
    return Job(
        rollout=rollout,
        plan=stored.plan,
        class_=stored.class_,
        levels=levels,
        names=files.names,
        demands=files.demands,
        protected=PROTECTED,
        who=who,
        reason=reason,
        ticket=ticket,
        owner=owner_of(os.getpid()),
        max_failures=_bounded(
            [budget.max_failures.of(total, least=each), *(one.max_failures for one in levels)],
            bounds.get("max_failures"),
            total,
        ),
        max_unreachable=_bounded(
            [
                budget.max_unreachable.of(total, least=max(1, each)),
                *(one.max_unreachable for one in levels),
            ],
            bounds.get("max_unreachable"),
            total,
        ),
        settings=settings,
        host_cache=context.settings.transport.host_cache,
    )


def _bounded(configured: Sequence[int], bound: str | None, total: int) -> int:
    """Return the largest of some limits, or less where somebody said so when it began."""
    most = max(configured)
    return min(most, parse_amount(bound).of(total)) if bound else most


ALL = ("all",)
"""Every level or class, unless one is named like that."""


def known_levels(context: Context, asked: Sequence[str]) -> Sequence[str]:
    """Return levels as they were asked for; `all` and none at all are every one of them.

    Raises:
        UsageError: there are no such levels.
    """
    known = context.settings.level_names
    if tuple(asked) == ALL and ALL[0] not in known:
        return ()
    wrong = [name for name in asked if name not in known]
    if wrong:
        mend = f"known are: {', '.join(known)}"
        raise UsageError([Problem("levels", f"there is no level {n!r}", mend) for n in wrong])
    return asked


def _levels(
    context: Context, stored: StoredPlan, fleet: Fleet, asked: Sequence[str], terms: Terms
) -> tuple[Level, ...]:
    known = context.settings.level_names
    asked = known_levels(context, asked)
    members: dict[str, list[str]] = {name: [] for name in known}
    for host in sorted(stored.plan.hosts):
        # Who lost its place is told so by the recheck, in the last level, and gets nothing.
        level = fleet.placements[host].host.level
        members[level if level in members else known[-1]].append(host)
    wanted = [n for n in known if members[n] and (not asked or n in asked)]
    if not wanted:
        raise UsageError(Problem("levels", "the plan has no host in these levels"))
    profile = profile_of(context, terms.profile)
    _check_bounds(context, wanted, terms.bounds)
    meta = _meta(fleet)
    return tuple(
        _level(context, stored.class_, name, members[name], meta, profile, terms.bounds.gate)
        for name in wanted
    )


def _check_bounds(context: Context, levels: Sequence[str], bounds: Bounds) -> None:
    """Check that bounds are what they should be, and have an effect.

    Raises:
        UsageError: they are not, or have none.
    """
    problems = []
    for name in ("max_failures", "max_unreachable"):
        try:
            parse_amount(getattr(bounds, name) or 0)
        except PydanticCustomError as error:
            told = error.context or {}
            problems.append(Problem(name, told["text"], told["mend"]))
    own = [name for name in levels if _settings_of(context, name).gate]
    if bounds.gate and bounds.gate not in context.settings.gates:
        mend = f"known are: {', '.join(context.settings.gates) or 'none'}"
        problems.append(Problem("gate", f"there is no gate {bounds.gate!r}", mend))
    elif bounds.gate and len(own) == len(levels):
        words = f"has no effect: {', '.join(own)} have gates of their own"
        problems.append(Problem("gate", words, "leave it out"))
    if problems:
        raise UsageError(problems)


def _level(
    context: Context,
    class_: str,
    name: str,
    hosts: Sequence[str],
    meta: Mapping[str, Mapping[str, Any]],
    profile: Profile,
    gate: str,
) -> Level:
    settings, budget, total = _settings_of(context, name), context.settings.budget, len(hosts)
    failures = _first(profile.max_failures, settings.max_failures, budget.max_failures)
    # Where every host stands for itself, however many fail or are down halts nothing.
    each = total if budget.policy == PER_HOST else 0
    return Level(
        name=name,
        hosts=_ordered(hosts, meta, settings.spread),
        concurrency=_first(profile.concurrency, settings.concurrency).of(total, least=1),
        max_failures=failures.of(total, least=each),
        # A share of a small level rounds to none, and one host that is down must not halt it.
        max_unreachable=budget.max_unreachable.of(total, least=max(1, each)),
        soak=_first(profile.soak, settings.soak),
        gate=settings.gate or gate,
        around=settings.around,
        restarts=restarts_for(context, class_, name),
    )


def restarts_for(context: Context, class_: str, level: str) -> Restarts:
    """Return what follows a transaction on hosts of a class and a level."""
    return Restarts(**restarts_of(context.settings, class_, level).model_dump())


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _settings_of(context: Context, level: str) -> LevelSettings:
    """Return a level's settings; one that was taken out of the configuration has the defaults."""
    found = [one for one in context.settings.levels if one.name == level]
    return found[0] if found else LevelSettings(name=level)


def _meta(fleet: Fleet) -> dict[str, Mapping[str, Any]]:
    return {name: one.host.meta for name, one in fleet.placements.items()}


def _ordered(
    hosts: Sequence[str], meta: Mapping[str, Mapping[str, Any]], key: str | None
) -> tuple[str, ...]:
    return tuple(spread_hosts(hosts, meta, key) if key else sorted(hosts))


class _FileFacts(NamedTuple):
    """What a manifest says of files, by sha256: names, and what to do about signatures."""

    names: dict[str, str]
    demands: dict[str, str]


def _file_facts(context: Context, stored: StoredPlan) -> _FileFacts:
    names: dict[str, str] = {}
    demands: dict[str, str] = {}
    # Hosts that share a transaction are of one channel.
    examples = {number: host for host, number in stored.plan.hosts.items()}
    placed = place_all(context, sorted(examples.values())).hosts
    for number, host in examples.items():
        channel = context.settings.channels[placed[host].channel] if host in placed else None
        modes = channel.signature_modes if channel else {}
        usual = "require" if channel is None or channel.keys else "off"
        for one in stored.plan.transactions[number].actions:
            if one.sha256:
                names[one.sha256] = f"{one.name}-{one.version}-{one.release}.{one.arch}.rpm"
                demands[one.sha256] = modes.get(one.repository or "", usual)
    return _FileFacts(names, demands)


def tools_of(
    context: Context,
    stored: StoredPlan,
    job: Job,
    *,
    patience: float = math.inf,
    limit: float = math.inf,
) -> Tools:
    """Return what a rollout works with.

    Args:
        context: the outside world.
        stored: its plan.
        job: the rollout.
        patience: seconds that this process waits for a window or a soak.
        limit: the moment up to which it waits at all.
    """
    transport = context.settings.transport
    fleet = place_all(context, [host for level in job.levels for host in level.hosts])
    rules = rules_of(context)
    return Tools(
        store=context.store,
        transport=context.transport,
        files=context.pool,
        signer=context.key,
        verify=context.transport.verify,
        recheck=lambda hosts: recheck(context, stored, hosts),
        refresh=lambda hosts: _refresh(context, hosts),
        reporter=context.reporter,
        stopping=context.stopping,
        times=Times(transport.answer, transport.apply, patience, limit),
        clock=context.clock,
        sleep=context.sleep,
        gates=_gates(context, job, fleet),
        protects=lambda one: rules.protected_on(fleet.placements[one.host], one),
    )


def _gates(context: Context, job: Job, fleet: Fleet) -> Gates:
    # One that was taken out of the configuration makes no exceptions; to end a rollout needs none.
    profile = context.settings.profiles.get(str(job.settings.get("profile") or ""), Profile())
    if job.plan.request.rollback and job.reason:
        # What is broken must not stay so until the next window opens.
        profile = profile.model_copy(update={"windows": WindowNames(apply=IGNORE)})
    return Gates(
        context,
        rollout=job.rollout,
        class_=job.class_,
        starter=job.who,
        meta=_meta(fleet),
        profile=profile,
    )


def _refresh(context: Context, hosts: Sequence[str]) -> None:
    refresh_hosts(context, hosts)
