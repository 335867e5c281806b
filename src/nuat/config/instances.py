"""Finding and replacing values inside frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from nuat.config.overrides import (
    T,
)


def find_instance(value: Any, kind: type[T]) -> T | None:
    """The first instance of `kind` in the value and its fields, depth first; None without one."""
    if isinstance(value, kind):
        return value
    parts = (find_instance(part, kind) for part in _parts(value).values())
    return next((part for part in parts if part is not None), None)


def replace_instances(value: Any, kind: type, new: Any) -> Any:
    """The same value with `new` in place of every instance of `kind` in its fields."""
    return _rebuild(value, lambda part: new if isinstance(part, kind) else part)


def _rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is not value:
        return changed
    old = _parts(value)
    new = {key: _rebuild(part, change) for key, part in old.items()}
    if all(new[key] is old[key] for key in old):
        return value
    if isinstance(value, tuple | list):
        return type(value)(new.values())
    return new if isinstance(value, dict) else dataclasses.replace(value, **new)


def _parts(value: Any) -> dict[Any, Any]:
    """The fields of a dataclass, the items of a tuple, list or dict; nothing for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, dict) else {}
