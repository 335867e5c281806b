"""R-MGM, a single-step method that regularizes the logits of two single-step attacks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from nuat.attacks import FGSM, RFGSM
from nuat.losses import ce, squared_l2
from nuat.methods.base import Method, StepContext
from nuat.schedules import Constant, Schedule
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class RMGM(Method):
    """R-MGM minimizes  (CE(f(x), y) + CE(f(x'), y)) / 2 + lam |f(x') - f(x'')|^2 / B.

    x' comes from FGSM and x'' from R-FGSM. A training step costs 13 forward passes.

    This is a reconstruction. The abstract says that the loss combines the cross-entropy of a batch
    that contains adversarial images with the distance between the logits of the FGSM and the R-FGSM
    image, and no code was found. The weights of 1/2, the squared distance and lam are not
    published.

    Attributes:
        ball: the threat model.
        lam: weight of the distance, by epoch.

    Source: "Regularizers for single-step adversarial training" (arXiv:2002.00614), abstract.
    """

    ball: Ball = Linf(8 / 255)
    lam: Schedule = Constant(0.1)

    def graph_key(self, ctx: StepContext) -> Hashable | None:
        return ()

    def step(self, model: nn.Module, x: Tensor, y: Tensor, ctx: StepContext) -> Iterator[Tensor]:
        x_fgsm = FGSM(self.ball)(model, x, y, ctx.noise)
        x_rfgsm = RFGSM(self.ball)(model, x, y, ctx.noise)
        z, z_fgsm, z_rfgsm = model(x), model(x_fgsm), model(x_rfgsm)
        distance = squared_l2(z_fgsm, z_rfgsm) / len(x)
        lam = ctx.scalar(lambda ctx: self.lam(ctx.epoch))
        yield (ce(z, y) + ce(z_fgsm, y)) / 2 + lam * distance
