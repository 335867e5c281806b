"""What a training method is: a generator of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from nuat.config.instances import find_instance
from nuat.errors import InputError
from nuat.nn.ema import EMAs
from nuat.rng import Noise
from nuat.schedules import Schedule, coerce_schedules
from nuat.threat_models import Ball, check_ball


@dataclass(frozen=True)
class StepContext:
    """The moment of training at which a step is taken.

    Attributes:
        epoch: whole epochs done, from 0.
        batch: place of this batch in its epoch, from 0.
        batches: batches in an epoch, if known.
        batch_size: the run's batch size; the last batch of an epoch may be shorter.
        lr: the learning rate of this step, if known.
        noise: where this step's randomness comes from.
        averages: the average of the network in training by its decay, for methods that ask for
            one: an `EMAs`, or a function.
        memory: tensors and numbers that a method keeps from step to step; part of the checkpoint.
        notes: what this step has noted; the engine writes the mean of an epoch in the metrics.
    """

    epoch: int = 0
    batch: int = 0
    batches: int | None = None
    batch_size: int | None = None
    lr: float = 0.0
    noise: Noise = field(default_factory=Noise)
    averages: EMAs | Callable[[float], nn.Module] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Tensor | float] = field(default_factory=dict)

    def note(self, **numbers: Tensor | float) -> None:
        """Note scalars of this step; tensors are detached and not read."""
        for name, number in numbers.items():
            self.notes[name] = number.detach() if isinstance(number, Tensor) else number

    def mark(self, name: str) -> None:
        """Mark this moment by a name; the engine writes the marks of an epoch in the metrics."""
        self.memory.setdefault("marks", {}).setdefault(name, []).append([self.epoch, self.batch])

    def average(self, decay: float) -> nn.Module:
        """The network averaged with this decay. Raises InputError if there are no averages."""
        if self.averages is None:
            raise InputError(
                "this method asks for an average of the weights: make one EMAs(f), give it to "
                "each StepContext(averages=...), and call its update() after each step"
            )
        return self.averages(decay)


@dataclass(frozen=True)
class Method:
    """A training method: `step` yields losses, and whoever runs it descends each of them.

        for loss in method.step(f, x, y, t):
            optimizer.zero_grad(); loss.backward(); optimizer.step()

    `f` is in train mode; `x` are images in [0, 1], [B, C, H, W], `y` labels [B], `t` the StepContext. A
    method knows no optimizer, device or rank. To write one, derive a frozen dataclass and define
    `step`; a number may be given wherever a field's default is a schedule.

    Attributes:
        cycle: a promise that lets a step be recorded and replayed: it yields one loss, and what it
            does depends on the epoch and on `t.batch % cycle` alone, not on `t.lr` or `t.memory`.
            None: no promise.
    """

    cycle: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        coerce_schedules(self)
        if hasattr(self, "ball"):
            check_ball(self.ball)

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """Yield one scalar loss for each update of the weights."""
        raise NotImplementedError

    def remarks(self, batch_size: int) -> list[str]:
        """What a user should be told before training with this batch size, each thing once."""
        inner = [part for _, part in self._parts() if isinstance(part, Method)]
        said = (remark for method in inner for remark in method.remarks(batch_size))
        return list(dict.fromkeys(said))

    def schedules(self) -> dict[str, Schedule]:
        """The fields that change over training, its own and those of methods inside it, by name."""
        found: dict[str, Schedule] = {}
        for name, value in self._parts():
            if isinstance(value, Schedule):
                found.setdefault(name, value)
            elif isinstance(value, Method):
                found = value.schedules() | found
        return found

    def stretched(self, factor: float) -> Self:
        """The same method with each of these over `factor` times as many epochs."""
        changed = {
            name: value.stretched(factor)
            for name, value in self._parts()
            if isinstance(value, Schedule | Method)
        }
        return replace(self, **changed)

    def threat(self) -> Ball | None:
        """The ball this method, or a part of it, trains against; None without one."""
        return find_instance(self, Ball)

    def _parts(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]
