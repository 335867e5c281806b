"""GradAlign, which keeps FGSM-AT from catastrophic overfitting by aligned input gradients."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks import value_and_grad
from nuat.losses import ce, ce_per_image
from nuat.methods.base import Method, StepContext
from nuat.nn.freeze import frozen_eval
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class GradAlign(Method):
    """GradAlign minimizes  CE(f(x'), y) + lam (1 - mean_i cos(g_i, g_i')).

    x' comes from FGSM. g is the gradient of the cross-entropy at x, which FGSM has computed, and a
    constant in the loss; g' is the gradient at a uniformly random point of the ball, which is not
    clamped to [0, 1]. Images of which g or g' is 0 do not count in the mean. The gradient of the
    loss is a second derivative of the model, so a training step costs 11 forward passes.

    All passes are in train mode. The pass for g leaves the statistics of BatchNorm alone, which the
    published code updates.

    Attributes:
        ball: the threat model.
        lam: weight of the alignment, by epoch; published: 0.2 for CIFAR-10 at linf 8/255.

    Source: arXiv:2007.02617, eq. 5, and its published code.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = Constant(0.2)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        # FGSM
        with frozen_eval(model, training=True) as frozen_model:
            _, _, gradient = value_and_grad(frozen_model, x, lambda z: ce_per_image(z, y))
        x_adv = x + self.ball.eps * self.ball.steepest_direction(gradient)
        x_adv = self.ball.project(x_adv, x)

        # The gradient at a random point, through which the loss is differentiated.
        x_random = self.ball.sample(x, ctx.noise).requires_grad_()
        random_loss = ce_per_image(model(x_random), y).sum()
        (random_gradient,) = torch.autograd.grad(random_loss, x_random, create_graph=True)

        cosine, defined = cosines(gradient, random_gradient)
        (fraction,) = ctx.share.mean([defined.mean()])  # over the images of all ranks
        alignment = cosine.mean() / fraction.clamp_min(1e-9)
        ctx.log(alignment=alignment)
        lam = ctx.scalar(lambda ctx: self.lam(ctx.epoch))
        yield ce(model(x_adv), y) + lam * (1 - alignment)


def cosines(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of each a_i and b_i [B, ...], 0 where one of them is 0, and 1 where neither is."""
    a, b = a.flatten(1), b.flatten(1)
    lengths = [torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (a, b)]
    a, b = (v / torch.where(n > 0, n, 1) for v, n in zip((a, b), lengths, strict=True))
    defined = (lengths[0] > 0) & (lengths[1] > 0)
    return (a * b).sum(1), defined[:, 0].to(a.dtype)
