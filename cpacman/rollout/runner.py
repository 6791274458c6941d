"""Carrying out a plan level by level: the effects around the pure rules of `machine` and `gate`.

Invariants: each step is in the database before its effect, so another process can go on from any
point without repeating and without skipping; every host ends with exactly one outcome; nothing
that was not verified counts as applied; once halted, no host starts any more. What stops it is
judged in `judging` and heard in `stopping`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from cpacman.errors import ConflictError, CpacmanError
from cpacman.model import Outcome
from cpacman.rollout.applying import Applier
from cpacman.rollout.around import Around
from cpacman.rollout.asking import Asker
from cpacman.rollout.gate import Moment
from cpacman.rollout.job import HALTED, Job, Level, Tools
from cpacman.rollout.judging import Judge
from cpacman.rollout.latecomers import HostsAreBack, Latecomers
from cpacman.rollout.levels import Levels, limits_of
from cpacman.rollout.machine import (
    NOT_STARTED,
    HostState,
    LevelState,
    RolloutState,
    check_rollout,
)
from cpacman.rollout.noting import Noting
from cpacman.rollout.record import Record
from cpacman.rollout.settling import Settler
from cpacman.rollout.staging import Stager, check_files
from cpacman.rollout.stopping import BEAT, End, Pulse, Stop, end_by
from cpacman.store import Guard
from cpacman.words import many

CANCELLED = "cancelled"
OPERATOR = "operator"
_FIRST_POLL, _LAST_POLL = 0.2, 2.0


def run_rollout(job: Job, tools: Tools) -> End:
    """Begin a rollout and carry it out; the database has the outcome of every host afterwards.

    Raises:
        SafetyError: a file is not what the plan says; nothing was started.
        ConflictError: another rollout has one of the hosts; nothing was started.
    """
    begin_rollout(job, tools)
    return continue_rollout(job, tools)


def begin_rollout(job: Job, tools: Tools, guard: Guard | None = None) -> None:
    """Check every file and create the rollout, with its hosts locked; nothing is sent yet.

    Args:
        job: what is to be carried out.
        tools: what it works with.
        guard: may refuse, in the transaction that creates it.

    Raises:
        SafetyError: a file is not what the plan says.
        ConflictError: another rollout has one of the hosts.
    """
    hosts = [(host, level.name) for level in job.levels for host in level.hosts]
    check_files(job.plan, [host for host, _ in hosts], tools)
    header = {"id": job.rollout, "plan": job.plan.plan_id, "class": job.class_,
              "state": RolloutState.RUNNING.value, "who": job.who, "reason": job.reason,
              "ticket": job.ticket, "owner": job.owner,
              "settings": msgspec.json.encode(job.settings).decode()}  # fmt: skip
    rows = [(host, level, job.plan.hosts[host]) for host, level in hosts]
    levels = [(level.name, limits_of(level)) for level in job.levels]
    tools.store.start_rollout(header, rows, at=tools.clock(), levels=levels, guard=guard)


def continue_rollout(job: Job, tools: Tools) -> End:
    """Carry a rollout on from where the database has it; `job.owner` must own it.

    Raises:
        ConflictError: another process took it over meanwhile; that one goes on.
    """
    return _Rollout(job, tools).run()


class _Rollout:
    """One process's part in one rollout."""

    def __init__(self, job: Job, tools: Tools) -> None:
        noting = Noting(tools.reporter, tools.store, job.rollout, tools.clock)
        tools = tools._replace(reporter=noting)
        self._job = job
        self._tools = tools
        row, rows = tools.store.rollout(job.rollout)
        self._record = Record(job, tools, rows)
        self._levels = Levels(job, tools)
        # Levels whose soak another process began: nobody looks at it since.
        soaking = [one for one in job.levels if self._levels.state(one) is LevelState.SOAKING]
        self._unwatched = {one.name for one in soaking}
        asker = Asker(job, tools, self._record)
        self._pulse = Pulse(job, tools)
        self._stager = Stager(job, tools, self._record, self._pulse.look)
        self._settler = Settler(job, tools, self._record, asker)
        self._applier = Applier(tools, self._record, asker, self._settler)
        self._around = Around(job, tools, self._record, rows, row["beat"] or 0.0)
        self._judge = Judge(job, tools, self._record)
        self._late = Latecomers(job, tools, self._record, self._levels)
        self._sent: set[str] = set()
        self._unsent: set[str] = set()

    def run(self) -> End:
        """Go through the levels; whatever happens, no host is left without an owner of its fate."""
        try:
            self._pick_up()
            self._run_levels()
            return self.close(End(RolloutState.DONE))
        except Stop as stop:
            return self.close(stop.end)
        except ConflictError:
            # Another process has the rollout: what it does with the hosts is not ours to touch.
            raise
        except BaseException:
            self._skip(HALTED, "the rollout stopped")
            raise

    def _pick_up(self) -> None:
        """Take over what an earlier process left: who is in flight is waited for."""
        hosts = [host for level in self._job.levels for host in level.hosts]
        self._watch()
        for level in self._job.levels:
            self._around.undo_left(level)
        self._record.begin_anew(self._record.in_state(hosts, HostState.STAGING, HostState.STAGED))

    def _run_levels(self) -> None:
        """Go through the levels, and again through those to which hosts come late."""
        while True:
            try:
                for level in self._job.levels:
                    self._run_level(level)
                self._late.join(at_once=True)
                return
            except HostsAreBack:
                continue

    def _watch(self) -> None:
        """Wait for the reports of those that nobody waits for yet."""
        of = self._record.in_state
        self._applier.watch_new(of(self._record.states, HostState.APPLYING))
        away = (HostState.RESTARTING, HostState.REBOOTING)
        self._settler.watch_new(of(self._record.states, *away))

    def _in_flight(self) -> list[str]:
        return [*self._applier.in_flight(), *self._settler.in_flight()]

    # ---- one level -----------------------------------------------------------------------

    def _run_level(self, level: Level) -> None:
        if self._levels.state(level) is LevelState.WAITING:
            self._late.join()
            self._open(level)
        if self._levels.state(level) is LevelState.RUNNING:
            self._carry_out(level)
            self._judge.check_budget(level)
            self._levels.move(level, LevelState.CHECKING)
        if self._levels.state(level) is LevelState.CHECKING:
            self._judge.check_conclusive(level)
            self._judge.pass_gate(level, Moment.AFTER)
            self._levels.move(level, LevelState.SOAKING if level.soak else LevelState.PASSED)
        if self._levels.state(level) is LevelState.SOAKING:
            self._soak(level)
            self._levels.move(level, LevelState.PASSED)

    def _open(self, level: Level) -> None:
        """Wait until a level may begin, and look whether its hosts are well before."""
        self._pulse.look()
        lacking = self._tools.gates.approval(level.name)
        if lacking:
            raise Stop(RolloutState.PAUSED, f"level {level.name}: {lacking}")
        self._wanted(self._record.in_state(level.hosts, HostState.WAITING))
        self._await_opening(level)
        self._judge.pass_gate(level, Moment.BEFORE)
        self._levels.move(level, LevelState.RUNNING)

    def _carry_out(self, level: Level) -> None:
        """Bring every host of a level that has no outcome to one."""
        while True:
            self._drain(level)
            self._pulse.look()
            waiting = self._wanted(self._record.in_state(level.hosts, HostState.WAITING))
            due = self._record.in_state(level.hosts, HostState.INSTALLED)
            if not waiting and not due:
                return
            ready = self._await_opening(level)
            if not ready.isdisjoint(due):
                # Whoever was at it before may have died as the budget was spent.
                self._judge.check_budget(level)
                self._follow(level)
                continue
            staged = self._stage(level, [host for host in waiting if host in ready])
            self._judge.check_budget(level)
            self._apply(level, staged)
            left = self._record.in_state(level.hosts, HostState.STAGED)
            # The window closed in the middle: their manifests may have run out when it opens.
            self._record.begin_anew(left)

    def _stage(self, level: Level, hosts: Sequence[str]) -> list[str]:
        inventories = self._stager.still_planned(hosts)
        idle = [host for host in inventories if not self._record.transaction(host).actions]
        for host in idle:
            self._record.end(host, Outcome.UNCHANGED, None, "nothing to do")
        busy = {host: one for host, one in inventories.items() if host not in set(idle)}
        if busy:
            self._tools.reporter.line(f"level {level.name}: {many(len(busy), 'host')} to change")
            self._pulse.look()
        staged = set(self._stager.stage(busy, -(-len(busy) // level.concurrency)))
        # Nothing may be sent to these just now; each session on a host has one manifest.
        self._record.begin_anew(self._stager.unsent)
        self._unsent = {*self._unsent - set(hosts), *self._stager.unsent}
        return [host for host in level.hosts if host in staged]

    def _apply(self, level: Level, staged: Sequence[str]) -> None:
        """Start hosts as others end, never more at once than the level allows."""
        queue, pause = deque(staged), _FIRST_POLL
        while queue or self._in_flight():
            self._pulse.look()
            queue = deque(self._tools.open_now(queue))
            self._follow(level)
            room = level.concurrency - len(self._in_flight())
            group = [queue.popleft() for _ in range(min(room, len(queue)))]
            group = self._around.prepare(level, self._wanted(group))
            if group and level.around:
                # What came before the change may have taken until the window closed, or until
                # somebody wished a host to be skipped.
                in_time = self._tools.open_now(self._wanted(group))
                self._around.undo(level, [host for host in group if host not in in_time])
                group = in_time
            if group and not self._applier.start(group):
                self._around.undo(level, group)
                self._pulse.stop_by_wish()
            pause = self._collect(level, pause)

    def _follow(self, level: Level) -> None:
        """Order what follows a transaction, on no more hosts at once than the level allows."""
        room = level.concurrency - len(self._in_flight())
        due = self._tools.open_now(self._record.in_state(level.hosts, HostState.INSTALLED))
        due = due[: max(0, room)]
        # Who waited for another process, or is tried again, may not be drained any more.
        fresh = [host for host in due if not self._around.is_prepared(host)]
        ready = {*due} - {*fresh} | {*self._around.prepare(level, fresh)}
        group = [host for host in due if host in ready]
        # What came before may have taken until the window closed.
        group = self._tools.open_now(group) if fresh and level.around else group
        if group and not self._settler.order(group):
            self._pulse.stop_by_wish()
        if refused := self._record.in_state(group, HostState.ENDED):
            # Who says no to the order has ended by that, and nobody asks for it any more.
            self._around.undo(level, refused)
            self._judge.check_budget(level)

    def _wanted(self, hosts: Sequence[str]) -> list[str]:
        """Leave out the hosts that an operator wants to be skipped."""
        if not hosts:
            return []
        skipped = self._tools.store.skips(self._job.rollout)
        for host in skipped.keys() & set(hosts):
            self._record.end(host, Outcome.SKIPPED, OPERATOR, f"skipped by {skipped[host]}")
        return [host for host in hosts if host not in skipped]

    def _drain(self, level: Level) -> None:
        """Collect the hosts that are in flight, starting none."""
        pause = _FIRST_POLL
        while self._in_flight():
            self._pulse.look()
            pause = self._collect(level, pause)

    def _collect(self, level: Level, pause: float) -> float:
        """Ask the hosts in flight once, and rest; return how long to rest the next time."""
        ended = [*self._applier.poll(), *self._settler.poll()]
        self._around.undo(level, ended)
        known = [h for h in ended if self._record.outcomes[h][0] is not Outcome.SILENT]
        if known:
            # What was applied is known; a failed look at the host afterwards must not undo that.
            with suppress(CpacmanError):
                self._tools.refresh(known)
        if ended:
            self._judge.check_budget(level)
        if not self._in_flight():
            return _FIRST_POLL
        done = len(self._record.in_state(level.hosts, HostState.ENDED))
        self._tools.reporter.progress("applying", done, len(level.hosts), "hosts")
        self._tools.sleep(pause)
        return min(pause * 1.5, _LAST_POLL)

    # ---- waiting -------------------------------------------------------------------------

    def _await_opening(self, level: Level) -> set[str]:
        """Wait until hosts of a level may be worked on, and return them.

        What they need is sent ahead, when the window for that is another one and opens before.
        """
        while hosts := self._record.in_state(level.hosts, HostState.WAITING, HostState.INSTALLED):
            ready = set(self._tools.open_now(hosts))
            lacking = ready & self._unsent
            if ready := ready - lacking | {*self._tools.open_now(sorted(lacking), "stage")}:
                return ready
            self._around.park(level)
            waiting = self._record.in_state(hosts, HostState.WAITING)
            unsent = [host for host in waiting if host not in self._sent]
            if ahead := self._tools.open_now(unsent, "stage"):
                self._send_ahead(level, ahead)
            else:
                self._await_any(level, hosts)
        return set()

    def _send_ahead(self, level: Level, hosts: Sequence[str]) -> None:
        """Send what is lacking to hosts whose time to start has not come; they keep it."""
        staged = self._stage(level, hosts)
        self._sent.update(set(hosts) - self._unsent)
        self._record.begin_anew(staged)
        self._judge.check_budget(level)

    def _await_any(self, level: Level, hosts: Sequence[str]) -> None:
        """Wait for the next change of what is open for any of these hosts."""
        closed = [one for one in self._tools.gates.openings(hosts).values() if not one.is_open]
        unsent = [host for host in hosts if host not in self._sent or host in self._unsent]
        to_send = self._tools.gates.openings(unsent, "stage")
        closed += [one for one in to_send.values() if not one.is_open]
        ends = {one.until.timestamp(): one.why for one in closed if one.until is not None}
        why = f"level {level.name}: {closed[0].why if closed else 'not open'}"
        if not ends:
            raise Stop(RolloutState.PAUSED, f"{why}, and no end of that in sight")
        self._wait(min(ends), f"level {level.name}: {ends[min(ends)]}")

    def _soak(self, level: Level) -> None:
        begun = self._levels.soaking(level)
        until = (self._tools.clock() if begun is None else begun) + level.soak
        why = f"level {level.name}: soaking"
        every = self._tools.gates.every(level.gate) if level.gate else level.soak
        if level.name in self._unwatched:
            self._unwatched.remove(level.name)
            self._judge.pass_gate(level, Moment.SOAK)
        while self._tools.clock() < until:
            self._wait(min(until, self._tools.clock() + every), why, until)
            self._judge.pass_gate(level, Moment.SOAK)

    def _wait(self, moment: float, why: str, until: float | None = None) -> None:
        """Wait here until a moment, or leave the rollout waiting when that is too long.

        Args:
            moment: seconds since the epoch.
            why: what for.
            until: the end of all of it, for who looks; left out, `moment`.
        """
        end = moment if until is None else until
        self._late.join()
        times = self._tools.times
        if end > times.limit or end - self._tools.clock() > times.patience:
            raise Stop(RolloutState.WAITING, why, end)
        self._tools.reporter.line(why)
        while (left := moment - self._tools.clock()) > 0:
            self._pulse.look()
            self._late.join()
            self._tools.sleep(min(left, BEAT))

    # ---- the end -------------------------------------------------------------------------

    def _skip(self, code: str, why: str) -> None:
        """End every host that was not told to start."""
        for host in [h for h, state in self._record.states.items() if state in NOT_STARTED]:
            self._record.end(host, Outcome.SKIPPED, code, why)

    def close(self, end: End) -> End:
        """Write how far the rollout came; those in flight are collected first."""
        self._watch()
        self._applier.tell_no_more()
        if end.state in (RolloutState.HALTED, RolloutState.CANCELLED):
            self._tools.reporter.line(f"{end.state.value.upper()} in {end.why}")
            for level in self._job.levels:
                self._around.undo_all(level)
            self._settler.stop(end.why)
            self._skip(HALTED if end.state is RolloutState.HALTED else CANCELLED, end.why)
        self._collect_all()
        row = self._tools.store.rollout_row(self._job.rollout)
        check_rollout(self._job.rollout, RolloutState(row["state"]), end.state)
        waits = end.state in (RolloutState.WAITING, RolloutState.PAUSED)
        wish = self._tools.store.move_rollout(
            self._job.rollout, expected=row["state"], state=end.state.value, why=end.why,
            until=end.until, at=self._tools.clock(), who=self._job.who,
            owner="" if waits else None,
        )  # fmt: skip
        # What was wished for meanwhile goes before what this process would have left.
        return end if wish is None else self.close(end_by(wish))

    def _collect_all(self) -> None:
        pause = _FIRST_POLL
        while self._applier.is_busy or self._in_flight():
            ended = [*self._applier.poll(), *self._settler.poll()]
            for level in self._job.levels:
                self._around.undo(level, [host for host in ended if host in level.hosts])
            with suppress(CpacmanError):
                self._tools.refresh(ended)
            self._tools.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)


def close_rollout(job: Job, tools: Tools, state: RolloutState, why: str) -> End:
    """End a rollout that no process carries out; `job.owner` must own it.

    Who was not told to start is skipped, who was is waited for.
    """
    return _Rollout(job, tools).close(End(state, why))
