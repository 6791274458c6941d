"""The manifest: what the plan key signs for one host, and what must be true afterwards. Pure.

Invariants: a manifest is bound to one host, one plan, one session and a time; it declares every
file by size and sha256; `after` is the package set that the host must end with.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cpacman.model import Action, ActionKind, Inventory, Transaction, canonical_json

_ADDS = frozenset(ActionKind) - {ActionKind.REMOVE, ActionKind.REINSTALL}


def nevras_digest(nevras: Iterable[str]) -> str:
    """Return the digest of a package set: sha256 over its sorted NEVRAs, one a line."""
    return hashlib.sha256("".join(f"{n}\n" for n in sorted(nevras)).encode()).hexdigest()


def nevras_of(inventory: Inventory) -> list[str]:
    """Return the NEVRAs that an inventory holds."""
    return [package.nevra for package in inventory.packages]


def nevras_after(before: Iterable[str], transaction: Transaction) -> list[str]:
    """Return the NEVRAs that a host has after a transaction, sorted; duplicates stay."""
    count = Counter(before)
    for nevra in _leaving(transaction.actions):
        count[nevra] = 0
    # What was cut off may stand there already, or twice; afterwards it stands there once.
    for action in transaction.actions:
        if action.action is not ActionKind.REMOVE:
            count[action.nevra] = 1
    return sorted(count.elements())


def _leaving(actions: Iterable[Action]) -> set[str]:
    gone = {a.from_ for a in actions if a.from_ and a.action in _ADDS}
    return gone | {a.nevra for a in actions if a.action is ActionKind.REMOVE}


def files_of(
    transaction: Transaction, names: Mapping[str, str], demands: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the files that a transaction needs, each once, sorted by sha256.

    Args:
        transaction: its actions name the files by sha256 and size.
        names: sha256 -> file name, for those who look into the host's log.
        demands: sha256 -> what the host is to do about its signature: `require` or `warn`.
    """
    sizes: dict[str, int] = {}
    for action in transaction.actions:
        if action.sha256:
            sizes[action.sha256] = max(action.size, sizes.get(action.sha256, 0))
    return [
        {
            "sha256": sha256,
            "size": size,
            "name": names.get(sha256, sha256 + ".rpm"),
            "signatures": demands.get(sha256, "off"),
        }
        for sha256, size in sorted(sizes.items())
    ]


def write_manifest(
    *,
    host: str,
    plan: str,
    transaction_id: str,
    transaction: Transaction,
    rollout: str,
    session: str,
    sequence: int,
    nonce: str,
    created: float,
    expires: float,
    inventory: Inventory,
    names: Mapping[str, str],
    protected: Sequence[str],
    demands: Mapping[str, str],
    cache: int,
    recovers: str = "",
) -> str:
    """Return the manifest as the one text that is signed and sent.

    `cache` is the number of bytes that the host may keep of package files; `recovers` is the
    session that was cut off on the host and that this one takes back, or "".
    """
    before = nevras_of(inventory)
    body = {
        "schema": 1,
        "kind": "manifest",
        "host": host,
        "plan": plan,
        "transaction": transaction_id,
        "rollout": rollout,
        "session": session,
        "sequence": sequence,
        "nonce": nonce,
        "created": int(created),
        "expires": int(expires),
        "cookie": inventory.cookie,
        "actions": msgspec.to_builtins(transaction.actions),
        "files": files_of(transaction, names, demands),
        "after": nevras_digest(nevras_after(before, transaction)),
        "protected": sorted(protected),
        "cache": cache,
    }
    if recovers:
        body["recovers"] = recovers
    if restarts_minion(transaction):
        body["restart_minion"] = True
    if transaction.reboot:
        body["reboot"] = True
    return canonical_json(body).decode()


_SALT = re.compile(
    r"salt|salt-minion|salt-common|glibc|openssl|openssl-libs|libopenssl\d.*|libssl\d.*"
    r"|platform-python|python[23]?(\.?\d+)?(-libs|-base)?|libpython\d.*"
)


def restarts_minion(transaction: Transaction) -> bool:
    """Whether a transaction replaces what Salt's minion runs on: itself, Python, openssl, glibc."""
    return any(_SALT.fullmatch(a.name) for a in transaction.actions if a.action in _ADDS)


ORDER_SLACK = 60.0
"""Seconds by which a host's clock may be behind when it is told to start."""


def signed_order(
    kind: str,
    host: str,
    session: str,
    sign: Callable[[str], str],
    *,
    now: float,
    answer: float,
    **more: object,
) -> dict[str, str]:
    """Return what a host is sent to start a staged session, or for what follows it; for minutes.

    Args:
        kind: `order` to start, `restart` or `reboot`.
        host: whom it is for.
        session: the host's session.
        sign: signs a text with the plan key.
        now: seconds since the epoch.
        answer: seconds that the host has to answer.
        more: what it says besides.
    """
    body = {"kind": kind, "host": host, "session": session, "created": int(now),
            "expires": int(now + answer + ORDER_SLACK), **more}  # fmt: skip
    order = canonical_json(body).decode()
    return {"session": session, "order": order, "signature": sign(order)}


def after_of(manifest: str | None) -> str:
    """Return the digest of the packages that a host must have after this manifest."""
    return str(msgspec.json.decode(manifest or "{}").get("after"))


def is_done(nevras: Iterable[str], transaction: Transaction) -> bool:
    """Whether a host that has these NEVRAs has all that a transaction brings, none it takes."""
    present = set(nevras)
    adds = {action.nevra for action in transaction.actions if action.action in _ADDS}
    return adds <= present and not present & _leaving(transaction.actions)
