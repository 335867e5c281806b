"""TRADES, and adversarial weight perturbation around any objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks import ascend
from nuat.losses import ce, kl
from nuat.methods.at import AT
from nuat.methods.base import Method, StepContext
from nuat.nn.batchnorm import record_bn_update
from nuat.nn.freeze import frozen_eval
from nuat.nn.weight_perturbation import perturb_weights
from nuat.schedules import Constant, Schedule, StartAt
from nuat.threat_models import Ball, Gaussian, Linf, Start


@dataclass(frozen=True)
class TRADES(Method):
    """CE(f(x), y) + beta KL(p(x) || p(x')) / B,  x' where the KL divergence is largest.

    Ten steps of 0.007 in a ball of 0.031 from x + 0.001 N(0, 1), not clamped to [0, 1], against f
    in eval mode. The clean logits of the attack are computed once: 27 forward-equivalents.

    Attributes:
        ball: the threat model.
        beta: weight of the divergence, by epoch.
        steps, size: of the attack, the size in units of eps.
        start: where the attack starts.
        replay: published: the clean batch passes twice, so BatchNorm counts it twice; here the
            second pass is only its effect on the statistics, after everything else.
        clean_first: published: the clean batch passes before the adversarial one; in TRADES-AWP
            after it.

    Source: arXiv:1901.08573, eq. 5, and its published code.
    """

    ball: Ball = Linf(0.031)
    beta: Schedule = Constant(6.0)
    steps: int = 10
    size: float = 0.007 / 0.031
    start: Start = Gaussian(0.001, clamp=False)
    replay: bool = True
    clean_first: bool = True
    cycle: ClassVar[int | None] = 1

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        yield from self.descent(f, x, self.attack(f, x, y, t), y, t)

    def attack(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Tensor:
        """The images x' [B, C, H, W]."""
        with frozen_eval(f) as g:
            with torch.no_grad():
                z = g(x)
            start = self.start(x, self.ball, t.noise)
            return ascend(lambda v, k: kl(z, g(v)), start, x, self.ball, self.steps, self.size)

    def descent(
        self, f: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, t: StepContext
    ) -> Iterator[Tensor]:
        """The loss at given x'."""
        z_adv = None if self.clean_first else f(x_adv)
        with record_bn_update(f) as clean_pass:
            z = f(x)
        z_adv = f(x_adv) if z_adv is None else z_adv
        yield ce(z, y) + self.beta(t.epoch) * kl(z, z_adv) / len(x)
        if self.replay:
            clean_pass.replay()


@dataclass(frozen=True)
class AWP(Method):
    """Any method's loss, at the worst weights nearby:  min_w max_v loss(w + v).

    x' is found at w, then every layer moves up the gradient by  v_l = gamma |w_l| g_l / |g_l|,  and
    the gradient taken there is applied at w. Only weights of two or more dimensions move. BatchNorm
    counts the passes at w + v and not those that find v. 33 forward-equivalents around TRADES.

    The published code takes its optimizer step at w + v and moves back after it, so that weight
    decay acts on w + v; here it acts on w, a difference of lr * decay * v.

    Attributes:
        base: TRADES or AT.
        gamma: radius in units of each layer's norm, by epoch; published: 0 in the first nine.

    Source: arXiv:2004.05884, eq. 7 to 10, and its published code.
    """

    base: TRADES | AT = TRADES(Linf(8 / 255), size=1 / 4, clean_first=False)
    gamma: Schedule = StartAt(0.005, epoch=9)

    @property
    def cycle(self) -> int | None:  # type: ignore[override]
        """That of the method inside."""
        return self.base.cycle

    def step(self, f: nn.Module, x: Tensor, y: Tensor, t: StepContext) -> Iterator[Tensor]:
        """One loss."""
        x_adv = self.base.attack(f, x, y, t)
        gamma = self.gamma(t.epoch)
        if gamma:
            f = perturb_weights(f, lambda h: next(self.base.descent(h, x, x_adv, y, t)), gamma)
        yield from self.base.descent(f, x, x_adv, y, t)
