"""Setting a field of a frozen dataclass from text, checked against its annotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from nuat.config.annotations import coerce, conforms, describe
from nuat.config.parsing import parse_setting
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
    """Return a copy of a dataclass whose field at the dotted `path` has the value in `text`.

    Args:
        value: the frozen dataclass.
        path: names of nested fields, such as "method.lam.to".
        text: the value in Python's notation, such as "8/255" (see `parse_setting`).
        names: the names that `text` may contain.
        adapt: is applied to the parsed value.

    Raises:
        InputError: there is no such field, or the value does not conform to its annotation.
    """
    owners, field_names, hint = [value], path.split("."), None
    for name in field_names:
        owner = owners[-1]
        if not dataclasses.is_dataclass(owner) or isinstance(owner, type):
            raise InputError(f"cannot set {path}: {owner!r} has no fields")
        allowed = [field.name for field in dataclasses.fields(owner) if field.init]
        if name not in allowed:
            raise unknown_name(f"field of {type(owner).__name__}", name, allowed)
        hint = get_type_hints(type(owner))[name]
        owners.append(getattr(owner, name))
    old = owners.pop()
    if hint is str:
        new: Any = text
    else:
        subject = f"{path} is {getattr(old, '__name__', repr(old))} and"
        new = coerce(adapt(parse_setting(subject, text, hint, names or {})), hint)
    for owner, name in zip(reversed(owners), reversed(field_names), strict=True):
        new = dataclasses.replace(owner, **{name: new})
    return new
