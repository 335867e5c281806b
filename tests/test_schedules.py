"""Schedules: values, rescaling, and reading back what they print."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from nuat import Constant, InputError, LinearRamp, Piecewise, StepDecay, triangle
from nuat.config.parsing import parse_value
from nuat.schedules import Schedule, coerce_schedules

JUMP = Piecewise(((0.0, 1.0), (5.0, 1.0), (5.0, 0.1), (10.0, 0.2)))
TENT = triangle(0.0, 0.1, up=10, down=20)

TABLE = [
    (Constant(0.3), {0: 0.3, 7.5: 0.3, 1e6: 0.3}),
    (
        LinearRamp(to=4.5, epochs=90),
        {0: 0, 1: 0.05, 45: 2.25, 89.5: 4.475, 90: 4.5, 91: 4.5, 1e6: 4.5},
    ),
    (LinearRamp(to=-2, epochs=0.5), {0: 0, 0.25: -1, 0.5: -2, 3: -2}),
    (LinearRamp(to=4.5, epochs=0), {0: 4.5, 3: 4.5}),
    (JUMP, {-1: 1, 0: 1, 4.999: 1, 5: 0.1, 7.5: 0.15, 10: 0.2, 99: 0.2}),
    (Piecewise(((2, 3.0),)), {0: 3, 2: 3, 5: 3}),
    (Piecewise(((2, 1.0), (4, 3.0))), {0: 1, 2: 1, 3: 2, 4: 3, 5: 3}),
    (Piecewise(((0, 1.0), (5, 2.0), (5, 7.0))), {4: 1.8, 5: 7, 6: 7}),
    (Piecewise(((5, 2.0), (5, 7.0), (6, 8.0))), {4: 2, 5: 7, 5.5: 7.5, 6: 8}),
    (Piecewise(((0, 1.0), (5, 2.0), (5, 9.0), (5, 3.0), (7, 4.0))), {5: 3, 6: 3.5}),
    (StepDecay(0.1, at=(60, 85)), {0: 0.1, 59.99: 0.1, 60: 0.01, 84: 0.01, 85: 0.001, 100: 0.001}),
    (StepDecay(2.0, at=(85, 60), by=0.5), {0: 2, 60: 1, 85: 0.5}),
    (StepDecay(2.0, at=()), {0: 2, 60: 2}),
    (TENT, {0: 0, 5: 0.05, 10: 0.1, 15: 0.075, 20: 0.05, 30: 0, 31: 0}),
    (triangle(0.01, 0.2, up=0, down=4), {0: 0.2, 2: 0.105, 4: 0.01}),
]
table = pytest.mark.parametrize(("schedule", "values"), TABLE, ids=lambda case: str(case)[:40])


@table
def test_values(schedule: Schedule, values: dict[float, float]) -> None:
    found = {epoch: schedule(epoch) for epoch in values}
    assert found == pytest.approx(values, abs=1e-12)


@table
@pytest.mark.parametrize("factor", [0.5, 1, 3.7])
def test_rescaled_has_the_same_shape_over_other_epochs(
    schedule: Schedule, values: dict[float, float], factor: float
) -> None:
    rescaled = schedule.rescaled(factor)
    assert type(rescaled) is type(schedule)
    found = {epoch: rescaled(epoch * factor) for epoch in values}
    assert found == pytest.approx(values, abs=1e-9)


@table
def test_a_schedule_is_parsed_from_its_repr(schedule: Schedule, values: dict[float, float]) -> None:
    kinds = {kind.__name__: kind for kind in (Constant, LinearRamp, Piecewise, StepDecay)}
    assert parse_value(repr(schedule), kinds) == schedule
    assert hash(parse_value(repr(schedule), kinds)) == hash(schedule)


def test_triangle_is_continuous_and_peaks_once() -> None:
    values = [TENT(epoch / 10) for epoch in range(310)]
    assert max(values) == values[100] == 0.1
    assert max(abs(b - a) for a, b in pairwise(values)) < 0.0011


@pytest.mark.parametrize("points", [(), ((5, 1.0), (0, 2.0)), ((0, 1.0), (9, 1.0), (8, 1.0))])
def test_epochs_must_rise(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(InputError, match="must rise"):
        Piecewise(points)


RAMP = LinearRamp(to=4.0, epochs=10)


@dataclass(frozen=True)
class Scheduled:
    """A dataclass with a schedule, like a method."""

    lam: Schedule = RAMP
    share: float = 0.5

    def __post_init__(self) -> None:
        coerce_schedules(self)


@pytest.mark.parametrize("number", [3, 3.0])
def test_a_number_becomes_a_constant_where_the_default_is_a_schedule(number: float) -> None:
    assert Scheduled(lam=number) == Scheduled(lam=Constant(3.0))
    assert type(Scheduled(lam=number).lam.value) is float
    assert Scheduled(share=number).share == number
    assert Scheduled().lam is RAMP
