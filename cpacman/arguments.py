"""What people type: the arguments of public functions, checked by name and type, and in groups.

Invariants: a misspelt name is refused with the nearest one, every mistake at once; what YAML made
of a value is told; an argument that is empty by mistake never means everything. Arguments that many
functions take alike are one parameter there, annotated by a group, and typed one by one all the
same.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpacman.commands.context import Bandwidth
from cpacman.commands.fleet import Selection
from cpacman.errors import Problem, UsageError
from cpacman.model import Request

TYPED = ("{name}=", """{name}='"..."'""")
"""How an argument is written on a command line, and there as text that YAML leaves alone."""
FILED = ("{name}:", '{name}: "..."')
"""The same in a state file."""

Names = str | list[str] | None
"""A list of names as people type it: `a`, `a,b` or `[a, b]`."""
_TOLD = frozenset({"reason", "ticket"})
"""Arguments that select nothing: empty, they are as if they were left out."""
_SALT_KEYS = ("__pub_", "__jid_event__")


class Sel(NamedTuple):
    """Which hosts are meant."""

    tgt: str | None = None
    tgt_type: str = "glob"
    class_: Names = None
    level: Names = None
    channel: Names = None
    meta: Names = None

    def selection(self, *, owed: bool = False) -> Selection:
        """Return what commands take."""
        return Selection(*self, owed)


class Asked(NamedTuple):
    """What a plan is asked for."""

    upgrade: Names = None
    install: Names = None
    remove: Names = None
    sync: bool = False
    exclude: Names = None
    exclude_repos: Names = None
    lock: Names = None
    advisory: Names = None
    cve: Names = None
    security: bool = False
    severity: Names = None
    minimal: bool = False
    strict: bool = False

    def request(self, *, reasons: bool = True) -> Request:
        """Return what commands take."""
        return Request(
            upgrade=listed(self.upgrade),
            install=listed(self.install),
            remove=listed(self.remove),
            sync=self.sync,
            strict=self.strict,
            reasons=reasons,
            exclude=listed(self.exclude),
            exclude_repos=listed(self.exclude_repos),
            lock=listed(self.lock),
            advisory=(*listed(self.advisory), *listed(self.cve)),
            security=self.security,
            severity=listed(self.severity),
            minimal=self.minimal,
        )


GROUPS: dict[str, Any] = {"Sel": Sel, "Asked": Asked, "Bandwidth": Bandwidth}
"""Groups by the name of their annotation."""
_WITHOUT_NAME = frozenset({"tgt", "tgt_type"})
"""What of a group may be typed by its place alone."""


def typed_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the arguments of a function as they are typed: each group is taken apart."""
    hints = typing.get_type_hints(function)
    found: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, parameter.annotation)
        if hint in GROUPS.values():
            found += _members(hint)
        else:
            found.append(parameter.replace(annotation=hint))
    # A signature has what may be typed by its place before the rest.
    return inspect.Signature(sorted(found, key=lambda one: one.kind))


def _members(group: Any) -> Iterator[inspect.Parameter]:
    hints = typing.get_type_hints(group)
    for name in group._fields:
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        kind = place if name in _WITHOUT_NAME else inspect.Parameter.KEYWORD_ONLY
        default = group._field_defaults[name]
        yield inspect.Parameter(name, kind, default=default, annotation=hints[name])


def bind_arguments(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    form: tuple[str, str] = TYPED,
) -> inspect.BoundArguments:
    """Check names and types of what was typed against a function's signature.

    Args:
        function: what is to be called.
        args: by place.
        kwargs: by name.
        form: how arguments are written where these are from, for the mends.

    Raises:
        UsageError: every unknown name with the nearest known one, every value of a wrong type.
    """
    signature = typed_signature(function)
    given = {_python_name(k): v for k, v in kwargs.items() if not k.startswith(_SALT_KEYS)}
    problems = [*_unknown(signature, given, form), *_surplus(signature, args, given)]
    if problems:
        raise UsageError(problems)
    try:
        bound = signature.bind(*args, **given)
    except TypeError as error:
        raise UsageError(Problem(function.__name__, str(error))) from error
    wrong = [
        problem
        for name, value in bound.arguments.items()
        for problem in _wrong_type(name, value, signature.parameters[name].annotation, form)
    ]
    if wrong:
        raise UsageError(wrong)
    return _grouped(function, bound)


def _grouped(function: Callable[..., Any], bound: inspect.BoundArguments) -> inspect.BoundArguments:
    """Put the members of groups together again, as the function takes them."""
    plain, hints = inspect.signature(function), typing.get_type_hints(function)
    left = dict(bound.arguments)
    made: dict[str, Any] = {}
    for name in plain.parameters:
        group: Any = hints.get(name)
        if group in GROUPS.values():
            members = {one: left.pop(one) for one in group._fields if one in left}
            made[name] = group(**members)
        elif name in left:
            made[name] = left.pop(name)
    return inspect.BoundArguments(plain, made)


def _python_name(name: str) -> str:
    return f"{name}_" if name in {"class", "from"} else name


def _typed_name(name: str) -> str:
    return name.rstrip("_")


def _unknown(
    signature: inspect.Signature, given: Mapping[str, Any], form: tuple[str, str]
) -> Iterator[Problem]:
    rest = inspect.Parameter.VAR_POSITIONAL
    names = [name for name, p in signature.parameters.items() if p.kind is not rest]
    known = [_typed_name(name) for name in names]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(_typed_name(name), known, n=1)
            meant = form[0].format(name=near[0]) if near else ""
            mend = f"did you mean {meant}?" if near else f"known are: {', '.join(known)}"
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


def _wrong_type(name: str, value: Any, hint: Any, form: tuple[str, str]) -> Iterator[Problem]:
    typed = _typed_name(name)
    if isinstance(value, tuple):
        # The rest of what was typed, one value after the other.
        for one in value:
            yield from _wrong_type(name, one, hint, form)
        return
    if _is_empty(typed, value, hint):
        # A variable of a script that is empty by mistake must not mean everything.
        yield Problem(typed, "is empty", "name something, or leave the argument out")
        return
    quote = f"quote it: {form[1].format(name=typed)}"
    if hint is bool and not isinstance(value, bool):
        yield Problem(typed, f"{value!r} is neither True nor False")
    elif hint == Names:
        for item in value if isinstance(value, list) else [value]:
            if value is not None and not isinstance(item, str):
                yield Problem(typed, f"was read as the {_kind(item)} {item!r}", quote)
    elif hint in (str, str | None) and value is not None and not isinstance(value, str):
        yield Problem(typed, f"was read as the {_kind(value)} {value!r}", quote)


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
