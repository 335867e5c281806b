"""Schedules: a value as a function of the epoch (a float; 3.5 is half-way through the fourth).

Every schedule is a small frozen dataclass, so that it prints, compares and can be rescaled.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nuat.errors import InputError


class Schedule:
    """A value over the epochs of a run: `schedule(epoch) -> float`."""

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
        """The value."""
        return self.value

    def rescaled(self, factor: float) -> Constant:
        """Itself."""
        return self


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """to * min(epoch, epochs) / epochs: from 0 to `to` in `epochs`, and there it stays."""

    to: float
    epochs: float

    def __call__(self, epoch: float) -> float:
        """The value at this epoch."""
        return self.to * min(epoch, self.epochs) / self.epochs if self.epochs > 0 else self.to

    def rescaled(self, factor: float) -> LinearRamp:
        """The same ramp over `factor` times as many epochs."""
        return dataclasses.replace(self, epochs=self.epochs * factor)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Straight lines between (epoch, value) points; level before the first and after the last.

    An epoch named twice is a jump: the later value holds from that epoch on.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        epochs = [epoch for epoch, _ in self.points]
        if not epochs or epochs != sorted(epochs):
            raise InputError(f"the epochs of a Piecewise schedule must rise, but are {epochs}")

    def __call__(self, epoch: float) -> float:
        """The value at this epoch."""
        before = [value for at, value in self.points if at <= epoch]
        if not before:
            return self.points[0][1]
        for (start, low), (end, high) in pairwise(self.points):
            if start <= epoch < end:
                return low + (high - low) * (epoch - start) / (end - start)
        return before[-1]

    def rescaled(self, factor: float) -> Piecewise:
        """The same lines over `factor` times as many epochs."""
        return Piecewise(tuple((at * factor, value) for at, value in self.points))


@dataclass(frozen=True)
class StepDecay(Schedule):
    """`value`, multiplied by `by` at each of the epochs `at`."""

    value: float
    at: tuple[float, ...]
    by: float = 0.1

    def __call__(self, epoch: float) -> float:
        """The value at this epoch."""
        return self.value * self.by ** sum(epoch >= drop for drop in self.at)

    def rescaled(self, factor: float) -> StepDecay:
        """The same drops over `factor` times as many epochs."""
        return dataclasses.replace(self, at=tuple(at * factor for at in self.at))


@dataclass(frozen=True)
class StartAt(Schedule):
    """0 before `epoch`, and `value` from it on."""

    value: float
    epoch: float

    def __call__(self, epoch: float) -> float:
        """The value at this epoch."""
        return self.value if epoch >= self.epoch else 0.0

    def rescaled(self, factor: float) -> StartAt:
        """The same over `factor` times as many epochs."""
        return dataclasses.replace(self, epoch=self.epoch * factor)


def triangle(low: float, peak: float, up: float, down: float) -> Piecewise:
    """`low` to `peak` in `up` epochs, back to `low` in `down`: one cycle of a cyclic schedule."""
    return Piecewise(((0.0, low), (up, peak), (up + down, low)))


def coerce_schedules(value: Any) -> None:
    """In a frozen dataclass, let a number stand wherever the default is a schedule."""
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        if not isinstance(field.default, Schedule) or isinstance(given, Schedule):
            continue
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise InputError(
                f"{field.name} of {type(value).__name__} is {given!r}, but must be a schedule, "
                "such as LinearRamp(4.5, epochs=90), or a number"
            )
        object.__setattr__(value, field.name, Constant(float(given)))
