"""Setting a field of a frozen dataclass from text, checked against its annotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from nuat.config.annotations import coerce, conforms, describe, suggest
from nuat.config.parsing import parse_value
from nuat.errors import InputError, unknown_name


def check_types(value: Any) -> None:
    """Raise InputError if a field of a dataclass does not conform to its annotation."""
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        given, hint = getattr(value, field.name), hints[field.name]
        if not conforms(coerce(given, hint), hint):
            raise InputError(f"{field.name} takes {describe(hint)}, not {given!r}")


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
    prefix = f"{path} is {getattr(old, '__name__', repr(old))} and takes {describe(hint)}"
    word = text.removesuffix("()")
    if word.isidentifier() and word not in ("None", "True", "False") and word not in names:
        raise InputError(f"{prefix}{suggest(hint, text, names)}, not {text}")
    try:
        new = coerce(adapt(parse_value(text, names)), hint)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not conforms(new, hint):
        raise InputError(f"{prefix}{suggest(hint, text, names)}, not {text}")
    return new
