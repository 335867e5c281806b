"""Numbers of numpy and torch as Python's own, wherever a setting is a number."""

from __future__ import annotations

import dataclasses
from typing import Any


def plain(value: Any) -> Any:
    """Return the Python number that numpy's scalars and arrays or tensors without axes hold.

    Tuples are converted entry by entry; every other value is returned as it is. So a setting such
    as `numpy.float32(0.1)` or `images.std() / 4` is checked, printed and written as a number.
    """
    if type(value) is tuple:
        return tuple(map(plain, value))
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        number = value.item()
        return number if isinstance(number, bool | int | float) else value
    return value


def plain_fields(value: Any) -> None:
    """Replace the numbers in the fields of a frozen dataclass by Python's own."""
    for field in dataclasses.fields(value):
        object.__setattr__(value, field.name, plain(getattr(value, field.name)))
