"""What an advisory delivers, whichever class's snapshot knows of it.

Invariant: a block of an advisory holds wherever its packages are, also in a snapshot that was
taken before the mirror told of it, or after it forgot it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set

import msgspec

from cpacman.commands.context import Context
from cpacman.errors import Problem, SafetyError
from cpacman.model import Advisory
from cpacman.planner.blocked import delivered
from cpacman.planner.ruling import Line, Policy

Known = Callable[[], Sequence[Advisory]]
"""Returns the advisories that are known anywhere; read when it is first asked."""


class _Manifest(msgspec.Struct):
    advisories: tuple[Advisory, ...] = ()


def known_advisories(context: Context) -> list[Advisory]:
    """Return the advisories of every snapshot that a class points at, and those that are blocked.

    These as far as they were ever known: no snapshot need tell of them any more.

    Raises:
        SafetyError: a manifest is damaged.
    """
    ids = sorted({row["snapshot"] for row in context.store.pointers().values()})
    blocked = [b for b in context.store.blocks() if b.packages]
    return [
        *(advisory for one in ids for advisory in _advisories(context, one)),
        *(Advisory(id=one.spec, packages=one.packages) for one in blocked),
    ]


def keep_delivered(context: Context, coming: Iterable[Advisory]) -> None:
    """Keep what blocked advisories deliver, before classes point at snapshots that forgot them.

    Args:
        context: the outside world.
        coming: the advisories of what classes are about to point at.
    """
    blocks = [one for one in context.store.blocks() if one.kind == "advisory"]
    known = [*known_advisories(context), *coming] if blocks else []
    for one in blocks:
        if new := delivered(one.spec, known) - set(one.packages):
            context.store.keep_delivered(one.spec, new)


def _advisories(context: Context, snapshot: str) -> tuple[Advisory, ...]:
    path = context.settings.depot / "snapshots" / snapshot / "manifest.msgpack"
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Manifest).advisories
    except (OSError, msgspec.MsgspecError) as error:
        what = f"can't be read: {error}"
        raise SafetyError(Problem(str(path), what, "salt-run cpacman.verify")) from error


def spread(
    policies: Mapping[str, Policy],
    *,
    advisories: Iterable[Advisory],
    offered: Set[str],
    known: Known,
) -> dict[str, Policy]:
    """Return policies whose blocks name the packages of advisories that are known elsewhere.

    Args:
        policies: host -> its rules.
        advisories: those of the snapshot that hosts are planned from.
        offered: the NEVRAs in it.
        known: those of all snapshots that classes point at.
    """
    lines = {line for policy in policies.values() for line in policy.of("block")}
    here = {one.id for one in advisories}
    wider = {line: _spread(line, here, offered, known) for line in lines}
    changed = {line: one for line, one in wider.items() if one != line}
    if not changed:
        return dict(policies)
    return {
        host: msgspec.structs.replace(
            policy, lines=tuple(changed.get(line, line) for line in policy.lines)
        )
        for host, policy in policies.items()
    }


def _spread(line: Line, here: Collection[str], offered: Set[str], known: Known) -> Line:
    words: list[str] = []
    for word in line.packages:
        found = sorted(delivered(word, known()) & offered)
        words += [word] if word in here or not found else []
        words += found
    return msgspec.structs.replace(line, packages=tuple(dict.fromkeys(words)))
