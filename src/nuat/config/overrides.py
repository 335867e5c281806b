"""Setting a field of a frozen dataclass from text, checked against its annotation."""

from __future__ import annotations

import collections.abc
import dataclasses
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nuat.config.parsing import parse_value
from nuat.errors import InputError, unknown_name
from nuat.schedules import Constant, Schedule

T = TypeVar("T")


def check_types(value: Any) -> None:
    """Raise InputError if a field of a dataclass does not hold what its annotation says."""
    fields = {field.name for field in dataclasses.fields(value)}
    for name, hint in get_type_hints(type(value)).items():
        given = getattr(value, name, None)
        if name in fields and not _fits(_as(given, hint), hint):
            raise InputError(f"{name} takes {_words(hint)}, not {given!r}")


def set_field(
    value: Any,
    path: str,
    text: str,
    names: Mapping[str, Any] | None = None,
    adapt: Callable[[Any], Any] = lambda new: new,
) -> Any:
    """The same value with the field at the dotted `path` set to what `text` writes down.

    `adapt` is applied to what was written down.
    """
    return _assign(value, path.split("."), path, text, names or {}, adapt)


def _assign(
    value: Any,
    steps: list[str],
    path: str,
    text: str,
    names: Mapping[str, Any],
    adapt: Callable[[Any], Any],
) -> Any:
    if not dataclasses.is_dataclass(value):
        raise InputError(f"cannot set {path}: {value!r} has no fields")
    fields = [f.name for f in dataclasses.fields(value) if f.init]
    name = steps[0]
    if name not in fields:
        raise unknown_name(f"field of {type(value).__name__}", name, fields)
    hint = get_type_hints(type(value))[name]
    if steps[1:]:
        new = _assign(getattr(value, name), steps[1:], path, text, names, adapt)
    else:
        old = getattr(value, name)
        shown = getattr(old, "__name__", repr(old))
        if hint is not str and _is_word(text) and text not in names:
            wanted = f"{_words(hint)}{_choices(hint, text, names)}"
            raise InputError(f"{path} is {shown} and takes {wanted}, not {text}")
        try:
            new = text if hint is str else adapt(parse_value(text, names))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        new = _as(new, hint)
        if not _fits(new, hint):
            raise InputError(f"{path} is {shown} and takes {_words(hint)}, not {text}")
    return dataclasses.replace(value, **{name: new})


def _is_word(text: str) -> bool:
    """Whether this is a name and nothing else."""
    return text.isidentifier() and text not in ("None", "True", "False")


def _choices(hint: Any, text: str, names: Mapping[str, Any]) -> str:
    """The names that stand for something of this type, or make it; those near `text` first."""
    kinds = [one for one in get_args(hint) or (hint,) if isinstance(one, type)]
    made = [
        name
        for name, value in names.items()
        if (isinstance(value, type) and issubclass(value, tuple(kinds)))
        or (not isinstance(value, type) and _fits(value, hint))
    ]
    number = ["a number"] if hint is Schedule else []
    near = get_close_matches(text, made, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join([*number, *sorted(made)])
    return f" (one of: {listed}{guess})" if listed else ""


def _as(new: Any, hint: Any) -> Any:
    """A number as what a field of this type makes of it: a float, or a constant schedule."""
    if not isinstance(new, int | float) or isinstance(new, bool):
        return new
    if hint is Schedule:
        return Constant(float(new))
    return float(new) if hint is float or float in get_args(hint) else new


def _fits(new: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(new, one) for one in inner)
    if origin is Literal:
        return new in inner
    if origin is tuple:
        each = inner[:1] * len(new) if isinstance(new, tuple) and inner[1:] == (...,) else inner
        return (
            isinstance(new, tuple)
            and len(new) == len(each)
            and all(_fits(_as(part, one), one) for part, one in zip(new, each, strict=True))
        )
    if origin is collections.abc.Callable:
        return callable(new) and not dataclasses.is_dataclass(new)
    if isinstance(new, bool):
        return hint is bool
    return isinstance(new, hint)


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in get_args(hint))
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if origin is collections.abc.Callable:
        return "a function"
    return "None" if hint is type(None) else str(hint) if origin else f"a {hint.__name__}"
