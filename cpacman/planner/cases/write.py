"""A solve as one case file: what it was made from, and what came out.

Invariant: a case that is written was replayed first. The small one, of what matters to the host,
is taken when it gives the same result, else the one with everything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cpacman import __version__
from cpacman.errors import InputError, Problem, UsageError
from cpacman.model import Dependency, Failure, Inventory, Plan, Request, short_id
from cpacman.planner.actions import split_nevra
from cpacman.planner.cases import relevant
from cpacman.planner.cases.build import plan_case
from cpacman.planner.cases.expect import differences, shown
from cpacman.planner.cases.relevant import Row
from cpacman.planner.cases.text import Case, read_sections
from cpacman.planner.metadata import is_in_primary
from cpacman.planner.modules import read_modules
from cpacman.planner.plan import ChannelInput
from cpacman.planner.reported import arch_of
from cpacman.planner.ruling import Policy
from cpacman.planner.solver import Source

_DEPENDENCIES = tuple(kind for kind in relevant.KINDS if kind != "provides")


def dump_case(channel: ChannelInput, request: Request, plan: Plan, path: Path) -> None:
    """Write the solve of the one host of a channel into a file, as a case that can be replayed.

    Raises:
        UserError: there are several hosts, or the file can't be written.
    """
    text = write_case(channel, request, plan)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(path), f"can't be written: {error.strerror}")) from error


def write_case(channel: ChannelInput, request: Request, plan: Plan) -> str:
    """Return the text of a case for the one host of a channel, and what was planned for it.

    Raises:
        UsageError: there is not exactly one host, or a repository's name has spaces.
    """
    if len(channel.inventories) != 1:
        what = f"there are {len(channel.inventories)} hosts"
        raise UsageError(Problem("dump", what, "dump one host at a time"))
    if wrong := [source.name for source in channel.sources if len(source.name.split()) != 1]:
        raise UsageError(Problem("dump", f"{wrong[0]!r} has spaces", "rename the repository"))
    sources = sorted(channel.sources, key=lambda source: source.name)
    rows = {source.name: relevant.read_rows(source) for source in sources}
    (inventory,) = channel.inventories
    policy = channel.policies.get(inventory.host, channel.policy)
    installed = [relevant.installed_row(package) for package in inventory.packages]
    said = [*request.words, *(word for line in policy.lines for word in line.packages)]
    # A provide with its version, `feature = 1`, asks for the name that it begins with.
    words = [*said, *(word.split()[0] for word in said if " " in word.strip())]
    kept = relevant.select(rows, installed, words)
    for some in (kept, rows):
        every = [*installed, *(row for found in some.values() for row in found)]
        asked = relevant.all_asked(every, words) | _module_names(sources)
        whole = {s.name: _with_paths(s, some[s.name], asked) for s in sources}
        text = "\n".join(_lines(channel, request, plan, policy, whole, asked)) + "\n"
        different = _different(text, plan)
        if not different:
            return text
    return f"{text}# When this was written it did not replay: {'; '.join(different)}\n"


def _module_names(sources: Iterable[Source]) -> set[str]:
    """Return the names of all packages of streams: who provides one may be shadowed by it."""
    found = (read_modules(s.name, Path(s.modules), None) for s in sources if s.modules)
    builds = (build for modules in found for build in modules.streams)
    return {split_nevra(nevra)[0] for build in builds for nevra in build.artifacts}


def _with_paths(source: Source, rows: Sequence[Row], asked: set[str]) -> list[Row]:
    """Add the paths that somebody asks for and that only filelists tell."""
    paths = {name for name in asked if name.startswith("/") and not is_in_primary(name)}
    known = {path for row in rows for path in row.files}
    owners = relevant.read_owners(source, paths - known)
    return [row._replace(files=(*row.files, *owners.get(row.nevra, ()))) for row in rows]


def _different(text: str, plan: Plan) -> list[str]:
    """Replay a case and return how the result differs."""
    case = Case("", read_sections(text))
    with tempfile.TemporaryDirectory() as scratch:
        return list(differences(case, plan_case(case, Path(scratch))))


def _lines(
    channel: ChannelInput,
    request: Request,
    plan: Plan,
    policy: Policy,
    rows: Mapping[str, Sequence[Row]],
    asked: set[str],
) -> Iterator[str]:
    (inventory,) = channel.inventories
    yield f"# {inventory.host} from {short_id(channel.snapshot)}, dumped by cpacman {__version__}"
    for source in sorted(channel.sources, key=lambda source: source.name):
        kept = relevant.trim(rows[source.name], asked)
        yield from _repository(source, kept)
        yield from _modules(source)
    names = {row.name for found in rows.values() for row in found}
    for advisory in channel.advisories:
        if mine := [nevra for nevra in advisory.packages if split_nevra(nevra)[0] in names]:
            words = [advisory.id, "reboot" if advisory.reboot else ""]
            words += [f"type={advisory.type}" if advisory.type else ""]
            words += [f"severity={advisory.severity}" if advisory.severity else ""]
            yield " ".join(filter(None, ["advisory", *words, *advisory.cves]))
            yield from (f"  {nevra}" for nevra in mine)
    yield from _host(inventory, asked)
    yield from _policy(policy)
    yield from _request(request)
    yield from _result(plan, inventory.host)


def _repository(source: Source, rows: Iterable[Row]) -> Iterator[str]:
    options = ["" if source.autoupdate else "noautoupdate"]
    options += [f"priority={source.priority}" if source.priority != 99 else ""]
    options += ["module_hotfixes" if source.module_hotfixes else ""]
    options += [f"origin={source.origin}" if source.origin else ""]
    yield " ".join(filter(None, ["repo", source.name, *options]))
    for row in sorted(rows, key=lambda row: row.nevra):
        yield from _package(row)


def _package(row: Row) -> Iterator[str]:
    yield f"  {row.nevra}"
    yield f"    vendor: {row.vendor or '-'}"
    if row.buildtime:
        yield f"    buildtime: {row.buildtime}"
    if row.origin:
        yield f"    origin: {row.origin}"
    for kind in ("provides", *_DEPENDENCIES):
        yield from (f"    {kind}: {_text(dep)}" for dep in row.deps[kind])
    yield from (f"    files: {path}" for path in row.files)


def _text(dep: Dependency) -> str:
    return " ".join(filter(None, dep))


def _modules(source: Source) -> Iterator[str]:
    if not source.modules:
        return
    found = read_modules(source.name, Path(source.modules), None)
    defaults = {f"{module}:{stream}" for module, stream in found.defaults}
    yield f"modules {source.name}"
    for build in found.streams:
        yield f"  {build.name}"
        yield from (f"    artifacts: {nevra}" for nevra in build.artifacts)
        for module, streams in build.requires:
            yield from (f"    requires: {module}:{stream}" for stream in streams or [""])
        yield f"    version: {build.version}"
        yield f"    context: {build.context}"
        if build.name in defaults:
            yield "    default: yes"


def _host(inventory: Inventory, asked: set[str]) -> Iterator[str]:
    options = [
        f"{key}={value}"
        for key, value in (
            ("arch", arch_of(inventory)),
            ("kernel", inventory.kernel),
            ("modules", ",".join(inventory.modules)),
            ("disabled", ",".join(inventory.modules_disabled)),
        )
        if value
    ]
    yield " ".join(["installed", inventory.host, *options])
    rows = map(relevant.installed_row, inventory.packages)
    for row in sorted(relevant.trim(rows, asked), key=lambda row: row.nevra):
        yield from _package(row)
    if inventory.holds:
        yield "holds"
        yield from (f"  {text}" for text in inventory.holds)


def _policy(policy: Policy) -> Iterator[str]:
    yield "policy"
    for line in policy.lines:
        to = " ".join(vendor.replace(" ", "_") for vendor in line.vendors) or line.to
        words = " ".join("".join(word.split()) for word in line.packages)
        yield f"  {line.kind}: {words}{f' to {to}' if to else ''}"
        yield f"    where: {line.where}"
        yield f"    rank: {line.rank}"
        yield from (f"    {k}: {v}" for k in ("reason", "until") if (v := getattr(line, k)))
    if policy.without:
        yield f"  without: {' '.join(policy.without)}"
    yield f"  installonly_limit: {policy.installonly_limit}"
    if not policy.weak_deps:
        yield "  weak_deps: no"


def _request(request: Request) -> Iterator[str]:
    """Yield what was asked for; a flag that is off by request says no."""
    yield "request"
    for field in msgspec.structs.fields(Request):
        value = getattr(request, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield f"  {field.name}" if value else f"  {field.name}: no"
        else:
            yield from (f"  {field.name}: {word}" for word in value)


def _result(plan: Plan, host: str) -> Iterator[str]:
    failure: Failure | None = plan.failed.get(host)
    if failure is not None:
        yield f"failed {failure.error.value}"
        yield from (f"  {cause}" for cause in failure.causes)
        return
    transaction = plan.transactions[plan.hosts[host]]
    yield "expect"
    for text, reason, advisories in shown(transaction):
        yield f"  {text} ({reason}) {advisories}".rstrip()
    yield "held"
    for held in transaction.held:
        head = f"  {held.nevra} -> {held.candidate} {held.reason.value}"
        yield f"{head}: {held.detail}" if held.detail else head
