"""APGD: projected gradient ascent that sets its own step sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.base import Attack
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState, value_and_grad
from nuat.losses import ce_per_image, dlr_loss, targeted_dlr_loss
from nuat.rng import Noise
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class APGD(Attack):
    """Ascend a loss with momentum; where progress stops, halve the step and go back to the best.

        u  = P(x_k + s steepest_direction(gradient at x_k))
        x' = P(x_k + a (u - x_k) + (1 - a)(x_k - x_{k-1})),   a = 0.75, in the first step 1

    P is the projection on the ball and on [0, 1]; s starts at 2 eps. At checkpoints, whose
    distances shrink from 22% of the steps by 3% to 6%, an image halves its s and goes on from its
    best point if the loss rose in at most `rho` of the steps since the last one, or if neither s
    nor the best loss has changed since. Any iterate counts, the random start included.

    Source: arXiv:2003.01690, Algorithm 1, and its published code.

    Attributes:
        loss: of logits [B, K] and labels [B], one number an image.
        rho: the share of rising steps below which progress is too slow.
        draws: gradients taken at each point of a randomized network, of which the mean is used.
        first_window: published: the first step is compared with a loss of 0, not with the start's.
        reduced_at_start: published: s counts as just halved before the first checkpoint, so that an
            unchanged best loss has no effect there.
        stored_gradient: published: after going back, the gradient is the one stored with the best
            point; otherwise it is computed anew, which differs for randomized networks alone.
    """

    steps: int = 100
    loss: Callable[[Tensor, Tensor], Tensor] = ce_per_image
    rho: float = 0.75
    draws: int = 1
    success_at: SuccessAt = "any"
    first_window: bool = True
    reduced_at_start: bool = True
    stored_gradient: bool = True

    def objective(self, z: Tensor, b: AttackState) -> Tensor:
        """What is ascended, one number an image [B]."""
        return self.loss(z, b.y)

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run from one random start on the surface of the ball."""
        b.x_adv = b.x_before = b.x_best = random_boundary_point(b.x, self.ball, b.noise)
        z = self.look(g, b)
        b.best, b.best_gradient = b.value, b.gradient
        b.best_then = b.best
        b.before = torch.zeros_like(b.value) if self.first_window else b.value
        b.rises = torch.zeros_like(b.value)
        b.size = torch.full_like(b.value, 2 * self.ball.eps)
        b.halved = torch.full_like(b.value, self.reduced_at_start, dtype=torch.bool)
        yield z
        checks = checkpoints(self.steps)
        for k in range(self.steps):
            self.step(b, 1.0 if k == 0 else 0.75)
            z = self.look(g, b)
            self.remember(b)
            yield z
            if k + 1 in checks:
                self.check(g, b, checks[k + 1])

    def look(self, g: nn.Module, b: AttackState) -> Tensor:
        """Loss and gradient at the point; its logits."""
        z, b.value, b.gradient = value_and_grad(
            g, b.x_adv, lambda z: self.objective(z, b), self.draws
        )
        return z

    def step(self, b: AttackState, share: float) -> None:
        """One step, with momentum."""
        project, size = self.ball.project, b.size[:, None, None, None]
        up = project(b.x_adv + size * self.ball.steepest_direction(b.gradient), b.x)
        momentum = (1 - share) * (b.x_adv - b.x_before)
        b.x_before, b.x_adv = (
            b.x_adv,
            project(b.x_adv + share * (up - b.x_adv) + momentum, b.x),
        )

    def remember(self, b: AttackState) -> None:
        """Count a rise of the loss; keep the best point with its gradient."""
        b.rises = b.rises + (b.value > b.before)
        b.before = b.value
        better = b.value > b.best
        wide = better[:, None, None, None]
        b.x_best = torch.where(wide, b.x_adv, b.x_best)
        b.best_gradient = torch.where(wide, b.gradient, b.best_gradient)
        b.best = torch.where(better, b.value, b.best)

    def check(self, g: nn.Module, b: AttackState, window: int) -> None:
        """At a checkpoint: where progress was too slow, halve the step and go back to the best."""
        slow = b.rises <= self.rho * window
        stuck = ~b.halved & (b.best <= b.best_then)
        b.halved, b.best_then = slow | stuck, b.best
        b.rises = torch.zeros_like(b.rises)
        b.size = torch.where(b.halved, b.size / 2, b.size)
        wide = b.halved[:, None, None, None]
        b.x_adv = torch.where(wide, b.x_best, b.x_adv)
        b.gradient = torch.where(wide, b.best_gradient, b.gradient)
        if not self.stored_gradient:
            self.look(g, b)


@dataclass(frozen=True)
class APGDDLR(APGD):
    """APGD up the difference of logits ratio. Needs 3 classes. Source: arXiv:2003.01690, eq. 6."""

    loss: Callable[[Tensor, Tensor], Tensor] = dlr_loss

    least_classes = 3


@dataclass(frozen=True)
class APGDT(APGD):
    """APGD up the targeted difference of logits ratio, for one other class after another.

    The classes are those of the largest clean logits; an image falls when it is misclassified, as
    whatever, and is then spared the other classes. Needs 4 classes.

    Source: arXiv:2003.01690, eq. 7.
    """

    targets: int = 9

    least_classes = 4

    def objective(self, z: Tensor, b: AttackState) -> Tensor:
        """The ratio toward `b.target`, [B]."""
        return targeted_dlr_loss(z, b.y, b.target)


def random_boundary_point(x: Tensor, ball: Ball, noise: Noise, share: float = 1.0) -> Tensor:
    """A random point at share * eps from x: U(-1, 1) or N(0, 1), scaled; clamped to [0, 1]."""
    if isinstance(ball, Linf):
        away = 2 * noise.uniform(x) - 1
        away = away / away.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    else:
        away = ball.steepest_direction(noise.normal(x))
    return (x + share * ball.eps * away).clamp(0, 1)


def checkpoints(steps: int) -> dict[int, int]:
    """After how many steps there is a checkpoint, and how many it is since the last.

    Of 100 steps: after 22, 41, 57, 70, 80, 87, 93, 99.
    """
    window, least = (max(int(share * steps), 1) for share in (0.22, 0.06))
    shrink = max(int(0.03 * steps), 1)
    found, at = {}, window
    while at <= steps:
        found[at] = window
        window = max(window - shrink, least)
        at += window
    return found
