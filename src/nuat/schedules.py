"""Schedules: values that depend on the epoch.

The epoch is a float: 3.5 is the middle of the fourth epoch. A schedule is a small frozen dataclass,
so it prints, compares, and can be rescaled to another number of epochs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nuat.errors import InputError
from nuat.numbers import plain_fields


class Schedule:
    """A value over the epochs of a run: `schedule(epoch) -> float`."""

    def __post_init__(self) -> None:
        if dataclasses.is_dataclass(self):
            plain_fields(self)

    def __call__(self, epoch: float) -> float:
        """The value at this epoch."""
        raise NotImplementedError

    def rescaled(self, factor: float) -> Schedule:
        """The same shape over `factor` times as many epochs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every epoch."""

    value: float

    def __call__(self, epoch: float) -> float:
        return self.value

    def rescaled(self, factor: float) -> Constant:
        return self


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """to * min(epoch, epochs) / epochs: rises from 0 to `to` in `epochs` and stays there.

    >>> lam = nuat.LinearRamp(to=4.0, epochs=8)
    >>> [lam(epoch) for epoch in (0, 2, 8, 20)]
    [0.0, 1.0, 4.0, 4.0]
    """

    to: float
    epochs: float

    def __call__(self, epoch: float) -> float:
        return self.to * min(epoch, self.epochs) / self.epochs if self.epochs > 0 else self.to

    def rescaled(self, factor: float) -> LinearRamp:
        return dataclasses.replace(self, epochs=self.epochs * factor)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Linear interpolation between (epoch, value) points, constant before and after them.

    Two points at the same epoch make a jump; the later point holds from that epoch on.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        epochs = [epoch for epoch, _ in self.points]
        if not epochs or epochs != sorted(epochs):
            raise InputError(
                f"the epochs of a Piecewise schedule must rise at every point, but are {epochs}"
            )

    def __call__(self, epoch: float) -> float:
        passed = [value for at, value in self.points if at <= epoch]
        if not passed:
            return self.points[0][1]
        for (start, low), (end, high) in pairwise(self.points):
            if start <= epoch < end:
                return low + (high - low) * (epoch - start) / (end - start)
        return passed[-1]

    def rescaled(self, factor: float) -> Piecewise:
        return Piecewise(tuple((at * factor, value) for at, value in self.points))


@dataclass(frozen=True)
class StepDecay(Schedule):
    """`value`, multiplied by `by` at each of the epochs `at`.

    >>> lr = nuat.StepDecay(0.1, at=(5, 10))
    >>> [round(lr(epoch), 4) for epoch in (0, 5, 10)]
    [0.1, 0.01, 0.001]
    """

    value: float
    at: tuple[float, ...]
    by: float = 0.1

    def __call__(self, epoch: float) -> float:
        return self.value * self.by ** sum(epoch >= milestone for milestone in self.at)

    def rescaled(self, factor: float) -> StepDecay:
        return dataclasses.replace(self, at=tuple(at * factor for at in self.at))


@dataclass(frozen=True)
class StartAt(Schedule):
    """0 before `epoch`, and `value` from that epoch on."""

    value: float
    epoch: float

    def __call__(self, epoch: float) -> float:
        return self.value if epoch >= self.epoch else 0.0

    def rescaled(self, factor: float) -> StartAt:
        return dataclasses.replace(self, epoch=self.epoch * factor)


def triangle(low: float, peak: float, up: float, down: float) -> Piecewise:
    """One cycle of a cyclic schedule: `low` to `peak` in `up` epochs, back to `low` in `down`.

    >>> lr = nuat.triangle(0, 0.1, 5, 10)
    >>> [lr(epoch) for epoch in (0, 5, 10, 15)]
    [0.0, 0.1, 0.05, 0]
    """
    return Piecewise(((0.0, low), (up, peak), (up + down, low)))


def coerce_schedules(value: Any) -> None:
    """Replace numbers by `Constant` in the fields of a frozen dataclass that default to a schedule.

    Numbers of numpy and torch in any field become Python's own (see `nuat.numbers`).
    Raises InputError if such a field holds neither a schedule nor a number.
    """
    plain_fields(value)
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        if not isinstance(field.default, Schedule) or isinstance(current, Schedule):
            continue
        if isinstance(current, bool) or not isinstance(current, int | float):
            raise InputError(
                f"{field.name} of {type(value).__name__} is {current!r}, but must be a number or a "
                "schedule such as LinearRamp(4.5, epochs=90)"
            )
        try:
            object.__setattr__(value, field.name, Constant(float(current)))
        except OverflowError:
            raise InputError(f"{field.name} has too many digits for a number") from None
