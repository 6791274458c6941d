"""What stops a rollout: its budgets, its gates, and levels that show nothing.

Invariants: the rules are those of `gate`; what the checks found is in the database before anything
is made of it; a check that says nothing pauses, it never passes.
"""

from __future__ import annotations

from collections.abc import Sequence

from cpacman.model import Outcome
from cpacman.rollout import gate
from cpacman.rollout.gate import Finding, Moment, Verdict
from cpacman.rollout.job import Job, Level, Tools
from cpacman.rollout.machine import HostState, RolloutState
from cpacman.rollout.record import Record
from cpacman.rollout.stopping import Stop
from cpacman.transport.port import UNREACHABLE

NOBODY = "no host of it has the plan, so it shows nothing"
NOTHING = "nothing was applied in it, so it shows nothing"
NOT_ASKED = "none of the hosts that it is for has the plan"
PASSED_BEFORE = "passed_before"
"""Among a rollout's settings: levels that a person let begin in spite of their gate."""


class Judge:
    """Who says whether one rollout may go on; whatever says no raises `Stop`."""

    def __init__(self, job: Job, tools: Tools, record: Record) -> None:
        self._job = job
        self._tools = tools
        self._record = record
        self._passed_before = frozenset(job.settings.get(PASSED_BEFORE, ()))

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

    def check_conclusive(self, level: Level) -> None:
        """Stop after a level that shows nothing, when a later one would change something.

        Halt where nobody has the plan, pause where all had it before: only a person's word lets
        such a level pass.
        """
        ended = [self._record.outcomes[host][0] for host in level.hosts]
        later = self._job.levels[self._job.levels.index(level) + 1 :]
        if later and not gate.has_the_plan(ended):
            raise Stop(RolloutState.HALTED, f"level {level.name}: {NOBODY}")
        busy = any(self._record.transaction(host).actions for one in later for host in one.hosts)
        if busy and not gate.is_conclusive(ended):
            raise Stop(RolloutState.PAUSED, f"level {level.name}: {NOTHING}")

    def pass_gate(self, level: Level, moment: Moment) -> None:
        """Run the checks of a level that are meant for a moment; go on only if all pass."""
        if not level.gate or (moment is Moment.BEFORE and self._may_begin(level)):
            return
        asked = self._asked(level, moment)
        findings = list(self._tools.gates.check(level.gate, asked, moment))
        if moment is Moment.BEFORE:
            findings = self._of_those_in_reach(level, findings)
        else:
            # Those that it is for are all down or failed: that they say nothing is not good news.
            unasked = self._tools.gates.unasked(level.gate, level.hosts, asked, moment)
            findings += [Finding(one, "", Verdict.INCONCLUSIVE, NOT_ASKED) for one in unasked]
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

    def _may_begin(self, level: Level) -> bool:
        """Whether a level begins whatever its gate says before: by a word, or as a way back.

        Who is taken back is ill: that is why.
        """
        return level.name in self._passed_before or bool(self._job.plan.request.rollback)

    def _asked(self, level: Level, moment: Moment) -> list[str]:
        """Return whose health says something: who is to be changed, or has the plan."""
        if moment is Moment.BEFORE:
            return self._record.in_state(level.hosts, HostState.WAITING)
        return [h for h in level.hosts if gate.has_the_plan([self._record.outcomes[h][0]])]

    def _of_those_in_reach(self, level: Level, findings: Sequence[Finding]) -> list[Finding]:
        """Return the findings of hosts that answer; the others are skipped and counted as down.

        Some of a fleet are always down: that is what `max_unreachable` is for.
        """
        bad = {one.host for one in findings if one.host and one.verdict is not Verdict.PASS}
        found = self._tools.recheck(sorted(bad)) if bad else {}
        down = {host: one for host, one in found.items() if one.code == UNREACHABLE}
        for host, one in sorted(down.items()):
            self._record.end(host, Outcome.SKIPPED, UNREACHABLE, one.detail)
        if down:
            self.check_budget(level)
        return [one for one in findings if one.host not in down]
