"""Adversarial weight perturbation around TRADES or adversarial training."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nuat.methods.at import AT
from nuat.methods.base import Method, StepContext
from nuat.methods.checks import warn_if_stuck_at_zero
from nuat.methods.trades import TRADES
from nuat.nn.weight_perturbation import perturb_weights
from nuat.schedules import Schedule, StartAt
from nuat.threat_models import Linf


@dataclass(frozen=True)
class AWP(Method):
    """AWP minimizes the loss of its base method at adversarially perturbed weights.

        min_w max_v loss(w + v),   v_l = gamma |w_l| g_l / |g_l|  for every layer l

    g is the gradient of the loss at w. The adversarial images are found at w, and the gradient
    taken at w + v is applied at w. Only weights of two or more dimensions are perturbed. The passes
    at w + v update the running statistics of BatchNorm; the pass that finds v does not. Around
    TRADES a training step costs 33 forward passes.

    The published code takes its optimizer step at w + v and subtracts v afterwards, so that its
    weight decay acts on w + v. Here it acts on w: the results differ by lr * weight_decay * v.

    Attributes:
        base: TRADES or AT.
        gamma: size of the perturbation relative to the norm of each layer, by epoch; published: 0
            in the first nine epochs.

    Source: arXiv:2004.05884, eq. 7 to 10, and its published code.
    """

    default_epochs: ClassVar[int] = 200

    base: TRADES | AT = TRADES(Linf(8 / 255), rel_step_size=1 / 4, clean_first=False)
    gamma: Schedule = StartAt(0.005, epoch=9)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return (self.base.graph_key(ctx), self.gamma(ctx.epoch) == 0)

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        x_adv = self.base.attack(model, x, y, ctx)

        def loss(candidate: nn.Module) -> Tensor:
            # Only the loss is taken: what the base method does after it is left undone here.
            return ctx.share.weight * next(self.base.losses(candidate, x, x_adv, y, ctx))

        warn_if_stuck_at_zero("gamma", self.gamma, model, ctx)
        if self.gamma(ctx.epoch):
            gamma = ctx.scalar(lambda ctx: self.gamma(ctx.epoch))
            model = perturb_weights(model, loss, gamma, ctx.share.average_gradients)
        yield from self.base.losses(model, x, x_adv, y, ctx)
