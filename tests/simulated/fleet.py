"""One simulation from a seed: a fleet, its scenario, people, engines, and what breaks.

Everything random comes from the seed. Trouble lasts for half an hour of virtual time; then all is
mended, an operator closes what is open, and the checker looks whether everything ended.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cpacman.commands import planning, steering, ticking
from cpacman.commands.access import ENGINE
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection
from cpacman.commands.planning import plan
from cpacman.commands.snapshots import snapshot
from cpacman.depot.pool import Pool
from cpacman.errors import CpacmanError
from cpacman.fleet.hostfiles import load_hosts_files
from cpacman.model import Inventory, Request
from cpacman.signing import load_plan_key
from cpacman.store import Store
from tests.simulated.calendar import START
from tests.simulated.checker import Checker
from tests.simulated.hosts import AFTER, BEFORE, HALF, LIES, OTHER, Host
from tests.simulated.network import Network, with_cookie
from tests.simulated.people import People
from tests.simulated.probes import Probes
from tests.simulated.scenario import EMERGENCY, FIRST, SECOND, SERVICES, Scenario
from tests.simulated.schedule import Schedule, Stuck
from tests.unit.commands.world import Directory, World

TROUBLE = 1800.0
"""Seconds after which nothing breaks any more."""
LIMIT = 3 * 3600.0
KINDS = {
    BEFORE: ("app-1-1.noarch", "lib-1-1.noarch"),
    HALF: ("app-2-1.noarch", "lib-1-1.noarch"),
    AFTER: ("app-2-1.noarch", "lib-2-1.noarch"),
    OTHER: ("app-1-1.noarch", "lib-1-1.noarch", "tool-1-1.noarch"),
}
LATER = "later"
"""The mirror as somebody's reposync fills it in the middle: with something newer."""
SWITCHES = ("jobs", "controlling", "collecting", "resuming", "chains", "chaining", "states")


class Template(NamedTuple):
    """A fleet of one size, made once: its files are copied for each simulation.

    Attributes:
        plan: of its first class; a fleet of several classes is planned class by class.
        kinds: what a host may have installed.
        classes: host -> class.
        idle: the host that has everything already, "" for none.
    """

    world: World
    plan: str
    kinds: Mapping[str, Inventory]
    classes: Mapping[str, str]
    idle: str

    @property
    def is_chain(self) -> bool:
        """Whether it has several classes."""
        return SECOND in self.classes.values()


def template(base: Path, files: Mapping[str, Path], size: int, second: int = 0) -> Template:
    """Make a fleet of hosts that lag behind, `second` of them in the second class, and plan it.

    In a fleet of one class one host does not lag.
    """
    base.mkdir()
    world = World(base, files)
    world.mirror("app-2-1.noarch", "lib-2-1.noarch")
    world.mirror("app-2-1.noarch", "lib-2-1.noarch", "tool-2-1.noarch", name=LATER)
    names = [f"host{number:02d}" for number in range(size)]
    classes = {name: SECOND if number < second else FIRST for number, name in enumerate(names)}
    idle = "" if second else names[-1]
    for name in names:
        world.host(name, classes[name], *KINDS[AFTER if name == idle else BEFORE])
    kinds = {kind: with_cookie(msgspec.structs.replace(
        world.store.inventories([names[0]])[names[0]],
        packages=tuple(world.installed(nevra) for nevra in nevras),
    )) for kind, nevras in KINDS.items()}  # fmt: skip
    for name in names:
        own = kinds[AFTER if name == idle else BEFORE]
        facts = {"machine_id": f"machine of {name}"}
        world.store.put_inventory(msgspec.structs.replace(own, host=name, facts=facts), at=START)
    snapshot(world.context())
    made = plan(world.context(), Selection(class_=FIRST), request=Request())
    world.store.close()
    return Template(world, str(made["plan"]["plan_id"]), kinds, classes, idle)


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
    """Everything around one simulated fleet.

    Attributes:
        healed: set when nothing breaks any more.
        restless: set for people who halt and resume every few seconds, and a bad network.
    """

    def __init__(
        self, template: Template, folder: Path, seed: int, patch: pytest.MonkeyPatch
    ) -> None:
        self.dice = random.Random(seed)
        self.template, self.folder = template, folder
        self.schedule = Schedule(self.dice, START, LIMIT)
        self.counts: Counter[str] = Counter()
        self.healed = self.restless = False
        self.killing = self.dice.choice([0.0, 0.0, 0.004, 0.015, 0.05])
        _copy(template.world.base / "state", folder / "state")
        self.store = Store.open(f"sqlite:///{folder}/state/cpacman.db")
        self.key = load_plan_key(folder / "state")
        self._write = self.store._write
        self.store._write = self._writing  # type: ignore[method-assign]
        self.scenario = Scenario(self.dice, template.world, folder, template.classes)
        self.settings = self.scenario.settings()
        hosts = {name: self._host(name) for name in sorted(template.classes)}
        database = folder / "state" / "cpacman.db"
        self.checker = Checker(database, self.schedule, hosts, self.scenario)
        self.network = Network(
            hosts, self.schedule, self.dice, self.key.fingerprint,
            self.dice.choice([0.0, 0.02, 0.1, 0.25]), self.checker.starts,
        )  # fmt: skip
        self.network.asked, self.network.pushes = self.checker.asked, self.checker.pushes
        self._switch(patch)

    def close(self) -> None:
        """Let go of both databases."""
        self.checker.close()
        self.store.close()

    def _host(self, name: str) -> Host:
        dice, kinds = self.dice, {}
        for kind, inventory in self.template.kinds.items():
            facts = {"machine_id": f"machine of {name}"}
            kinds[kind] = msgspec.structs.replace(inventory, host=name, facts=facts)
        host = Host(name, kinds, AFTER if name == self.template.idle else BEFORE, met=self.counts)
        host.slow = dice.choice([0.1, 2.0, 15.0, 60.0])
        host.needs = tuple(one for one in (*SERVICES, "reboot") if dice.random() < 0.4)
        host.away = dice.choice([5.0, 30.0, 90.0, 600.0])
        host.inhibited, host.broken = (int(dice.random() < 0.1) for _ in range(2))
        bad = dice.random()
        if bad < 0.12:
            host.fates = [dice.choice(["failed", "refused", "hang", "failed"])]
        elif bad < 0.20:
            host.cuts = dice.choice([1, 2, 5])
        elif bad < 0.26:
            host.lie = dice.choice([*LIES, "signature", "signature"])
        elif bad < 0.36:
            start = START + dice.uniform(0, 400)
            host.down = [(start, start + dice.choice([5, 60, 600, 1e9]))]
        elif bad < 0.40:
            host.refuses = {dice.choice(["begin", "staged", "apply", "inventory"]): "space"}
        elif bad < 0.43 and host.truth == BEFORE and not self.template.is_chain:
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
                patch.setattr(f"cpacman.commands.{module}.{name}", own, raising=False)
        real = planning.make_plan

        def make_plan(*given: Any, **named: Any) -> Any:
            return real(*given, **named) if named else self._solve_again(*given)

        patch.setattr(planning, "make_plan", make_plan)
        # Nobody edits them here, and to read YAML is half of what a command costs.
        known = load_hosts_files(self.settings.membership.hosts_d, self.settings)
        patch.setattr("cpacman.commands.fleet.load_hosts_files", lambda *_: known)

    def _solve_again(self, context: Any, class_: str, hosts: Any, request: Any) -> Any:
        """What the planner would say of a host that changed: something else, or the same."""
        self.counts["solved again"] += 1
        held = self.store.locked_hosts()
        rows = [self.store.rollout_row(held[host]) for host in hosts if host in held]
        number = str(rows[0]["plan"]) if rows else self.template.plan
        stored = self.store.plan(number).plan
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
            settings=self.settings, live=lambda: self.settings,
            store=self.store, pool=Pool(self.settings.depot), key=self.key,
            directory=Directory(self.template.world),  # type: ignore[arg-type]
            transport=self.network,  # type: ignore[arg-type]
            who=who, clock=self.schedule.clock, sleep=self.schedule.sleep,
            stopping=lambda: bool(me and me.stopping), probes=Probes(self),
        )  # fmt: skip

    def run(self) -> Result:
        """Let everybody do their part until all is over."""
        spawn, dice = self.schedule.spawn, self.dice
        self.network.trouble = 0.25 if self.restless else self.network.trouble
        spawn("alice", self._deployer("alice", dice.random() < 0.5))
        if dice.random() < 0.4:
            spawn("bob", self._deployer("bob", False), after=dice.uniform(0, 300))
        for number in range(dice.choice([0, 1, 1, 2])):
            spawn(f"salt{number}", self._salt(number), after=dice.uniform(0, 20))
        people = People(self)
        for number in range(4 if self.restless else dice.choice([0, 1, 2])):
            spawn(f"person{number}", people.person(number))
        if dice.random() < 0.5:
            spawn("reaper", self._reaper)
        if self.template.is_chain and dice.random() < 0.3:
            spawn("mirror", self._mirror, after=dice.uniform(10, 600))
        if self.scenario.calendar.later is not None:
            at, freeze = self.scenario.calendar.later
            spawn("writer", lambda: self._freeze(freeze), after=at - START)
        spawn("healer", people.heal, after=TROUBLE)
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

    def attempt(self, who: str, command: Callable[[Context], Any]) -> None:
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
        dice, chain = self.dice, self.template.is_chain
        levels = dice.sample(sorted(self.scenario.levels), 1) if dice.random() < 0.3 else []
        profile = EMERGENCY if dice.random() < 0.2 else None
        what = {"classes": ("all",), "now": True} if chain else {"plan": self.template.plan}

        def deploy(context: Context) -> None:
            steering.deploy(
                context, Selection(), **what, levels=() if chain else levels,
                background=background, profile=profile, reason="the site is down",
            )  # type: ignore[arg-type]  # fmt: skip

        return lambda: self.attempt(who, deploy)

    # ---- engines ---------------------------------------------------------------------------

    def _salt(self, number: int) -> Callable[[], None]:
        """What starts an engine again that has ended, as Salt's master does."""

        def live() -> None:
            count, engine = 0, None
            while self.is_busy():
                if engine is None or not engine.alive:
                    name = f"engine{number}.{count}"
                    engine = self.schedule.spawn(name, self._engine(name))
                    self.counts["engine started again"] += count > 0
                    count += 1
                self.schedule.sleep(10.0)

        return live

    def _engine(self, name: str) -> Callable[[], None]:
        children: dict[ticking.Work, Any] = {}

        def tick(context: Context) -> None:
            for work in [w for w, child in children.items() if child.over]:
                del children[work]
            if not ticking.is_acting(context, self.schedule.owner()):
                return
            for work in ticking.due_work(context):
                if work not in children:
                    self.checker.works(name)
                    children[work] = self._carry(name, work)

        def loop() -> None:
            while self.is_busy():
                self.attempt(name, tick)
                self.schedule.sleep(self.dice.choice([5.0, 20.0, 30.0]))

        return loop

    def is_busy(self) -> bool:
        """Whether an engine still has something to look for."""
        return not self.healed or self.is_open()

    def is_open(self) -> bool:
        """Whether a rollout or a chain is not over."""
        return bool(self.store.rollouts(active=True) or self.store.chains(active=True))

    def _carry(self, engine: str, work: ticking.Work) -> Any:
        def carry(context: Context) -> None:
            ticking.do_work(context, work)

        name = f"{engine} child {len(self.schedule.processes)}"
        return self.schedule.spawn(name, lambda: self.attempt(ENGINE, carry), child=True)

    # ---- what happens ----------------------------------------------------------------------

    def _freeze(self, freeze: Mapping[str, str]) -> None:
        """Somebody writes a freeze down, in the middle of it all."""
        if not self.healed:
            self.checker.note(f"a freeze is written down: {freeze}")
            self.counts["freeze in the middle"] += 1
            self.settings = self.scenario.settings(freezes=[freeze])

    def _mirror(self) -> None:
        """Something newer comes to the mirror, and the first class takes it."""

        def take(context: Context) -> None:
            snapshot(context._replace(settings=self.scenario.settings(mirror=LATER)))

        self.attempt("mirror", take)

    def _reaper(self) -> None:
        """End a process every now and then, or cut the power of a host."""
        while not self.healed:
            self.schedule.sleep(self.dice.expovariate(1 / 150))
            if self.healed:
                return
            if self.dice.random() < 0.25:
                self._cut_power()
                continue
            spared = ("healer", "reaper", "network", "writer", "salt0", "salt1")
            living = [p for p in self.schedule.processes if p.alive and p.name not in spared]
            if living:
                self._end(self.dice.choice(living))

    def _end(self, victim: Any) -> None:
        self.checker.note(f"{victim.name} is killed, or gets a Ctrl-C")
        if self.dice.random() < 0.3:
            self.counts["ctrl-c"] += 1
            victim.stopping = True
        else:
            self.counts["killed while it waits"] += 1
            self.schedule.kill(victim)

    def _cut_power(self) -> None:
        host = self.dice.choice(list(self.network.hosts.values()))
        host.settle(self.schedule.now)
        if host.falls is None:
            self.counts["power cut"] += 1
            self.checker.note(f"{host.name}: the power is cut")
            host.falls_at(self.schedule.now, self.dice.uniform(5, 60))


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        if path.is_file():
            shutil.copy2(path, target)
