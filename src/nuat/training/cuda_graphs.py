"""Training steps as CUDA graphs, captured once per epoch and replayed without Python.

A graph covers the step up to the gradients: attack, losses and backward pass. The optimizer and the
EMAs are a few kernel launches and stay outside, so the learning rate and the momentum may change at
every step. Values that change with the epoch, such as lam, are constants of a graph, which is why
every epoch captures new graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nuat.methods import Method, StepContext
from nuat.nn.validation import check_loss

Work = Callable[[], None]


def capture_cuda_graph(work: Work) -> Work:
    """Capture the kernels that `work` launches, without running them; return their replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Work = graph.replay
    return replay


@dataclass
class CapturedStep:
    """A captured step: input and output tensors at fixed addresses, and the replay between them."""

    x: Tensor
    y: Tensor
    weights: list[nn.Parameter]
    run_graph: Work = lambda: None
    loss: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    logs: dict[str, Any] = field(default_factory=dict)
    gradients: list[Tensor | None] = field(default_factory=list)

    def compute(self, method: Method, model: nn.Module, ctx: StepContext) -> None:
        """Run the step up to the gradients in Python.

        Raises RuntimeError if the method yields several losses or uses its memory, which a graph
        cannot reproduce.
        """
        own_ctx = replace(ctx, memory={}, logs={})
        for weight in self.weights:
            weight.grad = None
        losses = method.step(model, self.x, self.y, own_ctx)
        loss = next(losses)
        check_loss(loss)
        loss.backward()
        if next(losses, None) is not None or own_ctx.memory:
            raise RuntimeError("it updates the weights more than once, or uses its memory")
        self.loss, self.logs = loss.detach(), own_ctx.logs
        self.gradients = [weight.grad for weight in self.weights]

    def replay(self, x: Tensor, y: Tensor, ctx: StepContext) -> Tensor:
        """Return the loss of a batch; set the gradients of the weights and the logs of `ctx`."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.run_graph()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        # the next replay overwrites the tensors of this one
        ctx.log(**{k: v.clone() if isinstance(v, Tensor) else v for k, v in self.logs.items()})
        return self.loss.clone()


class CudaGraphs:
    """The captured steps of a method: one per batch index modulo the method's period.

    Attributes:
        capturable: whether the method can be captured; once False, every step runs in Python.
        warmup_steps: the number of full batches so far, up to the first captured one.
        steps: the captured steps of `epoch`, by batch index modulo the period.
    """

    def __init__(
        self,
        method: Method,
        notify: Callable[[str], None],
        capture: Callable[[Work], Work] = capture_cuda_graph,
    ):
        """`notify` is called once, with a message, if the method cannot be captured."""
        self.method, self.notify, self.capture = method, notify, capture
        self.steps: dict[int, CapturedStep] = {}
        self.epoch, self.warmup_steps, self.capturable = -1, 0, True
        if method.graph_period is None:
            self._give_up("its steps may depend on more than the epoch")

    def captured_step(
        self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext
    ) -> CapturedStep | None:
        """Return the captured step for this batch, or None if it must run in Python.

        The first two periods run in Python to warm up the device, as does a smaller last batch.
        """
        period = self.method.graph_period
        if not self.capturable or period is None or len(x) != ctx.batch_size:
            return None
        if self.warmup_steps < 2 * period:
            self.warmup_steps += 1
            return None
        if ctx.epoch != self.epoch:
            self.steps, self.epoch = {}, ctx.epoch
        index = ctx.batch % period
        if index not in self.steps:
            self._capture_step(index, model, x, y, ctx)
        return self.steps.get(index)

    def _capture_step(
        self, index: int, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext
    ) -> None:
        step = CapturedStep(x.clone(), y.clone(), list(model.parameters()))
        try:
            step.run_graph = self.capture(lambda: step.compute(self.method, model, ctx))
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[0])
            # the step runs in Python now, with the random numbers it would have had
            torch.manual_seed(torch.initial_seed())
        else:
            self.steps[index] = step

    def _give_up(self, reason: str) -> None:
        self.capturable = False
        name = type(self.method).__name__
        self.notify(f"{name} cannot be captured as a CUDA graph ({reason}): its steps run eagerly")
