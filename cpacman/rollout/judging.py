"""What stops a rollout: its budgets, its gates, and levels that show nothing.

Invariants: the rules are those of `gate`; what the checks found is in the database before anything
is made of it; a check that says nothing pauses, it never passes.
"""

from __future__ import annotations

from cpacman.rollout import gate
from cpacman.rollout.gate import Moment, Verdict
from cpacman.rollout.job import Job, Level, Tools
from cpacman.rollout.machine import RolloutState
from cpacman.rollout.record import Record
from cpacman.rollout.stopping import Stop


class Judge:
    """Who says whether one rollout may go on; whatever says no raises `Stop`."""

    def __init__(self, job: Job, tools: Tools, record: Record) -> None:
        self._job = job
        self._tools = tools
        self._record = record

    def check_budget(self, level: Level) -> None:
        """Halt when more hosts failed, or were out of reach, than the level or all may have."""
        found = self._record.outcomes
        outcomes = {host: one for host, one in found.items() if host not in self._job.forgiven}
        ended = [outcomes[host] for host in level.hosts if host in outcomes]
        why = gate.over_budget(
            ended, max_failures=level.max_failures, max_unreachable=level.max_unreachable
        )
        if why:
            raise Stop(RolloutState.HALTED, f"level {level.name}: {why}")
        why = gate.over_budget(
            outcomes.values(),
            max_failures=self._job.max_failures,
            max_unreachable=self._job.max_unreachable,
        )
        if why:
            raise Stop(RolloutState.HALTED, f"all levels: {why}")

    def check_outcomes(self, level: Level) -> None:
        """Halt after a level in which nobody has the plan: it shows nothing."""
        self.check_budget(level)
        ended = [self._record.outcomes[host][0] for host in level.hosts]
        last = level is self._job.levels[-1]
        if not last and not gate.has_the_plan(ended):
            raise Stop(RolloutState.HALTED, f"level {level.name}: no host of it has the plan")

    def check_conclusive(self, level: Level) -> None:
        """Pause after a level that changed nothing, when a later one would change something."""
        ended = [self._record.outcomes[host][0] for host in level.hosts]
        later = self._job.levels[self._job.levels.index(level) + 1 :]
        busy = any(self._record.transaction(host).actions for one in later for host in one.hosts)
        if busy and not gate.is_conclusive(ended):
            why = f"level {level.name}: nothing was applied in it, so it shows nothing"
            raise Stop(RolloutState.PAUSED, why)

    def pass_gate(self, level: Level, moment: Moment) -> None:
        """Run the checks of a level that are meant for a moment; go on only if all pass."""
        if not level.gate:
            return
        hosts = self._witnesses(level) if moment is not Moment.BEFORE else list(level.hosts)
        findings = list(self._tools.gates.check(level.gate, hosts, moment))
        if not findings:
            return
        now, who = self._tools.clock(), self._job.who
        # Those of before the change prove no health: the moment is kept with each.
        shown = [{**one._asdict(), "when": moment.value} for one in findings]
        self._tools.store.put_findings(
            self._job.rollout, level.name, shown, at=now, who=who, add=moment is Moment.SOAK
        )
        verdict = gate.combine(findings, {(f.check, f.host) for f in findings if f.required})
        for one in findings:
            if one.verdict is not Verdict.PASS:
                self._tools.reporter.line(gate.told(one))
        why = f"level {level.name}: gate {level.gate} {verdict.value} {moment.value}"
        if verdict is Verdict.FAIL:
            raise Stop(RolloutState.HALTED, why)
        if verdict is Verdict.INCONCLUSIVE:
            raise Stop(RolloutState.PAUSED, why)

    def _witnesses(self, level: Level) -> list[str]:
        """Return the hosts that have the plan: those whose health says something about it."""
        return [h for h in level.hosts if gate.has_the_plan([self._record.outcomes[h][0]])]
