"""The value types of CPacMan: frozen, sorted, serialisable documents and nothing that acts.

Invariants: a value never changes; the same value always has the same canonical bytes; ids are
hashes of content (`t-`, `p-`, `s-`), so equal content means equal ids. Formats are those of the
design brief, section 5: inventory, plan, snapshot manifest.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec

SCHEMA = 1

Dependency = tuple[str, str, str]
"""`(name, flags, evr)`: flags is one of `"" = < <= > >=`; a rich one stands whole in name."""


class ActionKind(str, Enum):
    """What a transaction does with one package."""

    UPGRADE = "upgrade"
    INSTALL = "install"
    OBSOLETE = "obsolete"
    DOWNGRADE = "downgrade"
    REINSTALL = "reinstall"
    REMOVE = "remove"


class Reason(str, Enum):
    """Why an action is in a transaction."""

    REQUESTED = "requested"
    UPDATE = "update"
    DEPENDENCY = "dependency"
    WEAK = "weak"
    OBSOLETES = "obsoletes"
    SYNC = "sync"
    LIMIT = "limit"
    ROLLBACK = "rollback"


class HeldReason(str, Enum):
    """Why a newer version of an installed package is not taken."""

    ARCH = "arch"
    VENDOR = "vendor"
    ORIGIN = "origin"
    LOCK = "lock"
    EXCLUDE = "exclude"
    HOST_HOLD = "host-hold"
    BLOCKED = "blocked"
    TOGETHER = "together"
    NOAUTOUPDATE = "noautoupdate"
    MODULE = "module"
    ABSENT = "absent"
    REQUIRES = "requires"
    CONFLICTS = "conflicts"
    PROTECTED = "protected"
    UNEXPLAINED = "unexplained"


class FailedError(str, Enum):
    """Why a host could not be planned at all."""

    UNKNOWN_PACKAGE = "unknown-package"
    REQUIRES = "requires"
    CONFLICTS = "conflicts"
    PROTECTED = "protected"
    POLICY = "policy"
    PLATFORM = "platform"
    INVENTORY = "inventory"
    NO_SNAPSHOT = "no-snapshot"
    NO_CHANNEL = "no-channel"
    BLOCKED = "blocked"
    NOT_ACCEPTED = "not-accepted"


class Outcome(str, Enum):
    """How a host ended in a rollout: exactly one of these, always."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"
    SILENT = "silent"
    SKIPPED = "skipped"


def evr_text(epoch: int, version: str, release: str) -> str:
    """Return `epoch:version-release`, leaving out an epoch of 0 and an empty release."""
    text = f"{version}-{release}" if release else version
    return f"{epoch}:{text}" if epoch else text


def nevra_text(name: str, epoch: int, version: str, release: str, arch: str) -> str:
    """Return `name-[epoch:]version-release.arch`, leaving out an epoch of 0."""
    return f"{name}-{evr_text(epoch, version, release)}.{arch}"


class _Nevra:
    """What every type with the five fields of a NEVRA can say of itself."""

    name: str
    epoch: int
    version: str
    release: str
    arch: str

    @property
    def evr(self) -> str:
        """`[epoch:]version-release`."""
        return evr_text(self.epoch, self.version, self.release)

    @property
    def nevra(self) -> str:
        """`name-[epoch:]version-release.arch`."""
        return nevra_text(self.name, self.epoch, self.version, self.release, self.arch)


class Package(msgspec.Struct, _Nevra, frozen=True, kw_only=True, array_like=True):
    """One package file of a repository.

    `sha256` is the file's digest as 64 hex digits, `size` its bytes, `location` its path relative
    to the repository's root, `buildtime` seconds since the epoch.
    """

    name: str
    epoch: int
    version: str
    release: str
    arch: str
    sha256: str
    size: int
    repository: str
    location: str
    vendor: str = ""
    buildtime: int = 0


class InstalledPackage(
    msgspec.Struct, _Nevra, frozen=True, kw_only=True, omit_defaults=False, dict=True
):
    """One installed package as the host's database has it; what is missing reads as empty.

    `origin` is the repository that CPacMan installed it from, as the master's journal has it.

    Its texts are put together once: a plan for many hosts asks for them all the time.
    """

    name: str
    version: str
    arch: str = ""
    epoch: int = 0
    release: str = ""
    vendor: str = ""
    buildtime: int = 0
    installtime: int = 0
    digest: str = ""
    size: int = 0
    reason: str = ""
    provides: tuple[Dependency, ...] = ()
    requires: tuple[Dependency, ...] = ()
    conflicts: tuple[Dependency, ...] = ()
    obsoletes: tuple[Dependency, ...] = ()
    recommends: tuple[Dependency, ...] = ()
    suggests: tuple[Dependency, ...] = ()
    supplements: tuple[Dependency, ...] = ()
    enhances: tuple[Dependency, ...] = ()
    files: tuple[str, ...] = ()
    origin: str = ""

    @functools.cached_property
    def evr(self) -> str:
        """`[epoch:]version-release`."""
        return evr_text(self.epoch, self.version, self.release)

    @functools.cached_property
    def nevra(self) -> str:
        """`name-[epoch:]version-release.arch`."""
        return nevra_text(self.name, self.epoch, self.version, self.release, self.arch)

    @functools.cached_property
    def sort_key(self) -> tuple[str, str, str]:
        """Installed packages are sorted by name, arch, NEVRA."""
        return (self.name, self.arch, self.nevra)


class OsRelease(msgspec.Struct, frozen=True, kw_only=True):
    """`ID`, `ID_LIKE` and `VERSION_ID` of os-release; `id_like` is space separated as there."""

    id: str = ""
    id_like: str = ""
    version_id: str = ""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What one host has installed, and its facts, as that host reported it."""

    schema: int = SCHEMA
    platform: str = "rpm"
    host: str = ""
    arch: str = ""
    os: OsRelease = OsRelease()
    kernel: str = ""
    cookie: str = ""
    facts: dict[str, Any] = {}
    modules: tuple[str, ...] = ()
    modules_disabled: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    packages: tuple[InstalledPackage, ...] = ()


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host and where it belongs; `sources` says for each value where it came from."""

    id: str
    channel: str
    class_: str = msgspec.field(name="class")
    level: str
    transport: str = "publish"
    meta: dict[str, Any] = {}
    sources: dict[str, str] = {}


class Action(msgspec.Struct, _Nevra, frozen=True, kw_only=True):
    """One step of a transaction. A remove has no `from_`, `repository` and `sha256`."""

    action: ActionKind
    name: str
    epoch: int
    version: str
    release: str
    arch: str
    nevra_: str = msgspec.field(name="nevra")
    from_: str | None = msgspec.field(name="from", default=None)
    repository: str | None = None
    sha256: str | None = None
    size: int = 0
    advisories: tuple[str, ...] = ()
    reason: Reason = Reason.UPDATE

    @property
    def sort_key(self) -> tuple[str, str, str, str]:
        """Actions are sorted by name, arch, action, from."""
        return (self.name, self.arch, self.action.value, self.from_ or "")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package with a newer version that the plan does not take, and why."""

    nevra: str
    candidate: str
    reason: HeldReason
    detail: str = ""


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """The exact set of actions for one inventory. Empty actions mean: nothing to do.

    `vendor_changes` are lines `nevra: old vendor -> new vendor`, one for each that policy allows.
    """

    actions: tuple[Action, ...] = ()
    held: tuple[Held, ...] = ()
    size: int = 0
    reboot: bool = False
    reversible: bool = True
    irreversible: tuple[str, ...] = ()
    vendor_changes: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A host that could not be planned: the kind of error and its causes, worded for a person."""

    error: FailedError
    causes: tuple[str, ...] = ()


class InventoryRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which inventory a host was planned from."""

    digest: str
    cookie: str


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for. Nothing named means: upgrade all.

    `exclude` and `lock` are rules for this plan only, `exclude_repos` are repositories that do not
    exist for it. With `advisory` (ids and CVEs), `security`
    or `severity` only what those advisories fix is upgraded, with `minimal` no further than that.
    Beside those, and beside `sync`, `upgrade` names the only packages that it is about. Without
    `reasons` the solver is not asked why it holds what no rule of ours holds. A plan that
    takes a rollout back has its id as `rollback`; it was not solved, it is what hosts had before.
    """

    upgrade: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    sync: bool = False
    strict: bool = False
    exclude: tuple[str, ...] = ()
    lock: tuple[str, ...] = ()
    advisory: tuple[str, ...] = ()
    security: bool = False
    severity: tuple[str, ...] = ()
    minimal: bool = False
    reasons: bool = True
    rollback: str = ""
    exclude_repos: tuple[str, ...] = ()

    @property
    def upgrade_all(self) -> bool:
        """Whether nothing was named, so that everything installed is to be upgraded."""
        return not (self.upgrade or self.install or self.remove or self.sync)

    @property
    def by_name(self) -> bool:
        """Whether what was named is to happen, and nothing else."""
        named = self.upgrade or self.install or self.remove
        return bool(named) and not (self.sync or self.by_advisory)

    @property
    def words(self) -> tuple[str, ...]:
        """What was named, which may be things that packages provide, or paths."""
        return (*self.upgrade, *self.install, *self.remove, *self.exclude, *self.lock)

    @property
    def by_advisory(self) -> bool:
        """Whether only what some advisories fix is to be upgraded."""
        return bool(self.advisory or self.security or self.severity)

    @property
    def is_narrow(self) -> bool:
        """Whether less was asked for than all that is offered, be it by what is left out."""
        named = self.upgrade or self.install or self.remove or self.exclude or self.lock
        return bool(named or self.exclude_repos or self.by_advisory or self.rollback)

    def wants(self, advisory: Advisory) -> bool:
        """Return whether an advisory is among those asked for."""
        if {advisory.id, *advisory.cves}.intersection(self.advisory):
            return True
        if not (self.security or self.severity):
            return False
        severe = not self.severity or advisory.severity.lower() in map(str.lower, self.severity)
        return severe and (not self.security or advisory.type == "security")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen document: hosts -> transactions, from named snapshots, policy and inventories."""

    schema: int = SCHEMA
    plan_id: str
    request: Request
    policy: str
    snapshots: dict[str, str]
    hosts: dict[str, str]
    inventories: dict[str, InventoryRef]
    transactions: dict[str, Transaction]
    failed: dict[str, Failure] = {}
    warnings: tuple[str, ...] = ()


SEVERITIES = ("critical", "important", "moderate", "low")
"""How bad an advisory can be, the worst first."""


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """One advisory of updateinfo and the NEVRAs it delivers.

    `issued` and `updated` are in seconds since the epoch, 0 where updateinfo does not tell.
    """

    id: str
    type: str = ""
    severity: str = ""
    title: str = ""
    cves: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    reboot: bool = False
    issued: int = 0
    updated: int = 0

    @property
    def content(self) -> dict[str, Any]:
        """What of it decides about plans, and so about a snapshot's id: all but its dates."""
        return {
            "id": self.id,
            "type": self.type,
            "severity": self.severity,
            "title": self.title,
            "cves": self.cves,
            "packages": self.packages,
            "reboot": self.reboot,
        }


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, UTF-8."""
    return msgspec.json.encode(value, order="sorted")


def content_id(letter: str, value: Any) -> str:
    """Return `<letter>-` and the sha256 of the value's canonical JSON, all 64 digits."""
    return f"{letter}-{hashlib.sha256(canonical_json(value)).hexdigest()}"


def short_id(full_id: str) -> str:
    """Return an id as it is shown: its letter and 12 digits."""
    return full_id[:14]


def transaction_id(platform: str, snapshot: str, transaction: Transaction) -> str:
    """Return the `t-` id: over platform, snapshot, actions and held, nothing that may change."""
    return content_id("t", [platform, snapshot, transaction.actions, transaction.held])


def plan_id(
    *,
    snapshots: dict[str, str],
    policy: str,
    request: Request,
    hosts: dict[str, str],
    inventories: dict[str, InventoryRef],
) -> str:
    """Return the `p-` id: over the header and the sorted host -> (transaction, cookie)."""
    pairs = [[host, hosts[host], inventories[host].cookie] for host in sorted(hosts)]
    return content_id("p", [snapshots, policy, request, pairs])


def cookie_of(pairs: list[tuple[str, int]]) -> str:
    """Return the cookie of a package set: sha256 over its sorted `(digest, installtime)` pairs.

    Written as lines of `digest installtime` with a newline after each, because the host computes
    the same without a JSON library in common.
    """
    text = "".join(f"{digest} {installtime}\n" for digest, installtime in sorted(pairs))
    return hashlib.sha256(text.encode()).hexdigest()


def inventory_digest(inventory: Inventory, packages: str = "") -> str:
    """Return the digest of what matters for solving: equal digests are solved once.

    Left out are the host's name, its cookie, its facts and the times of installation.

    Args:
        inventory: the whole of it.
        packages: the digest of its packages, where it is known already.
    """
    body = [
        inventory.platform, inventory.arch, inventory.os, inventory.kernel,
        sorted(inventory.modules), sorted(inventory.holds),
        packages or packages_digest(map(package_hash, inventory.packages)),
    ]  # fmt: skip
    if inventory.modules_disabled:
        body.append(sorted(inventory.modules_disabled))
    return "sha256:" + hashlib.sha256(canonical_json(body)).hexdigest()


def packages_digest(hashes: Iterable[bytes]) -> str:
    """Return the digest of a set of packages, in whatever order their hashes come."""
    return hashlib.sha256(b"".join(sorted(hashes))).hexdigest()


def package_hash(package: InstalledPackage) -> bytes:
    """Return the hash of what matters of an installed package for solving."""
    p = package
    body = (
        p.name, p.arch, p.epoch, p.version, p.release, p.vendor, p.buildtime, p.digest,
        p.reason, p.provides, p.requires, p.conflicts, p.obsoletes, p.recommends,
        p.suggests, p.supplements, p.enhances, p.files,
    )  # fmt: skip
    known = (*body, p.origin) if p.origin else body
    return hashlib.sha256(canonical_json(known)).digest()
