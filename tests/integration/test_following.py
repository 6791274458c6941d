"""Services that are restarted and hosts that are rebooted by a rollout, on real hosts."""

from __future__ import annotations

from lab import Host, Lab
from tests.integration.fleet import Fleet
from tests.integration.test_thread import UPDATED, installed, wait

DAEMON = """#!/bin/sh
echo "$1" >>/run/labd.calls
kill "$(cat /run/labd.pid)"
cp /bin/sleep /usr/local/bin/labd
setsid /usr/local/bin/labd 900 >/dev/null 2>&1 &
echo $! >/run/labd.pid
"""


def start_daemon(host: Host) -> None:
    """Start a service on a host, and take the program away that it runs."""
    host.write("/etc/init.d/labd", DAEMON, 0o755)
    host.run(["/etc/init.d/labd", "start"]).check()
    runs = ["sh", "-c", "readlink /proc/$(cat /run/labd.pid)/exe | grep -q labd"]
    wait(lambda: host.run(runs).returncode == 0)
    host.run(["rm", "/usr/local/bin/labd"]).check()


def test_canaries_restart_services_and_the_rest_reboots(clean_lab: Lab) -> None:
    """By the policy of each level: once, confirmed, and in the journal."""
    fleet = Fleet(clean_lab)
    fleet.configure(
        levels=[
            {"canary": {"match": "ring:0", "restarts": {"services": "listed", "list": "labd"}}},
            {"rest": {"restarts": {"reboot": "always", "within": "120s"}}},
        ]
    )
    fleet.ready()
    web1, web2 = clean_lab.host("web1"), clean_lab.host("web2")
    before = web1.boot_id(), web2.boot_id()
    start_daemon(web1)
    foretold = fleet.plan()["follows"]
    assert [(one["what"], one["hosts"]) for one in foretold] == [
        ("reboot", ["web2"]), ("restart", ["web1"]),
    ]  # fmt: skip
    with web2.coming_back(after=1.0):
        done = fleet.run("deploy", **{"class": "development", "now": True})
    assert done.outcomes() == {"web1": ("applied", None), "web2": ("applied", None)}, done.text
    hosts = done["rollout"]["hosts"]
    assert (hosts["web1"]["detail"], hosts["web2"]["detail"]) == ("restarted labd", "rebooted")
    assert not any(one.startswith("labd") for one in hosts["web1"]["findings"].get("services", ()))
    assert web1.read("/run/labd.calls") == "start\nrestart\n"
    assert web1.boot_id() == before[0] and web2.boot_id() != before[1]
    assert installed(fleet, "web2") > UPDATED
    orders = [e["action"] for e in fleet.run("history", host="web2")["history"]["entries"]]
    assert orders.count("reboot") == 1 and orders[-1] == "applied"
    denied = clean_lab.salt("web1", "cpacman.reboot", done["rollout"]["id"], "{}", "bm9v").data
    assert denied["error"]["code"] == "signature"
