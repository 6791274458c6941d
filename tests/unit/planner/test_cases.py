"""Every case file under `cases/` is planned and compared with what it expects."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from cpacman.model import canonical_json
from cpacman.planner.plan import plan_hosts
from tests.unit.planner.casefile import channel_of, check_case, plan_case, read_case, request_of

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path) -> None:
    """The plan of a case has the actions, holds and failures that the case says."""
    case = read_case(path)
    check_case(case, plan_case(case, tmp_path))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case_in_another_order(path: Path, tmp_path: Path) -> None:
    """Repositories, hosts and packages in another order give the same bytes."""
    case = read_case(path)
    request = request_of(case)
    channel = channel_of(case, tmp_path)
    first = plan_hosts([channel], request=request)
    shuffle = random.Random(7).sample
    hosts = [
        msgspec.structs.replace(i, packages=tuple(shuffle(i.packages, len(i.packages))))
        for i in shuffle(channel.inventories, len(channel.inventories))
    ]
    turned = case._replace(
        sections=[
            s._replace(lines=s.lines[::-1]) if s.words[0] == "repo" else s for s in case.sections
        ]
    )
    sources = channel_of(turned, tmp_path / "turned").sources[::-1]
    other = msgspec.structs.replace(channel, inventories=tuple(hosts), sources=sources)
    assert canonical_json(plan_hosts([other], request=request)) == canonical_json(first)
