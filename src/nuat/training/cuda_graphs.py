"""Training steps as CUDA graphs: recorded once, then replayed by one launch.

A graph covers the whole step: the batch from its indices, attack, losses, backward passes,
optimizer and EMAs. Learning rate, momentum, and every number that a method takes from
`StepContext.scalar`, are tensors on the device that are set before the replay, so a change of them
records nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from types import FunctionType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nuat.methods import Method, StepContext
from nuat.runtime.cuda_graphs import Work, capture_cuda_graph
from nuat.runtime.device import copy_to

if TYPE_CHECKING:
    from nuat.training.train_step import TrainStep

WARMUP = 2
"""Steps of a kind that run eagerly first: they choose kernels and create the optimizer's state."""

METHOD_TYPES = (FunctionType, property, staticmethod, classmethod)

MAX_SCALARS = 16
"""How many numbers a step may take from `StepContext.scalar`, lr and momentum included."""


@dataclass
class RecordedStep:
    """A recorded step of one kind: its input and output tensors, and the replay between them.

    Attributes:
        inputs: the inputs of a batch, at fixed addresses.
        numbers: the functions behind `scalars`, in their order.
        scalars: their values on the device, [MAX_SCALARS].
        outputs: the losses and then the logged tensors of a replay.
        num_losses: how many of the outputs are losses.
        logs: the names of the logged tensors, and logged numbers by name.
    """

    inputs: list[Tensor]
    scalars: Tensor
    numbers: list[Callable[[StepContext], float]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    outputs: Tensor | None = None
    num_losses: int = 0
    logged_tensors: list[str] = field(default_factory=list)
    logged_numbers: dict[str, float] = field(default_factory=dict)
    run_graph: Work = lambda: None

    def add_scalar(self, number: Callable[[StepContext], float]) -> Tensor:
        """Return the tensor that holds number(ctx) of the step at hand in every replay."""
        if len(self.numbers) == MAX_SCALARS:
            raise RuntimeError(f"it takes more than {MAX_SCALARS} numbers from ctx.scalar")
        self.numbers.append(number)
        return self.scalars[len(self.numbers) - 1]

    def compute(self, train_step: TrainStep, ctx: StepContext) -> None:
        """Run the step on the recorded inputs; this is what a graph records."""
        self.numbers.clear()
        ctx = replace(ctx, logs={}, record_scalar=self.add_scalar)
        lr = self.add_scalar(lambda ctx: ctx.lr)
        momentum = self.add_scalar(lambda ctx: ctx.momentum)
        with train_step.hyperparameters(lr=lr, momentum=momentum):
            losses = list(train_step.eager_step(self.inputs, ctx))
        logged = {k: v for k, v in ctx.logs.items() if isinstance(v, Tensor)}
        self.outputs = torch.stack([v.reshape(()).float() for v in (*losses, *logged.values())])
        self.num_losses, self.logged_tensors = len(losses), list(logged)
        self.logged_numbers = {k: v for k, v in ctx.logs.items() if not isinstance(v, Tensor)}

    def replay(self, inputs: Sequence[Tensor], ctx: StepContext) -> Iterator[Tensor]:
        """Train on a batch. Yield its losses, after all updates, and log what the step logs."""
        for recorded, given in zip(self.inputs, inputs, strict=True):
            recorded.copy_(given)
        values = [number(ctx) for number in self.numbers]
        if values != self.values:
            self.values = values
            self.scalars[: len(values)].copy_(
                copy_to(self.scalars.device, torch.tensor(values)), non_blocking=True
            )
        self.run_graph()
        assert self.outputs is not None
        # the next replay overwrites the outputs of this one
        losses_and_logs = self.outputs.clone().unbind()
        logged = losses_and_logs[self.num_losses :]
        ctx.log(**self.logged_numbers, **dict(zip(self.logged_tensors, logged, strict=True)))
        yield from losses_and_logs[: self.num_losses]


class CudaGraphs:
    """The recorded steps of a training run, one for each kind of step.

    Steps are of one kind if they have equal `Method.graph_key` and equal shapes of the inputs.

    Attributes:
        capturable: whether the method can be recorded; once False, every step runs eagerly.
        steps: the recorded steps by kind.
    """

    def __init__(
        self, notify: Callable[[str], None], capture: Callable[[Work], Work] = capture_cuda_graph
    ):
        """`notify` is called once, with a message, if the method cannot be recorded."""
        self.notify, self.capture = notify, capture
        self.steps: dict[Hashable, RecordedStep] = {}
        self.seen: dict[Hashable, int] = {}
        self.capturable = True

    def reset(self) -> None:
        """Forget all recorded steps, as after other weights were loaded."""
        self.steps.clear()
        self.seen.clear()

    def recorded_step(
        self, train_step: TrainStep, inputs: Sequence[Tensor], ctx: StepContext
    ) -> RecordedStep | None:
        """Return the recorded step for this batch, or None if the step must run eagerly."""
        if not self.capturable:
            return None
        method = train_step.recipe.method
        if (reason := _why_eager(method, ctx)) is not None:
            self._give_up(train_step, reason)
            return None
        kind = (method.graph_key(ctx), *((x.shape, x.dtype) for x in inputs))
        if kind not in self.steps:
            self.seen[kind] = self.seen.get(kind, 0) + 1
            if self.seen[kind] > WARMUP:
                self._record(kind, train_step, inputs, ctx)
        return self.steps.get(kind)

    def _record(
        self, kind: Hashable, train_step: TrainStep, inputs: Sequence[Tensor], ctx: StepContext
    ) -> None:
        device = inputs[0].device
        step = RecordedStep([x.clone() for x in inputs], torch.zeros(MAX_SCALARS, device=device))
        tensors = _addresses(ctx.memory)
        train_step.optimizer.zero_grad()
        try:
            step.run_graph = self.capture(lambda: step.compute(train_step, ctx))
            if _addresses(ctx.memory) != tensors:
                raise RuntimeError("it replaces what it keeps in ctx.memory")
        except RuntimeError as error:
            self._give_up(train_step, str(error).splitlines()[0])
            # the step runs eagerly now, with the random numbers it would have had
            train_step.set_seed(ctx)
        else:
            self.steps[kind] = step
        finally:
            # what the graph has left there belongs to its memory
            train_step.optimizer.zero_grad()

    def _give_up(self, train_step: TrainStep, reason: str) -> None:
        self.capturable = False
        self.reset()
        name = type(train_step.recipe.method).__name__
        self.notify(f"{name} cannot be recorded as a CUDA graph ({reason}): its steps run eagerly")


def _why_eager(method: Method, ctx: StepContext) -> str | None:
    """Why the steps of a method, or of one inside it, are not recorded; None if they are."""
    name = type(method).__name__
    if not _has_own_graph_key(type(method)):
        return f"{name} defines no graph_key of its own"
    if method.graph_key(ctx) is None:
        return f"the graph_key of {name} is None"
    inner = (getattr(method, f.name) for f in fields(method))
    reasons = (_why_eager(value, ctx) for value in inner if isinstance(value, Method))
    return next(filter(None, reasons), None)


def _has_own_graph_key(kind: type[Method]) -> bool:
    """Whether the class that defines `graph_key` is the last to define a method.

    A subclass that overrides `step`, or what `step` calls, and inherits the key of another step has
    promised nothing about its own.
    """
    settings = {f.name for f in fields(kind)}  # the default of one may be a function
    for base in kind.__mro__:
        defined = {name for name, value in vars(base).items() if isinstance(value, METHOD_TYPES)}
        if "graph_key" in defined:
            return base is not Method
        if any(not name.startswith("__") for name in defined - settings):
            return False
    return False


def _addresses(memory: dict[str, object]) -> dict[str, object]:
    """The address of each tensor in a method's memory, and the text of everything else."""
    return {
        name: value.data_ptr() if isinstance(value, Tensor) else repr(value)
        for name, value in memory.items()
    }
