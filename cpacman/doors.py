"""What every public runner function has in common: one decorator, and progress over Salt.

Invariants: a CPacMan error is a clean message and a non-zero retcode; anything else that escapes
is a bug, says so, and fails; a misspelt argument names the nearest one. `salt-run` itself reports
failure badly: without this an exception prints a traceback and a `TypeError` ends with 0.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import signal
import threading
import time
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cpacman.errors import EXIT_OTHER, CpacmanError, Problem, UsageError
from cpacman.report.progress import Pace

OUTPUTTER = "cpacman"
_INTERRUPTED = Problem(
    "", "stopped at once; hosts that were told to start go on by themselves",
    "the next salt-run cpacman.deploy collects how they ended",
)  # fmt: skip
_EVERY = 1.0
_SALT_KEYS = ("__pub_", "__jid_event__")

Names = str | list[str] | None
"""A list of names as people type it: `a`, `a,b` or `[a, b]`."""


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


def bind_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Check names and types of what was typed against a function's signature.

    Raises:
        UsageError: every unknown name with the nearest known one, every value of a wrong type.
    """
    signature = inspect.signature(function)
    given = {_python_name(k): v for k, v in kwargs.items() if not k.startswith(_SALT_KEYS)}
    problems = [*_unknown(signature, given), *_surplus(signature, args, given)]
    if problems:
        raise UsageError(problems)
    try:
        bound = signature.bind(*args, **given)
    except TypeError as error:
        raise UsageError(Problem(function.__name__, str(error))) from error
    hints = typing.get_type_hints(function)
    wrong = [p for name, v in bound.arguments.items() for p in _wrong_type(name, v, hints[name])]
    if wrong:
        raise UsageError(wrong)
    return bound


def _python_name(name: str) -> str:
    return f"{name}_" if name in {"class", "from"} else name


def _typed_name(name: str) -> str:
    return name.rstrip("_")


def _unknown(signature: inspect.Signature, given: Mapping[str, Any]) -> Iterator[Problem]:
    rest = inspect.Parameter.VAR_POSITIONAL
    names = [name for name, p in signature.parameters.items() if p.kind is not rest]
    known = [_typed_name(name) for name in names]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(_typed_name(name), known, n=1)
            mend = f"did you mean {near[0]}=?" if near else f"known are: {', '.join(known)}"
            yield Problem(_typed_name(name), "there is no such argument", mend)


def _surplus(
    signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any]
) -> Iterator[Problem]:
    names = [
        n
        for n, p in signature.parameters.items()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    kinds = {p.kind for p in signature.parameters.values()}
    for value in args[len(names) :] if inspect.Parameter.VAR_POSITIONAL not in kinds else ():
        yield Problem(repr(value), "is one argument too many", "give it a name, such as class=...")
    for name in names[: len(args)]:
        if name in given:
            yield Problem(_typed_name(name), "is given twice")


def _wrong_type(name: str, value: Any, hint: Any) -> Iterator[Problem]:
    typed = _typed_name(name)
    if isinstance(value, tuple):
        # The rest of what was typed, one value after the other.
        for one in value:
            yield from _wrong_type(name, one, hint)
        return
    if _is_empty(typed, value, hint):
        # A variable of a script that is empty by mistake must not mean everything.
        yield Problem(typed, "is empty", "name something, or leave the argument out")
        return
    quote = f"""quote it: {typed}='"..."'"""
    if hint is bool and not isinstance(value, bool):
        yield Problem(typed, f"{value!r} is neither True nor False")
    elif hint == Names:
        for item in value if isinstance(value, list) else [value]:
            if value is not None and not isinstance(item, str):
                yield Problem(typed, f"was read as the {_kind(item)} {item!r}", quote)
    elif hint in (str, str | None) and value is not None and not isinstance(value, str):
        yield Problem(typed, f"was read as the {_kind(value)} {value!r}", quote)


_TOLD = frozenset({"reason", "ticket"})
"""Arguments that select nothing: empty, they are as if they were left out."""


def _is_empty(name: str, value: Any, hint: Any) -> bool:
    """Return whether an argument was given and holds nothing."""
    if name in _TOLD or hint not in (Names, str, str | None):
        return False
    if isinstance(value, list):
        return all(isinstance(one, str) and not one.strip() for one in value)
    return isinstance(value, str) and not value.strip(" ,")


def _kind(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def listed(value: Names) -> tuple[str, ...]:
    """Return a list of names however it was typed."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


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
