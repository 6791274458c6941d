"""One simulated rollout from a seed: a fleet, its configuration, people, engines, and what breaks.

Everything random comes from the seed. Trouble lasts for an hour or so of virtual time; then all is
mended, an operator closes what is open, and the checker looks whether everything ended.
"""

from __future__ import annotations

import datetime
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from cpacman.commands import collecting, controlling, deploying, resuming, ticking
from cpacman.commands.access import ENGINE
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.config import load_settings
from cpacman.depot.pool import Pool
from cpacman.errors import CpacmanError
from cpacman.fleet.hostfiles import load_hosts_files
from cpacman.model import Inventory, Request
from cpacman.rollout.checks import Nobody
from cpacman.rollout.gate import Reply
from cpacman.signing import load_plan_key
from cpacman.store import Store
from tests.simulated.checker import Checker, Rules
from tests.simulated.hosts import AFTER, BEFORE, HALF, LIES, OTHER, Host, Network, with_cookie
from tests.simulated.schedule import Schedule, Stuck
from tests.unit.commands.world import Directory, World

START = 1_800_000_000.0
"""A Friday, 08:00 UTC."""
TROUBLE = 1800.0
"""Seconds after which nothing breaks any more."""
LIMIT = 3 * 3600.0
KINDS = {
    BEFORE: ("app-1-1.noarch", "lib-1-1.noarch"),
    HALF: ("app-2-1.noarch", "lib-1-1.noarch"),
    AFTER: ("app-2-1.noarch", "lib-2-1.noarch"),
    OTHER: ("app-1-1.noarch", "lib-1-1.noarch", "tool-1-1.noarch"),
}
LEVELS = ("canary", "early", "most", "rest")
SWITCHES = ("cpacman.commands.jobs", "cpacman.commands.controlling", "cpacman.commands.collecting")


class Template(NamedTuple):
    """A planned fleet of one size, made once: its files are copied for each simulation."""

    world: World
    plan: str
    kinds: Mapping[str, Inventory]
    idle: str


def template(base: Path, files: Mapping[str, Path], size: int) -> Template:
    """Make a fleet of hosts that lag behind, one of which does not, and plan it."""
    base.mkdir()
    world = World(base, files)
    world.mirror("app-2-1.noarch", "lib-2-1.noarch")
    names = [f"host{number:02d}" for number in range(size)]
    for name in names:
        world.host(name, "development", *KINDS[AFTER if name == names[-1] else BEFORE])
    kinds = {kind: with_cookie(msgspec.structs.replace(
        world.store.inventories([names[0]])[names[0]],
        packages=tuple(world.installed(nevra) for nevra in nevras),
    )) for kind, nevras in KINDS.items()}  # fmt: skip
    for name in names:
        own = kinds[AFTER if name == names[-1] else BEFORE]
        facts = {"machine_id": f"machine of {name}"}
        world.store.put_inventory(msgspec.structs.replace(own, host=name, facts=facts), at=START)
    snapshot(world.context())
    made = plan(world.context(), Selection(class_="development"), request=Request())
    world.store.close()
    return Template(world, str(made["plan"]["plan_id"]), kinds, names[-1])


class Result(NamedTuple):
    """What one simulation showed."""

    violations: list[str]
    counts: Counter[str]
    log: list[str]


def simulate(
    template: Template,
    folder: Path,
    seed: int,
    patch: pytest.MonkeyPatch,
    sabotage: Callable[[Simulation], None] = lambda simulation: None,
) -> Result:
    """Let one fleet go through its rollouts; `sabotage` may break what is to be checked."""
    simulation = Simulation(template, folder, seed, patch)
    try:
        sabotage(simulation)
        return simulation.run()
    finally:
        simulation.close()


class Simulation:
    """Everything around one simulated fleet."""

    def __init__(
        self, template: Template, folder: Path, seed: int, patch: pytest.MonkeyPatch
    ) -> None:
        self.dice = random.Random(seed)
        self.template, self.folder = template, folder
        self.schedule = Schedule(self.dice, START, LIMIT)
        self.counts: Counter[str] = Counter()
        self.healed = False
        self.killing = self.dice.choice([0.0, 0.0, 0.004, 0.015, 0.05])
        _copy(template.world.base / "state", folder / "state")
        self.store = Store.open(f"sqlite:///{folder}/state/cpacman.db")
        self.key = load_plan_key(folder / "state")
        self._write = self.store._write
        self.store._write = self._writing  # type: ignore[method-assign]
        self._configure()
        hosts = {name: self._host(name) for name in sorted(template.world.hosts)}
        rules = Rules(
            self.failures, self.unreachable, self.approvers, self.closed,
            frozenset(one for one in LEVELS if self.levels.get(one, {}).get("gate")),
        )  # fmt: skip
        database = folder / "state" / "cpacman.db"
        self.checker = Checker(database, self.schedule, hosts, rules)
        self.network = Network(
            hosts, self.schedule, self.dice, self.key.fingerprint,
            self.dice.choice([0.0, 0.02, 0.1, 0.25]), self.checker.starts,
        )  # fmt: skip
        self.network.asked = self.checker.asked
        self._switch(patch)

    def close(self) -> None:
        """Let go of both databases."""
        self.checker.close()
        self.store.close()

    # ---- what is configured ----------------------------------------------------------------

    def _configure(self) -> None:
        dice, names = self.dice, sorted(self.template.world.hosts)
        chosen = LEVELS[: dice.randint(1, 4)]
        self.levels = {name: self._level() for name in chosen}
        self.failures = dice.choice([0, 1, 2, len(names)])
        self.unreachable = dice.choice([1, 2, len(names)])
        self.failures = max([self.failures, *(o["max_failures"] for o in self.levels.values())])
        self.approvers = dice.choice([0, 0, 0, 1])
        self.closed = self._closed()
        rings = {name: dice.randrange(len(chosen)) for name in names}
        members = {name: {"class": "development", "meta": {"ring": rings[name]}} for name in names}
        (self.folder / "hosts.d").mkdir()
        (self.folder / "hosts.d" / "all.yaml").write_text(yaml.safe_dump(members))
        self.settings = self._settings(self.closed, self.approvers)
        self.calm = self._settings([], self.approvers)

    def _level(self) -> dict[str, Any]:
        dice = self.dice
        found: dict[str, Any] = {
            "concurrency": dice.choice([1, 2, 3, 12]),
            "max_failures": dice.choice([0, 0, 1, 3]),
            "soak": dice.choice(["0s", "0s", "0s", "40s", "300s"]),
        }
        if dice.random() < 0.5:
            found["gate"] = True
        if dice.random() < 0.3:
            found["around"] = ["drain"]
        return found

    def _closed(self) -> list[tuple[float, float]]:
        """Return when nobody may start: whole minutes, since windows are told so."""
        if self.dice.random() < 0.6:
            return []
        start = START + 60 * self.dice.randint(0, 20)
        return [(start, start + 60 * self.dice.randint(1, 40))]

    def _settings(self, closed: Sequence[tuple[float, float]], approvers: int) -> Any:
        world, levels = self.template.world, []
        for ring, (name, own) in enumerate(self.levels.items()):
            more = {"gate": name} if own.get("gate") else {}
            levels.append({name: {**own, **more, "match": f"ring:{ring}"}})
        check = {"when": ["before", "after", "soak"], "every": "20s", "timeout": "5s"}
        frozen = [{"from": _time(a), "until": _time(b), "reason": "frozen"} for a, b in closed]
        section = {
            **world.section,
            "state_dir": str(self.folder / "state"),
            "depot": str(world.context().settings.depot),
            "classes": [{"development": {"approvers": approvers}}, "testing"],
            "levels": levels,
            "gates": {name: [{"up": {"salt": f"gate.{name}", **check}}] for name in self.levels},
            "around": {"drain": {"before": {"salt": "drain.on"}, "after": {"salt": "drain.off"}}},
            "budget": {"max_failures": self.failures, "max_unreachable": self.unreachable},
            "freeze": frozen,
            "transport": {"answer": "5s", "apply": "120s"},
        }  # fmt: skip
        section["membership"] = {**section["membership"], "hosts_d": str(self.folder / "hosts.d")}
        return load_settings(section, source="test", base=self.folder)

    def _host(self, name: str) -> Host:
        dice, kinds = self.dice, {}
        for kind, inventory in self.template.kinds.items():
            facts = {"machine_id": f"machine of {name}"}
            kinds[kind] = msgspec.structs.replace(inventory, host=name, facts=facts)
        host = Host(name, kinds, AFTER if name == self.template.idle else BEFORE)
        host.slow = dice.choice([0.1, 2.0, 15.0, 60.0])
        bad = dice.random()
        if bad < 0.12:
            host.fates = [dice.choice(["failed", "refused", "hang", "failed"])]
        elif bad < 0.20:
            host.cuts = dice.choice([1, 2, 5])
        elif bad < 0.26:
            host.lie = dice.choice(LIES)
        elif bad < 0.36:
            start = START + dice.uniform(0, 400)
            host.down = [(start, start + dice.choice([5, 60, 600, 1e9]))]
        elif bad < 0.40:
            host.refuses = {dice.choice(["begin", "staged", "apply", "inventory"]): "space"}
        elif bad < 0.43 and host.truth == BEFORE:
            host.truth = dice.choice([AFTER, OTHER])
        return host

    # ---- processes -------------------------------------------------------------------------

    def _switch(self, patch: pytest.MonkeyPatch) -> None:
        """Let the library see simulated processes instead of those of this machine."""
        for module in SWITCHES:
            for name, own in (
                ("owner_of", lambda pid: self.schedule.owner()),
                ("is_alive", self.schedule.is_alive),
            ):
                patch.setattr(f"{module}.{name}", own, raising=False)
        patch.setattr("cpacman.commands.rechecking.planning.make_plan", self._solve_again)
        # Nobody edits them here, and to read YAML is half of what a command costs.
        known = load_hosts_files(self.settings.membership.hosts_d, self.settings)
        patch.setattr("cpacman.commands.fleet.load_hosts_files", lambda *_: known)

    def _solve_again(self, context: Any, class_: str, hosts: Any, request: Any) -> Any:
        """What the planner would say of a host that changed: something else, or the same."""
        self.counts["solved again"] += 1
        stored = self.store.plan(self.template.plan).plan
        same = self.dice.random() < 0.5
        return stored if same else msgspec.structs.replace(stored, hosts={})

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        self._maybe_die("before a write")
        with self._write() as connection:
            yield connection
        self.checker.committed()
        self._maybe_die("after a write")

    def _maybe_die(self, when: str) -> None:
        me = self.schedule.running
        assert me is not None
        if me.alive and not self.healed and self.dice.random() < self.killing:
            self.counts[f"killed {when}"] += 1
            self.checker.note(f"killed {when}")
            self.schedule.kill(me)
        self.schedule.point()

    def context(self, who: str) -> Context:
        """What a command of this person works with."""
        me = self.schedule.running
        return Context(
            settings=self.calm if self.healed else self.settings,
            store=self.store, pool=Pool(self.settings.depot), key=self.key,
            directory=Directory(self.template.world),  # type: ignore[arg-type]
            transport=self.network,  # type: ignore[arg-type]
            who=who, clock=self.schedule.clock, sleep=self.schedule.sleep,
            stopping=lambda: bool(me and me.stopping), probes=Probes(self),
        )  # fmt: skip

    def run(self) -> Result:
        """Let everybody do their part until all is over."""
        spawn, dice = self.schedule.spawn, self.dice
        spawn("alice", self._deployer("alice", dice.random() < 0.5))
        if dice.random() < 0.4:
            spawn("bob", self._deployer("bob", False), after=dice.uniform(0, 300))
        for number in range(dice.choice([0, 1, 1, 2])):
            spawn(f"engine{number}", self._engine(number), after=dice.uniform(0, 20))
        for number in range(dice.choice([0, 1, 2])):
            spawn(f"person{number}", self._person(number))
        if dice.random() < 0.5:
            spawn("reaper", self._reaper)
        spawn("healer", self._healer, after=TROUBLE)
        try:
            self.schedule.run()
        except Stuck as stuck:
            self.checker.wrong(str(stuck))
        for process in self.schedule.processes:
            if process.error is not None:
                self.checker.wrong(f"{process.name}: {process.error!r}")
        self.checker.over()
        counts = self.counts + self.checker.counts + self.network.met
        return Result(self.checker.violations, counts, self.checker.log)

    def _try(self, who: str, command: Callable[[Context], Any]) -> None:
        """Run a command; what it refuses is counted, what it breaks is a violation."""
        name = command.__name__
        self.checker.note(f"{who}: {name}")
        try:
            command(self.context(who))
            self.counts[f"{name} done"] += 1
        except CpacmanError as error:
            self.checker.note(f"{who}: {name}: {type(error).__name__} {error}")
            self.counts[f"{name} {type(error).__name__}"] += 1

    def _deployer(self, who: str, background: bool) -> Callable[[], None]:
        some = self.dice.random() < 0.3
        levels = self.dice.sample(sorted(self.levels), 1) if some else []

        def deploy(context: Context) -> None:
            deploying.deploy(context, Selection(), plan=self.template.plan, levels=levels,
                             background=background)  # fmt: skip

        return lambda: self._try(who, deploy)

    def _engine(self, number: int) -> Callable[[], None]:
        children: dict[ticking.Work, Any] = {}

        def tick(context: Context) -> None:
            for work in [w for w, child in children.items() if child.over]:
                del children[work]
            if not ticking.is_acting(context, self.schedule.owner()):
                return
            for work in ticking.due_work(context):
                if work not in children:
                    children[work] = self._carry(number, work)

        def loop() -> None:
            while self._busy():
                self._try(f"engine{number}", tick)
                self.schedule.sleep(self.dice.choice([2.0, 15.0, 30.0]))

        return loop

    def _busy(self) -> bool:
        """Whether an engine still has something to look for."""
        return not self.healed or any(
            row["ended"] is None for row in self.store.rollouts(active=True)
        )

    def _carry(self, number: int, work: ticking.Work) -> Any:
        def carry(context: Context) -> None:
            ticking.do_work(context, work)

        name = f"child{number}.{len(self.schedule.processes)}"
        return self.schedule.spawn(name, lambda: self._try(ENGINE, carry), child=True)

    def _reaper(self) -> None:
        """End a process every now and then."""
        while not self.healed:
            self.schedule.sleep(self.dice.expovariate(1 / 200))
            spared = ("healer", "reaper", "network")
            living = [p for p in self.schedule.processes if p.alive and p.name not in spared]
            if living and not self.healed:
                victim = self.dice.choice(living)
                self.checker.note(f"{victim.name} is killed, or gets a Ctrl-C")
                if self.dice.random() < 0.3:
                    self.counts["ctrl-c"] += 1
                    victim.stopping = True
                else:
                    self.counts["killed while it waits"] += 1
                    self.schedule.kill(victim)

    # ---- people ----------------------------------------------------------------------------

    def _person(self, number: int) -> Callable[[], None]:
        def live() -> None:
            while not self.healed:
                self.schedule.sleep(self.dice.expovariate(1 / 60))
                rows = self.store.rollouts()
                if rows and not self.healed:
                    row = self.dice.choice(rows)
                    self._try(f"person{number}", self._whim(str(row["id"])))

        return live

    def _whim(self, number: str) -> Callable[[Context], Any]:
        host = self.dice.choice(sorted(self.template.world.hosts))
        patience = self.dice.choice([0.0, 60.0, 1000.0])
        acts: list[Callable[[Context], Any]] = [
            _named("halt", lambda c: controlling.halt(c, number, wait=30.0)),
            _named("halt all", lambda c: controlling.halt(c, everything=True, wait=5.0)),
            _named("resume", lambda c: resuming.resume(c, number, patience=patience)),
            _named("resume background", lambda c: resuming.resume(c, number, background=True)),
            _named("cancel", lambda c: controlling.cancel(c, number, wait=5.0)),
            _named("skip", lambda c: controlling.skip(c, number, [host])),
            _named("retry", lambda c: resuming.retry(c, number, patience=patience)),
            _named("retry one", lambda c: resuming.retry(c, number, host=[host])),
            _named("approve", lambda c: controlling.approve(c, number)),
            _named("recover", lambda c: collecting.recover(c, Selection(), rollout=number)),
            _named("force", self._forcing(number)),
        ]
        weights = [3, 1, 4, 2, 0.5, 2, 3, 1, 3, 2, 1]
        return self.dice.choices(acts, weights)[0]

    def _forcing(self, number: str) -> Callable[[Context], Any]:
        def force(context: Context) -> Any:
            me = self.schedule.owner()
            self.checker.forcing |= {me}
            try:
                return resuming.resume(context, number, force=True, reason="x", patience=0.0)
            finally:
                self.checker.forcing -= {me}

        return force

    def _healer(self) -> None:
        """Mend all, and close what is open."""
        self.healed = True
        self.killing = 0.0
        self.checker.note("all is mended")
        self.network.trouble = 0.0
        self.checker.rules = self.checker.rules._replace(closed=[])
        for host in self.network.hosts.values():
            host.down, host.lie, host.refuses, host.fates, host.cuts = [], "", {}, [], 0
            if host.at_work is not None and host.at_work.fate == "hang":
                host.at_work.fate, host.at_work.ends = "failed", self.schedule.now
        everyone = Selection(class_="development")
        # A person recovers as often as it takes: one that ran out of patience leaves one open.
        for _ in range(5):
            self._close_all()
            self._try("healer", _named("recover", lambda c: collecting.recover(c, everyone)))
            if not self.store.rollouts(active=True):
                break

    def _close_all(self) -> None:
        for _ in range(40):
            rows = self.store.rollouts(active=True)
            if not rows:
                break
            for row in rows:
                self._close(str(row["id"]))
            self.schedule.sleep(30.0)

    def _close(self, number: str) -> None:
        row = self.store.rollout_row(number)
        if row["state"] in ("running", "waiting") and self.schedule.is_alive(row["owner"]):
            return
        self._try("dave", _named("approve", lambda c: controlling.approve(c, number)))
        go_on = _named("resume", lambda c: resuming.resume(c, number, patience=900.0))
        shows_nothing = row["state"] == "paused" and "shows nothing" in str(row["why"])
        self._try("healer", _named("force", self._forcing(number)) if shows_nothing else go_on)


class Probes(Nobody):
    """Gates and actions: they pass, fail, hang, err, and say nothing."""

    def __init__(self, simulation: Simulation) -> None:
        self._all = simulation

    def salt(
        self, function: str, hosts: Sequence[str], args: Sequence[Any], kwargs: Any, timeout: float
    ) -> Mapping[str, Reply]:
        """See `Probes.salt`."""
        one = self._all
        one.schedule.sleep(one.dice.uniform(0.1, 3.0))
        kind, _, what = function.partition(".")
        if kind == "drain":
            return self._drain(what, hosts)
        return self._gate(what, hosts, timeout)

    def _drain(self, side: str, hosts: Sequence[str]) -> Mapping[str, Reply]:
        one = self._all
        for host in hosts:
            one.checker.around(side, host)
        bad = side == "on" and not one.healed and one.dice.random() < 0.05
        return {host: Reply(True, not (bad and host == hosts[0])) for host in hosts}

    def _gate(self, level: str, hosts: Sequence[str], timeout: float) -> Mapping[str, Reply]:
        one = self._all
        kinds = ["pass", "fail", "hang", "error", "empty", "lost"]
        kind = "pass" if one.healed else one.dice.choices(kinds, [80, 6, 3, 4, 4, 3])[0]
        one.counts[f"gate check {kind}"] += 1
        one.checker.gate(level, {"pass": "pass", "fail": "fail"}.get(kind, "nothing"))
        if kind == "hang":
            one.schedule.sleep(timeout)
            return {}
        if kind == "error":
            raise RuntimeError("the monitor is down")
        if kind == "empty":
            return {host: Reply(True, None) for host in hosts}
        replies = {host: Reply(True, True) for host in hosts}
        if kind == "fail" and hosts:
            replies[hosts[0]] = Reply(True, False)
        if kind == "lost" and hosts:
            del replies[hosts[0]]
        return replies


def _named(name: str, command: Callable[[Context], Any]) -> Callable[[Context], Any]:
    command.__name__ = name
    return command


def _time(moment: float) -> str:
    zone = datetime.timezone.utc
    return datetime.datetime.fromtimestamp(moment, zone).isoformat()


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        if path.is_file():
            shutil.copy2(path, target)
