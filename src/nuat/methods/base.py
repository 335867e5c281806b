"""The interface of a training method: a frozen value whose `step` yields losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from nuat.config.instances import find_instance
from nuat.errors import InputError, check_positive_int
from nuat.methods.share import BatchShare
from nuat.numbers import plain
from nuat.rng import Noise
from nuat.schedules import Constant, Schedule, coerce_schedules
from nuat.threat_models import Ball, check_ball, refuse_eps


@dataclass(frozen=True)
class StepContext:
    """Everything a method may need to know about the current training step.

    Attributes:
        epoch: number of completed epochs.
        batch: index of this batch within its epoch, from 0.
        batches: number of batches per epoch, if known.
        batch_size: the batch size of the run; the last batch of an epoch may be smaller.
        lr: the learning rate of this step; 0 if unknown.
        momentum: the momentum of this step; 0 if unknown.
        noise: the source of randomness of this step.
        emas: maps a decay to the EMA model, e.g. an `EMAs`; None if the training loop keeps none.
        memory: tensors and numbers that a method keeps between steps; checkpoints include them. A
            tensor holds one row for each image of the batch, a number is the same on all ranks.
        logs: scalars logged by this step; training writes their mean over an epoch to the metrics.
        share: the part of the batch that this process trains on, if training runs on several ranks.
        record_scalar: while a CUDA graph is recorded, makes a tensor of a number; see `scalar`.
    """

    epoch: int = 0
    batch: int = 0
    batches: int | None = None
    batch_size: int | None = None
    lr: float = 0.0
    momentum: float = 0.0
    noise: Noise = field(default_factory=Noise)
    emas: Callable[[float], nn.Module] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, Tensor | float] = field(default_factory=dict)
    share: BatchShare = BatchShare()
    record_scalar: Callable[[Callable[[StepContext], float]], Tensor] | None = None

    def scalar(self, value: Callable[[StepContext], float]) -> float | Tensor:
        """Return value(self), a factor that may change from step to step, such as lam.

        While a CUDA graph is recorded this is a tensor on the device, which is set to the value for
        the step at hand before each replay. So a method may multiply by it, but may not branch on
        it: what decides which kernels run belongs to `Method.graph_key`.
        """
        return value(self) if self.record_scalar is None else self.record_scalar(value)

    def log(self, **scalars: Tensor | float) -> None:
        """Log scalars of this step. Tensors are detached and stay on their device.

        A tensor is a mean over the images; on several ranks, the mean over all of them is logged.
        """
        for name, scalar in scalars.items():
            if isinstance(scalar, Tensor):
                (scalar,) = self.share.mean([scalar.detach()])
            self.logs[name] = scalar

    def log_event(self, name: str) -> None:
        """Log that an event happened at this step; training writes its time to the metrics."""
        self.memory.setdefault("events", {}).setdefault(name, []).append([self.epoch, self.batch])

    def ema(self, decay: float) -> nn.Module:
        """The EMA of the model with this decay. Raises InputError if there are no EMAs."""
        if self.emas is None:
            raise InputError(
                "this method needs an EMA of the weights: create one EMAs(model), pass it to every "
                "StepContext(emas=...), and call its update() after every optimizer step"
            )
        return self.emas(decay)


@dataclass(frozen=True)
class Method:
    """A training method. `step` yields losses, and the training loop minimizes each of them.

        for loss in method.step(model, x, y, ctx):
            optimizer.zero_grad(); loss.backward(); optimizer.step()

    To write a method, derive a frozen dataclass and define `step`. A method knows no optimizer,
    device or rank. Every field whose default is a schedule also accepts a number.
    """

    default_epochs: ClassVar[int | None] = None
    """The number of epochs that the default schedules of the class are made for."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        refuse_eps(cls, kwargs)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        coerce_schedules(self)
        if hasattr(self, "ball"):
            check_ball(self.ball)

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        """Yield one scalar loss per update of the weights.

        Args:
            model: the model, in train mode; maps images to logits [B, K].
            x: images in [0, 1], [B, C, H, W].
            y: labels, [B].
            ctx: the current training step.
        """
        raise NotImplementedError

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        """What decides which kernels a step runs; None if a CUDA graph cannot repeat the step.

        A key promises that steps with equal keys differ in nothing but their batch, their random
        numbers and what `ctx.scalar` returns, and that `ctx.memory` changes only in the elements of
        its tensors.
        """
        return None

    @property
    def threat_model(self) -> Ball | None:
        """The ball that this method trains against; None if it runs no attack."""
        return find_instance(self, Ball)

    def startup_notes(self, batch_size: int, classes: int) -> list[str]:
        """What a user should know before training so many classes in such batches, once each."""
        inner = [value for _, value in self._fields() if isinstance(value, Method)]
        notes = (note for method in inner for note in method.startup_notes(batch_size, classes))
        return list(dict.fromkeys(notes))

    def schedules(self) -> dict[str, Schedule]:
        """All schedules by field name, those of inner methods included; outer fields win."""
        found: dict[str, Schedule] = {}
        for name, value in self._fields():
            if isinstance(value, Schedule):
                found.setdefault(name, value)
            elif isinstance(value, Method):
                found = value.schedules() | found
        return found

    def with_epochs(self, epochs: int) -> Self:
        """The same method for a training of this many epochs.

        It rescales every schedule that is the default of its class. A number, which is a constant,
        stays as it is.

        Raises:
            InputError: a schedule is not the default, so that the number of epochs that it is made
                for is unknown.
        """
        epochs = plain(epochs)
        check_positive_int("epochs", epochs)
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Method):
                changed[f.name] = value.with_epochs(epochs)
            elif isinstance(value, Schedule) and not isinstance(value, Constant):
                if self.default_epochs is None or value != f.default:
                    raise InputError(
                        f"{f.name} is {value!r}, and with_epochs does not know how many epochs it "
                        f"is made for: give it the epochs of this training, as in "
                        f"{type(self).__name__}({f.name}=LinearRamp(4.5, epochs={epochs})), or use "
                        "rescaled(factor)"
                    )
                changed[f.name] = value.rescaled(epochs / self.default_epochs)
        return replace(self, **changed)

    def rescaled(self, factor: float) -> Self:
        """The same method with every schedule spread over `factor` times as many epochs."""
        changed = {
            name: value.rescaled(factor)
            for name, value in self._fields()
            if isinstance(value, Schedule | Method)
        }
        return replace(self, **changed)

    def _fields(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]
