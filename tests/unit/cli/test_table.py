"""The table of a plan: pure text from a plan."""

from __future__ import annotations

import msgspec

from cpacman.model import (
    Action,
    ActionKind,
    FailedError,
    Failure,
    Held,
    HeldReason,
    Plan,
    Request,
    Transaction,
)
from cpacman.report.table import group_hosts, render_plan


def action(
    kind: ActionKind, name: str, version: str, old: str | None, arch: str = "x86_64"
) -> Action:
    """Return an action."""
    return Action(
        action=kind,
        name=name,
        epoch=0,
        version=version,
        release="1",
        arch=arch,
        nevra_=f"{name}-{version}-1.{arch}",
        from_=old,
        repository="base",
        size=2_000_000,
        advisories=("ADV-1",),
    )


def plan(**fields: object) -> Plan:
    """Return a plan of three hosts in two groups, one unchanged and one that failed."""
    held = Held(nevra="t-1-1.noarch", candidate="t-2-1.x86_64", reason=HeldReason.ARCH, detail="x")
    one = Transaction(
        actions=(
            action(ActionKind.UPGRADE, "ssl", "2", "ssl-1-1.x86_64"),
            action(ActionKind.OBSOLETE, "new", "1", "old-1-1.x86_64"),
            action(ActionKind.REMOVE, "gone", "1", None),
            action(ActionKind.UPGRADE, "tool", "2", "tool-1-1.noarch"),
        ),
        held=(held,),
        size=4_000_000,
        reboot=True,
        reversible=False,
        vendor_changes=("new-1-1.x86_64: V -> W",),
    )
    two = Transaction(actions=(action(ActionKind.DOWNGRADE, "z", "1", "z-2-1.x86_64"),))
    given = {
        "plan_id": "p-0123456789abcdef",
        "request": Request(upgrade=("ssl",)),
        "policy": "h",
        "snapshots": {"el9": "s-abcdefabcdefabcd"},
        "hosts": {"b": "t-1", "a": "t-1", "c": "t-2", "d": "t-0"},
        "inventories": {},
        "transactions": {"t-0": Transaction(), "t-1": one, "t-2": two},
        "failed": {"e": Failure(error=FailedError.REQUIRES, causes=("x needs y\x1b[0m",))},
        **fields,
    }
    return Plan(**given)  # type: ignore[arg-type]


def test_whole_screen() -> None:
    """Every part of a plan has its line."""
    text = render_plan(plan(), class_="production", by="alice", severities={"ADV-1": "Low"})
    lines = text.splitlines()
    assert (
        lines[0] == "plan p-0123456789ab  production  el9 @ s-abcdefabcdef  upgrade ssl  by alice"
    )
    assert lines[1] == "5 hosts: 3 change in 2 groups, 1 unchanged, 1 NOT PLANNED"
    bare = msgspec.structs.replace(plan(), request=Request(reasons=False))
    assert "  no reasons" in render_plan(bare, class_="production").splitlines()[0]
    assert lines[2] == "A  2 hosts, 4.0 MB each, REBOOT: a b"
    assert "  upgrade ssl.x86_64   1-1 -> 2-1" in lines[3]
    assert lines[3].endswith("ADV-1 Low")
    assert "1-1 replaces old-1-1.x86_64" in lines[4]
    assert "tool-1-1.noarch -> 2-1" in lines[6]
    assert "held  t-1-1.noarch -> t-2-1.x86_64  arch: x  (2 hosts)" in lines
    counts = "removed 2  downgraded 1  vendor changed 2  architecture changed 2"
    assert f"{counts}  not reversible 2 (b a)" in lines
    assert "vendor changed  new-1-1.x86_64: V -> W" in lines
    assert lines[-1] == "NOT PLANNED e: requires: x needs y?[0m"


def test_nothing_steers_the_terminal() -> None:
    """Control characters in a plan's text are shown as question marks."""
    assert "\x1b" not in render_plan(plan())


def test_one_group() -> None:
    """A single group can be shown alone."""
    text = render_plan(plan(), group="B")
    assert "B  1 host" in text
    assert "A  2 hosts" not in text


def test_many_actions_are_cut() -> None:
    """A long group is cut, and says so; in full it is not."""
    rows = tuple(action(ActionKind.INSTALL, f"p{n}", "1", None) for n in range(30))
    given = plan(transactions={"t-0": Transaction(), "t-1": Transaction(actions=rows),
                               "t-2": Transaction()})  # fmt: skip
    assert "  ... and 10 more (group=A)" in render_plan(given)
    assert "p29.x86_64" in render_plan(given, full=True)


def test_old_inventories_are_told() -> None:
    """The age of inventories that are older than a day is told."""
    assert "1 inventory 6 d old (a)" in render_plan(plan(), ages={"a": 6.5 * 86400, "b": 10})


def test_groups_are_ordered() -> None:
    """The largest group is A; among equal ones the first host decides."""
    assert [(g.letter, g.hosts) for g in group_hosts(plan())] == [("A", ("a", "b")), ("B", ("c",))]
