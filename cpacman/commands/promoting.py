"""Promotion: a class takes what the class before it holds or held, proved first.

Invariants: nothing moves before every host of the class was planned from what is to come, and
before the class before has shown what is demanded; what refuses is overridden by force with a
reason only, which is journaled, and by as many people as the class demands; all channels move
together or none does, each from where it was seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpacman.commands.blocking import active, check_snapshots
from cpacman.commands.consent import Consent, approvers_of, ask, consent_to
from cpacman.commands.context import Context
from cpacman.commands.everywhere import known_advisories
from cpacman.commands.gatekeeping import IGNORE
from cpacman.commands.looking import end_of
from cpacman.commands.parting import Made, Task, derive_part, make_part
from cpacman.commands.proving import Members, members_of, proof_body, prove
from cpacman.commands.safeguards import (
    check_force,
    frozen,
    profile_of,
    profile_problems,
    safeguards,
)
from cpacman.commands.snapshots import channels_of, check_there
from cpacman.commands.witness import Question, Shown, evidence_body, evidence_of, lacking
from cpacman.config import Evidence as EvidenceSettings
from cpacman.depot.compare import diff_snapshots
from cpacman.depot.locks import using
from cpacman.depot.partial import Unfit, Wanted, new_in
from cpacman.depot.promotion import (
    Choice,
    check_promotion,
    choose,
    enters_at,
    moves_of,
    seen_by,
)
from cpacman.depot.snapshot import Snapshot, load_snapshot
from cpacman.errors import EXIT_OTHER, Problem, SafetyError, UsageError
from cpacman.planner.blocked import finder
from cpacman.rollout.proof import Proof, refusals
from cpacman.store import Guard, PointerMove

ALL = Wanted()


class Aim(NamedTuple):
    """What is promoted from where to where, and a profile's evidence, None for the class's own."""

    to: str
    source: str
    wanted: Wanted
    evidence: EvidenceSettings | None


class Case(NamedTuple):
    """One channel of a promotion, with all that is known of it before it moves."""

    to: str
    channel: str
    choice: Choice
    source: Snapshot
    held: Snapshot | None
    candidate: Snapshot
    proof: Proof
    shown: Shown
    made: Made | None
    task: Task | None

    @property
    def is_new(self) -> bool:
        """Whether the class does not hold it already."""
        return self.held is None or self.held.id != self.candidate.id


def promote(
    context: Context,
    to: str,
    asked: Sequence[str] = (),
    *,
    snapshot: str | None = None,
    wanted: Wanted = ALL,
    until: str | float | None = None,
    force: bool = False,
    test: bool = False,
    profile: str | None = None,
    reason: str | None = None,
    ticket: str | None = None,
    guard: Guard | None = None,
) -> dict[str, Any]:
    """Prove what a class is to take, whole or in part, and point it there.

    Args:
        context: the outside world.
        to: the class that receives.
        asked: only these channels.
        snapshot: one that the class before held, instead of what it holds.
        wanted: what of it; nothing named means all.
        until: what the class before held then.
        force: go on though something refuses; needs a reason.
        test: show all of it, move nothing.
        profile: whose evidence is demanded instead of the class's; needs a reason.
        reason: why.
        ticket: kept in the journal, and checked where the class demands one.
        guard: may refuse, in the transaction that moves.

    Returns:
        the answer of the runner; with `refused` and a code when it was refused.

    Raises:
        UsageError: no such class or snapshot, or what was named is nowhere.
        SafetyError: a safeguard that no force overrides, or a blocked snapshot.
        ConflictError: somebody moved a pointer meanwhile.
    """
    source = check_promotion(context.settings.class_names, to)
    check_force(force, reason)
    exceptions = profile_of(context, profile or "")
    standing = [
        *safeguards(context, to, ticket),
        *profile_problems(context, profile or "", reason),
        *(frozen(context, to) if exceptions.windows.apply != IGNORE else ()),
    ]
    if standing:
        raise SafetyError(standing)
    choices = _choices(context, to, asked, snapshot, until)
    check_snapshots(context, (one.snapshot for one in choices.values()))
    members = members_of(context, to, list(choices))
    with tempfile.TemporaryDirectory(dir=_scratch(context)) as folder:
        aim = Aim(to, source, wanted, exceptions.evidence)
        cases = _cases(context, aim, choices, members, Path(folder))
        check_snapshots(context, (one.candidate.id for one in cases))
        problems = {one.channel: _refusals(context, one, wanted) for one in cases}
        refused = [p for found in problems.values() for p in found]
        new = {one.channel: one.candidate.id for one in cases if one.is_new}
        needed = approvers_of(context, to, exceptions, over=force and bool(refused))
        consent = consent_to(context, to, new, needed)
        if not test and (force or not refused):
            if consent.lacking():
                ask(context, consent, refused, reason, ticket)
            else:
                _move(context, to, cases, problems, consent, reason, ticket, guard)
    lacks = consent.lacking(test=test)
    shown = {channel: [*problems[channel], *lacks] for channel in new}
    rows = {c.channel: _row(context, c, shown.get(c.channel, ()), members) for c in cases}
    body = {"from": source, "to": to, "channels": rows, "test": test, "forced": force,
            "approvals": consent.body(),
            "refused": (bool(refused) and not force) or bool(lacks)}  # fmt: skip
    return {"promote": body, "retcode": EXIT_OTHER if body["refused"] else 0}


def met_at(body: Mapping[str, Any]) -> float | None:
    """Return when a refusal ends by itself; None where there is none, or time does not mend it.

    Args:
        body: what `promote` answers, below that name.
    """
    if not body["refused"]:
        return None
    moments = []
    for row in body["channels"].values():
        if not row["refused"]:
            continue
        mendable = all(one["path"].startswith("evidence ") for one in row["refused"])
        if not mendable or row["evidence"]["when"] is None:
            return None
        moments.append(row["evidence"]["when"])
    return max(moments, default=None)


def _scratch(context: Context) -> Path:
    context.settings.cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return context.settings.cache_dir


# ---- what is to be taken -------------------------------------------------------------------


def _choices(
    context: Context,
    to: str,
    asked: Sequence[str],
    snapshot: str | None,
    until: str | float | None,
) -> dict[str, Choice]:
    """Return what the class is to take in each channel.

    Raises:
        UsageError: nothing in any channel, or not in one that was asked for.
    """
    channels = channels_of(context, asked)
    if snapshot is not None and until is not None:
        raise UsageError(Problem("until", "says nothing beside snapshot=", "give one of them"))
    full = None
    if snapshot is not None:
        found = load_snapshot(context.settings.depot, snapshot)
        if found.channel not in channels:
            raise UsageError(Problem("snapshot", f"is of {found.channel}", "name that channel"))
        channels, full = [found.channel], found.id
    rows = context.store.moves()
    moment = end_of(until, context.clock())
    classes = context.settings.class_names
    choices = {
        name: choose(classes, moves_of(rows, name), to=to, channel=name, snapshot=full,
                     until=moment)
        for name in channels
    }  # fmt: skip
    problems = [one for one in choices.values() if isinstance(one, Problem)]
    if problems and (asked or len(problems) == len(choices)):
        raise UsageError(problems)
    return {name: one for name, one in choices.items() if isinstance(one, Choice)}


def _cases(
    context: Context,
    aim: Aim,
    choices: Mapping[str, Choice],
    members: Members,
    scratch: Path,
) -> list[Case]:
    """Return each channel with its proof and its evidence.

    Raises:
        UsageError: what was named is in no channel, or can't be taken in part.
    """
    found: list[Case] = []
    unfit: list[Unfit] = []
    for channel, choice in choices.items():
        folder = scratch / channel
        folder.mkdir()
        case = _case(context, aim, (channel, choice), members, folder)
        if isinstance(case, Unfit):
            unfit.append(case)
        else:
            found.append(case)
    serious = [one for one in unfit if not (one.nothing and found)]
    if serious:
        raise UsageError([problem for one in serious for problem in one.problems])
    return found


def _case(
    context: Context,
    aim: Aim,
    chosen: tuple[str, Choice],
    members: Members,
    scratch: Path,
) -> Case | Unfit:
    channel, choice = chosen
    to, wanted, depot = aim.to, aim.wanted, context.settings.depot
    pointer = context.store.pointers().get((to, channel))
    newer = load_snapshot(depot, choice.snapshot)
    held = load_snapshot(depot, pointer["snapshot"]) if pointer else None
    made, task = None, None
    if wanted.is_whole:
        candidate = newer
        proof = prove(context, to, candidate, held, members)
    else:
        if held is None:
            words, mend = "holds nothing yet, so there is nothing to add to", "promote it whole"
            return Unfit((Problem(f"{channel}: {to}", words, mend),), nothing=False)
        task = Task(to, newer, held, wanted)
        part = make_part(context, task, members, scratch)
        if isinstance(part, Unfit):
            return part
        made, candidate, proof = part, part.snapshot, part.proof
    whole = newer.id if wanted.is_whole or wanted.leaves_out else None
    left_out = wanted.exclude if wanted.leaves_out else ()
    question = Question(to, aim.source, candidate, held, whole, aim.evidence, left_out)
    shown = evidence_of(context, question, proof, members)
    return Case(to, channel, choice, newer, held, candidate, proof, shown, made, task)


# ---- why not -------------------------------------------------------------------------------


def _refusals(context: Context, case: Case, wanted: Wanted) -> list[Problem]:
    """Return everything that refuses and that force overrides."""
    if not case.is_new:
        return []
    skipped = case.choice.skipped
    words = f"{' and '.join(skipped)} never held {case.choice.snapshot[:14]}"
    named = wanted if not wanted.leaves_out else ALL
    return [
        *([Problem(case.channel, words, "no class is skipped")] if skipped else []),
        *(case.made.unmet if case.made else ()),
        *_named_blocked(context, case, named),
        *refusals(case.proof),
        *lacking(case.shown),
    ]


def _named_blocked(context: Context, case: Case, wanted: Wanted) -> list[Problem]:
    """Return what was named to be taken and stands on the block list."""
    if wanted.is_whole:
        return []
    return [
        Problem(nevra, f"was named and is blocked ({spec})", f"exclude={nevra.rsplit('-', 2)[0]}")
        for nevra, spec in _blocked(context, case).items()
    ]


def _blocked(context: Context, case: Case) -> dict[str, str]:
    """Return what comes and is blocked, with the word of the list: no plan will take it."""
    specs = {one.spec: one.kind for one in active(context)}
    known = known_advisories(context) if specs else []
    find = finder(specs, [*known, *case.source.advisories])
    coming = new_in(case.held, case.candidate.packages) if specs else ()
    return {one.nevra: spec for one in coming if (spec := find(one))}


# ---- moving --------------------------------------------------------------------------------


def _move(
    context: Context,
    to: str,
    cases: Sequence[Case],
    problems: Mapping[str, Sequence[Problem]],
    consent: Consent,
    reason: str | None,
    ticket: str | None,
    guard: Guard | None,
) -> None:
    """Keep what was made, then point the class there in all channels at once."""
    new = [case for case in cases if case.is_new]
    if not new:
        return
    with using(context.settings.depot):
        moves = [_move_of(context, to, case, problems[case.channel], consent) for case in new]
        check_there(context, (one.snapshot for one in moves))
        context.store.point_all(
            moves, action="promote", at=context.clock(), who=context.who, reason=reason,
            ticket=ticket, guard=guard,
        )  # fmt: skip


def _move_of(
    context: Context, to: str, case: Case, problems: Sequence[Problem], consent: Consent
) -> PointerMove:
    packages = None
    if case.made is not None and case.task is not None:
        derive_part(context, case.task, case.made.part)
        packages = len(case.candidate.packages)
    detail = {
        **({"skipped": list(case.choice.skipped)} if case.choice.skipped else {}),
        **({"forced": [f"{p.path}: {p.message}" for p in problems]} if problems else {}),
        **({"approved": list(consent.by)} if consent.needed else {}),
        **({"how": case.task.wanted.how, "source": case.source.id} if case.task else {}),
    }
    expected = case.held.id if case.held else None
    return PointerMove(to, case.channel, case.candidate.id, expected, detail, packages)


# ---- the answer ----------------------------------------------------------------------------


def _row(
    context: Context, case: Case, problems: Sequence[Problem], members: Members
) -> dict[str, Any]:
    return {
        "before": case.held.id if case.held else None,
        "id": case.candidate.id,
        "new": case.is_new,
        "packages": len(case.candidate.packages),
        **_changes(case),
        "source": case.source.id,
        "skipped": list(case.choice.skipped),
        "part": _part_body(case),
        "blocked": _blocked(context, case),
        "entering": _entering(context, case),
        "proof": proof_body(case.proof, members),
        "evidence": evidence_body(case.shown),
        "refused": [dict(problem._asdict()) for problem in problems],
    }


def _part_body(case: Case) -> dict[str, Any] | None:
    if case.made is None or case.task is None:
        return None
    how = case.task.wanted.how
    return {"how": how, "needs": list(case.made.needs), "left": list(case.made.left)}


def _entering(context: Context, case: Case) -> list[str]:
    """Return the repositories that no class before this one has seen."""
    classes = context.settings.class_names
    return [
        one.name
        for one in case.candidate.repositories
        if one.classes and enters_at(one.classes, classes) == case.to
    ]


def _changes(case: Case) -> dict[str, int]:
    """Count what changes for the class, as it sees the two snapshots."""
    if case.held is None or not case.is_new:
        return {"added": 0, "updated": 0, "removed": 0, "advisories": 0}
    found = diff_snapshots(seen_by(case.held, case.to), seen_by(case.candidate, case.to))
    return {
        "added": len(found.added),
        "updated": len(found.updated),
        "removed": len(found.removed),
        "advisories": len(found.advisories),
    }
