"""FAB: a minimum-norm attack along the decision boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from nuat.attacks.apgd import random_boundary_point
from nuat.attacks.base import TORCH_NOISE, Attack
from nuat.attacks.box_projection import project_to_hyperplane
from nuat.attacks.criteria import classes_by_logit, is_correct
from nuat.attacks.limits import MAX_TARGETS, Limits
from nuat.attacks.runner import SuccessAt
from nuat.attacks.state import AttackState, TargetedState, input_gradient, value_and_grad
from nuat.losses import targeted_margin
from nuat.nn.freeze import frozen_eval
from nuat.rng import Noise
from nuat.threat_models import Ball


@dataclass(kw_only=True)
class FABState(TargetedState):
    """The state of FAB.

    Attributes:
        misclassified: whether `x_adv` is misclassified, [B] bool.
    """

    misclassified: Tensor = field(init=False)


@dataclass(frozen=True)
class FAB(Attack):
    """Fast adaptive boundary attack: searches for the nearest misclassified point.

    Each step linearizes the difference of two logits at x_k and projects both x_k and the clean
    image x onto the resulting hyperplane within [0, 1]; d and d_0 are the displacements. Then

        x_{k+1} = clamp((1 - a)(x_k + eta d) + a (x + eta d_0), 0, 1)
        a       = min(|d| / (|d| + |d_0|), alpha_max)

    and a misclassified x_{k+1} takes a backward step to x + beta (x_{k+1} - x). The attack succeeds
    if a misclassified iterate lies within eps, before its backward step. Untargeted FAB uses the
    hyperplane of the class j with the smallest |z_j - z_y| / |grad (z_j - z_y)| in the dual norm,
    which takes one backward pass per class; with `targets` (FAB-T) it uses one class after another.

    Source: arXiv:1907.02044, Algorithm 1, and the code published with AutoAttack, whose first run
    starts at the clean image and later runs at a random point at distance eps / 2. The projection
    without sorting is not from the paper (see `nuat.attacks.box_projection`).

    Attributes:
        steps: number of steps.
        alpha_max: upper bound of a, the weight of the clean image.
        eta: extrapolation beyond the hyperplane.
        beta: the factor of the displacement in the backward step toward the clean image.
        targets: number of target classes; 0 for untargeted FAB.
    """

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    targets: int = 0
    success_at: SuccessAt = "any"

    limits: ClassVar[Limits] = (
        ("alpha_max", 0, 1),
        ("eta", 0.001, 10),
        ("beta", 0, 1),
        ("targets", 0, MAX_TARGETS),
    )

    capturable = True

    def iterates(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, noise: Noise, restart: int
    ) -> Iterator[FABState]:
        x_adv = self.initial_point(x, noise, restart)
        state = FABState(x=x, y=y, target=target, noise=noise, x_adv=x_adv)
        for k in range(self.steps):
            if k == 0:
                self.next_iterate(model, state)
            else:
                state.advance("iterate", partial(self.pull_back_and_go_on, model, state))
            yield state
        self.pull_back(state)

    def pull_back(self, state: FABState) -> None:
        """The backward step of the images that are misclassified."""
        pulled = state.x + self.beta * (state.x_adv - state.x)
        state.x_adv = torch.where(state.misclassified[:, None, None, None], pulled, state.x_adv)

    def pull_back_and_go_on(self, model: nn.Module, state: FABState) -> None:
        """Take the backward step of the last iterate, and then the next step."""
        self.pull_back(state)
        self.next_iterate(model, state)

    def next_iterate(self, model: nn.Module, state: FABState) -> None:
        """Take a step, and evaluate the network there."""
        state.x_adv = self.step(state, *self.linearize(model, state))
        with torch.no_grad():
            state.z = z = model(state.x_adv)
        state.misclassified = ~is_correct(z, state.y)

    def initial_point(self, x: Tensor, noise: Noise, restart: int) -> Tensor:
        """The clean image; from the second run on, a random point at distance eps / 2."""
        return x if restart == 0 else random_boundary_point(x, self.ball, noise, fraction=0.5)

    def linearize(self, model: nn.Module, state: FABState) -> tuple[Tensor, Tensor]:
        """The difference of logits at the iterate, [B], and its gradient, [B, C, H, W]."""
        if self.targets:
            _, value, gradient = value_and_grad(
                model, state.x_adv, lambda z: targeted_margin(z, state.y, state.target)
            )
            return value, gradient
        return nearest_hyperplane(model, state.x_adv, state.y, self.ball)

    def step(self, state: FABState, value: Tensor, gradient: Tensor) -> Tensor:
        """The next iterate, from the projections of x_k and x onto the hyperplane."""
        x_adv, x = state.x_adv, state.x
        offset = value - (gradient * x_adv).flatten(1).sum(1)
        both = torch.cat([x_adv, x]), torch.cat([gradient, gradient]), torch.cat([offset] * 2)
        displacements = project_to_hyperplane(*both, self.ball)
        norms = self.ball.distance(displacements, torch.zeros_like(displacements))
        norms = norms.to(displacements.dtype).clamp_min(1e-8)
        (d, d_0), (norm, norm_0) = displacements.chunk(2), norms.chunk(2)
        a = (norm / (norm + norm_0)).clamp_max(self.alpha_max)[:, None, None, None]
        after = ((1 - a) * (x_adv + self.eta * d) + a * (x + self.eta * d_0)).clamp(0, 1)
        # Where logits are NaN there is no hyperplane: the backward steps alone lead to the ball.
        defined = offset.isfinite()[:, None, None, None]
        return torch.where(defined, after, x_adv)

    def in_ball(self, state: AttackState) -> Tensor:
        """Whether the iterate is within eps, [B] bool."""
        return self.ball.distance(state.x_adv, state.x) <= self.ball.eps

    @torch.no_grad()
    def minimal_perturbation(
        self, model: nn.Module, x: Tensor, y: Tensor, noise: Noise = TORCH_NOISE
    ) -> tuple[Tensor, Tensor]:
        """The nearest misclassified points that FAB finds at any distance, and their distances.

        Args:
            model: the network.
            x: clean images in [0, 1], [B, C, H, W].
            y: labels [B].
            noise: the source of random numbers.

        Returns:
            Points [B, C, H, W], and distances [B]: the clean image and 0 where it is misclassified
            already, the clean image and infinity where the attack finds no point.
        """
        with frozen_eval(model) as frozen_model:
            z = frozen_model(x)
            nearest = x
            distance = torch.where(is_correct(z, y), torch.inf, 0.0).to(x.dtype)
            for run in range(self.num_runs(z.shape[1])):
                rank, restart = divmod(run, self.restarts)
                target = classes_by_logit(z, y)[:, rank]
                own_noise = noise.fold_in("target", rank).fold_in("restart", restart)
                for state in self.iterates(frozen_model, x, y, target, own_noise, restart):
                    current = self.ball.distance(state.x_adv, x).to(distance.dtype)
                    nearer = state.misclassified & (current < distance)
                    nearest = torch.where(nearer[:, None, None, None], state.x_adv, nearest)
                    distance = torch.where(nearer, current, distance)
        return nearest, distance


@dataclass(frozen=True)
class FABT(FAB):
    """Targeted FAB: the hyperplane of one target class after another, the most likely first.

    Source: the code published with AutoAttack (arXiv:2003.01690).
    """

    targets: int = 9

    limits = (("targets", 1, MAX_TARGETS),)


def nearest_hyperplane(
    model: nn.Module, x_adv: Tensor, y: Tensor, ball: Ball
) -> tuple[Tensor, Tensor]:
    """z_j - z_y and its gradient for the class j whose linearized boundary is nearest.

    That is the j with the smallest |z_j - z_y| / |gradient| in the dual norm of the ball's norm.
    """
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        z = model(x_adv)
        others = classes_by_logit(z.detach(), y)
        margins = [targeted_margin(z, y, others[:, j]) for j in range(others.shape[1])]
        grads = [input_gradient(m.sum(), x_adv, retain_graph=True) for m in margins]
    values, gradients = torch.stack([m.detach() for m in margins]), torch.stack(grads)
    dual_norm = torch.linalg.vector_norm(gradients.flatten(2), ball.dual_order, dim=2)
    choice = (values.abs() / (dual_norm + 1e-12)).argmin(0)
    rows = torch.arange(len(y), device=y.device)
    return values[choice, rows], gradients[choice, rows]
