"""Chunks: every host gets what it asked for, once, and nothing else."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpacman.transport.chunks import merged, plan_chunks

HOSTS = ("web1", "web2", "db1")
NEEDS = st.dictionaries(
    st.sampled_from(HOSTS),
    st.sets(st.sampled_from("abcd"), max_size=4).map(
        lambda names: [(name * 64, 0, 10 * (1 + "abcd".index(name))) for name in sorted(names)]
    ),
)


# A busy machine is slow, which is nothing that these cases are about.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NEEDS, st.integers(min_value=1, max_value=64))
def test_each_host_gets_each_byte_once(needs, limit) -> None:
    """The chunks of a host cover its segments exactly once, and nothing beside them."""
    got: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for chunk in plan_chunks(needs, limit):
        assert 0 < chunk.size <= limit
        for host in chunk.hosts:
            for sha256, offset, length in chunk.segments:
                got[host][sha256] += range(offset, offset + length)
    for host, segments in needs.items():
        wanted = {sha256: list(range(length)) for sha256, _, length in segments}
        assert {sha256: sorted(bytes_) for sha256, bytes_ in got[host].items()} == wanted


def test_equal_needs_share_chunks() -> None:
    """What all hosts lack is sent once, to all of them, before what one lacks."""
    common, own = ("a" * 64, 0, 100), ("b" * 64, 0, 50)
    chunks = plan_chunks({"web1": [common], "web2": [own, common]}, 1000)
    assert [(sorted(c.hosts), c.size) for c in chunks] == [(["web1", "web2"], 100), (["web2"], 50)]


def test_small_files_travel_together() -> None:
    """Many small files fill one chunk instead of a load each."""
    needs = {"web1": [(f"{n:064x}", 0, 10) for n in range(100)]}
    assert [chunk.size for chunk in plan_chunks(needs, 500)] == [500, 500]


def test_no_byte_is_sent_twice_to_who_asks_for_it_twice() -> None:
    """Segments that repeat, overlap or touch are one; other files and gaps stay apart."""
    asked = [("b", 0, 5), ("a", 0, 10), ("a", 0, 10), ("a", 5, 10), ("a", 15, 1), ("a", 20, 2)]
    assert merged(asked) == [("a", 0, 16), ("a", 20, 2), ("b", 0, 5)]
    assert merged([]) == []
