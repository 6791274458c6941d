"""What a lab's machines say of themselves, for the report of a test that failed there."""

from __future__ import annotations

import os

from lab import Host, Lab
from lab.errors import LabError
from lab.namespace import Namespace

MOST = 4000
"""Characters of each machine."""
PATIENCE = 20.0
LOGS = """\
for file in "$@"; do
    [ -s "$file" ] && echo "-- $file" && tail -n 15 "$file" | cut -c-300
done
"""
MASTER = LOGS + "echo; ps -eo pid,etimes,stat,args | grep -v ' ps -eo' | cut -c-160 | tail -n 25"
HOST = """\
set -- /var/log/lab.log /var/lib/cpacman/transactions/*/journal.jsonl \\
    /var/lib/cpacman/transactions/*/log
"""


def told(lab: Lab) -> str:
    """The ends of the logs of master and hosts, and what runs there."""
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    logs = [str(path) for path in sorted((lab.directory / "master" / "logs").glob("*"))]
    parts = [f"load of this machine: {load}", "== master", said(lab.hub, MASTER, *logs)]
    for host in lab.hosts.values():
        parts += [f"== {host.name}", said_on(host)]
    return "\n".join(parts)


def said_on(host: Host) -> str:
    """What a host says, if it is up."""
    return said(host.inside, HOST + MASTER) if host.is_up() else "is not up"


def said(where: Namespace, script: str, *arguments: str) -> str:
    """The end of what a script prints somewhere, or why it did not run."""
    try:
        done = where.run(["sh", "-c", script, "sh", *arguments], timeout=PATIENCE)
    except (LabError, OSError) as error:
        return str(error)
    return (done.stdout + done.stderr)[-MOST:]
