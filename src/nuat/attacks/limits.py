"""The ranges of the settings of attacks: a value outside of them would attack nothing, or fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from nuat.errors import InputError, check_positive_int
from nuat.schedules import Constant, Schedule

Limits = tuple[tuple[str, float, float], ...]
"""Names of fields, each with the least and the largest value, for a schedule at any step."""

MAX_STEPS, MAX_RESTARTS, MAX_TARGETS, MAX_BATCH = 1_000_000, 10_000, 1_000_000, 100_000
MAX_SAMPLES, MAX_STEP_SIZE, MAX_WEIGHT = 10_000, 1e6, 1e6
NUM_POINTS = 100
"""Points at which a schedule is checked."""


def check_limits(attack: Any) -> None:
    """Raise InputError unless the fields of an attack are within the `limits` of its classes."""
    limits: dict[str, tuple[float, float]] = {}
    for kind in reversed(type(attack).__mro__):
        limits |= {name: (low, high) for name, low, high in vars(kind).get("limits", ())}
    for field in dataclasses.fields(attack):
        if field.name not in limits:
            continue
        value, (low, high) = getattr(attack, field.name), limits[field.name]
        whole = isinstance(field.default, int)
        if whole and low == 1:
            check_positive_int(field.name, value)
        if whole and type(value) is not int:
            raise InputError(f"{field.name} is {value!r}, but must be a whole number")
        values = list(_values(value, getattr(attack, "steps", 1)))
        for each in values:
            is_number = isinstance(each, int | float) and not isinstance(each, bool)
            if not is_number or not low <= each <= high:  # written so that NaN fails too
                at_a_step = " at a step" if isinstance(value, Schedule) else ""
                raise InputError(
                    f"{field.name} is {each!r}{at_a_step}, but must be from {low:g} to {high:g}"
                )
        if field.name == "rel_step_size" and not any(values):
            raise InputError("rel_step_size is 0 at every step, so the attack would not move")


def _values(value: Any, steps: int) -> Iterator[Any]:
    """A number, or the values of a schedule at points from 0 to the last step, and to 100."""
    if isinstance(value, Constant):
        yield value.value
    elif isinstance(value, Schedule):
        last = max(steps, NUM_POINTS)
        yield from (value(last * point / NUM_POINTS) for point in range(NUM_POINTS + 1))
    else:
        yield value
