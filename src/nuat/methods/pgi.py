"""FGSM-PGI, which starts its attack from the perturbation of the previous batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks import input_gradient
from nuat.losses import ce, squared_l2
from nuat.methods.base import Method, StepContext
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class PGI(Method):
    """FGSM-PGI minimizes  CE(f(x'), y) + lam |f(x') - f(x_start)|^2 / (B K).

        x_start = clamp(x + d, 0, 1)
        g       = gradient of CE(f(x_start), y)
        x'      = project(x_start + rel_step_size * eps * steepest_direction(g))
        d      <- x' - x

    The perturbation d is the prior from the previous batch (FGSM-BP in the paper): entry i of d
    belongs to position i of the batch, and the first batch of training starts at 0. The paper's
    other priors, which keep a perturbation for each image of the data set, are not implemented. Its
    label smoothing is not part of the method here. One pass at x_start serves the attack and the
    loss, so a training step costs 7 forward passes.

    Attributes:
        ball: the threat model.
        lam: weight of the distance, by epoch.
        rel_step_size: step size in units of eps.

    Source: arXiv:2207.08859, section 3; published for linf.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = Constant(10.0)
    rel_step_size: float = 1.0

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        d = ctx.memory.setdefault("delta", torch.zeros_like(x))
        if len(d) < len(x):
            d = ctx.memory["delta"] = torch.cat([d, torch.zeros_like(x[len(d) :])])

        # Attack: one step from the prior; the logits of the start serve the loss too.
        x_start = (x + d[: len(x)]).clamp(0, 1).requires_grad_()
        z_start = model(x_start)
        gradient = input_gradient(ce(z_start, y), x_start, retain_graph=True)
        ascent = self.rel_step_size * self.ball.eps * self.ball.steepest_direction(gradient)
        x_adv = self.ball.project(x_start.detach() + ascent, x)
        d[: len(x)] = x_adv - x

        z_adv = model(x_adv)
        lam = ctx.scalar(lambda ctx: self.lam(ctx.epoch))
        yield ce(z_adv, y) + lam * squared_l2(z_adv, z_start) / z_adv.numel()
