"""What the engine does with one batch: descend each loss of the method, then take the averages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nuat.methods import StepContext
from nuat.nn.ema import EMAs
from nuat.nn.precision import with_precision
from nuat.nn.validation import check_loss
from nuat.recipes import Recipe
from nuat.rng import derive_seed
from nuat.runtime.device import device_of
from nuat.training.cuda_graphs import Graphs


@dataclass
class TrainStep:
    """A network in training by a recipe: its optimizer, its averages, the method's memory.

    Attributes:
        recipe: what to do.
        f: the network, float32.
        batches: in an epoch.
        seed: of the run; every step has one of its own, by (epoch, batch).
        graphs: recorded steps, where there are any (see nuat.training.cuda_graphs).
        memory: what the method keeps from step to step.
    """

    recipe: Recipe
    f: nn.Module
    batches: int
    seed: int = 0
    graphs: Graphs | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.f.parameters(), lr=0.0, weight_decay=self.recipe.weight_decay
        )
        self.averages = EMAs(self.f)
        if self.recipe.ema_decay is not None:
            self.averages(self.recipe.ema_decay)
        self.seen = self.lowered(self.f)
        self.on_cpu = device_of(self.f).type == "cpu"

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the average, if the recipe has one."""
        return self.f if self.recipe.ema_decay is None else self.averages(self.recipe.ema_decay)

    def lowered(self, f: nn.Module) -> nn.Module:
        """A network as the method sees it, in the precision of the recipe."""
        return with_precision(self.recipe.precision, f)

    def begin(self, epoch: int, batch: int) -> StepContext:
        """Set the optimizer and the noise for a batch; the moment of training it is."""
        now = epoch + batch / self.batches
        lr, momentum = self.recipe.lr(now), self.recipe.momentum(now)
        for group in self.optimizer.param_groups:
            group |= {"lr": lr, "momentum": momentum}
        self._reseed(derive_seed(self.seed, "step", epoch, batch))
        return StepContext(
            epoch=epoch,
            batch=batch,
            batches=self.batches,
            batch_size=self.recipe.batch_size,
            lr=lr,
            emas=lambda decay: self.lowered(self.averages(decay)),
            memory=self.memory,
        )

    def _reseed(self, seed: int) -> None:
        """As `torch.manual_seed`, which looks at every kind of device there might be: 0.2 ms."""
        (torch.default_generator.manual_seed if self.on_cpu else torch.manual_seed)(seed)

    def step(self, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """Yield each loss before its update, so that a bad one can be refused."""
        for loss in self.losses(x, y, t):
            yield loss.detach()
            self.optimizer.step()
        self.averages.update()

    def losses(self, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """Each loss of the method, its gradient in place."""
        if self.graphs and (tape := self.graphs.tape(self.seen, x, y, t)):
            yield tape.play(x, y, t)
            return
        for loss in self.recipe.method.step(self.seen, x, y, t):
            check_loss(loss)
            self.optimizer.zero_grad()
            loss.backward()
            yield loss

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, averages, the method's memory."""
        return {
            "network": self.f.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages.state_dict(),
            "memory": self.memory,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        self.f.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averages.load_state_dict(state["averages"])
        self.memory = state["memory"]
