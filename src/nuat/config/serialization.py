"""Frozen dataclasses as plain JSON, and the differences of two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nuat.numbers import plain


def to_dict(value: Any) -> Any:
    """The value as plain JSON; a dataclass becomes {"is": name of its class, field: value, ...}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__name__", None) or repr(value)


def diff(here: Any, there: Any, path: str = "") -> list[str]:
    """The differences of two JSON values, a line each: `method.lam.to: 4.5 here, 4.0 there`."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        keys = [*here, *(key for key in there if key not in here)]
        pairs = ((key, here.get(key, "nothing"), there.get(key, "nothing")) for key in keys)
        return [line for key, a, b in pairs for line in diff(a, b, f"{path}.{key}".strip("."))]
    return [] if here == there else [f"{path}: {_shorten(here)} here, {_shorten(there)} there"]


def _shorten(value: Any) -> str:
    """At most 80 characters of a value; of a dataclass, the name of its class."""
    text = f"{value['is']}(...)" if isinstance(value, Mapping) and "is" in value else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
