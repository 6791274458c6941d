"""What a rollout has to pass, as the configuration says it now: checks, calendar, approvals.

Invariants: everything is read anew, so that a freeze that is written down takes effect at once; a
name that is used and not described refuses; who started a rollout is not who approves of it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cpacman.commands import access
from cpacman.commands.context import Context
from cpacman.config import Profile, Settings
from cpacman.config.gates import ActionSettings, CheckSettings, FreezeSettings
from cpacman.config.stages import HostWindows, LevelSettings, WindowNames
from cpacman.errors import ConfigError, Problem
from cpacman.model import short_id
from cpacman.rollout.calendars import read_openings
from cpacman.rollout.checks import Check, run_checks
from cpacman.rollout.gate import Expected, Finding, Moment, Verdict
from cpacman.rollout.job import Doing, Level
from cpacman.rollout.windows import Freeze, Opening, Span, judge, openings

IGNORE = "ignore"
"""The window of a profile that waits for none."""
PLAIN = WindowNames()
AGAIN = 60.0
"""Seconds after which what can't be read is looked at again: somebody may be writing it."""
JOIN = "join"
"""What `budget.late` says when hosts that come back shall have the plan, too."""


class Gates:
    """The `Gatekeeper` of one rollout.

    Args:
        context: the outside world.
        rollout: its id.
        class_: the class that is deployed.
        starter: who started it.
        meta: host -> metadata, for checks that are not for every host.
        profile: the exceptions that it was started with.
    """

    def __init__(
        self,
        context: Context,
        *,
        rollout: str,
        class_: str,
        starter: str,
        meta: Mapping[str, Mapping[str, Any]],
        profile: Profile,
    ) -> None:
        self._context = context
        self._rollout = rollout
        self._class = class_
        self._starter = starter
        self._meta = meta
        self._profile = profile

    def check(self, gate: str, hosts: Sequence[str], moment: Moment) -> Sequence[Finding]:
        """See `Gatekeeper.check`."""
        known = self._context.settings.gates
        if gate not in known:
            return [Finding(gate, "", Verdict.INCONCLUSIVE, NOWHERE)]
        wanted = [
            (check_of(one), self._meant(one, hosts))
            for one in known[gate].checks
            if moment.value in one.when
        ]
        return run_checks([(c, h) for c, h in wanted if h or not c.per_host], self._context.probes)

    def unasked(
        self, gate: str, members: Sequence[str], hosts: Sequence[str], moment: Moment
    ) -> Sequence[str]:
        """See `Gatekeeper.unasked`."""
        known = self._context.settings.gates
        checks = known[gate].checks if gate in known else ()
        mine = [one for one in checks if one.required and moment.value in one.when]
        return [
            one.name
            for one in mine
            if one.per_host and self._meant(one, members) and not self._meant(one, hosts)
        ]

    def _meant(self, check: CheckSettings, hosts: Sequence[str]) -> list[str]:
        scope = check.scope
        return [h for h in hosts if scope is None or scope.fits(self._meta.get(h, {}))]

    def every(self, gate: str) -> float:
        """See `Gatekeeper.every`."""
        return soak_every(self._context.settings, gate) or 60.0

    def late(self) -> bool:
        """See `Gatekeeper.late`."""
        return self._context.settings.budget.late == JOIN

    def before(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.before`."""
        known = self._context.settings.around
        if name not in known:
            return _nowhere(name, hosts)
        return self._act(name, known[name].before, hosts)

    def after(self, name: str, hosts: Sequence[str]) -> Sequence[Finding]:
        """See `Gatekeeper.after`."""
        known = self._context.settings.around
        if name not in known:
            # It was taken out of the configuration since: what it did stays done, and is told.
            return _nowhere(name, hosts)
        action = known[name].after
        return () if action is None else self._act(name, action, hosts)

    def _act(self, name: str, action: ActionSettings, hosts: Sequence[str]) -> Sequence[Finding]:
        return run_checks([(action_of(name, action), hosts)], self._context.probes)

    def openings(self, hosts: Sequence[str], what: Doing = "apply") -> Mapping[str, Opening]:
        """See `Gatekeeper.openings`."""
        now = self._context.clock()
        try:
            settings = self._context.settings_now()
        except ConfigError as error:
            # A freeze may stand there: nobody starts before it can be read.
            return dict.fromkeys(hosts, _unreadable("the configuration", error, now))
        field = class_windows(settings, self._class).by
        own = {host: own_window(self._meta.get(host, {}), field) for host in hosts}
        found = {
            name: opening_of(settings, self._class, now, what, self._profile.windows, name)
            for name in set(own.values())
        }
        return {host: found[own[host]] for host in hosts}

    def approval(self, level: str) -> str:
        """See `Gatekeeper.approval`."""
        settings = self._context.settings
        asked = [one.approvers for one in settings.classes if one.name == self._class]
        wanted = [one.approvers for one in settings.levels if one.name == level]
        asked = asked if self._profile.approvers is None else [self._profile.approvers]
        wanted_in_all = max([*asked, *wanted], default=0)
        said = self._context.store.approvals(self._rollout)
        have = access.approvers(settings, self._class, said, [self._starter])
        if len(have) >= wanted_in_all:
            return ""
        how = f"salt-run cpacman.approve {short_id(self._rollout)}"
        return f"approved by {len(have)} of {wanted_in_all}: {how}"


NOWHERE = "is described nowhere any more"


def _nowhere(name: str, hosts: Sequence[str]) -> list[Finding]:
    return [Finding(name, host, Verdict.INCONCLUSIVE, NOWHERE) for host in hosts]


def _unreadable(what: str, error: ConfigError, now: float) -> Opening:
    moment = datetime.datetime.fromtimestamp(now + AGAIN, datetime.timezone.utc)
    return Opening(False, f"{what} can't be read: {error.problems[0].path}", moment)


def soak_every(settings: Settings, gate: str) -> float | None:
    """Return after how many seconds the checks of a soak are due again; None for no checks."""
    checks = settings.gates[gate].checks if gate in settings.gates else ()
    return min((float(one.every) for one in checks if Moment.SOAK.value in one.when), default=None)


def check_of(settings: CheckSettings) -> Check:
    """Return a check as it is run."""
    return Check(
        name=settings.name,
        kind=settings.kind,
        target=str(getattr(settings, settings.kind)),
        args=settings.args,
        kwargs=settings.kwargs,
        expected=Expected(settings.expect, settings.matches),
        timeout=settings.timeout,
        retries=settings.retries,
        pause=settings.pause,
        required=settings.required,
        per_host=settings.per_host,
    )


def action_of(name: str, settings: ActionSettings) -> Check:
    """Return an action as it is run: it must succeed as a check must pass."""
    return Check(
        name=name,
        kind="salt" if settings.salt is not None else "master",
        target=str(settings.salt if settings.salt is not None else settings.master),
        args=settings.args,
        kwargs=settings.kwargs,
        expected=Expected(settings.expect),
        timeout=settings.timeout,
    )


def class_windows(settings: Settings, class_: str) -> HostWindows:
    """Return which windows a class names; one that was taken out of the configuration has none."""
    return next((one.windows for one in settings.classes if one.name == class_), HostWindows())


def own_window(meta: Mapping[str, Any], field: str | None) -> str | None:
    """Return the window that a host's metadata names; None for none."""
    value = meta.get(field) if field else None
    return None if value is None else str(value)


def opening_of(
    settings: Settings,
    class_: str,
    now: float,
    what: Doing = "apply",
    instead: WindowNames = PLAIN,
    own: str | None = None,
) -> Opening:
    """Say whether hosts of a class may be changed now, or sent to, by their window and the freezes.

    Args:
        settings: the settings.
        class_: the class.
        now: seconds since the epoch.
        what: `stage` is to send. Without a window of its own that holds with `apply`.
        instead: the windows of a profile; `ignore` for none at all.
        own: the window that the host names for itself; a profile goes first.
    """
    if class_ not in settings.class_names:
        return Opening(False, f"there is no class {class_!r} any more")
    named = class_windows(settings, class_)
    name = instead.apply or own or named.apply
    if what == "stage":
        stage = instead.stage or (instead.apply if instead.apply == IGNORE else named.stage)
        name = stage or name
    if name == IGNORE and IGNORE in (instead.apply, instead.stage):
        return Opening(True)
    if name is not None and name not in settings.windows:
        return Opening(False, f"there is no window {name!r}")
    moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    freezes = [freeze_of(one) for one in settings.freeze]
    try:
        spans = None if name is None else spans_of(settings, name, moment)
    except ConfigError as error:
        return _unreadable(f"window {name}", error, now)
    return judge(spans, freezes, class_=class_, now=moment, name=name or "")


def spans_of(settings: Settings, name: str, now: datetime.datetime) -> list[Span]:
    """Return the openings of a window around a moment.

    Raises:
        ConfigError: its calendar can't be read.
    """
    window = settings.windows[name]
    spans = openings(window.weekly, window.timezone, now)
    if window.calendar is not None:
        spans += read_openings(window.calendar, window.timezone, now)
    return spans


def freeze_of(settings: FreezeSettings) -> Freeze:
    """Return a freeze with aware times."""
    return Freeze(settings.start, settings.end, settings.classes, settings.reason)


def missing_windows(
    settings: Settings, class_: str, meta: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    """Return the windows that hosts' metadata names and that are described nowhere."""
    field = class_windows(settings, class_).by
    named = {host: own_window(one, field) for host, one in sorted(meta.items())}
    return [
        _missing(f"{host} meta.{field}", "window", name, "windows")
        for host, name in named.items()
        if name is not None and name not in settings.windows
    ]


def missing_names(settings: Settings, class_: str, levels: Sequence[str]) -> list[Problem]:
    """Return the gates, windows and actions that are named and described nowhere."""
    found = []
    for index, one in enumerate(settings.classes):
        for key in ("apply", "stage") if one.name == class_ else ():
            name = getattr(one.windows, key)
            if name is not None and name not in settings.windows:
                path = f"classes[{index}].windows.{key}"
                found.append(_missing(path, "window", name, "windows"))
    for index, level in enumerate(settings.levels):
        if level.name not in levels:
            continue
        if level.gate is not None and level.gate not in settings.gates:
            found.append(_missing(f"levels[{index}].gate", "gate", level.gate, "gates"))
        found += [
            _missing(f"levels[{index}].around", "action", name, "around")
            for name in level.around
            if name not in settings.around
        ]
    return found


def gone_names(settings: Settings, class_: str, levels: Sequence[Level]) -> list[Problem]:
    """Return what a rollout was begun with and nobody describes any more.

    What a level names today and is nowhere is told by `missing_names`.
    """
    found = []
    if class_ not in settings.class_names:
        words = f"there is no class {class_!r} any more"
        found.append(Problem("classes", words, "cancel the rollout"))
    today = {one.name: one for one in settings.levels}
    for level in levels:
        now = today.get(level.name, LevelSettings(name=level.name))
        gates = {level.gate} - {"", now.gate or ""}
        path = f"level {level.name}, as it was begun"
        found += [_missing(path, "gate", n, "gates") for n in gates - settings.gates.keys()]
        around = [n for n in level.around if n not in {*settings.around, *now.around}]
        found += [_missing(path, "action", name, "around") for name in around]
    return found


def _missing(path: str, what: str, name: str, section: str) -> Problem:
    return Problem(path, f"there is no {what} {name!r}", f"describe it: {section}: {{{name}: ...}}")
