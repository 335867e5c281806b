"""GAMA, guided adversarial margin attacks: projected gradient, Frank-Wolfe, multi-targeted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.ascent import ascent_steps
from nuat.attacks.base import Attack
from nuat.attacks.state import AttackState, value_and_grad
from nuat.losses import margin, targeted_margin
from nuat.schedules import Piecewise, Schedule, StepDecay
from nuat.threat_models import Bernoulli, Start


@dataclass(frozen=True)
class GAMA(Attack):
    """Ascend  max_{j != y} p_j - p_y + lam(k) * |p(x') - p(x_0)|^2,  p = softmax(f), x_0 the start.

    Steps of 2 eps, divided by 10 at steps 60 and 85 of 100; lam falls from 50 to 0 in 25 steps and
    the margin alone goes on. The last iterate counts.

    Source: arXiv:2011.14969 and its published code, whose reference point is the noisy start
    x_0 = x + eps * sign, not clamped to [0, 1], rather than the clean image; `guide="clean"` takes
    that. `size` (in units of eps) and `lam` are functions of the percentage of the steps done, so
    that they fit any number.

    Attributes:
        guide: the point whose probabilities are to be left: the `start`, as published, or `clean`.
    """

    steps: int = 100
    size: Schedule = StepDecay(2.0, at=(60, 85))
    lam: Schedule = Piecewise(((0, 50.0), (25, 0.0)))
    start: Start = Bernoulli(1.0, clamp=False)
    guide: str = "start"

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run from one start."""
        b.x_adv = self.start(b.x, self.ball, b.noise)
        with torch.no_grad():
            b.reference = g(b.x_adv if self.guide == "start" else b.x).softmax(1)
        yield from self.moves(g, b)

    def moves(self, g: nn.Module, b: AttackState) -> Iterator[Tensor | None]:
        """The points from `b.x_adv` on."""
        size = lambda k: self.size(self.done(k))  # noqa: E731
        return ascent_steps(g, b, lambda z, k: self.objective(z, b, k), self.ball, self.steps, size)

    def objective(self, z: Tensor, b: AttackState, k: int) -> Tensor:
        """Margin and guidance of each image at step k, [B]."""
        p = z.softmax(1)
        away = (p - b.reference).square().sum(1)
        return self.margin(p, b) + self.lam(self.done(k)) * away

    def margin(self, p: Tensor, b: AttackState) -> Tensor:
        """max_{j != y} p_j - p_y, [B]."""
        return margin(p, b.y)

    def done(self, k: float) -> float:
        """The percentage of the steps done before step k."""
        return 100 * k / self.steps


@dataclass(frozen=True)
class GAMAFW(GAMA):
    """GAMA by Frank-Wolfe: delta <- (1 - size) delta + size * eps * steepest_direction(gradient).

    `size` is 1/2, divided by 5 at steps 60 and 85 of 100. The objective is that of GAMA.

    Source: arXiv:2011.14969 and its published code.
    """

    size: Schedule = StepDecay(0.5, at=(60, 85), by=0.2)

    def moves(self, g: nn.Module, b: AttackState) -> Iterator[Tensor | None]:
        """The points from `b.x_adv` on."""
        for k in range(self.steps):
            z, _, b.gradient = value_and_grad(g, b.x_adv, lambda z, k=k: self.objective(z, b, k))  # type: ignore[misc]
            yield z
            share = self.size(self.done(k))
            corner = self.ball.eps * self.ball.steepest_direction(b.gradient)
            b.x_adv = self.ball.project(b.x + (1 - share) * (b.x_adv - b.x) + share * corner, b.x)
        yield None


@dataclass(frozen=True)
class GAMAMT(GAMA):
    """Multi-targeted GAMA: p_t - p_y in place of the margin, for one other class after another.

    A reconstruction: the published code names it and does not have it. The classes are those of the
    largest clean logits; an image that has fallen to one is spared the others.
    """

    targets: int = 9

    def margin(self, p: Tensor, b: AttackState) -> Tensor:
        """p_t - p_y, [B]."""
        return targeted_margin(p, b.y, b.target)
