"""What must hold of chains: class after class, what soaked and nothing newer, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulated.picture import ChainRow, Header, Picture
from tests.simulated.scenario import FIRST, SECOND

if TYPE_CHECKING:
    from tests.simulated.checker import Checker

CLOSED = ("done", "halted", "cancelled")
ORDER = [FIRST, SECOND]
HALT_SECONDS = 1.0


class ChainRules:
    """The part of the checker that looks at chains."""

    def __init__(self, checker: Checker) -> None:
        self._all = checker
        self._held: dict[str, str] = {}
        self._wished: dict[str, float] = {}

    def committed(self, before: Picture, now: Picture) -> None:
        """Compare the chains, and what classes point at, with what they were."""
        for number, chain in now.chains.items():
            self._chain(before.chains.get(number), chain)
        for number, header in now.headers.items():
            if number not in before.headers and header.setting("chain"):
                self._began(header, now)
        for class_, snapshot in now.pointers.items():
            if class_ != FIRST and before.pointers.get(class_) != snapshot:
                self._promoted(class_, snapshot, now)

    def _chain(self, old: ChainRow | None, new: ChainRow) -> None:
        if old is None or old.state != new.state:
            self._all.note(f"{new.id} is {new.state}")
            self._all.counts[f"chain {new.state}"] += 1
        if old is not None and old.state == "cancelled" != new.state:
            self._all.wrong(f"{new.id} is {new.state} after it was cancelled")
        if new.wish is None:
            self._wished.pop(new.id, None)
        else:
            self._wished.setdefault(new.id, self._all.schedule.now)
        classes = [step["class_"] for step in new.entered]
        if classes != ORDER[: len(classes)]:
            self._all.wrong(f"{new.id} enters {classes}")

    def _began(self, header: Header, now: Picture) -> None:
        """A rollout begins as a part of a chain."""
        chain = now.chains[header.setting("chain")]
        self._all.counts[f"chain enters {header.class_}"] += 1
        if (chain.state, chain.wish, chain.owner) != ("running", None, self._all.schedule.owner()):
            self._all.wrong(f"{chain} begins {header.id}")
        steps = chain.entered
        if not steps or steps[-1]["rollout"] != header.id:
            self._all.wrong(f"{chain.id} does not know that it begins {header.id}")
        for step in steps[:-1]:
            if step["rollout"] and now.headers[step["rollout"]].state != "done":
                self._all.wrong(f"{chain.id} enters {header.class_} before {step} is done")
        held = now.pointers[header.class_]
        if self._held.setdefault(chain.id, held) != held:
            self._all.wrong(f"{chain.id} brings {held} to {header.class_}, not what soaked")

    def _promoted(self, class_: str, snapshot: str, now: Picture) -> None:
        """A class is pointed elsewhere, which nobody but a chain does here."""
        owner = self._all.schedule.owner()
        chains = [one for one in now.chains.values()
                  if (one.owner, one.state, one.wish) == (owner, "running", None)]  # fmt: skip
        for step in (one for chain in chains for one in chain.entered):
            if step["rollout"] and now.headers[step["rollout"]].state != "done":
                self._all.wrong(f"{class_} is promoted to before {step} is done")
        if not any(self._held.get(one.id) == snapshot for one in chains):
            self._all.wrong(f"{class_} is pointed at {snapshot} by {owner}, for {chains}")

    def ordered(self, header: Header) -> None:
        """Hosts of a rollout are told to start."""
        wished = self._wished.get(header.setting("chain") or "")
        now = self._all.schedule.now
        if wished is not None and now > wished + HALT_SECONDS:
            self._all.wrong(f"hosts of {header.id} start {now - wished:.1f} s after its chain's"
                            " wish to stop")  # fmt: skip

    def over(self) -> None:
        """Everybody went home: no chain is open."""
        for chain in self._all.seen.chains.values():
            if chain.state not in CLOSED:
                self._all.wrong(f"{chain.id} is {chain.state} for ever, owner {chain.owner!r}")
