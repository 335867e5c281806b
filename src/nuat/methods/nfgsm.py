"""N-FGSM, which trains on a gradient step from strong noise, without a projection onto the ball."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks import value_and_grad
from nuat.losses import ce, ce_per_image
from nuat.methods.base import Method, StepContext
from nuat.nn.freeze import frozen_eval
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class NFGSM(Method):
    """N-FGSM minimizes  CE(f(x'), y).

        x_noisy = clamp(x + noise_scale * U(ball), 0, 1)
        x'      = clamp(x_noisy + rel_step_size * eps * steepest_direction(grad CE(f(x_noisy), y)))

    x' is not projected onto the ball: with the published values it can be 3 eps away from x. The
    attack runs the model in train mode and leaves the statistics of BatchNorm alone, which the
    published code updates. A training step costs 5 forward passes.

    Attributes:
        ball: the threat model.
        noise_scale: radius of the noise in units of eps.
        rel_step_size: step size in units of eps.

    Source: arXiv:2202.01181, algorithm 1; published for linf.
    """

    ball: Ball = Linf(8 / 255)
    noise_scale: float = 2.0
    rel_step_size: float = 1.0

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        noise = self.ball.sample(torch.zeros_like(x), ctx.noise)
        x_noisy = (x + self.noise_scale * noise).clamp(0, 1)
        with frozen_eval(model, training=True) as frozen_model:
            _, _, gradient = value_and_grad(frozen_model, x_noisy, lambda z: ce_per_image(z, y))
        step = self.rel_step_size * self.ball.eps * self.ball.steepest_direction(gradient)
        yield ce(model((x_noisy + step).clamp(0, 1)), y)
