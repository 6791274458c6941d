"""What every public runner function has in common: one decorator, and progress over Salt.

Invariants: a CPacMan error is a clean message and a non-zero retcode; anything else that escapes
is a bug, says so, and fails. `salt-run` itself reports failure badly: without this an exception
prints a traceback and a `TypeError` ends with 0.
"""

from __future__ import annotations

import functools
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from cpacman.arguments import bind_arguments
from cpacman.errors import EXIT_OTHER, CpacmanError, Problem
from cpacman.report.progress import Pace

OUTPUTTER = "cpacman"
_INTERRUPTED = Problem(
    "", "stopped at once; hosts that were told to start go on by themselves",
    "the next salt-run cpacman.deploy collects how they ended",
)  # fmt: skip
_EVERY = 1.0


def runner(function: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make a public runner function of one that returns `{what: {...}}` or raises.

    `class=` and `from=` are Python keywords, so the function calls them `class_` and `from_`.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            bound = bind_arguments(function, args, kwargs)
            return _result(function(*bound.args, **bound.kwargs))
        except CpacmanError as error:
            return failure_of(error)
        except KeyboardInterrupt:
            return failure_of(CpacmanError(_INTERRUPTED))
        except Exception as error:
            return _bug(function.__name__, error)

    # Salt would read the inner signature through this, print a message of its own and exit 0.
    del wrapper.__wrapped__
    return wrapper


def failure_of(error: CpacmanError) -> dict[str, Any]:
    """Return what a runner answers for an error of ours: clean text and a non-zero retcode."""
    body = {
        "result": False,
        "kind": type(error).__name__,
        "problems": [dict(problem._asdict()) for problem in error.problems],
    }
    return {"data": {"error": body, "retcode": error.exit_code}, "outputter": OUTPUTTER}


def _result(payload: Mapping[str, Any]) -> dict[str, Any]:
    # `retcode` may only be there when it is not 0: Salt counts any other value as a failure.
    data = dict(payload)
    code = data.pop("retcode", 0)
    shaped: dict[str, Any] = {what: {"result": not code, **body} for what, body in data.items()}
    if code:
        shaped["retcode"] = code
    return {"data": shaped, "outputter": OUTPUTTER}


def _bug(name: str, error: Exception) -> dict[str, Any]:
    body = {
        "result": False,
        "command": name,
        "message": f"{type(error).__name__}: {error}",
        "traceback": traceback.format_exc(),
    }
    return {"data": {"bug": body, "retcode": EXIT_OTHER}, "outputter": OUTPUTTER}


class SaltReporter:
    """Shows progress in the terminal of `salt-run`, as events that its outputter prints.

    Args:
        fire: `__jid_event__.fire_event` of the loader, or None when there is nobody to show it to.
    """

    def __init__(self, fire: Callable[[Mapping[str, Any], str], Any] | None) -> None:
        self._fire = fire
        self._last: dict[str, float] = {}
        self._pace = Pace()

    @classmethod
    def of(cls, opts: Mapping[str, Any]) -> SaltReporter:
        """Return the reporter for the command that runs now.

        Salt puts `__jid_event__` into the globals of the function that it calls, and that is the
        decorator's wrapper: so it is here that it is found. With `--out=json` nobody is told, as
        each event would be a document of its own before the result.
        """
        event: Any = globals().get("__jid_event__")
        quiet = event is None or opts.get("output") is not None
        return cls(None if quiet else event.fire_event)

    def line(self, text: str) -> None:
        """See `Reporter.line`."""
        if self._fire is None:
            return
        # No client, or another thread's dead event: progress is never worth a failure.
        with suppress(NameError, ReferenceError, OSError):
            self._fire({"message": text, "outputter": OUTPUTTER}, "progress")

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """See `Reporter.progress`; at most one line a second for each kind of work."""
        now = time.monotonic()
        started = self._last.setdefault(what, now)
        if now - started < _EVERY:
            return
        self._last[what] = now
        share = f"{100 * done // total} %" if total else ""
        pace = self._pace.words(what, done, total, now) if unit == "bytes" else ""
        self.line(f"{what}: {_amount(done, total, unit)}  {share}  {pace}".rstrip())


def _amount(done: int, total: int, unit: str) -> str:
    if unit == "bytes":
        return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
    return f"{done} of {total} {unit}".rstrip()


@contextmanager
def signals_watched(reporter: SaltReporter, watch: bool) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, hang-up or termination into a polite wish to stop.

    Args:
        reporter: where the operator is told what happens now.
        watch: whether the command has something to finish; else signals stay as they are.

    Yields:
        a function that says whether somebody wants us to stop.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        reporter.line("stopping: no more hosts start, those in flight are collected")

    main = threading.current_thread() is threading.main_thread()
    wanted = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) if watch and main else ()
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
