"""GAMA: guided adversarial margin attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import ascend
from nuat.attacks.base import Attack
from nuat.losses import margin_each
from nuat.noise import Noise
from nuat.schedules import Drops, Piecewise, Schedule
from nuat.threat import Bernoulli, Start


@dataclass(frozen=True)
class GAMA(Attack):
    """Ascend  max_{j != y} p_j - p_y + lam(k) * |p(x') - p(x_0)|^2,  p = softmax(f), x_0 the start.

    Steps of 2 eps, divided by 10 at steps 60 and 85 of 100; lam falls from 50 to 0 in 25 steps and
    the margin alone goes on. The last iterate counts.

    Source: arXiv:2011.14969 and its published code, whose reference point is the noisy start
    x_0 = x + eps * sign, not clamped to [0, 1], rather than the clean image. `size` (in units of
    eps) and `lam` are functions of the percentage of the steps done, so that they fit any number.
    """

    steps: int = 100
    size: Schedule = Drops(2.0, at=(60, 85))
    lam: Schedule = Piecewise(((0, 50.0), (25, 0.0)))
    start: Start = Bernoulli(1.0, clamp=False)

    def run(self, g: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """One run from one start."""
        start = self.start(x, self.ball, noise)
        with torch.no_grad():
            reference = g(start).softmax(1)

        def objective(v: Tensor, k: int) -> Tensor:
            p = g(v).softmax(1)
            away = (p - reference).square().sum(1)
            return margin_each(p, y) + self.lam(done(k)) * away

        def size(k: float) -> float:
            return self.size(done(k))

        def done(k: float) -> float:
            return 100 * k / self.steps

        return ascend(objective, start, x, self.ball, self.steps, size)
