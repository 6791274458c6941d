"""pydantic's errors as problems: each with its path, in our words, with the mend."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cpacman.config.fields import Section
from cpacman.config.values import nearest
from cpacman.errors import Problem


def problems_of(error: ValidationError, model: type[Section]) -> list[Problem]:
    """Return pydantic's errors as problems with paths, in our words."""
    details = error.errors(include_url=False)
    return [_problem_of(one, model) for one in details if one["type"] not in _CONSEQUENCES]


_CONSEQUENCES = ("default_factory_not_called",)  # of another error, reported itself

_PHRASES = {
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "bool_type": "is not true or false",
    "model_type": "is not a mapping of settings",
    "dict_type": "is not a mapping of settings",
    "tuple_type": "is not a list",
}


def _problem_of(detail: ErrorDetails, model: type[Section]) -> Problem:
    path, kind, value = path_text(detail["loc"]), detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "cpacman":
        return Problem(path, context["text"], context["mend"])
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        return Problem(path, f"unknown key {key!r}", nearest(key, _keys_at(model, detail["loc"])))
    if kind == "missing":
        return Problem(path, "is missing", f"add {detail['loc'][-1]}")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context.get("expected", ""))
        return Problem(path, f"{value!r} is unknown", nearest(str(value), known))
    if kind in _PHRASES:
        scalar = kind == "string_type" and not isinstance(value, dict | list)
        return Problem(path, f"{value!r} {_PHRASES[kind]}", "quote it" if scalar else "")
    return Problem(path, f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, but it is {value!r}")


def path_text(loc: Iterable[int | str]) -> str:
    """Return `levels[2].match` for `("levels", 2, "match")`; pydantic's `[key]` is left out."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def _keys_at(model: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where the last part of `loc` is not."""
    at: Any = model
    for part in loc[:-1]:
        at = _step(at, part)
    return [key for key in _fields_of(at) if key != "name"]


def _fields_of(annotation: Any) -> dict[str, Any]:
    at = _unwrapped(annotation)
    if not (isinstance(at, type) and issubclass(at, Section)):
        return {}
    return {info.alias or name: info.annotation for name, info in at.model_fields.items()}


def _step(annotation: Any, part: int | str) -> Any:
    """Return the type found at `part` of a section, a tuple or a dict."""
    at = _unwrapped(annotation)
    if get_origin(at) in (tuple, dict):
        return get_args(at)[0 if isinstance(part, int) else 1]
    return _fields_of(at).get(str(part))


def _unwrapped(annotation: Any) -> Any:
    """Take off `Annotated` and `| None`."""
    while True:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            annotation = args[0]
        elif origin in (Union, types.UnionType):
            annotation = next(one for one in args if one is not type(None))
        else:
            return annotation
