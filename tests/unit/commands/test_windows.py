"""Windows as they are configured: of classes, of hosts, of profiles, for sending and changing."""

from __future__ import annotations

import datetime

import pytest

from cpacman.commands import controlling, deploying, resuming
from cpacman.commands.fleet import Selection
from cpacman.commands.prestaging import stage as send
from cpacman.commands.rollback import rollback
from cpacman.commands.snapshots import snapshot
from cpacman.errors import ConfigError, SafetyError, UsageError
from tests.unit.commands.test_controlling import Stage, look
from tests.unit.commands.world import World

FRIDAY = datetime.datetime(2027, 1, 15, 8, 0, tzinfo=datetime.timezone.utc).timestamp()
WINDOWS = {
    "night": {"weekly": ["Fri 22:00-23:00"]},
    "weekend": {"weekly": ["Sat 22:00-23:00"]},
    "sap": {"weekly": ["Sun 03:00-05:00"]},
}


@pytest.fixture
def stage(world: World) -> Stage:
    """Three hosts on a Friday morning, all windows closed."""
    made = Stage(world)
    world.now = FRIDAY
    world.later(0)
    world.section["windows"] = WINDOWS
    return made


def windows(one: Stage, /, **names: str) -> None:
    """Give the class its windows."""
    one.world.section["classes"] = [{"development": {"windows": names}}, "testing"]


def at(text: str) -> float:
    """The moment of that day and time."""
    return datetime.datetime.fromisoformat(f"2027-01-{text}:00+00:00").timestamp()


def test_sent_by_night_and_changed_at_the_weekend(stage: Stage) -> None:
    """One rollout in the background, gone on with when either window opens."""
    windows(stage, stage="night", apply="weekend")
    for host in stage.transport.hosts.values():
        host.keeps = True
    body = stage.deploy(patience=0.0)
    assert (body["state"], body["until"]) == ("waiting", at("15 22:00"))
    stage.world.later(body["until"] - stage.world.now)
    body = resuming.resume(stage.context(), body["id"], patience=0.0)["rollout"]
    assert (body["state"], body["until"]) == ("waiting", at("16 22:00"))
    received = {name: len(host.received) for name, host in stage.transport.hosts.items()}
    assert received["web1"] == 2 and not any(stage.started.values())
    stage.world.later(body["until"] - stage.world.now)
    body = resuming.resume(stage.context(), body["id"], patience=0.0)["rollout"]
    assert stage.started["web1"] == 1 and body["hosts"]["web1"]["outcome"] == "applied"


def test_stage_keeps_to_its_window(stage: Stage) -> None:
    """Outside of it nothing is sent; a class without one may be sent to at any time."""
    windows(stage, stage="night", apply="weekend")
    plan = stage.plan()
    with pytest.raises(SafetyError, match=r"nothing is sent now.*wait until 2027-01-15 22:00 UTC"):
        send(stage.context(), plan=plan)
    windows(stage, stage="nihgt")
    with pytest.raises(SafetyError, match=r"windows\.stage: there is no window 'nihgt'"):
        send(stage.context(), plan=plan)
    windows(stage, apply="weekend")
    answer = send(stage.context(), plan=plan)["stage"]
    assert {one["state"] for one in answer["hosts"].values()} == {"staged"}


def test_stage_by_a_profile(stage: Stage) -> None:
    """Its windows go first, with a reason; also where the class has none for sending."""
    windows(stage, stage="night", apply="weekend")
    stage.world.section["profiles"] = {
        "emergency": {"windows": "ignore"}, "later": {"windows": {"stage": "sap"}}
    }  # fmt: skip
    plan = stage.plan()
    with pytest.raises(SafetyError, match="say why"):
        send(stage.context(), plan=plan, profile="emergency")
    with pytest.raises(UsageError, match="no profile 'emergancy'"):
        send(stage.context(), plan=plan, profile="emergancy", reason="CVE")
    windows(stage, apply="weekend")
    with pytest.raises(SafetyError, match="nothing is sent now: outside window sap"):
        send(stage.context(), plan=plan, profile="later", reason="CVE")
    windows(stage, stage="night", apply="weekend")
    answer = send(stage.context(), plan=plan, profile="emergency", reason="CVE")["stage"]
    assert {one["state"] for one in answer["hosts"].values()} == {"staged"}


def test_stage_is_for_those_who_may_deploy(stage: Stage) -> None:
    """Sending packages to production is a part of changing it."""
    plan = stage.plan()
    stage.world.section["access"] = {"deploy": {"development": ["no-such-group"]}}
    with pytest.raises(SafetyError, match="deploy"):
        send(stage.context(), plan=plan)


def test_a_host_names_its_window(stage: Stage) -> None:
    """By a field of its metadata; a name that nobody describes refuses before anything."""
    stage.world.section["levels"] = ["all"]
    windows(stage, apply="weekend", by="window")
    old = ("app-1-1.noarch", "lib-1-1.noarch")
    stage.world.host("web2", "development", *old, window="spa")
    with pytest.raises(SafetyError, match=r"web2 meta\.window: there is no window 'spa'"):
        stage.deploy()
    stage.world.host("web2", "development", *old, window="sap")
    body = stage.deploy(patience=0.0)
    assert (body["state"], body["until"]) == ("waiting", at("16 22:00"))
    stage.world.later(body["until"] - stage.world.now)
    body = resuming.resume(stage.context(), body["id"], patience=0.0)["rollout"]
    assert stage.started == {"web1": 1, "web2": 0, "web3": 1}
    assert (body["state"], body["until"]) == ("waiting", at("17 03:00"))
    stage.world.later(body["until"] - stage.world.now)
    resuming.resume(stage.context(), body["id"], patience=0.0)
    assert look(stage, body["id"])["state"] == "done"


def test_profiles_and_their_windows(stage: Stage) -> None:
    """Another window goes before that of class and host; one that is nowhere refuses."""
    windows(stage, stage="night", apply="weekend", by="window")
    stage.world.section["profiles"] = {
        "soon": {"windows": {"apply": "sap", "stage": "ignore"}},
        "never": {"windows": "wekend"},
        "emergency": {"windows": "ignore"},
    }
    with pytest.raises(SafetyError, match=r"profiles\.never\.windows\.apply: there is no window"):
        stage.deploy(profile="never", reason="x")
    body = stage.deploy(profile="soon", reason="x", patience=0.0)
    assert body["until"] == at("17 03:00")
    assert stage.transport.hosts["web1"].received != []
    controlling.cancel(stage.context(), body["id"])
    assert stage.deploy(profile="emergency", reason="x")["state"] == "done"


def test_a_freeze_beats_windows_of_both_kinds(stage: Stage) -> None:
    """Nothing is sent and nobody starts before its end."""
    windows(stage, stage="night", apply="weekend")
    stage.world.section["freeze"] = [{"from": "2027-01-15", "until": "2027-01-20"}]
    body = stage.deploy(patience=0.0)
    assert body["state"] == "waiting" and "frozen" in body["why"]
    assert body["until"] == at("21 00:00") and not stage.transport.hosts["web1"].received


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ("2027-01-20", "21 00:00"),
        (datetime.date(2027, 1, 20), "21 00:00"),
        ("2027-01-20T00:00", "20 00:00"),
        (datetime.datetime(2027, 1, 20), "20 00:00"),
        ("2027-01-20T00:00:00+02:00", "19 22:00"),
    ],
)
def test_a_freeze_ends_when_it_says(stage: Stage, until: object, end: str) -> None:
    """A day belongs to it, a time ends it, be that midnight; its zone may be another one."""
    stage.world.section["freeze"] = [{"from": "2027-01-15", "until": until}]
    body = stage.deploy(patience=0.0)
    assert (body["state"], body["until"]) == ("waiting", at(end))


@pytest.mark.parametrize("until", ["2027-01-15T00:00", "2027-01-14"])
def test_a_freeze_of_no_time_is_refused(stage: Stage, until: str) -> None:
    """It would have no effect."""
    stage.world.section["freeze"] = [{"from": "2027-01-15", "until": until}]
    with pytest.raises(ConfigError, match=r"freeze\[0\].*ends before it begins"):
        stage.context()


def test_a_freeze_for_ever(stage: Stage) -> None:
    """The last day there is has no next one."""
    stage.world.section["freeze"] = [{"from": "2027-01-15", "until": "9999-12-31"}]
    assert stage.deploy(patience=0.0)["state"] == "waiting"


EVENT = """\
BEGIN:VEVENT
UID:{uid}
DTSTART;TZID=Europe/Berlin:{start}
DTEND;TZID=Europe/Berlin:{end}
{more}
END:VEVENT
"""


def calendar(stage: Stage, *events: str) -> None:
    """Let a class keep to a calendar of these events."""
    text = "".join(["BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n", *events, "END:VCALENDAR\n"])
    (stage.world.base / "ops.ics").write_text(text)
    stage.world.section["windows"] = {"ops": {"calendar": str(stage.world.base / "ops.ics")}}
    windows(stage, apply="ops")


def test_a_calendar_with_exceptions(stage: Stage) -> None:
    """Neither what was cancelled opens, nor an exception of a series; zones are the event's."""
    series = EVENT.format(
        uid="a", start="20270115T220000", end="20270115T230000",
        more="RRULE:FREQ=DAILY\nEXDATE;TZID=Europe/Berlin:20270115T220000",
    )  # fmt: skip
    off = EVENT.format(
        uid="a", start="20270116T220000", end="20270116T230000",
        more="RECURRENCE-ID;TZID=Europe/Berlin:20270116T220000\nSTATUS:CANCELLED",
    )  # fmt: skip
    alone = EVENT.format(
        uid="b", start="20270115T100000", end="20270115T110000", more="STATUS:CANCELLED"
    )
    calendar(stage, series, off, alone)
    body = stage.deploy(patience=0.0)
    assert (body["state"], body["until"]) == ("waiting", at("17 21:00"))


def test_a_calendar_that_is_being_written(stage: Stage) -> None:
    """Nobody starts while it can't be read, and the rollout goes on by itself when it can."""
    calendar(stage, EVENT.format(uid="a", start="20270115T080000", end="20270115T180000", more=""))
    path = stage.world.base / "ops.ics"
    text = path.read_text()
    for broken in (text[:60], "", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VEVENT\nEND:VCALENDAR\n"):
        path.write_text(broken)
        body = stage.deploy(patience=0.0)
        assert body["state"] == "waiting" and "window ops can't be read" in body["why"], broken
        assert body["until"] == stage.world.now + 60 and not any(stage.started.values())
        controlling.cancel(stage.context(), body["id"])
    body = stage.deploy(patience=0.0)
    path.write_text(text)
    stage.world.later(61)
    body = resuming.resume(stage.context(), body["id"], patience=0.0)["rollout"]
    assert body["state"] == "done"


def test_a_window_of_next_year(stage: Stage) -> None:
    """It is waited for, though it opens once a quarter only."""
    far = EVENT.format(uid="a", start="20270715T220000", end="20270715T230000", more="")
    calendar(stage, far)
    body = stage.deploy(patience=0.0)
    until = datetime.datetime(2027, 7, 15, 20, 0, tzinfo=datetime.timezone.utc).timestamp()
    assert (body["state"], body["until"]) == ("waiting", until)


def test_a_way_back_waits_for_no_window_where_somebody_says_why(stage: Stage) -> None:
    """Nor for hosts to be well before it: they are taken back because they are not."""
    stage.world.mirror("app-1-1.noarch", "lib-1-1.noarch", "app-2-1.noarch", "lib-2-1.noarch")
    snapshot(stage.context())
    stage.world.section["gates"] = {"web": [{"up": {"salt": "test.ping", "when": "before"}}]}
    stage.level("canary", gate="web")
    number = stage.deploy()["id"]
    windows(stage, apply="weekend")
    stage.world.section["freeze"] = [{"from": "2027-01-15", "until": "2027-01-20"}]
    stage.probes.value = False
    plan = rollback(stage.context(), rollout=number)["plan"]["plan_id"]
    body = deploying.deploy(stage.context(), Selection(), plan=plan, patience=0.0)["rollout"]
    assert body["state"] == "waiting" and "frozen" in body["why"]
    controlling.cancel(stage.context(), body["id"])
    body = rollback(stage.context(), rollout=number, now=True, reason="it broke")["rollout"]
    assert (body["state"], stage.started) == ("done", {"web1": 2, "web2": 2, "web3": 2})
