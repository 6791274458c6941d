"""A plan from directories and files: what the console does where a runner has snapshots.

Invariants: every input is read before anything is planned, and all that is wrong with all of them
is told at once; package files are not looked at.
"""

from __future__ import annotations

import datetime
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cpacman.depot.repository import read_repository
from cpacman.errors import Problem, UsageError
from cpacman.model import Advisory, Plan, Request
from cpacman.offline.inputs import Collector, read_inventories, settings_of
from cpacman.offline.repositories import channel_of, check_names, places_of
from cpacman.offline.rules import Rules, arch_changes, rules_of
from cpacman.planner.plan import ChannelInput, plan_hosts
from cpacman.report.progress import Reporter, Silent
from cpacman.report.table import render_plan

if TYPE_CHECKING:
    from cpacman.planner.why import Why


class Order(NamedTuple):
    """What was typed: `repos` as `NAME=DIR`, `inventories` as files or directories.

    `dump` is the file that gets the solve of the one host as a case.
    """

    repos: tuple[str, ...]
    inventories: tuple[str, ...]
    config: Path | None = None
    request: Request = Request()
    arch_change: tuple[str, ...] = ()
    noautoupdate: tuple[str, ...] = ()
    dump: Path | None = None


class Made(NamedTuple):
    """A plan, and the advisories of its repositories."""

    plan: Plan
    advisories: tuple[Advisory, ...]


def make_plan(
    order: Order, *, cache: Path, today: datetime.date, reporter: Reporter | None = None
) -> Made:
    """Return the plan for what was typed.

    Args:
        order: what was typed.
        cache: a directory of our own.
        today: which lines of policy still hold.
        reporter: told how far the planning is.

    Raises:
        UserError: what is wrong with options, configuration, repositories and inventories.
    """
    reporter = reporter or Silent()
    channel, warnings = _read(order, cache, today, reporter)
    plan = plan_hosts([channel], request=order.request, cache=cache / "solver", reporter=reporter)
    if order.dump is not None:
        from cpacman.planner.cases.write import dump_case

        dump_case(channel, order.request, plan, order.dump)
    made = msgspec.structs.replace(plan, warnings=(*plan.warnings, *warnings))
    return Made(made, channel.advisories)


def replay(path: Path) -> tuple[Made, list[str]]:
    """Return the plan of a case file, and in what it is not what the case expects.

    Raises:
        UserError: it can't be read, or is no case.
    """
    from cpacman.planner.cases.build import advisories_of, plan_case
    from cpacman.planner.cases.expect import differences
    from cpacman.planner.cases.text import read_case

    case = read_case(path)._replace(title=str(path))
    with tempfile.TemporaryDirectory(prefix="cpacman-") as scratch:
        plan = plan_case(case, Path(scratch))
    return Made(plan, advisories_of(case)), list(differences(case, plan))


def explain(
    order: Order,
    word: str,
    *,
    cache: Path,
    today: datetime.date,
    reporter: Reporter | None = None,
) -> Why:
    """Return why a package is, or is not, in the plan for what was typed.

    Raises:
        UserError: what is wrong with what was typed, or with what it names.
    """
    from cpacman.planner import why

    channel, _ = _read(order, cache, today, reporter or Silent())
    if len(channel.inventories) != 1:
        found = f"there are {len(channel.inventories)} hosts"
        raise UsageError(Problem("--inventory", found, "name the file of one host"))
    told = why.explain(channel, word, request=order.request, cache=cache / "solver")
    if order.dump is not None:
        from cpacman.planner.cases.write import dump_case

        plan = plan_hosts([channel], request=order.request, cache=cache / "solver")
        dump_case(channel, order.request, plan, order.dump)
    return told


def _read(
    order: Order, cache: Path, today: datetime.date, reporter: Reporter
) -> tuple[ChannelInput, list[str]]:
    """Read all that was typed, and say what has to be said about it."""
    collect = Collector()
    places = collect.run(lambda: places_of(order.repos)) or {}
    collect.run(lambda: check_names("--noautoupdate", order.noautoupdate, places))
    settings = collect.run(lambda: settings_of(order.config))
    read = []
    for number, (name, path) in enumerate(sorted(places.items())):
        reporter.progress(f"reading {name}:", number, len(places), "repositories")
        read.append(collect.run(functools.partial(read_repository, name, path, cache)))
    hosts = collect.run(lambda: read_inventories(order.inventories, reporter)) or []
    collect.stop_if_any()
    repositories = [one for one in read if one is not None]
    channel = channel_of(repositories, order.noautoupdate, settings, hosts, cache)
    typed = arch_changes(order.arch_change)
    rules = collect.run(lambda: rules_of(settings, places, hosts, typed, today))
    collect.stop_if_any()
    policies, warnings = rules or Rules({}, [])
    return msgspec.structs.replace(channel, policies=policies), warnings


def render(made: Made, how: str) -> bytes:
    """Return a plan as the console prints it: a table or one JSON document."""
    if how == "json":
        return msgspec.json.format(msgspec.json.encode(made.plan), indent=2) + b"\n"
    severities = {one.id: one.severity for one in made.advisories}
    return render_plan(made.plan, severities=severities, full=True).encode() + b"\n"


def render_why(told: Why, how: str) -> bytes:
    """Return an explanation as the console prints it: for people, or as one JSON document."""
    if how == "json":
        return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    from cpacman.report import screens

    return screens.render({"why": msgspec.to_builtins(told)}).encode() + b"\n"
