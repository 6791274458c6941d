"""The rules of ours that the solver does not know, as pure functions over plain values.

Invariants: a rule never chooses, it only hides candidates from a host or refuses a step, each
time with the reason and, where a setting would allow it, that setting. An update keeps its
architecture and its vendor; a repository left out of autoupdate serves named packages only; what
came from such a repository is not replaced from another. A vendor that an inventory does not
tell is unknown, and an unknown vendor is no change of vendor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from cpacman.model import HeldReason, InstalledPackage
from cpacman.planner.ruling import RANGE, Line, Policy, forms, matches

if TYPE_CHECKING:
    from cpacman.planner.solver import Candidate

Compare = Callable[[str, str], int]
"""The order of two `[epoch:]version-release` texts: -1, 0, 1."""

REBOOT_NAMES = frozenset(
    {
        "kernel", "kernel-core", "kernel-modules", "kernel-modules-core", "kernel-rt",
        "kernel-rt-core", "kernel-PAE", "kernel-default", "kernel-uek", "kernel-uek-core",
        "kernel-64k-core", "glibc", "systemd", "dbus", "dbus-broker", "dbus-daemon",
        "linux-firmware", "microcode_ctl", "ucode-intel", "kernel-firmware", "udev", "hal",
    }
)  # fmt: skip
"""Packages whose update wants a reboot.

Source: dnf's needs-restarting (kernel, kernel-rt, glibc, linux-firmware, systemd, dbus,
dbus-broker, dbus-daemon, microcode_ctl), with the names of EL6/7, SUSE and Oracle.
"""

PROTECTED = (
    "bash", "coreutils", "dnf", "filesystem", "glibc", "kernel-core", "openssh-server", "openssl",
    "python3", "python3-rpm", "rpm", "rpm-libs", "salt", "salt-minion", "setup", "sudo",
    "systemd", "yum",
)  # fmt: skip
"""Packages that no transaction removes: without them a host can't be reached or mended."""

ARCHES = frozenset(
    {
        "noarch", "x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "amd64", "ia32e", "i386",
        "i486", "i586", "i686", "athlon", "geode", "aarch64", "armv5tel", "armv5tejl", "armv6l",
        "armv6hl", "armv7l", "armv7hl", "armv7hnl", "armv8l", "ppc", "ppc64", "ppc64p7",
        "ppc64le", "ppc64iseries", "ppc64pseries", "s390", "s390x", "ia64", "alpha", "sparc",
        "sparcv9", "sparc64", "mips", "mipsel", "mips64", "mips64el", "riscv64", "loongarch64",
        "sh4", "m68k",
    }
)  # fmt: skip
"""The architectures rpm knows. Source: rpmrc, and openSUSE's list."""


class Hiding(NamedTuple):
    """Why a candidate is not for a host: a reason and the words for it.

    One for its origin gives way to who names the very version, unless it is `firm`.
    """

    reason: HeldReason
    detail: str
    firm: bool = False


class Offer(NamedTuple):
    """One name on one host: what is installed under it, and what the repositories offer.

    `origin` is the repository left out of autoupdate that the installed one came from, or empty;
    `homes` are the repositories of the origin that it is known to be from, empty when unknown.
    """

    installed: tuple[InstalledPackage, ...]
    candidates: tuple[Candidate, ...]
    origin: str = ""
    homes: frozenset[str] = frozenset()


_EPOCH = re.compile(r"[0-9]+:")
_GLOB = re.compile(r"[*?\[]")


def is_running(package: InstalledPackage, kernel: str) -> bool:
    """Return whether a package is of the running kernel, told by its `uname -r`.

    EL appends the arch (and `+debug`), SUSE leaves the last part of the release away and appends
    the flavour.
    """
    if not kernel or not package.name.startswith("kernel"):
        return False
    version = f"{package.version}-{package.release}"
    own = kernel.partition("+")[0]
    if own in (version, f"{version}.{package.arch}"):
        return True
    base, _, flavour = own.rpartition("-")
    return bool(flavour) and not flavour[0].isdigit() and f"{version}.".startswith(f"{base}.")


def color(arch: str) -> int:
    """Return which packages of one name exclude each other: 1 is 32 bit, 2 is 64 bit, 3 both.

    Source: libsolv, `pool_arch2color`.
    """
    if arch in ("noarch", ""):
        return 3
    return 2 if "64" in arch or arch == "s390x" else 1


def is_arch_change(installed: Iterable[str], arch: str) -> bool:
    """Return whether a package of `arch` would displace one of another architecture.

    A second architecture beside an installed one (i686 beside x86_64) displaces nothing.
    """
    arches = set(installed)
    return bool(arches) and arch not in arches and any(color(a) & color(arch) for a in arches)


def is_vendor_change(installed: str, vendor: str) -> bool:
    """Return whether an update would change the vendor; an unknown one can't be told to."""
    return bool(installed) and installed != vendor


def arch_setting(name: str) -> str:
    """Return the words for the setting that allows a change of architecture."""
    return f"policy: [{{arch_change: {name}}}] or --arch-change {name} allows it"


def vendor_setting(name: str) -> str:
    """Return the words for the setting that allows a change of vendor."""
    return f"policy: [{{vendor_change: {name}}}] allows it"


def hide(offer: Offer, policy: Policy, compare: Compare) -> dict[Candidate, Hiding]:
    """Return which candidates of an installed name this host must not get.

    The first rule that speaks gives the reason. What is already installed is never hidden.
    """
    have = {p.nevra for p in offer.installed}
    found = {}
    for candidate in offer.candidates:
        if candidate.nevra not in have and (hiding := _judge(offer, candidate, policy, compare)):
            found[candidate] = hiding
    return found


def _judge(offer: Offer, candidate: Candidate, policy: Policy, compare: Compare) -> Hiding | None:
    return next(judge(offer, candidate, policy, compare), None)


def judge(offer: Offer, candidate: Candidate, policy: Policy, compare: Compare) -> Iterator[Hiding]:
    """Yield every rule that keeps a candidate of an installed name away, in the rules' order."""
    if policy.lines and (hiding := _lock(offer, candidate, policy, compare)):
        yield hiding
    for rule in (_arch, _vendor, _origin):
        if hiding := rule(offer, candidate, policy):
            yield hiding
    if hiding := _together(offer, candidate, compare):
        yield hiding


def _lock(offer: Offer, candidate: Candidate, policy: Policy, compare: Compare) -> Hiding | None:
    """Judge by the locks that are about a candidate's name, of which the narrowest rule."""
    about = {x: _forbids(x, offer, candidate, compare) for x in policy.of("lock")}
    lines = [line for line, forbids in about.items() if forbids is not None]
    ruling = policy.ruling(lines, candidate.name, candidate.evr, candidate.arch)
    return next((lock_hiding(line, "locked") for line in ruling if about[line]), None)


def lock_hiding(line: Line, what: str) -> Hiding:
    """Return the hiding by a lock; `what` begins the words."""
    reason = HeldReason.HOST_HOLD if line.own else HeldReason.LOCK
    return Hiding(reason, f"{what} by {line}")


def exclude_hiding(line: Line, what: str) -> Hiding:
    """Return the hiding by an exclude; `what` begins the words."""
    reason = HeldReason.HOST_HOLD if line.own else HeldReason.EXCLUDE
    return Hiding(reason, f"{what} by {line}")


def may_name(word: str, name: str) -> bool:
    """Return whether a word could be about a name at all: a quick look before the slow ones."""
    bare = _EPOCH.sub("", word, count=1) if word[:1].isdigit() else word
    head = _GLOB.split(bare, maxsplit=1)[0]
    return bare.startswith(name) or (
        head != bare and (name.startswith(head) or head.startswith(name))
    )


def _forbids(line: Line, offer: Offer, candidate: Candidate, compare: Compare) -> bool | None:
    """Return whether a lock forbids a candidate, or None when it is not about its name.

    One on a name keeps what is installed; one on a version or range keeps to that.
    """
    if not any(may_name(word, candidate.name) for word in line.packages):
        return None
    if matches(candidate.name, line.packages):
        return bool(offer.installed)
    if matches(f"{candidate.name}.{candidate.arch}", line.packages):
        return any(p.arch == candidate.arch for p in offer.installed)
    known = [forms(p.name, p.evr, p.arch) for p in offer.installed]
    known += [forms(c.name, c.evr, c.arch) for c in offer.candidates]
    globs = [g for g in line.packages if any(matches(f, (g,)) for many in known for f in many)]
    ranges = [found for g in line.packages if (found := RANGE.match(g))]
    ranges = [found for found in ranges if fnmatchcase(candidate.name, found[1])]
    if not (globs or ranges):
        return None
    own = forms(candidate.name, candidate.evr, candidate.arch)
    within = any(is_within(candidate.evr, found[2], found[3], compare) for found in ranges)
    return not (within or any(matches(form, globs) for form in own))


def locks_on(policy: Policy, package: InstalledPackage) -> tuple[Line, ...]:
    """Return the locks that keep an installed package."""
    lines = [line for line in policy.of("lock") if locks_installed(line, package)]
    return policy.ruling(lines, package.name, package.evr, package.arch)


def excludes_on(policy: Policy, package: InstalledPackage) -> tuple[Line, ...]:
    """Return the excludes that name an installed package: such a one is left alone, as in dnf."""
    lines = [line for line in policy.of("exclude") if locks_installed(line, package)]
    return policy.ruling(lines, package.name, package.evr, package.arch)


def locks_installed(line: Line, package: InstalledPackage) -> bool:
    """Return whether a lock is about an installed package, whichever way it names it."""
    own = (
        package.name,
        f"{package.name}.{package.arch}",
        *forms(package.name, package.evr, package.arch),
    )
    named = [word for word in line.packages if not RANGE.match(word)]
    ranged = [found[1] for word in line.packages if (found := RANGE.match(word))]
    return any(matches(form, named) for form in own) or matches(package.name, ranged)


def is_within(evr: str, flags: str, bound: str, compare: Compare) -> bool:
    """Return whether a version is in a range; as in a dependency, no release means any."""
    if "-" not in bound:
        evr = evr.rpartition("-")[0] or evr
    order = compare(evr, bound)
    return (order < 0 and "<" in flags) or (order > 0 and ">" in flags) or (
        order == 0 and "=" in flags
    )  # fmt: skip


def _arch(offer: Offer, candidate: Candidate, policy: Policy) -> Hiding | None:
    arches = sorted({p.arch for p in offer.installed})
    if not is_arch_change(arches, candidate.arch) or policy.allows("arch_change", candidate.name):
        return None
    return Hiding(HeldReason.ARCH, arch_detail(arches, candidate))


def arch_detail(arches: Sequence[str], candidate: Candidate) -> str:
    """Return the words for a candidate of another architecture than the installed ones."""
    swap = f"only as {candidate.arch}, installed is {' and '.join(arches)}"
    return f"{swap}; {arch_setting(candidate.name)}"


def _vendor(offer: Offer, candidate: Candidate, policy: Policy) -> Hiding | None:
    same = [p for p in offer.installed if p.arch == candidate.arch]
    rivals = same or [p for p in offer.installed if color(p.arch) & color(candidate.arch)]
    changed = [p for p in rivals if not keeps_vendor(policy, p, candidate)]
    if not changed:
        return None
    return Hiding(HeldReason.VENDOR, vendor_detail(changed[0], candidate))


def keeps_vendor(policy: Policy, installed: InstalledPackage, candidate: Candidate) -> bool:
    """Return whether a candidate is of the installed package's vendor, or may be of another."""
    changed = is_vendor_change(installed.vendor, candidate.vendor)
    return not changed or policy.allows_vendor(installed.name, installed.vendor, candidate.vendor)


def vendor_detail(installed: InstalledPackage, candidate: Candidate) -> str:
    """Return the words for a candidate of another vendor than the installed package's."""
    change = f"vendor {candidate.vendor or '(none)'}, installed is {installed.vendor}"
    return f"{change}; {vendor_setting(installed.name)}"


def _origin(offer: Offer, candidate: Candidate, policy: Policy) -> Hiding | None:
    if offer.origin:
        if candidate.repository == offer.origin:
            return None
        return Hiding(HeldReason.ORIGIN, origin_detail(offer.origin, candidate))
    if not is_foreign(offer, candidate) or policy.allows("origin_change", candidate.name):
        return None
    return Hiding(HeldReason.ORIGIN, foreign_detail(offer, candidate))


def is_foreign(offer: Offer, candidate: Candidate) -> bool:
    """Return whether a candidate is from another origin than the known one of what is installed."""
    return bool(offer.homes) and candidate.repository not in offer.homes


def foreign_detail(offer: Offer, candidate: Candidate) -> str:
    """Return the words for a candidate from another known origin."""
    name = offer.installed[-1].name
    came = f"installed from {' or '.join(sorted(offer.homes))}, it is from {candidate.repository}"
    return f"{came}; policy: [{{origin_change: {name}}}] allows it, or one origin for both"


def origin_detail(origin: str, candidate: Candidate) -> str:
    """Return the words for a candidate from another repository than a noautoupdate one."""
    came = f"installed from {origin}, which is left out of autoupdate"
    return f"{came}; {candidate.repository} would replace it; --upgrade {candidate.nevra} allows it"


def _together(offer: Offer, candidate: Candidate, compare: Compare) -> Hiding | None:
    """Architectures installed at one version only move to a version that all of them have."""
    rows = [p for p in offer.installed if p.arch != candidate.arch]
    own = [p for p in offer.installed if p.arch == candidate.arch]
    if not own or not rows or any(p.evr != own[0].evr for p in (*own, *rows)):
        return None
    if compare(candidate.evr, own[0].evr) <= 0:
        return None
    offered = {c.arch for c in offer.candidates if c.evr == candidate.evr}
    missing = sorted({p.arch for p in rows} - offered)
    return together_hiding(candidate, missing) if missing else None


def together_hiding(candidate: Candidate, missing: Sequence[str], name: str = "") -> Hiding:
    """Return the hiding of a package whose other installed architectures can't follow.

    With a `name` it is the one that the candidate would replace.
    """
    arches = " and ".join(sorted([*missing, candidate.arch]))
    to = f"{candidate.name} {candidate.evr}" if name else candidate.evr
    where = f"{' and '.join(missing)} can't move to {to}"
    return Hiding(
        HeldReason.TOGETHER, f"{name or candidate.name} is installed as {arches}; {where}"
    )


def closed_hiding(candidate: Candidate) -> Hiding:
    """Return the hiding of a package in a repository that is left out of autoupdate."""
    only = f"only in {candidate.repository}, which is left out of autoupdate"
    return Hiding(HeldReason.NOAUTOUPDATE, f"{only}; --upgrade {candidate.name} takes it")


def came_from(package: InstalledPackage, candidates: Iterable[Candidate]) -> set[str]:
    """Return the repositories that have the very package, told by build time and vendor."""
    return {
        c.repository
        for c in candidates
        if c.nevra == package.nevra
        and c.buildtime == package.buildtime != 0
        and c.vendor == package.vendor
    }


def told_origin(package: InstalledPackage) -> str:
    """Return the repository that a package came from as the journal says, or nothing."""
    return package.origin


def origin_of(
    package: InstalledPackage, candidates: Iterable[Candidate], closed: Iterable[str]
) -> str:
    """Return the repository left out of autoupdate that a package came from, or nothing.

    It is what the journal says. Else it came from there when a package of the same name, version,
    arch, build time and vendor is there and in no other repository; what an inventory does not
    tell matches anything.
    """
    if told := told_origin(package):
        return told if told in set(closed) else ""
    same = [c for c in candidates if c.nevra == package.nevra]
    if package.buildtime:
        same = [c for c in same if c.buildtime in (0, package.buildtime)]
    if package.vendor:
        same = [c for c in same if c.vendor == package.vendor]
    homes = {c.repository for c in same}
    return min(homes) if homes and homes <= set(closed) else ""
