"""Setting a field of a frozen dataclass from text, checked against its annotation."""

from __future__ import annotations

import collections.abc
import dataclasses
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nuat.config.parsing import parse_value
from nuat.errors import InputError, unknown_name
from nuat.schedules import Constant, Schedule

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "True or False", NoneType: "None"}


def check_types(value: Any) -> None:
    """Raise InputError if a field of a dataclass does not conform to its annotation."""
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        given, hint = getattr(value, field.name), hints[field.name]
        if not _conforms(_coerce(given, hint), hint):
            raise InputError(f"{field.name} takes {_describe(hint)}, not {given!r}")


def set_field(
    value: Any,
    path: str,
    text: str,
    names: Mapping[str, Any] | None = None,
    adapt: Callable[[Any], Any] = lambda parsed: parsed,
) -> Any:
    """A copy of a dataclass whose field at the dotted `path` has the value written in `text`.

    Args:
        value: the frozen dataclass.
        path: names of nested fields, such as "method.lam.to".
        text: the value in Python's notation, such as "8/255" (see `parse_value`).
        names: the names that `text` may contain.
        adapt: is applied to the parsed value.

    Raises:
        InputError: there is no such field, or the value does not conform to its annotation.
    """
    return _set_field(value, path.split("."), path, text, names or {}, adapt)


def _set_field(
    value: Any,
    steps: list[str],
    path: str,
    text: str,
    names: Mapping[str, Any],
    adapt: Callable[[Any], Any],
) -> Any:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise InputError(f"cannot set {path}: {value!r} has no fields")
    fields = [field.name for field in dataclasses.fields(value) if field.init]
    name = steps[0]
    if name not in fields:
        raise unknown_name(f"field of {type(value).__name__}", name, fields)
    old, hint = getattr(value, name), get_type_hints(type(value))[name]
    if steps[1:]:
        new = _set_field(old, steps[1:], path, text, names, adapt)
    else:
        new = _parse_field(old, hint, path, text, names, adapt)
    return dataclasses.replace(value, **{name: new})


def _parse_field(
    old: Any,
    hint: Any,
    path: str,
    text: str,
    names: Mapping[str, Any],
    adapt: Callable[[Any], Any],
) -> Any:
    """The value of `text` for the field at `path`, whose present value is `old`."""
    if hint is str:
        return text
    prefix = f"{path} is {getattr(old, '__name__', repr(old))} and takes {_describe(hint)}"
    if text.isidentifier() and text not in ("None", "True", "False") and text not in names:
        raise InputError(f"{prefix}{_suggest(hint, text, names)}, not {text}")
    try:
        new = _coerce(adapt(parse_value(text, names)), hint)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not _conforms(new, hint):
        raise InputError(f"{prefix}, not {text}")
    return new


def _suggest(hint: Any, text: str, names: Mapping[str, Any]) -> str:
    """The names that make or are a value of this type, and the one most similar to `text`."""
    kinds = tuple(kind for kind in get_args(hint) or (hint,) if isinstance(kind, type))
    fitting = sorted(
        name
        for name, value in names.items()
        if (issubclass(value, kinds) if isinstance(value, type) else _conforms(value, hint))
    )
    similar = get_close_matches(text, fitting, n=1, cutoff=0.5)
    guess = f"; did you mean {similar[0]!r}?" if similar else ""
    listed = ", ".join([*(["a number"] if hint is Schedule else []), *fitting])
    return f" (one of: {listed}{guess})" if listed else ""


def _coerce(value: Any, hint: Any) -> Any:
    """A number as a float or as a constant schedule, if the field holds one of these."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if hint is Schedule:
        return Constant(float(value))
    return float(value) if hint is float or float in get_args(hint) else value


def _conforms(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_conforms(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is collections.abc.Callable:
        return callable(value) and not dataclasses.is_dataclass(value)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = args[:1] * len(value) if args[1:] == (...,) else args
        return len(value) == len(hints) and all(map(_conforms, map(_coerce, value, hints), hints))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    """The annotation in words, for an error."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is collections.abc.Callable:
        return "a function"
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    return str(hint) if origin else f"a {hint.__name__}"
