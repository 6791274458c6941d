"""Asking hosts what they have installed, thin: an unchanged host sends a few bytes.

Invariants: what a host says is validated before it is kept; a host that does not answer, or
answers nonsense, keeps its last inventory and is named.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, named_hosts
from cpacman.errors import EXIT_OTHER, CpacmanError
from cpacman.inventory import decode_inventory, merge_thin
from cpacman.model import InstalledPackage, Inventory
from cpacman.transport.port import Answer

_MAX_DETAILS = 64 * 2**20
_PAGE = 400
_AT_ONCE = 200
"""Inventories kept in one go: what they have in common is done once."""


class Refreshed(NamedTuple):
    """How one host's inventory stands after it was asked."""

    state: str
    packages: int = 0
    code: str = ""
    error: str = ""


def refresh(context: Context, selection: Selection, *, full: bool = False) -> dict[str, Any]:
    """Ask the selected hosts for their inventories and keep them.

    Args:
        context: the outside world.
        selection: which hosts; they must be named.
        full: ask for everything again, also where nothing changed.
    """
    from cpacman.commands.collecting import close_abandoned

    found = named_hosts(context, selection)
    close_abandoned(context)
    results = refresh_hosts(context, found, full=full)
    failed = {host: r for host, r in results.items() if r.error}
    body = {"hosts": {host: dict(r._asdict()) for host, r in sorted(results.items())}}
    return {"refresh": body, "retcode": EXIT_OTHER if failed else 0}


def refresh_hosts(
    context: Context, hosts: Sequence[str], *, full: bool = False
) -> dict[str, Refreshed]:
    """Ask these hosts, keep what they say, and return how each stands."""
    if not hosts:
        return {}
    heads = context.store.inventory_heads()
    cookies = {} if full else {host: heads[host][0].cookie for host in hosts if host in heads}
    requests = {host: {"cookie": cookies.get(host)} for host in hosts}
    results: dict[str, Refreshed] = {}
    changed: dict[str, _Thin] = {}
    pinned: dict[str, str] = {}
    timeout = context.settings.transport.answer
    for answer in context.transport.call("inventory", requests, timeout=timeout):
        if answer.code:
            results[answer.host] = Refreshed("failed", 0, answer.code, answer.error)
        elif answer.value.get("unchanged") is True and answer.host in cookies:
            results[answer.host] = _renew(context, answer, cookies[answer.host])
        else:
            _read_thin(answer, changed, results)
        if not answer.code:
            pinned[answer.host] = str(answer.value.get("pinned") or "")
        context.reporter.progress("inventories", len(results) + len(changed), len(hosts), "hosts")
    _keep_details(context, changed, results)
    answered = [host for host in sorted(changed) if host not in results]
    for at in range(0, len(answered), _AT_ONCE):
        lot = {host: changed[host] for host in answered[at : at + _AT_ONCE]}
        results.update(_keep(context, lot, heads.keys()))
    for host, refused in _pin(
        context, {h: key for h, key in pinned.items() if key != context.key.fingerprint}
    ):
        results[host] = results[host]._replace(code=refused.code, error=refused.error)
    return results


def _renew(context: Context, answer: Answer, cookie: str) -> Refreshed:
    """Keep what may change without a package doing so: kernel, holds, facts."""
    try:
        head = decode_inventory(answer.value.get("head") or {}, "inventory")
    except CpacmanError as error:
        return Refreshed("failed", 0, "garbled", str(error))
    if (head.host, head.cookie) != (answer.host, cookie) or head.packages:
        return Refreshed("failed", 0, "garbled", "what came is not the head that was asked for")
    context.store.renew_inventory(head, at=context.clock())
    return Refreshed("unchanged")


class _Thin(msgspec.Struct, frozen=True):
    """The thin answer: everything but the packages, and `(digest, installtime, reason, seal)`.

    The seal is a hash over the details, so that one host's details are used for another one only
    when they are what that one would have said itself.
    """

    cookie: str
    head: dict[str, Any]
    packages: list[tuple[str, int, str, str]]

    @property
    def keys(self) -> dict[str, str]:
        """Digest -> the key of the details in the store."""
        return {digest: f"{digest} {seal}" for digest, _, _, seal in self.packages}


def _read_thin(answer: Answer, changed: dict[str, _Thin], results: dict[str, Refreshed]) -> None:
    try:
        changed[answer.host] = msgspec.convert(answer.value, _Thin)
    except msgspec.ValidationError as error:
        results[answer.host] = Refreshed("failed", 0, "garbled", f"inventory: {error}")


def _keep_details(
    context: Context, changed: Mapping[str, _Thin], results: dict[str, Refreshed]
) -> None:
    """Ask for the details of packages that no host reported before, each from one host."""
    tried: dict[str, set[str]] = {}
    while True:
        mine = {h: set(t.keys.values()) for h, t in changed.items() if h not in results}
        unknown = context.store.unknown_packages(set().union(*mine.values())) if mine else []
        requests = _share(unknown, mine, tried)
        if not requests:
            return
        for answer in context.transport.call(
            "details", {h: {"digests": [k.split()[0] for k in d]} for h, d in requests.items()},
            timeout=context.settings.transport.answer,
        ):  # fmt: skip
            try:
                context.store.add_packages(_read_details(answer, requests[answer.host]))
            except CpacmanError as error:
                results[answer.host] = Refreshed("failed", 0, answer.code or "garbled", str(error))


def _share(
    unknown: Sequence[str], mine: Mapping[str, set[str]], tried: dict[str, set[str]]
) -> dict[str, list[str]]:
    """Spread unknown packages over the hosts that have them; each host is asked once for each."""
    requests: dict[str, list[str]] = {}
    for key in unknown:
        owners = [h for h in sorted(mine) if key in mine[h] and key not in tried.get(h, ())]
        host = min(owners, key=lambda h: len(requests.get(h, ())), default=None)
        if host is not None and len(requests.get(host, ())) < _PAGE:
            requests.setdefault(host, []).append(key)
            tried.setdefault(host, set()).add(key)
    return requests


def _read_details(answer: Answer, asked: Sequence[str]) -> dict[str, InstalledPackage]:
    """Return key -> details of what was asked for and is what its seal says."""
    if answer.code:
        raise CpacmanError(answer.error)
    try:
        raw = base64.b64decode(answer.value.get("packed", ""), validate=True)
        text = zlib.decompressobj().decompress(raw, _MAX_DETAILS)
        packages = msgspec.json.decode(text)
    except (binascii.Error, TypeError, zlib.error, msgspec.DecodeError) as error:
        raise CpacmanError(f"details: {error}") from error
    # What is kept here is read for other hosts, too: nothing gets in that is not of the format.
    inventory = decode_inventory({"packages": packages}, "details")
    keyed = (
        (f"{package.digest} {seal_of(raw)}", package)
        for raw, package in zip(packages, inventory.packages, strict=True)
    )
    return {key: package for key, package in keyed if key in set(asked)}


def seal_of(details: Mapping[str, Any]) -> str:
    """Return the seal of a package's details, as the agent makes it."""
    text = json.dumps(details, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _keep(
    context: Context, answers: Mapping[str, _Thin], known: Collection[str]
) -> dict[str, Refreshed]:
    """Keep what some hosts said, in one go, and return how each stands."""
    results: dict[str, Refreshed] = {}
    inventories: list[Inventory] = []
    for host, thin in answers.items():
        try:
            inventory = _join(context, host, thin)
        except CpacmanError as error:
            results[host] = Refreshed("failed", 0, "garbled", str(error))
            continue
        inventories.append(inventory)
        state = "changed" if host in known else "new"
        results[host] = Refreshed(state, len(inventory.packages))
    keys = {one.host: answers[one.host].keys for one in inventories}
    context.store.put_inventories(inventories, at=context.clock(), keys=keys)
    return results


def _join(context: Context, host: str, thin: _Thin) -> Inventory:
    """Return the whole inventory of a thin one.

    Raises:
        CpacmanError: details are missing, or it is not what this host may say.
    """
    keys = thin.keys
    found = context.store.packages(keys.values())
    if missing := len(set(keys.values()) - set(found)):
        raise CpacmanError(f"no details of {missing} packages came")
    details = {digest: found[key] for digest, key in keys.items()}
    inventory = merge_thin({**thin.head, "cookie": thin.cookie}, thin.packages, details)
    if inventory.host != host:
        raise CpacmanError(f"it says that it is {inventory.host!r:.100}")
    return inventory


def introduce(context: Context, hosts: Sequence[str]) -> None:
    """Have hosts follow the plan key where they know one of before, so that they take an order."""
    known = context.store.pins()
    now = context.key.fingerprint
    behind = {host: known[host] for host in hosts if known.get(host, now) != now}
    for host, refused in _pin(context, behind):
        context.reporter.line(f"{host}: {refused.error}")


def _pin(context: Context, pinned: Mapping[str, str]) -> Iterator[tuple[str, Answer]]:
    """Introduce the plan key to hosts that have none or one of before; yield those that refuse.

    A host that had one and has none now is another machine, or was tampered with: it is not
    introduced again before somebody accepted it.
    """
    before = context.store.pins()
    lost = [host for host, key in pinned.items() if not key and host in before]
    for host in sorted(lost):
        words = "has lost the plan key: was it rebuilt?"
        mend = f"look at it, then: salt-run cpacman.accept hosts={host}"
        yield host, Answer(host, {}, "pin", f"{words} {mend}")
    hosts = sorted(set(pinned) - set(lost))
    if not hosts:
        return
    rotations = [list(one) for one in context.rotations()]
    arguments = {"key": context.key.public_key_b64, "rotations": rotations}
    requests = dict.fromkeys(hosts, arguments)
    timeout = context.settings.transport.answer
    for answer in context.transport.call("pin", requests, timeout=timeout):
        if answer.code:
            words = f"takes no plan of this master: {answer.error}"
            yield answer.host, answer._replace(error=words)
            continue
        context.store.pin(answer.host, context.key.fingerprint, at=context.clock(), who=context.who)
