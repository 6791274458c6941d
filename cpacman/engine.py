"""The engine's loop: a process that looks what is due, and starts a process for each piece of it.

Invariants: nothing is kept here that the database does not have, so that the engine may be killed
at any instant; a child dies with it and its work is begun again; one piece of work is never done
by two children at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from cpacman.commands.access import ENGINE
from cpacman.commands.context import open_context
from cpacman.commands.ticking import Work, do_work, due_work, is_acting
from cpacman.errors import CpacmanError
from cpacman.rollout.owner import owner_of

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


class Engine:
    """Looks every few seconds what is due.

    Args:
        opts: the master's options.
        interval: seconds between two looks.
    """

    def __init__(self, opts: Mapping[str, Any], interval: float = 2.0) -> None:
        self._opts = opts
        self._interval = interval
        self._children: dict[Work, multiprocessing.process.BaseProcess] = {}

    def run(self) -> None:
        """Go on until the process is ended. What can't be done now is tried again."""
        while True:
            try:
                self.tick()
            except CpacmanError as error:
                log.error("cpacman: %s", error)
            except Exception:
                log.exception("cpacman: the engine met a bug, and goes on")
            time.sleep(self._interval)

    def tick(self) -> None:
        """Look once, and start what is due."""
        self._reap()
        with open_context(self._opts, who=ENGINE) as context:
            if not is_acting(context, owner_of(os.getpid())):
                return
            wanted = [work for work in due_work(context) if work not in self._children]
        # The database is closed before the fork: a connection must not be shared.
        for work in wanted:
            self._start(work)

    def _reap(self) -> None:
        for work, child in list(self._children.items()):
            if not child.is_alive():
                child.join()
                del self._children[work]

    def _start(self, work: Work) -> None:
        parent = os.getpid()
        context = multiprocessing.get_context("fork")
        child = context.Process(
            target=_do, args=(self._opts, work, parent), name=f"cpacman {work.kind} {work.subject}"
        )
        child.start()
        self._children[work] = child


def _do(opts: Mapping[str, Any], work: Work, parent: int) -> None:
    """Do one piece of work in a child that dies with its parent."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.getppid() != parent:
        return
    try:
        with open_context(opts, who=ENGINE) as context:
            do_work(context, work)
    except CpacmanError as error:
        log.error("cpacman: %s %s: %s", work.kind, work.subject, error)
