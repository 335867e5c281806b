"""FAB: a walk along the decision boundary toward the clean image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuat.attacks.apgd import random_boundary_point
from nuat.attacks.base import NOISE, Attack
from nuat.attacks.box_projection import project_to_hyperplane
from nuat.attacks.criteria import classes_by_logit
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState, check_differentiable, value_and_grad
from nuat.losses import targeted_margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.threat_models import Ball, Linf


@dataclass(frozen=True)
class FAB(Attack):
    """The fast adaptive boundary attack: a small misclassified change, not one of a given size.

    Each step linearizes the difference of two logits at x_k, projects x_k and the clean image x
    on that hyperplane within [0, 1] (d and d_0 are the ways there), and goes to

        clamp((1 - a)(x_k + eta d) + a (x + eta d_0)),   a = min(|d| / (|d| + |d_0|), alpha_max);

    a misclassified point is then pulled back to x + beta (x_k - x). An image falls to a point
    within eps. The hyperplane is that of the other class that is nearest, by |difference| over
    |gradient| in the dual norm; with `targets`, that of one other class after another (FAB-T).

    Source: arXiv:1907.02044, Algorithm 1, and the published code of AutoAttack: the first run
    starts at the clean image, later ones at random at eps / 2 from it.
    """

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    targets: int = 0
    success_at: SuccessAt = "any"

    def points(self, g: nn.Module, b: AttackState, restart: int) -> Iterator[Tensor | None]:
        """One run; the points are those before they are pulled back."""
        b.x_adv = self.beginning(b.x, b.noise, restart)
        for _ in range(self.steps):
            b.x_adv = self.walk(b, *self.plane(g, b))
            with torch.no_grad():
                z = g(b.x_adv)
            b.outside = z.argmax(1) != b.y
            yield z
            pulled = b.x + self.beta * (b.x_adv - b.x)
            b.x_adv = torch.where(b.outside[:, None, None, None], pulled, b.x_adv)

    def beginning(self, x: Tensor, noise: Noise, restart: int) -> Tensor:
        """The clean image; from the second run on, a random point at eps / 2 from it."""
        return x if restart == 0 else random_boundary_point(x, self.ball, noise, share=0.5)

    def plane(self, g: nn.Module, b: AttackState) -> tuple[Tensor, Tensor]:
        """The difference of logits at the point, [B], and its gradient, [B, C, H, W]."""
        if self.targets:
            _, value, gradient = value_and_grad(
                g, b.x_adv, lambda z: targeted_margin(z, b.y, b.target)
            )
            return value, gradient
        return nearest_plane(g, b.x_adv, b.y, self.ball)

    def walk(self, b: AttackState, value: Tensor, gradient: Tensor) -> Tensor:
        """Between the ways from the point and from the clean image to the hyperplane."""
        offset = value - (gradient * b.x_adv).flatten(1).sum(1)
        twice = torch.cat([b.x_adv, b.x]), torch.cat([gradient, gradient]), torch.cat([offset] * 2)
        ways = project_to_hyperplane(*twice, self.ball)
        length = self.ball.distance(ways, torch.zeros_like(ways)).to(ways.dtype).clamp_min(1e-8)
        (d, d_0), (long, long_0) = ways.chunk(2), length.chunk(2)
        a = (long / (long + long_0)).clamp_max(self.alpha_max)[:, None, None, None]
        return ((1 - a) * (b.x_adv + self.eta * d) + a * (b.x + self.eta * d_0)).clamp(0, 1)

    def inside(self, b: AttackState) -> Tensor:
        """Whether the point is within eps, [B] bool."""
        return self.ball.distance(b.x_adv, b.x) <= self.ball.eps

    @torch.no_grad()
    def nearest(
        self, f: nn.Module, x: Tensor, y: Tensor, noise: Noise = NOISE
    ) -> tuple[Tensor, Tensor]:
        """The nearest misclassified points found at any distance, and how far they are.

        Returns:
            Points [B, C, H, W], and distances [B]; the clean image and infinity where none was
            found.
        """
        with frozen_eval(f) as g:
            z = g(x)
            nearest = x, torch.where(z.argmax(1) == y, torch.inf, 0.0).to(x.dtype)
            for run in range(self.runs(z.shape[1])):
                rank, restart = divmod(run, self.restarts)
                b = AttackState(x, y, noise.fork("target", rank).fork("restart", restart))
                b.target = classes_by_logit(z, y)[:, rank]
                for _ in self.points(g, b, restart):
                    nearest = self._nearer(b, *nearest)
        return nearest

    def _nearer(self, b: AttackState, point: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        now = self.ball.distance(b.x_adv, b.x).to(distance.dtype)
        nearer = b.outside & (now < distance)
        return torch.where(nearer[:, None, None, None], b.x_adv, point), torch.where(
            nearer, now, distance
        )


@dataclass(frozen=True)
class FABT(FAB):
    """Targeted FAB: the hyperplane of one other class after another, the likeliest first."""

    targets: int = 9


def nearest_plane(g: nn.Module, x_adv: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    """The difference of logits and its gradient, of the class j whose hyperplane is nearest.

    That is the j with the least |z_j - z_y| / |gradient of it|, in the dual norm. One backward for
    each other class.
    """
    at = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        z = g(at)
        check_differentiable(z)
        others = classes_by_logit(z.detach(), y)
        leads = [targeted_margin(z, y, others[:, j]) for j in range(others.shape[1])]
        slopes = [torch.autograd.grad(lead.sum(), at, retain_graph=True)[0] for lead in leads]
    values, gradients = torch.stack([lead.detach() for lead in leads]), torch.stack(slopes)
    order = 1 if isinstance(ball, Linf) else 2
    dual = torch.linalg.vector_norm(gradients.flatten(2), order, dim=2)
    choice = (values.abs() / (dual + 1e-12)).argmin(0)
    image = torch.arange(len(y), device=y.device)
    return values[choice, image], gradients[choice, image]
