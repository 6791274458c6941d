"""Whether a plan is what its case expects: pure."""

from __future__ import annotations

from collections.abc import Iterator

from cpacman.model import Plan, Transaction
from cpacman.planner.cases.text import Case, Section


def differences(case: Case, plan: Plan) -> Iterator[str]:
    """Yield each thing in which a plan is not what its case expects of each host."""
    for host in sorted({*plan.hosts, *plan.failed}):
        yield from (f"{host}: {what}" for what in _differences(case, plan, host))


def _differences(case: Case, plan: Plan, host: str) -> Iterator[str]:
    failed = _section_for(case, "failed", host)
    failure = plan.failed.get(host)
    if failure is None and failed is None:
        transaction = plan.transactions[plan.hosts[host]]
        yield from _action_differences(_section_for(case, "expect", host), transaction)
        yield from _held_differences(_section_for(case, "held", host), transaction)
    elif failure is None:
        taken = [action.nevra for action in plan.transactions[plan.hosts[host]].actions]
        yield f"is planned, but expected to fail: {taken}"
    elif failed is None:
        yield f"fails with {failure.error.value}: {'; '.join(failure.causes)}"
    else:
        causes = "\n".join(failure.causes)
        if [failure.error.value] != list(failed.words[1:2]):
            yield f"fails with {failure.error.value}, not {' '.join(failed.words[1:2])}: {causes}"
        yield from (
            f"{words!r} is not in {causes}" for words, _ in failed.lines if words not in causes
        )


def _section_for(case: Case, kind: str, host: str) -> Section | None:
    for section in case.of(kind):
        named = section.words[2:] if kind == "failed" else section.words[1:]
        if not named or host in named:
            return section
    return None


def shown(transaction: Transaction) -> Iterator[tuple[str, str, str]]:
    """Yield each action as a case writes it, its reason, its advisories."""
    for action in transaction.actions:
        text = f"{action.action.value} {action.nevra}"
        text += f" from {action.from_}" if action.from_ else ""
        yield text, action.reason.value, " ".join(action.advisories)


def _action_differences(section: Section | None, transaction: Transaction) -> Iterator[str]:
    """Compare actions; reasons and advisories are looked at when they are given."""
    wanted: dict[str, tuple[str, str]] = {}
    for line, _ in section.lines if section else ():
        text, _, rest = line.partition(" (")
        reason, _, advisories = rest.partition(")")
        wanted[text] = (reason, advisories.strip())
    found = {text: told for text, *told in shown(transaction)}
    yield from (f"lacks: {text}" for text in sorted(wanted.keys() - found.keys()))
    yield from (f"not expected: {text}" for text in sorted(found.keys() - wanted.keys()))
    for text in sorted(wanted.keys() & found.keys()):
        for expected, told in zip(wanted[text], found[text], strict=True):
            if expected and expected != told:
                yield f"{text}: {told!r}, not {expected!r}"


def _held_differences(section: Section | None, transaction: Transaction) -> Iterator[str]:
    found = {f"{h.nevra} -> {h.candidate} {h.reason.value}": h.detail for h in transaction.held}
    wanted: dict[str, str] = {}
    for line, _ in section.lines if section else ():
        head, _, words = line.partition(": ")
        wanted[head] = words
    yield from (f"not held: {head}" for head in sorted(wanted.keys() - found.keys()))
    yield from (f"held: {head}: {found[head]}" for head in sorted(found.keys() - wanted.keys()))
    for head in sorted(wanted.keys() & found.keys()):
        if wanted[head] not in found[head]:
            yield f"{head}: {found[head]!r} lacks {wanted[head]!r}"
