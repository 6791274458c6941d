"""What a host's report says, once it is verified, and what a transaction leaves in the journal.

Invariant: a report counts when it is of this host, session and plan, and answers the question that
was asked just now; any other is no report at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cpacman.errors import CpacmanError
from cpacman.model import Outcome, Transaction

INTERRUPTED = "interrupted"
UNSTARTED = "unstarted"
NOT_REACHED = "the order to start never reached it"
RECOVERIES = 3
"""How often a host whose transaction was cut off is started again by itself."""


def read_report(
    verify: Callable[[str, str, str], Mapping[str, Any]],
    host: str,
    value: Mapping[str, Any],
    wanted: Mapping[str, str],
    tell: Callable[[str], None],
) -> Mapping[str, Any]:
    """Return the report that a host answered with, or nothing when it does not count.

    Args:
        verify: checks a signature by host, text and signature; raises a CpacmanError.
        host: who answered.
        value: what it answered.
        wanted: plan, session and nonce that were asked for.
        tell: is told of a report whose signature is wrong.
    """
    text, signature = value.get("report"), value.get("signature")
    if not isinstance(text, str) or not isinstance(signature, str):
        return {}
    try:
        report = verify(host, text, signature)
    except CpacmanError as error:
        tell(f"ignored a report of {host}: {error}")
        return {}
    return report if {"host": host, **wanted}.items() <= report.items() else {}


def is_cut_off(report: Mapping[str, Any]) -> bool:
    """Whether a verified report says that a transaction was cut off and nobody works on it.

    A session that another one stands in the way of says `interrupted`, too, but it has ended.
    """
    return report.get("code") == INTERRUPTED and report.get("ended") is None


def judge_report(report: Mapping[str, Any], after: str) -> tuple[Outcome, str | None, str]:
    """Return outcome, code and detail of a verified report.

    Args:
        report: what the host said.
        after: the digest of the packages that the host must have to count as applied.
    """
    told = {Outcome.APPLIED, Outcome.UNCHANGED, Outcome.REFUSED, Outcome.FAILED}
    code, detail = report.get("code"), str(report.get("detail") or "")[:2000]
    outcome = next((o for o in told if o.value == report.get("outcome")), None)
    if outcome is None:
        return Outcome.FAILED, "garbled", f"outcome {report.get('outcome')!r:.100}"
    if outcome in {Outcome.APPLIED, Outcome.UNCHANGED} and report.get("packages") != after:
        return Outcome.FAILED, "differs", "the host's packages are not those of the plan"
    return outcome, str(code)[:100] if code else None, detail


Findings = Mapping[str, Sequence[str]]
"""What a host found after a transaction: list -> its lines."""

FINDINGS = ("scriptlets", "will_run", "configs", "verify", "broken", "services", "reboot", "salt")
"""What a host looks for after a transaction; each is a list of lines."""
_MOST_LINES, _LONGEST = 21, 1200


def findings_of(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a host found after its transaction: known lists of texts, and not too much."""
    raw = report.get("findings")
    if not isinstance(raw, Mapping):
        return {}
    if was_rebooted(report):
        raw = {name: lines for name, lines in raw.items() if name not in ("services", "reboot")}
    lists = {name: raw[name] for name in FINDINGS if isinstance(raw.get(name), list)}
    return {
        name: [str(line)[:_LONGEST] for line in lines[:_MOST_LINES]]
        for name, lines in lists.items()
        if lines
    }


def read_findings(text: str | None) -> Findings:
    """Return the findings of a host as the database keeps them."""
    found: Findings = msgspec.json.decode(text) if text else {}
    return found


def was_rebooted(report: Mapping[str, Any]) -> bool:
    """Whether a host was rebooted since its transaction ended."""
    then, now = report.get("ended_boot_id"), report.get("boot_id")
    return bool(then and now and then != now)


def changes_of(transaction: Transaction) -> list[dict[str, Any]]:
    """Return what a transaction changes, as the journal keeps it."""
    return [
        {"action": a.action.value, "name": a.name, "nevra": a.nevra, "from": a.from_,
         "repository": a.repository}
        for a in transaction.actions
    ]  # fmt: skip
