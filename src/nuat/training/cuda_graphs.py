"""A method's step as CUDA graphs: recorded in each epoch, then replayed without Python.

What is recorded is the step up to the gradients: attack, losses, backward. The optimizer and the
averages, a handful of launches, stay outside, so learning rate and momentum may change at every
step, and lam and gamma, which change by the epoch, are simply recorded anew.
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


def cuda_graph(work: Work) -> Work:
    """Record the work of the device, which is not done, and return what does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Work = graph.replay
    return replay


@dataclass
class CapturedStep:
    """A recorded step: tensors that stay where they are, and `replay`, which fills them anew."""

    x: Tensor
    y: Tensor
    weights: list[nn.Parameter]
    replay: Work = lambda: None
    loss: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    notes: dict[str, Any] = field(default_factory=dict)
    gradients: list[Tensor | None] = field(default_factory=list)

    def work(self, method: Method, f: nn.Module, t: StepContext) -> None:
        """The step up to the gradients, by Python."""
        alone = replace(t, memory={}, logs={})
        for weight in self.weights:
            weight.grad = None
        steps = method.step(f, self.x, self.y, alone)
        loss = next(steps)
        check_loss(loss)
        loss.backward()
        if next(steps, None) is not None or alone.memory:
            raise RuntimeError("it updates the weights more than once, or remembers something")
        self.loss, self.notes = loss.detach(), alone.logs
        self.gradients = [weight.grad for weight in self.weights]

    def play(self, x: Tensor, y: Tensor, t: StepContext) -> Tensor:
        """The loss of a batch, its gradients and notes in place."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        t.log(**{k: v.clone() if isinstance(v, Tensor) else v for k, v in self.notes.items()})
        return self.loss.clone()


class Graphs:
    """The recorded steps of a method: one for each place in its cycle."""

    def __init__(
        self,
        method: Method,
        say: Callable[[str], None],
        record: Callable[[Work], Work] = cuda_graph,
    ):
        """`say` is told, once, if the method cannot be recorded; it is then run as ever."""
        self.method, self.say, self.record = method, say, record
        self.tapes: dict[int, CapturedStep] = {}
        self.epoch, self.warm, self.able = -1, 0, True
        if method.graph_period is None:
            self._refuse("its steps may differ in more than the epoch")

    def tape(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> CapturedStep | None:
        """The recording for this batch; None if it is to be run by Python.

        The first batches are, which warms the device up; a short last batch is; and every batch of
        a method that cannot be recorded.
        """
        if not self.able or len(x) != t.batch_size:
            return None
        self.warm += 1
        if self.warm <= 2 * self.method.graph_period:
            return None
        if t.epoch != self.epoch:
            self.tapes, self.epoch = {}, t.epoch
        place = t.batch % self.method.graph_period
        if place not in self.tapes:
            self._record(place, f, x, y, t)
        return self.tapes.get(place)

    def _record(self, place: int, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> None:
        tape = CapturedStep(x.clone(), y.clone(), list(f.parameters()))
        try:
            tape.replay = self.record(lambda: tape.work(self.method, f, t))
        except RuntimeError as error:
            self._refuse(str(error).splitlines()[0])
            torch.manual_seed(torch.initial_seed())  # as if nothing had been tried
        else:
            self.tapes[place] = tape

    def _refuse(self, why: str) -> None:
        self.able = False
        name = type(self.method).__name__
        self.say(f"{name} cannot be recorded as a CUDA graph ({why}): going on without")
