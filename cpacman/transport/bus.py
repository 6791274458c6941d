"""Events on the master's bus, for others to use.

Invariants: an event says what the journal has already, in a small body; it is fired after the
fact, and whether anybody hears it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_STARTED = {"rollout": "started"}
_OF_HOSTS = frozenset(
    {"applied", "unchanged", "refused", "failed", "silent", "skipped"}
    | {"installed", "restart", "reboot"}
)


def tag_of(entry: Mapping[str, Any]) -> str:
    """Return the tag of a journal entry's event.

    `cpacman/rollout/<id>/<started, done, halted, ...>`, `cpacman/rollout/<id>/host/<outcome>`,
    `cpacman/snapshot/<id>`, and `cpacman/<action>/<subject>` for the rest.
    """
    action, subject = str(entry["action"]), str(entry["subject"])
    if not subject.startswith("r-"):
        return f"cpacman/{action.replace(' ', '-')}/{subject}"
    if action in _OF_HOSTS and entry.get("host"):
        return f"cpacman/rollout/{subject}/host/{action}"
    return f"cpacman/rollout/{subject}/{_STARTED.get(action, action.replace(' ', '-'))}"


def body_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event says: who, when, of which host; the rest is in the journal."""
    return {k: entry.get(k) for k in ("action", "subject", "host", "who", "at", "ticket")}


class Bus:
    """Fires events of journal entries.

    Args:
        opts: the master's options.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        self._event: Any = None

    def tell(self, entry: Mapping[str, Any]) -> None:
        """Fire the event of an entry; a bus that is not there is no reason to fail."""
        with suppress(Exception):
            if self._event is None:
                import salt.utils.event

                self._event = salt.utils.event.get_event(
                    "master", sock_dir=self._opts["sock_dir"], opts=self._opts, listen=False
                )
            self._event.fire_event(body_of(entry), tag_of(entry), timeout=1000)

    def close(self) -> None:
        """Hang up."""
        with suppress(Exception):
            if self._event is not None:
                self._event.destroy()
