"""`python -m lab demo`: the main job, for real, told as a story.

Invariants: every command shown is run as shown against the lab's own master; what the story says
of a host is looked up in that host's rpm database; a step that does not end as told ends the demo
with an error.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cpacman.errors import Problem
from lab import rpms
from lab.errors import LabError
from lab.lab import Lab

HOSTS = ("web1", "web2", "db1")
CHANNEL = "el9-x86_64"
MEMBERS = {
    "web*": {"class": "development", "meta": {"role": "web", "ring": 1}},
    "web1": {"meta": {"ring": 0}},
    "db1": {"class": "production", "meta": {"role": "db", "ring": 1}},
}


def settings(mirror: Path) -> dict[str, Any]:
    """The `cpacman:` section of the demo: one channel, two classes, two levels."""
    return {
        "channels": {
            CHANNEL: {
                "match": {"id_like": "rhel", "major": 9, "arch": "x86_64"},
                "repositories": {"lab": {"path": str(mirror)}},
            }
        },
        "classes": ["development", "production"],
        "levels": [{"canary": {"match": "ring:0", "concurrency": 1}}, "rest"],
    }


def run_demo(*, keep: bool = False) -> int:
    """Tell the story; with `keep` the lab stays up until Ctrl-C."""
    started = time.monotonic()
    with Story() as story:
        story.prepare()
        story.development()
        story.production()
        story.end(time.monotonic() - started)
        if keep:
            say("the lab stays up until you press Ctrl-C")
            story.lab.wait()
    return 0


def say(text: str) -> None:
    """Print what happens next."""
    print(f"\n=== {text}", flush=True)


class Story:
    """A lab and what is told with it."""

    def __init__(self) -> None:
        self.lab = Lab(HOSTS, name="demo")

    def __enter__(self) -> Story:
        say("building a few small packages, once")
        rpms.build()
        say("starting a Salt master and three hosts with roots and rpm databases of their own")
        self.lab.__enter__()
        return self

    def __exit__(self, *how: Any) -> None:
        self.lab.__exit__(*how)
        print("the lab is gone: no process, mount or namespace of it is left", flush=True)

    # ---- chapters ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Configure, and bring both classes to the same old state."""
        mirror = rpms.repository(self.lab.path("mirror", "el9"), rpms.OLD)
        self.lab.write_master_config(settings(mirror))
        text = yaml.safe_dump(MEMBERS, sort_keys=False, default_flow_style=None)
        (self.lab.path("hosts.d") / "demo.yaml").write_text(text, encoding="utf-8")
        say("hosts.d/demo.yaml: who belongs where")
        print(text.rstrip())
        say("what do the hosts have installed?")
        self.run("refresh", "*")
        say("the mirror holds just that; freeze it, and let production have it, too")
        self.run("snapshot")
        self.run("promote", to="production")

    def development(self) -> None:
        """Updates arrive; development gets them, the canary first."""
        say("overnight the mirror is synchronised: updates arrive")
        rpms.repository(self.lab.path("mirror", "el9"), rpms.NEW)
        self.run("snapshot")
        say("what would change in development, and why? (nothing is changed by asking)")
        plan = self.plan("development")
        say("the canary first: bytes are pushed, verified, installed in one transaction, proven")
        self.run("deploy", plan=plan, levels="canary", ticket="CHG0012345")
        self.expect("web1", "webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64", "newtool-2.0-1.noarch")
        self.expect("web2", "webapp-1.0-1.noarch", "oldtool-1.0-1.noarch")
        say("it looks good: the rest of development")
        self.run("deploy", plan=plan, levels="rest", ticket="CHG0012345")
        self.expect("web2", "webapp-1.1-1.noarch", "newtool-2.0-1.noarch", "jlib-1.0-1.noarch")

    def production(self) -> None:
        """Production is untouched until someone promotes."""
        say("production is where it was: nobody promoted yet, so there is nothing to do")
        self.run("plan", **{"class": "production"})
        self.expect("db1", "webapp-1.0-1.noarch", "oldtool-1.0-1.noarch")
        say("promote what development tested, byte for byte")
        say("(one package would be held from now on, as its arch changed: that wants a reason)")
        self.run("promote", to="production", force="True", reason="jlib stays as it is")
        plan = self.plan("production")
        self.run("deploy", plan=plan, ticket="CHG0012346")
        self.expect("db1", "webapp-1.1-1.noarch", "libwebapp-1.0-1.x86_64", "jlib-1.0-1.noarch")

    def end(self, seconds: float) -> None:
        """Show how the fleet stands, and how to look around."""
        say("how the fleet stands, and who put webapp where")
        self.run("status")
        self.run("history", package="webapp")
        say(f"done in {seconds:.0f} s. To look around in a lab of your own:")
        print(
            "  .venv/bin/python -m lab demo --keep    this story, and the lab stays up\n"
            "  .venv/bin/python -m lab up --hosts 3   an empty one\n"
            "  .venv/bin/python -m lab run -- salt-run cpacman.status\n"
            "  .venv/bin/python -m lab shell web1\n"
            "  .venv/bin/python -m lab down"
        )

    # ---- what it is told with ------------------------------------------------------------

    def run(self, function: str, *args: str, **keywords: str) -> None:
        """Run a runner and show it as it goes.

        Raises:
            LabError: it did not end with 0.
        """
        shown = [*map(shlex.quote, args), *(f"{k}={shlex.quote(v)}" for k, v in keywords.items())]
        print(f"\n$ salt-run cpacman.{function} {' '.join(shown)}".rstrip(), flush=True)
        argv = self.lab.salt_run_argv(f"cpacman.{function}", *args, **keywords)
        with self.lab.start(argv) as running:
            printed = 0
            while True:
                ended = running.process.poll() is not None
                text = running.output()
                sys.stdout.write(text[printed:])
                sys.stdout.flush()
                printed = len(text)
                if ended:
                    break
                time.sleep(0.1)
            result = running.wait()
        if result.returncode:
            raise LabError(Problem(function, f"ended with {result.returncode}: {result.stderr}"))

    def plan(self, class_: str) -> str:
        """Show a plan for a class and return its id, short as people type it."""
        self.run("plan", **{"class": class_})
        found = self.lab.run(
            [*self.lab.salt_run_argv("cpacman.plan", **{"class": class_}), "--out=json"]
        )
        document: Mapping[str, Any] = json.loads(found.stdout)
        return str(document["plan"]["plan_id"])[:14]

    def expect(self, host: str, *nevras: str) -> None:
        """Show these packages as the host's own database has them.

        Raises:
            LabError: one is not there.
        """
        print(f"\n{host}# rpm -q {' '.join(n.rsplit('-', 2)[0] for n in nevras)}")
        installed = set(self.lab.host(host).packages())
        for nevra in nevras:
            if nevra not in installed:
                raise LabError(Problem(host, f"{nevra} is not installed"))
            print(nevra)
