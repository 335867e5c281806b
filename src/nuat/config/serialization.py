"""Frozen dataclasses as plain JSON: described, completed and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def to_dict(value: Any) -> Any:
    """The value as plain JSON: a dataclass becomes {"is": its class, field: ...}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__name__", None) or repr(value)


def with_defaults(description: Any, value: Any) -> Any:
    """A description from before the class of `value` had some of its fields, with their defaults.

    What is described as another class, or lacks a field without a default, is left as it is.
    """
    same = isinstance(description, Mapping) and description.get("is") == type(value).__name__
    if not (same and dataclasses.is_dataclass(value)):
        return description
    found = dict(description)
    for field in dataclasses.fields(value):
        if field.name in found:
            found[field.name] = with_defaults(found[field.name], getattr(value, field.name))
        elif field.default is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default_factory())
    return found


def diff(here: Any, there: Any, path: str = "") -> list[str]:
    """Where two descriptions differ, a line each: `method.lam.to: 4.5 here, 4.0 there`."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        keys = [*here, *(key for key in there if key not in here)]
        pairs = ((key, here.get(key, "nothing"), there.get(key, "nothing")) for key in keys)
        return [line for key, a, b in pairs for line in diff(a, b, f"{path}.{key}".strip("."))]
    return [] if here == there else [f"{path}: {_shown(here)} here, {_shown(there)} there"]


def _shown(value: Any) -> str:
    """A value in a few words: a description by its class, a long text by its beginning."""
    text = f"{value['is']}(...)" if isinstance(value, Mapping) and "is" in value else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
