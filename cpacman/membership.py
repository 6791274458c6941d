"""Who is a member of the fleet, and what about a host has to be accepted first: pure rules.

Invariants: a host that nobody accepted gets nothing; nor does one that is another machine, has
another Salt key or belongs to another class than when it was accepted, until it is accepted again
or a rule does that; what is not known never counts as equal, once it was known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Literal, NamedTuple

import msgspec

Rule = Literal["hold", "accept"]


class ChangeKind(str, Enum):
    """What about a host nobody accepted yet."""

    NEW = "new"
    REBUILT = "rebuilt"
    MOVED = "moved"
    RETIRED = "retired"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted of a host, or that it waits for that, or that it is gone."""

    host: str
    state: Literal["member", "held", "retired"]
    class_: str = ""
    was: str = ""
    """The class before, when it was accepted as moved."""
    key: str = ""
    machine: str = ""
    noted: str = ""
    """The change that the journal has already been told of."""
    since: float = 0.0
    who: str = ""


class Seen(NamedTuple):
    """What a host is now. An empty class is none; machine is None where no inventory tells it."""

    class_: str
    key: str
    machine: str | None


class Change(NamedTuple):
    """What differs from what was accepted. Unless `held`, a rule accepts it."""

    kinds: tuple[ChangeKind, ...]
    words: str
    from_: str = ""
    to: str = ""
    held: bool = True

    @property
    def is_move(self) -> bool:
        """Whether it goes to another class."""
        return ChangeKind.MOVED in self.kinds

    @property
    def is_other_machine(self) -> bool:
        """Whether nothing that was recorded of what is installed there holds any more."""
        return bool({ChangeKind.NEW, ChangeKind.REBUILT} & set(self.kinds))

    @property
    def state(self) -> str:
        """The one word for lists of hosts."""
        return self.kinds[0].value


def change_of(member: Member | None, seen: Seen) -> Change | None:
    """Return what about a host nobody accepted yet; None when it is as it was accepted."""
    if member is None or member.state == "held":
        return Change((ChangeKind.NEW,), "new, nobody accepted it yet", to=seen.class_)
    differs = [words for words, differ in _differences(member, seen) if differ]
    if member.state == "retired":
        if differs:
            return Change((ChangeKind.NEW,), f"new, retired before ({', '.join(differs)})",
                          to=seen.class_)  # fmt: skip
        return Change((ChangeKind.RETIRED,), "retired", member.class_)
    kinds = [ChangeKind.REBUILT] if differs else []
    words = [f"rebuilt: {', '.join(differs)}"] if differs else []
    if seen.class_ and seen.class_ != member.class_:
        kinds.append(ChangeKind.MOVED)
        words.append(f"moved: {member.class_} -> {seen.class_}")
    if not kinds:
        return None
    return Change(tuple(kinds), "; ".join(words), member.class_, seen.class_)


def _differences(member: Member, seen: Seen) -> Iterable[tuple[str, bool]]:
    yield "another Salt key", bool(member.key) and seen.key != member.key
    known = bool(member.machine) and seen.machine is not None
    yield "another machine-id", known and seen.machine != member.machine


def learned(member: Member, seen: Seen) -> bool:
    """Whether something of a member is known for the first time, and is to be kept."""
    return (not member.key and bool(seen.key)) or (not member.machine and bool(seen.machine))


def ruled(change: Change, rules: Mapping[ChangeKind, Rule]) -> Change:
    """Return the change as the rules have it: accepted only if each part of it is."""
    accepted = all(rules.get(kind, "hold") == "accept" for kind in change.kinds)
    return change._replace(held=not accepted)


def changes_among(
    members: Mapping[str, Member],
    seen: Mapping[str, Seen],
    *,
    rules: Mapping[ChangeKind, Rule],
    max_moves: int,
) -> dict[str, Change]:
    """Return host -> what about it nobody accepted, for those where there is something.

    More moves at once than `max_moves` are accepted by no rule: that is rather a typo in a glob.
    """
    found = {
        host: ruled(change, rules)
        for host, one in seen.items()
        if (change := change_of(members.get(host), one))
    }
    moved = moves(found)
    if len(moved) > max_moves:
        found |= {host: found[host]._replace(held=True) for host in moved}
    return found


def moves(changes: Mapping[str, Change], class_: str | None = None) -> list[str]:
    """Return the hosts that go to another class; with `class_` those that leave or enter it."""
    return sorted(
        host
        for host, change in changes.items()
        if change.is_move and class_ in (None, change.from_, change.to)
    )


def accepted_member(host: str, member: Member | None, seen: Seen, *, at: float, who: str) -> Member:
    """Return a host as it is kept once it is accepted as it is now."""
    before = member.class_ if member and member.state == "member" else ""
    return Member(
        host=host,
        state="member",
        class_=seen.class_,
        was=before if before != seen.class_ else "",
        key=seen.key,
        machine=seen.machine or "",
        since=at,
        who=who,
    )


def listed_moves(changes: Mapping[str, Change], hosts: Sequence[str], most: int = 10) -> str:
    """Return moves as one line, grouped by where from and where to."""
    groups: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        groups.setdefault((changes[host].from_, changes[host].to), []).append(host)
    return "; ".join(
        f"{len(names)} {before} -> {after}: {' '.join(names[:most])}"
        + (f" and {len(names) - most} more" if len(names) > most else "")
        for (before, after), names in sorted(groups.items())
    )
