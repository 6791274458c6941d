"""Gates: what passes, what fails, and what is neither and therefore never passes."""

from __future__ import annotations

from typing import Any

import pytest

from cpacman.rollout.gate import (
    Expected,
    Finding,
    Reply,
    Verdict,
    combine,
    judge_command,
    judge_http,
    judge_reply,
    judge_states,
)

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("reply", "expected", "verdict"),
    [
        (Reply(True, True), Expected(), PASS),
        (Reply(True, False), Expected(), FAIL),
        (Reply(True, False), Expected(False), PASS),
        (Reply(True, 1), Expected(True), FAIL),
        (Reply(True, "running 3"), Expected(matches="running [0-9]"), PASS),
        (Reply(True, "stopped"), Expected(matches="running"), FAIL),
        (Reply(True, 5), Expected(matches="5"), FAIL),
        (Reply(True, {"a": [1]}), Expected({"a": [1]}), PASS),
        (Reply(False), Expected(), OPEN),
        (Reply(True, None), Expected(), OPEN),
        (Reply(True, ""), Expected(""), OPEN),
        (Reply(True, "'x.y' is not available.", 254), Expected(), OPEN),
        (Reply(True, "Traceback ...\nValueError: no", 1), Expected(), OPEN),
        (Reply(True, False, 1), Expected(), FAIL),
        (Reply(True, "NOT OK: 5 workers", 2), Expected(matches="OK"), OPEN),
        (Reply(True, 3, 3), Expected(3), PASS),
    ],
)
def test_salt_function(reply: Reply, expected: Expected, verdict: Verdict) -> None:
    """Only the expected value passes; silence and errors are no answer to the question."""
    assert judge_reply(reply, expected)[0] is verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ({"a": {"result": True, "changes": {}}}, PASS),
        ({"a": {"result": None, "changes": {"x": 1}, "comment": "would start"}}, FAIL),
        ({"a": {"result": True, "changes": {"x": 1}}}, FAIL),
        ({"a": {"result": False, "changes": {}}}, FAIL),
        ({"a": {"result": True}, "b": {"result": False}}, FAIL),
        (["Rendering SLS 'base:x' failed"], OPEN),
        ({}, OPEN),
        ({"a": "what"}, OPEN),
        (None, OPEN),
    ],
)
def test_states(value: Any, verdict: Verdict) -> None:
    """States pass when nothing would change; what did not compile says nothing."""
    assert judge_states(Reply(True, value))[0] is verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (Reply(True, "ok", 0), PASS),
        (Reply(True, "bad", 2), FAIL),
        (Reply(True, "who knows", 3), OPEN),
        (Reply(True, "", 127), OPEN),
        (Reply(True, "", -9), OPEN),
        (Reply(False, detail="still running after 30 s"), OPEN),
    ],
)
def test_command(reply: Reply, verdict: Verdict) -> None:
    """Exit codes mean what monitoring plugins mean by them; a killed command says nothing."""
    assert judge_command(reply, Expected())[0] is verdict


@pytest.mark.parametrize(
    ("reply", "expected", "verdict"),
    [
        (Reply(True, "fine", 200), Expected(), PASS),
        (Reply(True, "fine", 204), Expected(204), PASS),
        (Reply(True, "", 503), Expected(), FAIL),
        (Reply(True, "down", 200), Expected(matches="up"), FAIL),
        (Reply(True, "", 0, "connection refused"), Expected(), FAIL),
        (Reply(False, detail="timed out"), Expected(), OPEN),
    ],
)
def test_http(reply: Reply, expected: Expected, verdict: Verdict) -> None:
    """A page with the right status passes; one that never came says nothing."""
    assert judge_http(reply, expected)[0] is verdict


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([("c", "web1", PASS, True), ("c", "web2", PASS, True)], PASS),
        ([("c", "web1", PASS, True)], OPEN),
        ([], OPEN),
        ([("c", "web1", OPEN, True), ("c", "web2", PASS, True)], OPEN),
        ([("c", "web1", OPEN, True), ("c", "web2", FAIL, True)], FAIL),
        ([("c", "web1", PASS, True), ("c", "web2", PASS, True), ("d", "", FAIL, False)], PASS),
    ],
)
def test_gate_of_several(findings: list[tuple], verdict: Verdict) -> None:
    """A gate passes when every required check of every host passed; a wanted one never decides."""
    rows = [Finding(check, host, said, "", required) for check, host, said, required in findings]
    assert combine(rows, {("c", "web1"), ("c", "web2")}) is verdict
