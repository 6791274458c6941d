"""People around a simulated fleet: what they type, and the one who mends it all in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cpacman.commands import collecting, controlling, resuming, steering
from cpacman.commands.chains import is_chain
from cpacman.commands.context import Context
from cpacman.commands.fleet import Selection

if TYPE_CHECKING:
    from tests.simulated.fleet import Simulation

Command = Callable[[Context], Any]


class People:
    """Operators of one simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self._all = simulation
        self._dice, self._sleep = simulation.dice, simulation.schedule.sleep
        self._tried: Counter[str] = Counter()

    def person(self, number: int) -> Callable[[], None]:
        """Somebody who looks in every minute or so, and does something about it."""
        one = self._all

        def live() -> None:
            while not one.healed:
                self._sleep(self._dice.expovariate(1 / (6 if one.restless else 60)))
                found = [str(row["id"]) for row in one.store.rollouts()]
                found += [chain.id for chain in one.store.chains()]
                if found and not one.healed:
                    one.attempt(f"person{number}", self._whim(self._dice.choice(found)))

        return live

    def _whim(self, number: str) -> Command:
        acts = self._on_chain(number) if is_chain(number) else self._on_rollout(number)
        if self._all.restless:
            acts = {one: weight for one, weight in acts.items()
                    if one.__name__.split()[0] in ("halt", "resume", "approve")}  # fmt: skip
        return self._dice.choices(list(acts), [acts[one] for one in acts])[0]

    def _on_chain(self, number: str) -> dict[Command, float]:
        patience = self._dice.choice([0.0, 60.0, 1000.0])
        return {
            _named("halt chain", lambda c: steering.halt(c, number)): 2,
            _named("resume chain", lambda c: steering.resume(c, number, patience=patience)): 4,
            _named("resume chain background",
                   lambda c: steering.resume(c, number, background=True)): 3,
            _named("cancel chain", lambda c: steering.cancel(c, number)): 0.3,
            _named("approve chain", lambda c: steering.approve(c, number)): 2,
            _named("force chain", self._forcing(number)): 2,
        }  # fmt: skip

    def _on_rollout(self, number: str) -> dict[Command, float]:
        host = self._dice.choice(sorted(self._all.template.classes))
        patience = self._dice.choice([0.0, 60.0, 1000.0])
        return {
            _named("halt", lambda c: controlling.halt(c, number, wait=30.0)): 3,
            _named("halt all", lambda c: steering.halt(c, everything=True)): 1,
            _named("resume", lambda c: steering.resume(c, number, patience=patience)): 4,
            _named("resume background", lambda c: steering.resume(c, number, background=True)): 2,
            _named("cancel", lambda c: controlling.cancel(c, number, wait=5.0)): 0.5,
            _named("skip", lambda c: controlling.skip(c, number, [host])): 2,
            _named("retry", lambda c: resuming.retry(c, number, patience=patience)): 3,
            _named("retry one", lambda c: resuming.retry(c, number, host=[host])): 1,
            _named("approve", lambda c: steering.approve(c, number)): 3,
            _named("recover", lambda c: collecting.recover(c, Selection(), rollout=number)): 2,
            _named("force", self._forcing(number)): 1,
        }

    def _forcing(self, number: str) -> Command:
        levels = self._all.checker.levels

        def force(context: Context) -> Any:
            me = self._all.schedule.owner()
            levels.forcing |= {me}
            try:
                return steering.resume(context, number, force=True, reason="x", patience=0.0)
            finally:
                levels.forcing -= {me}

        return force

    # ---- the end ---------------------------------------------------------------------------

    def heal(self) -> None:
        """Mend all, and close what is open."""
        one = self._all
        one.healed, one.killing, one.network.trouble = True, 0.0, 0.0
        one.scenario.calm = True
        one.settings = one.scenario.settings()
        one.checker.note("all is mended")
        for host in one.network.hosts.values():
            host.down, host.lie, host.refuses, host.fates, host.cuts = [], "", {}, [], 0
            host.inhibited = host.broken = 0
            if host.falls is not None:
                host.rises = min(host.rises, max(host.falls, one.schedule.now) + 5.0)
            if host.at_work is not None and host.at_work.fate == "hang":
                host.at_work.fate, host.at_work.ends = "failed", one.schedule.now
        # A person recovers as often as it takes: one that ran out of patience leaves one open.
        for _ in range(5):
            self._close_all()
            for class_ in sorted(set(one.scenario.classes.values())):
                everyone = Selection(class_=class_)
                one.attempt("healer", _named("recover", lambda c, s=everyone: _recover(c, s)))
            if not one.is_open():
                break

    def _close_all(self) -> None:
        for _ in range(40):
            rows = self._all.store.rollouts(active=True)
            chains = self._all.store.chains(active=True)
            if not rows and not chains:
                break
            for row in rows:
                self._close(str(row["id"]), row)
            for chain in self._all.store.chains(active=True):
                self._close_chain(chain)
            self._sleep(30.0)

    def _close(self, number: str, row: Any) -> None:
        one = self._all
        if row["state"] in ("running", "waiting") and one.schedule.is_alive(row["owner"]):
            return
        one.attempt("dave", _named("approve", lambda c: controlling.approve(c, number)))
        go_on = _named("resume", lambda c: resuming.resume(c, number, patience=900.0))
        # Those that a check is for may all have failed: to ask again and again changes nothing.
        self._tried[number] += row["state"] == "paused"
        shows_nothing = "shows nothing" in str(row["why"]) or self._tried[number] > 4
        forced = row["state"] == "paused" and shows_nothing
        one.attempt("healer", _named("force", self._forcing(number)) if forced else go_on)

    def _close_chain(self, chain: Any) -> None:
        """Go on with a chain, over what refuses the promotion; give up what can't go on."""
        one, number = self._all, chain.id
        if chain.owner and one.schedule.is_alive(chain.owner):
            return
        self._tried[number] += 1
        if self._tried[number] > 4:
            # What it deploys is of the past by now, or a level of it has nobody who is well.
            one.attempt("healer", _named("cancel chain", lambda c: steering.cancel(c, number)))
            return
        go_on = _named("resume chain", lambda c: steering.resume(c, number, patience=900.0))
        one.attempt("healer", go_on)
        if one.store.chain(number).state == "paused":
            one.attempt("healer", _named("force chain", lambda c: steering.resume(
                c, number, force=True, reason="x", patience=900.0)))  # fmt: skip


def _recover(context: Context, selection: Selection) -> Any:
    return collecting.recover(context, selection)


def _named(name: str, command: Command) -> Command:
    command.__name__ = name
    return command
