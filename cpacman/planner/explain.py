"""The solver's findings in words for a person: pure text.

Invariant: every cause names the package that has the requirement, and what became of whoever
could have met it: not in any repository, or there but hidden by which rule of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cpacman.planner.policy import Hiding
from cpacman.planner.solver import Candidate, Clash, Finding

WhyHidden = Callable[[Candidate], Hiding | None]

_MOST = 4
"""Causes shown of one problem; more do not help a person."""


def is_conflict(findings: Iterable[Finding]) -> bool:
    """Return whether packages exclude each other, rather than something being missing."""
    clashes = {f.clash for f in findings}
    return bool(clashes & {Clash.CONFLICTS, Clash.OBSOLETES}) and not (
        clashes & {Clash.NOTHING_PROVIDES}
    )


def causes(findings: Sequence[Finding], why: WhyHidden, *, start: str = "") -> tuple[str, ...]:
    """Return the sentences of one problem, beginning with the package `start`, without doubles."""
    ordered = sorted(findings, key=lambda f: (f.package != start, _RANK[f.clash], f))
    plain = [f for f in ordered if f.clash not in _VAGUE]
    sentences = dict.fromkeys(_sentence(f, why) for f in plain or ordered)
    told = filter(None, sentences)
    return tuple(told)[:_MOST] or tuple(dict.fromkeys(f.text for f in ordered))[:_MOST]


_VAGUE = (Clash.OTHER, Clash.SAME_NAME)
_RANK = {
    Clash.NOTHING_PROVIDES: 0,
    Clash.CONFLICTS: 1,
    Clash.OBSOLETES: 2,
    Clash.REQUIRES: 3,
    Clash.NOT_INSTALLABLE: 4,
    Clash.SAME_NAME: 5,
    Clash.OTHER: 6,
}


def _sentence(finding: Finding, why: WhyHidden) -> str:
    who = f"installed {finding.package}" if finding.installed else finding.package
    if finding.clash in (Clash.NOTHING_PROVIDES, Clash.REQUIRES):
        return f"{who} needs {finding.dep}{_fate(finding, why)}".strip()
    if finding.clash in (Clash.CONFLICTS, Clash.OBSOLETES):
        verb = "conflicts with" if finding.clash is Clash.CONFLICTS else "obsoletes"
        other = f" ({finding.other})" if finding.other else ""
        return f"{who} {verb} {finding.dep}{other}"
    if finding.clash is Clash.SAME_NAME:
        return f"{who} and {finding.other} can't be installed together"
    return finding.text if finding.clash is Clash.OTHER else ""


def _fate(finding: Finding, why: WhyHidden) -> str:
    """Say what became of those who could meet a requirement."""
    hidden = [(c, hiding) for c in finding.providers if (hiding := why(c))]
    if not finding.providers:
        nobody = finding.clash is Clash.NOTHING_PROVIDES
        return ", which no repository provides" if nobody else ""
    if len(hidden) == len(finding.providers):
        candidate, hiding = hidden[-1]
        return f", which only {candidate.nevra} provides: {hiding.detail}"
    visible = sorted({c.nevra for c in finding.providers if not why(c)})
    return f" (from {', '.join(visible[:2])}{', ...' if len(visible) > 2 else ''})"
