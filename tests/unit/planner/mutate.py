"""Every rule of ours is held by a case: each is disabled in turn, and a case has to fail.

`python -m tests.unit.planner.mutate` tries every case for each rule and prints which ones fail;
a rule that no case misses makes it exit with 1. The test in CI looks for the first one.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cpacman.planner import held, modes, plan, policy, resolve, ruling, solver, wishes
from cpacman.planner.host import Host
from cpacman.planner.ruling import Line, Policy
from cpacman.planner.solver import streams, universe
from tests.unit.planner.casefile import check_case, plan_case, read_case

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))

Patch = Callable[[], Any]


def _returning(where: Any, name: str, value: Any) -> Patch:
    """Make a function answer as if its rule did not exist."""
    return lambda: mock.patch.object(where, name, lambda *_, **__: value)


def _without_kind(kind: str) -> Patch:
    """Forget the policy lines of one kind."""
    known = Policy.of

    def of(self: Policy, asked: str) -> tuple[Line, ...]:
        return () if asked == kind else known(self, asked)

    return lambda: mock.patch.object(Policy, "of", of)


def _both(*patches: Patch) -> Patch:
    """Disable two places that keep one rule."""

    @contextmanager
    def patched() -> Iterator[None]:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            yield

    return patched


def _value(where: Any, name: str, value: Any) -> Patch:
    return lambda: mock.patch.object(where, name, value)


def _same(value: Any, *_: Any) -> Any:
    return value


KINDS = (
    "lock", "exclude", "block", "pin", "together", "arch_change", "vendor_change",
    "origin_change", "allow_removal", "allow_downgrade", "vendors", "protect", "free",
)  # fmt: skip

RULES: dict[str, Patch] = {
    **{f"policy line {kind}": _without_kind(kind) for kind in KINDS},
    "the narrower line rules": _value(ruling, "_narrowest", list),
    "lines that nothing overrides": _value(ruling, "ALWAYS", 0),
    # Looked at before solving and, as a second line of defence, in every solution.
    "an update keeps its architecture": _returning(policy, "is_arch_change", False),
    "an update keeps its vendor": _returning(policy, "_vendor", None),
    "an obsoleting package keeps vendor, locks, origin": _returning(
        resolve, "_refuse_obsolete", None
    ),
    "an update keeps its origin": _returning(policy, "_origin", None),
    "what the journal says of origins": _returning(policy, "told_origin", ""),
    "a known origin is kept": _returning(policy, "is_foreign", False),
    "what is known of origins": _returning(policy, "came_from", set()),
    "origin of closed repositories": _returning(policy, "origin_of", ""),
    "closed repositories serve nothing unnamed": _value(
        solver.HostView,
        "_shut",
        functools.partialmethod(
            lambda self, known, hidden, closed, opened: known(self, hidden, (), opened),
            solver.HostView._shut,
        ),
    ),
    "multilib pairs move together": _both(
        _returning(policy, "_together", None), _returning(held, "_tied", None)
    ),
    "architectures are not parted by a dependency": _returning(resolve, "_parted", ()),
    "fixes that a successor has installed already": _returning(modes, "_version_of", ""),
    "a successor takes all architectures of a pair": _returning(resolve, "_partings_by_name", ()),
    "other architectures follow a named one": _returning(resolve, "_followers", []),
    "locks to ranges": _returning(policy, "is_within", True),
    "what is locked is not obsoleted": _returning(policy, "locks_installed", False),
    "what is excluded is not obsoleted": _returning(policy, "excludes_on", ()),
    "an installed successor is enough": _returning(Host, "has_successor", False),
    "successors are installed": _returning(Host, "successors", ()),
    "priority comes before architecture": _value(Host, "preferred", lambda _, rows: list(rows)),
    "what ties architectures is told": _returning(held, "_tied", None),
    "locks of what is not installed": _returning(Host, "_locked_elsewhere", set()),
    "protected packages": _returning(Host, "why_protected", ""),
    "the running kernel": _returning(policy, "is_running", False),
    "the kernel limit": _returning(resolve, "_over_limit", frozenset()),
    "kernels stand side by side": _value(universe, "INSTALL_ONLY", ()),
    "holds of the host": _value(plan, "with_holds", _same),
    "rules of the request": _value(plan, "with_request", _same),
    "module streams": _returning(streams.Streams, "hidden_ids", set()),
    "modules that are disabled": _value(
        streams.Streams,
        "_active",
        functools.partialmethod(
            lambda self, known, enabled, _: known(self, enabled, ()), streams.Streams._active
        ),
    ),
    "needs of module streams": _returning(streams, "_solve_modules", set()),
    "sources of streams shadow nothing": _value(
        streams, "_binary_names", lambda nevras: {n.rsplit("-", 2)[0] for n in nevras}
    ),
    "repositories for some hosts": _returning(solver.HostView, "is_masked", False),
    "weak dependencies refused before": _value(solver.HostView, "_unwanted", ()),
    "weak dependencies that policy takes none of": _returning(resolve, "_takes_weak", True),
    "priority of repositories": _returning(Host, "priority", 99),
    "filelists are asked": _returning(solver.Universe, "_provide_unlisted", None),
    "changes between 32 and 64 bit that are allowed": _returning(Host, "swap", None),
    "architectures that policy lets come, in every mode": _value(
        Host, "may_become", lambda _, package, candidate: package.arch == candidate.arch
    ),
    "fixes that want a change between 32 and 64 bit": _returning(modes, "_fixing_swaps", ()),
    "a sync takes successors of what may not come": _returning(modes, "_heirs", ()),
    "what is held is told": _returning(held, "_left", ()),
    "what is not synchronised is told": _returning(held, "_left_older", ()),
    "what a snapshot lacks is told": _returning(modes, "find_absent", ()),
    "only what advisories fix": _returning(wishes, "read_advised", resolve.Wish(())),
    "words narrow a mode": _returning(wishes, "_choose", None),
    "versions narrow a mode": _value(modes, "_among", lambda found, *_: list(found)),
    "words of a mode open closed repositories": _value(modes, "_opened", lambda *_: frozenset()),
    "minimal fixes": _value(modes, "_oldest", lambda _, rows: rows),
    "priority holds for advisories": _value(modes, "_ranked", lambda host, package, rows: rows),
    "a named version opens its origin": _returning(resolve, "_free_pinned", None),
    "named versions are not older": _returning(wishes, "_fail_if_older", None),
    "named and forbidden fails": _returning(wishes, "_fail_if_forbidden", None),
    "an upgrade may be a replacement": _returning(
        wishes, "_replacement", resolve.Wish((), frozenset())
    ),
}


def fails(path: Path) -> bool:
    """Return whether a case fails."""
    with tempfile.TemporaryDirectory() as scratch:
        case = read_case(path)
        try:
            check_case(case, plan_case(case, Path(scratch)))
        except Exception:
            return True
    return False


@contextmanager
def disabled(rule: str) -> Iterator[None]:
    """Disable a rule for a while."""
    with RULES[rule]():
        yield


def missing(rule: str) -> Iterator[str]:
    """Yield the cases that fail without a rule."""
    with disabled(rule):
        yield from (path.stem for path in CASES if fails(path))


def main() -> int:
    """Print each rule and the cases that fail without it."""
    bare = []
    for rule in RULES:
        found = list(missing(rule))
        sys.stdout.write(f"{rule}: {len(found)}: {' '.join(found[:6])}\n")
        bare += [] if found else [rule]
    for rule in bare:
        sys.stdout.write(f"NO CASE FAILS WITHOUT: {rule}\n")
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
