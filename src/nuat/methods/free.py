"""Adversarial training for free."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.errors import InputError
from nuat.losses import ce
from nuat.methods.base import Method, StepContext
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class Free(Method):
    """Free adversarial training (ATF) reuses each batch, and each backward pass updates w and d.

    For each batch, `replays` times:

        minimize CE(f(x + d), y) in w
        d <- project(d + rel_step_size * eps * sign(gradient of the loss in d))

    The perturbation d is zero at the start of training and persists from batch to batch: entry i of
    d belongs to position i of the batch, not to an image. d stays in the ball, and x + d is clamped
    to [0, 1] in the forward pass. An epoch costs `replays` epochs of standard training, so a recipe
    divides the published number of epochs by `replays`.

    Attributes:
        ball: the threat model.
        replays: m, the number of updates on each batch.
        rel_step_size: step size of d in units of eps.

    Source: arXiv:1904.12843, algorithm 1, and its published code.
    """

    ball: Ball = Linf(8 / 255)
    replays: int = 8
    rel_step_size: float = 1.0

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        d = ctx.memory.setdefault("delta", torch.zeros_like(x))
        if len(d) < len(x):
            d = ctx.memory["delta"] = torch.cat([d, torch.zeros_like(x[len(d) :])])
        for _ in range(self.replays):
            delta = d[: len(x)].clone().requires_grad_()
            yield ce(model((x + delta).clamp(0, 1)), y)
            # The training loop has called loss.backward() by now, which fills both gradients.
            if delta.grad is None:
                raise InputError(
                    "Free needs the gradient of each loss before it yields the next: call "
                    "loss.backward() inside `for loss in method.step(...)`, not after the loop"
                )
            ascent = self.rel_step_size * self.ball.eps * self.ball.steepest_direction(delta.grad)
            d[: len(x)] = self.ball.project_delta(delta.detach() + ascent)
