"""Recipes, methods and attacks are frozen dataclasses: described, compared and changed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nuat.errors import InputError, unknown
from nuat.notation import parse
from nuat.schedules import Constant, Schedule

T = TypeVar("T")


def describe(value: Any) -> Any:
    """The value as plain JSON: a dataclass becomes {"is": its class, field: ...}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__name__", None) or repr(value)


def differences(here: Any, there: Any, path: str = "") -> list[str]:
    """Where two descriptions differ, a line each: `method.lam.to: 4.5 here, 4.0 there`."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        keys = [*here, *(key for key in there if key not in here)]
        pairs = ((key, here.get(key), there.get(key)) for key in keys)
        return [
            line for key, a, b in pairs for line in differences(a, b, f"{path}.{key}".strip("."))
        ]
    return [] if here == there else [f"{path}: {here} here, {there} there"]


def first(value: Any, kind: type[T]) -> T | None:
    """The first instance of `kind` in the value and its fields, depth first; None without one."""
    if isinstance(value, kind):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (first(getattr(value, f.name), kind) for f in dataclasses.fields(value))
        return next((part for part in parts if part is not None), None)
    return None


def swap(value: Any, kind: type, new: Any) -> Any:
    """The same value with `new` in place of every instance of `kind` in its fields."""
    return _rebuild(value, lambda part: new if isinstance(part, kind) else part)


def _rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is not value:
        return changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        new = {name: _rebuild(part, change) for name, part in old.items()}
        if any(new[name] is not old[name] for name in old):
            return dataclasses.replace(value, **new)
    return value


def assign(value: Any, path: str, text: str, names: Mapping[str, Any] | None = None) -> Any:
    """The same value with the field at the dotted `path` set to what `text` writes down."""
    return _assign(value, path.split("."), path, text, names or {})


def _assign(value: Any, steps: list[str], path: str, text: str, names: Mapping[str, Any]) -> Any:
    if not dataclasses.is_dataclass(value):
        raise InputError(f"cannot set {path}: {value!r} has no fields")
    fields = [f.name for f in dataclasses.fields(value) if f.init]
    if steps[0] not in fields:
        raise unknown(f"field of {type(value).__name__}", steps[0], fields)
    old = getattr(value, steps[0])
    if steps[1:]:
        new = _assign(old, steps[1:], path, text, names)
    else:
        new = _fitting(old, _read(old, text, names), path)
    return dataclasses.replace(value, **{steps[0]: new})


def _read(old: Any, text: str, names: Mapping[str, Any]) -> Any:
    return text if isinstance(old, str) else parse(text, names)


def _fitting(old: Any, new: Any, path: str) -> Any:
    number = isinstance(new, int | float) and not isinstance(new, bool)
    if isinstance(old, Schedule) and number:
        return Constant(float(new))
    if isinstance(old, float) and number:
        return float(new)
    wanted: type | None = None
    if isinstance(old, bool | int | float | str):
        wanted = type(old)
    elif dataclasses.is_dataclass(old):
        wanted = next(
            c for c in reversed(type(old).__mro__) if c.__module__ == type(old).__module__
        )
    if wanted is not None and (not isinstance(new, wanted) or (wanted is int and new is True)):
        raise InputError(f"{path} is {old!r} and takes a {wanted.__name__}, not {new!r}")
    if callable(old) and not callable(new):
        raise InputError(f"{path} is {getattr(old, '__name__', old)} and takes a function")
    return new
