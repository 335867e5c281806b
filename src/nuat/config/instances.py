"""Finding and replacing instances of a class inside nested frozen dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def find_instance(value: Any, kind: type[T]) -> T | None:
    """The first instance of `kind` in `value` and its fields, depth first; None without one."""
    if isinstance(value, kind):
        return value
    for child in _children(value).values():
        if (found := find_instance(child, kind)) is not None:
            return found
    return None


def replace_instances(value: Any, kind: type, new: Any) -> Any:
    """The same value with `new` in place of every instance of `kind` in it."""
    if isinstance(value, kind):
        return new
    old = _children(value)
    replaced = {key: replace_instances(child, kind, new) for key, child in old.items()}
    if all(replaced[key] is old[key] for key in old):
        return value
    if isinstance(value, tuple | list):
        return type(value)(replaced.values())
    return replaced if isinstance(value, dict) else dataclasses.replace(value, **replaced)


def _children(value: Any) -> dict[Any, Any]:
    """The fields of a dataclass or the items of a tuple, list or dict; else nothing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, dict) else {}
