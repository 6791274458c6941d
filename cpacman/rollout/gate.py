"""What must hold before the next hosts start: budgets, and the findings of checks. Pure rules.

Invariants: unknown is never ok: `silent` counts as a failure like `failed` and `refused`, and a
check that said nothing is inconclusive, which never passes; only a finding that says so passes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from cpacman.model import Outcome
from cpacman.rollout.machine import COUNTS_AS_FAILURE, THERE


class Verdict(str, Enum):
    """What a check, or a gate of several, says."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Moment(str, Enum):
    """When a check of a gate runs."""

    BEFORE = "before"
    AFTER = "after"
    SOAK = "soak"


class Finding(NamedTuple):
    """What one check said of one host, or of none in particular (`host` is "")."""

    check: str
    host: str
    verdict: Verdict
    detail: str = ""
    required: bool = True


class Reply(NamedTuple):
    """What came back from running something: nothing at all when `answered` is false."""

    answered: bool
    value: Any = None
    code: int = 0
    detail: str = ""


class Expected(NamedTuple):
    """What a reply must be: equal to `value`, or a text in which `matches` is found."""

    value: Any = True
    matches: str = ""


def is_conclusive(outcomes: Iterable[Outcome]) -> bool:
    """Whether a level showed anything: one of its hosts was changed."""
    return Outcome.APPLIED in outcomes


def has_the_plan(outcomes: Iterable[Outcome]) -> bool:
    """Whether any host has the plan now: it was changed, or had it already."""
    return any(one in THERE for one in outcomes)


def over_budget(
    outcomes: Iterable[tuple[Outcome, str | None]], *, max_failures: int, max_unreachable: int
) -> str:
    """Return why no more hosts may start, or "" when they may.

    Args:
        outcomes: outcome and code of each host that has ended.
        max_failures: hosts that may end refused, failed or silent.
        max_unreachable: hosts that may not have answered before they were told to start.
    """
    ended = list(outcomes)
    failed = sum(outcome in COUNTS_AS_FAILURE for outcome, _ in ended)
    lost = sum(code == "unreachable" for _, code in ended)
    if failed > max_failures:
        return f"failed {failed} > {max_failures}"
    if lost > max_unreachable:
        return f"unreachable {lost} > {max_unreachable}"
    return ""


def judge_reply(reply: Reply, expected: Expected) -> tuple[Verdict, str]:
    """Return what a reply of a Salt function says: only what was expected passes.

    An error, which is a text with a code, and nothing at all are inconclusive: they say that the
    check did not work, not that the host is well or ill. So a text passes as the very one that is
    expected, or without a code: what errs may well print what is looked for.
    """
    if not reply.answered or reply.value is None or reply.value == "":
        return Verdict.INCONCLUSIVE, reply.detail or "no answer"
    if _fits(reply.value, expected) and not (reply.code and expected.matches):
        return Verdict.PASS, ""
    if reply.code and isinstance(reply.value, str):
        return Verdict.INCONCLUSIVE, f"the check failed: {first_line(reply.value)}"
    wanted = f"something like {expected.matches}" if expected.matches else repr(expected.value)
    return Verdict.FAIL, f"answered {reply.value!r:.80}, not {wanted:.80}"


def _fits(value: Any, expected: Expected) -> bool:
    if expected.matches:
        return isinstance(value, str) and re.search(expected.matches, value) is not None
    # True is 1 for Python, and not for who wrote one of them down.
    return type(value) is type(expected.value) and bool(value == expected.value)


def judge_states(reply: Reply) -> tuple[Verdict, str]:
    """Return what `state.apply test=True` says: pass when nothing would change.

    What Salt answers when states can't be compiled is no mapping of results: inconclusive.
    """
    if not reply.answered or not isinstance(reply.value, Mapping) or not reply.value:
        said = first_line(str(reply.value)) if reply.answered else reply.detail
        return Verdict.INCONCLUSIVE, f"the states did not run: {said or 'no answer'}"
    for name, one in sorted(reply.value.items()):
        if not isinstance(one, Mapping) or "result" not in one:
            return Verdict.INCONCLUSIVE, f"{name}: no result"
        if one["result"] is not True or one.get("changes"):
            comment = first_line(str(one.get("comment") or "not as declared"))
            return Verdict.FAIL, f"{one.get('__id__', name)}: {comment}"
    return Verdict.PASS, ""


UNKNOWN_EXITS = frozenset({3, 126, 127})
"""Exit codes of a command that could not tell: `unknown` of monitoring plugins, not started."""


def judge_command(reply: Reply, expected: Expected) -> tuple[Verdict, str]:
    """Return what a command on the master says: 0 passes, a code that means unknown does not."""
    if not reply.answered:
        return Verdict.INCONCLUSIVE, reply.detail or "no answer"
    said = first_line(str(reply.value or ""))
    if reply.code < 0 or reply.code in UNKNOWN_EXITS:
        return Verdict.INCONCLUSIVE, f"ended with {reply.code}: {said}"
    if reply.code:
        return Verdict.FAIL, f"ended with {reply.code}: {said}"
    if expected.matches and not re.search(expected.matches, str(reply.value or "")):
        return Verdict.FAIL, f"printed nothing like {expected.matches}: {said}"
    return Verdict.PASS, ""


def judge_http(reply: Reply, expected: Expected) -> tuple[Verdict, str]:
    """Return what an HTTP probe says; the code is the status, the value the body."""
    if not reply.answered:
        return Verdict.INCONCLUSIVE, reply.detail or "no answer"
    status = 200 if expected.value is True else expected.value
    if reply.code != status:
        return Verdict.FAIL, reply.detail or f"status {reply.code}, not {status}"
    if expected.matches and not re.search(expected.matches, str(reply.value or "")):
        return Verdict.FAIL, f"the page has nothing like {expected.matches}"
    return Verdict.PASS, ""


def combine(findings: Iterable[Finding], expected: Collection[tuple[str, str]]) -> Verdict:
    """Return what a gate says: a required check that failed fails it, one that is open opens it.

    Args:
        findings: what the checks said.
        expected: `(check, host)` of each required check; one without a finding is inconclusive.
    """
    required = [one for one in findings if one.required]
    verdicts = {one.verdict for one in required}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    found = {(one.check, one.host) for one in required}
    if Verdict.INCONCLUSIVE in verdicts or set(expected) - found:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS


def first_line(text: str) -> str:
    """Return the last line that says something of a traceback, the first of anything else."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return (lines[-1] if any("Traceback" in line for line in lines) else lines[0])[:200]


def told(finding: Finding) -> str:
    """Return a finding as a line for people."""
    where = f" on {finding.host}" if finding.host else ""
    wanted = "" if finding.required else " (not required)"
    return (
        f"check {finding.check}{where}: {finding.verdict.value}{wanted} {finding.detail}".rstrip()
    )
