"""Annotations of dataclass fields: whether a value conforms to one, and what to write instead."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
from collections.abc import Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nuat.schedules import Constant, Schedule

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "True or False", NoneType: "None"}


def field_hints(kind: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass; nothing for any other object."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {}
    try:
        hints = get_type_hints(kind)
    except NameError:  # an annotation of the user's class that cannot be resolved
        return {}
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def explain_mismatch(subject: str, text: str, hint: Any, names: Mapping[str, Any]) -> str:
    """Return the error for a text that is no value of this annotation: `eps takes ..., not ...`.

    It lists those of the `names` that are values of it, and the one that was probably meant.
    """
    kinds = tuple(kind for kind in get_args(hint) or (hint,) if isinstance(kind, type))
    allowed = {
        name: _as_written(name, value)
        for name, value in sorted(names.items())
        if (issubclass(value, kinds) if isinstance(value, type) else conforms(value, hint))
    }
    similar = _find_similar(text.strip("'\"").removesuffix("()"), {n: names[n] for n in allowed})
    guess = f"; did you mean {allowed[similar]!r}?" if similar else ""
    listed = [*(["a number"] if hint is Schedule else []), *allowed.values()]
    choices = f" (one of: {', '.join(listed)}{guess})" if listed else ""
    return f"{subject} takes {describe(hint)}{choices}, not {text}"


def _find_similar(word: str, values: Mapping[str, Any]) -> str | None:
    """Return the name most similar to `word`, or else the one whose docstring has it soonest."""
    starting = [name for name in values if name.lower().startswith(word.lower())]
    if similar := starting or get_close_matches(word, values, n=1, cutoff=0.5):
        return similar[0]
    found = {}
    for name, value in values.items():
        first_line = (value.__doc__ or "").partition("\n")[0]
        if match := re.search(rf"\b{re.escape(word)}", first_line, re.IGNORECASE):
            found[name] = match.start()
    return min(found, key=lambda name: found[name]) if found else None


def _as_written(name: str, value: Any) -> str:
    """`frobenius`, `NoStart()`, or `LinearRamp(...)` for a class with required arguments."""
    if not isinstance(value, type):
        return name
    parameters = signature(value).parameters.values()
    return f"{name}({'...' if any(each.default is Parameter.empty for each in parameters) else ''})"


def coerce(value: Any, hint: Any) -> Any:
    """A number as a float or as a constant schedule, if the field holds one of these."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    try:
        if hint is Schedule:
            return Constant(float(value))
        return float(value) if hint is float or float in get_args(hint) else value
    except OverflowError:  # a whole number of more than 308 digits, which conforms to neither
        return value


def conforms(value: Any, hint: Any) -> bool:
    """Whether a value is one that the annotation allows."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(conforms(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is collections.abc.Callable:
        return callable(value) and not dataclasses.is_dataclass(value)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = args[:1] * len(value) if args[1:] == (...,) else args
        return len(value) == len(hints) and all(map(conforms, map(coerce, value, hints), hints))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """The annotation in words, for an error."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(describe, args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is collections.abc.Callable:
        return "a function"
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    return str(hint) if origin else f"a {hint.__name__}"
