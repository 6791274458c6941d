"""Snapshots that stay for single packages."""

from __future__ import annotations

from cpacman.depot.wayback import Build, keep_for_packages


def of(nevra: str, sha256: str, channel: str = "el9") -> dict[Build, str]:
    """Return one needed package, for a reason that is called as it is."""
    return {(channel, nevra, sha256): f"for {nevra}"}


def test_the_newest_that_has_it_stays() -> None:
    """What one that stays anyhow has, or a newer one kept for it, keeps no other one."""
    reasons = {"s-4": ("class",), "s-3": (), "s-2": (), "s-1": ()}
    having = [("s-4", of("a", "1")), ("s-3", {}), ("s-2", of("b", "1") | of("a", "1")),
              ("s-1", of("a", "1") | of("b", "1"))]  # fmt: skip
    assert keep_for_packages(reasons, having) == {
        "s-4": ("class",), "s-3": (), "s-2": ("for b",), "s-1": (),
    }  # fmt: skip


def test_another_build_or_channel_is_another_package() -> None:
    """Bytes count, not names: each build of a name is kept, and that of each channel."""
    reasons = {"s-3": ("class",), "s-2": (), "s-1": ()}
    having = [("s-3", of("a", "1")), ("s-2", of("a", "2")), ("s-1", of("a", "1", "el8"))]
    found = keep_for_packages(reasons, having)
    assert (found["s-2"], found["s-1"]) == (("for a",), ("for a",))


def test_nothing_is_needed() -> None:
    """Without a need nothing changes."""
    assert keep_for_packages({"s-1": ()}, []) == {"s-1": ()}
