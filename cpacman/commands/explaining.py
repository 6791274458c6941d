"""Commands that explain: why a package is planned, what is outstanding.

Invariants: nothing is changed and no host is asked; what is told of a plan comes from the plan's
own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection, by_channel, select
from cpacman.commands.offering import offered
from cpacman.commands.planning import channel_for
from cpacman.config import parse_duration
from cpacman.depot.snapshot import load_snapshot
from cpacman.errors import Problem, UsageError
from cpacman.model import SEVERITIES, Advisory, Host, Request
from cpacman.planner.cases.write import dump_case
from cpacman.planner.outstanding import Outstanding, rank
from cpacman.planner.plan import plan_hosts
from cpacman.planner.solver import Versions
from cpacman.planner.why import explain

# ---- why -----------------------------------------------------------------------------------


def why(
    context: Context,
    host: str,
    package: str,
    *,
    request: Request | None = None,
    dump: str | None = None,
) -> dict[str, Any]:
    """Tell why a package is, or is not, in the plan of a host.

    Args:
        context: the outside world.
        host: a host that was asked for its inventory before.
        package: as one names it.
        request: what the plan would be asked for; everything is upgraded when not given.
        dump: the file that gets the solve as a case, absolute.

    Raises:
        InputError: the host can't be planned at all, or nothing is called that.
        UsageError: a relative path.
    """
    request, cache = request or Request(), context.settings.cache_dir / "solver"
    channel = channel_for(context, host)
    told = explain(channel, package, request=request, cache=cache)
    if dump is not None:
        path = Path(dump)
        if not path.is_absolute():
            raise UsageError(Problem("dump", f"{dump} is relative", "give the whole path"))
        dump_case(channel, request, plan_hosts([channel], request=request, cache=cache), path)
    return {"why": {**msgspec.to_builtins(told), **({"dump": dump} if dump else {})}}


# ---- advisories ----------------------------------------------------------------------------


def advisories(
    context: Context,
    selection: Selection,
    *,
    hosts: Sequence[str] = (),
    severity: Sequence[str] = (),
    cve: Sequence[str] = (),
    older_than: str | int | None = None,
) -> dict[str, Any]:
    """Tell which advisories of their class's snapshots the selected hosts lack.

    Args:
        context: the outside world.
        selection: which hosts.
        hosts: only these of them.
        severity: only such advisories.
        cve: only those about these.
        older_than: only those issued so long ago, as `14d`; of which nobody tells when stay in.

    Raises:
        UsageError: no such hosts, a severity that no advisory can have, or no duration.
    """
    before = _before(context, older_than)
    wrong = [word for word in severity if word.lower() not in SEVERITIES]
    if wrong:
        mend = f"there are: {', '.join(SEVERITIES)}"
        raise UsageError([Problem("severity", f"{word!r} is none", mend) for word in wrong])
    chosen = select(context, selection).hosts
    if unknown := [name for name in hosts if name not in chosen]:
        raise UsageError([Problem(f"host {name}", "is not among them") for name in unknown])
    chosen = {name: one for name, one in chosen.items() if not hosts or name in hosts}
    classes = {
        name: _outstanding(context, name, mine, _Wanted.of(severity, cve, before))
        for name in context.settings.class_names
        if (mine := {h: one for h, one in chosen.items() if one.class_ == name})
    }
    return {"advisories": {"classes": classes, "older_than": older_than}}


def _before(context: Context, older_than: str | int | None) -> float | None:
    if older_than is None:
        return None
    try:
        return context.clock() - parse_duration(older_than)
    except ValueError as error:
        raise UsageError(Problem("older_than", str(error), "write 14d, 36h or 2w")) from error


class _Wanted(NamedTuple):
    """Which advisories were asked for; nothing said means all."""

    severities: frozenset[str]
    cves: frozenset[str]
    before: float | None

    @classmethod
    def of(cls, severity: Iterable[str], cve: Iterable[str], before: float | None) -> _Wanted:
        """Return the filter that was typed; `before` is a moment."""
        return cls(frozenset(map(str.lower, severity)), frozenset(map(str.upper, cve)), before)

    def fits(self, advisory: Advisory) -> bool:
        """Return whether an advisory is among those asked for."""
        severe = not self.severities or advisory.severity.lower() in self.severities
        if self.before is not None and advisory.issued > self.before:
            return False
        return severe and (not self.cves or not self.cves.isdisjoint(map(str.upper, advisory.cves)))


def _outstanding(
    context: Context, class_: str, hosts: Mapping[str, Host], wanted: _Wanted
) -> dict[str, Any]:
    """Return what the hosts of one class lack of what the class holds."""
    pointers = context.store.pointers()
    inventories = context.store.inventories(sorted(hosts))
    unknown = sorted(hosts.keys() - inventories.keys())
    lacking: dict[str, _Lacking] = {}
    for channel, names in by_channel(hosts.values()).items():
        if (pointer := pointers.get((class_, channel))) is None:
            unknown += [name for name in names if name in inventories]
            continue
        held = load_snapshot(context.settings.depot, pointer["snapshot"])
        snapshot = offered(context.settings, held, class_)
        # Several repositories may tell of one advisory, each of the packages that it has itself.
        fitting = [one for one in snapshot.advisories if wanted.fits(one)]
        known = {one.id: one for one in fitting}
        rules = Outstanding(fitting, Versions().compare)
        for name in (n for n in names if n in inventories):
            for number, packages in rules.of(inventories[name].packages).items():
                lacking.setdefault(number, _Lacking(known[number])).add(name, packages)
    rows = sorted(lacking.values(), key=lambda row: row.order)
    return {
        "hosts": len(hosts),
        "affected": len({host for row in rows for host in row.hosts}),
        "unknown": sorted(unknown),
        "undated": sum(not row.advisory.issued for row in rows),
        "severities": _by_severity(rows),
        "advisories": [row.body() for row in rows],
    }


class _Lacking:
    """One advisory, which hosts lack it, and which of their packages it would renew."""

    def __init__(self, advisory: Advisory) -> None:
        self.advisory = advisory
        self.hosts: list[str] = []
        self.packages: set[str] = set()

    def add(self, host: str, packages: set[str]) -> None:
        """Note a host."""
        self.hosts.append(host)
        self.packages |= packages

    @property
    def order(self) -> tuple[int, int, str]:
        """The worst first, then what most hosts lack."""
        return (rank(self.advisory.severity), -len(self.hosts), self.advisory.id)

    def body(self) -> dict[str, Any]:
        """Return it as plain values."""
        one = self.advisory
        return {
            "id": one.id,
            "type": one.type,
            "severity": one.severity,
            "title": one.title,
            "cves": list(one.cves),
            "issued": one.issued or None,
            "updated": one.updated or None,
            "packages": sorted(self.packages),
            "hosts": len(self.hosts),
            "on": sorted(self.hosts),
        }


def _by_severity(rows: Sequence[_Lacking]) -> dict[str, dict[str, int]]:
    """Return severity -> how many advisories and CVEs, and on how many hosts; the worst first."""
    found: dict[str, list[_Lacking]] = {}
    for row in rows:
        found.setdefault(row.advisory.severity or "none", []).append(row)
    return {
        word: {
            "advisories": len(mine),
            "cves": len({cve for row in mine for cve in row.advisory.cves}),
            "hosts": len({host for row in mine for host in row.hosts}),
        }
        for word, mine in found.items()
    }
